// Package e2e holds the promises of a device, each as a test on real parts: a
// repo-manager that serves a pipeline, packages made by builder, and nspawn
// devices whose only source of packages is that pipeline.
//
// A device of a test is a clone of one installed disk, which has no identity: it
// makes keys of its own, enrols at the server by TLS, and runs what it is
// assigned: the bill of materials of its product in what a stage of its own
// offers. Some follow a stage without a server, for that is a promise, too. Who
// kills, restores or falsifies the server has one to itself, a copy of the
// world's.
//
// The test program runs twice. First as it was called: it builds the programs
// and fills a pipeline with the base system from this machine's Debian
// mirror. Then it runs itself in a network namespace that has a loopback
// interface and nothing else: there the server, apt and the devices run, so
// that no upstream can be reached, by accident or otherwise.
package e2e
