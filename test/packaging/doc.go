// Package packaging holds the promises of the updater's own package: what dpkg
// does with it in a clone, on a running system, and when it goes.
package packaging
