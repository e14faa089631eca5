// Package faultpoint names the moments at which a test wants the process to
// die. In an ordinary build a passage costs an inlined empty call. A program
// built with -tags faults looks at APTFLEET_FAULT, "name" or "name:n", and
// kills itself with SIGKILL, so without any clean-up, at the nth passage of
// that point.
package faultpoint
