// Package mirror brings packages of upstream suites into a pipeline.
//
// The chain of trust has no gap: the InRelease of each suite must carry a good
// signature by a key of the suite's keyring, be of the suite that was asked
// for, not be expired, not lie in the future and not be older than the one
// accepted before. It names the size and SHA-256 of every index; an index is
// used only if both agree. An index names the size and SHA-256 of every
// package; a .deb is handed on only if both agree. Everything is bounded by a
// size before it is read, and by a time in which a server must bring something.
//
// From the indices it selects what the mirror is to hold: wanted names, what a
// package query matches, or everything. Names come with what a device needs to
// run them from this one source: everything that is Essential or of priority
// required, apt, and what all of these depend on. Several suites are one
// universe, in which one version of a name counts.
//
// An update either hands the whole selection to the engine or changes nothing;
// whatever an upstream does, its error names the file. The same upstream gives
// the same state. What has not changed is not downloaded again. Finished and
// half downloads survive an interrupted update, and the next one goes on from
// there.
//
// Formats: the Debian wiki's repository format, deb822(5), Policy chapter 7.
package mirror
