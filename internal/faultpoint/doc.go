// Package faultpoint names the moments at which a test wants the process to
// die. In an ordinary build a passage costs an inlined empty call. A program
// built with -tags faults looks at APTFLEET_FAULT, "name" or "name:n", and
// kills itself with SIGKILL, so without any clean-up, at the nth passage of
// that point. It writes the names of the points that it passes, one a line, to
// the file or FIFO that APTFLEET_FAULT_TRACE names: so a test that kills it
// from outside knows when, and where it was.
//
// The build tags break_fsync and break_rename_order leave out one thing that
// the server's promises rest on; break_try_sync, break_boot_sync and
// break_journal_sync one that the device updater's rest on. A test that still
// finds nothing with such a program is blind.
package faultpoint
