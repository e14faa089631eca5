// Package reading decides who may read what of the published tree. A public
// pipeline is for everybody. A private one is for people and programs with a
// token whose roles cover reading it, and for devices with read credentials;
// both come as HTTP Basic, which is what apt's auth.conf makes of them.
//
// # Paths
//
// Everything below /<pipeline>/ belongs to the pipeline, its package files
// too: apt joins "pool/…" to the base of each source. But all pipelines share
// one pool, and every base leads to it. That a path has the SHA-256 of a file
// in it is no capability: sums stand in bills of materials, logs and .buildinfo
// files that nobody keeps secret. So as soon as one pipeline is private, a
// pool file is given out only where a state of the pipeline in the path lists
// it, and /pool/ itself, which no source uses, not at all.
//
// # Speed
//
// A request to a public pipeline costs a look at the engine's memory. A token
// that was good is good for some seconds more without a look into the database;
// so long a revoked one may still read. Devices are asked about each time: that
// is arithmetic. Files that a pipeline was found to list are remembered.
package reading
