// Package snapshots holds a release as an immutable value.
//
// A State is, for every component and architecture of a pipeline, the sorted
// list of its packages. The list is cut into chunks of about 500 packages, at
// borders that hashes of the packages' names decide (format.go). A chunk is
// stored under the SHA-256 of its text, and the text of a state lists its
// chunks. The id of a state is the SHA-256 of that text. Three things follow:
//
//   - Equal contents have equal ids, whatever their history.
//   - A changed package costs one or two new chunks and one new state text,
//     however large the state is.
//   - Two states are compared by opening only the chunks they do not share.
//
// The text of a chunk is a piece of a Packages file: the texts of an index's
// chunks, one after the other, are the file that apt reads. The formats are
// described byte by byte in docs/snapshot-format.md.
//
// The package is pure: it reaches texts through the Chunks interface and
// touches neither files nor network.
package snapshots
