// Package apt holds no code but tests: the apt of Debian 12 and the apt of
// Debian 13, each in a root of its own, judge what a real repo-manager
// publishes.
//
// A test has a server of its own (its port, its data directory) and any
// number of clients. A client is an overlay over an unpacked root; every
// command runs in a mount and process namespace of its own that dies with
// it, so a test leaves no mount behind however it ends.
package apt
