// Package blobstest holds the suite that every store of blobs passes, and a
// store in memory that passes it and serves as the reference.
package blobstest

import (
	"aptfleet/repo-manager/internal/frame"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Store is what others want of a store of blobs: the texts of states and
// chunks, the frames of chunks, and an end of both.
type Store interface {
	publish.BlobStore
	release.Blobs
}

// Subject is a store under test, and what the suite does around it.
type Subject struct {
	Store
	// Reopen returns the store as the next process finds it. The one before is
	// used no more.
	Reopen func() Store
	// Damage puts data, or nothing if it is nil, in the place of what the store
	// keeps, behind its back: the text id with the encoding "", or a frame of it.
	Damage func(id snapshots.ID, as frame.Encoding, data []byte)
}
