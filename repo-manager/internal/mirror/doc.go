// Package mirror brings packages of an upstream suite into a pipeline.
//
// The chain of trust has no gap: the upstream InRelease must carry a good
// signature by a key of the mirror's keyring, be of the suite that was asked
// for, not be expired, not lie in the future and not be older than the one
// accepted before. It names the size and SHA-256 of every index; an index is
// used only if both agree. An index names the size and SHA-256 of every
// package; a .deb is handed on only if both agree. Everything is bounded by a
// size before it is read.
//
// From the indices it selects what a device needs to run the wanted packages
// from this one source: the wanted names, everything that is Essential or of
// priority required, apt, and what all of these depend on.
//
// An update either hands the whole selection to the engine or changes nothing;
// whatever an upstream does, its error names the file. The same upstream gives
// the same state. Finished and half downloads survive an interrupted update,
// and the next one goes on from there.
//
// Formats: the Debian wiki's repository format, deb822(5), Policy chapter 7.
package mirror
