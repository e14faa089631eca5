// Package debian gives tests and the demonstration what they need of Debian:
// the mirror this machine already uses, and root file systems made from it.
//
// Nothing here names a mirror. [Mirror] reads apt's own sources, so a test
// runs wherever `apt-get install` runs. [Root] keeps what it builds in a
// cache outside the source tree, because a root takes seconds to build and
// every run wants the same few.
package debian
