// Package product knows the products of every pipeline and computes their bills
// of materials.
//
// A bill of materials is a function of a question: state, product, architecture,
// top-level packages with those of the chosen modules, whether Recommends count.
// The answer is the exact packages, or a verdict: they cannot be installed, with
// apt's explanation and that of dose-debcheck. apt's own solver gives it, from an
// empty system and lists that are made of the state itself (package aptroot).
//
// An answer is kept as long as its state. Its text is primary data: another apt
// might answer otherwise, and devices were told the SHA-256 of this one. The
// file below the published tree is derived from it.
//
// One question is computed at a time. Trouble with the machine (a full disk, an
// apt that was killed) is no answer: it is tried again, later and later.
package product
