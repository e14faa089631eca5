// Package deb reads Debian's binary package formats: version
// numbers, control stanzas, relations between packages, and the .deb archive
// itself.
//
// It parses foreign bytes. Every reader is bounded in memory, whatever the
// input claims, and reports a bad file as *FormatError, which names the
// member of the archive and the reason.
//
// Sources: Debian Policy chapters 5 and 7, the manual pages deb(5),
// deb-control(5), deb-version(7), and the behaviour of dpkg, which the tests
// use as the judge.
package deb
