package publish

import (
	"context"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// Blobs is what a publication is made of: the texts of states and chunks, and
// the frames of chunks.
type Blobs interface {
	snapshots.Chunks
	// AppendText appends the text id to dst and returns the extended slice.
	// Errors are those of Get.
	AppendText(ctx context.Context, dst []byte, id snapshots.ID) ([]byte, error)
	// AppendFrame appends the frame of a chunk to dst and returns the extended
	// slice. A frame is made when it is first asked for, of a text that has the
	// SHA-256 id, and kept: published indices repeat its bytes, which a later
	// version of a compressor need not.
	AppendFrame(ctx context.Context, dst []byte, id snapshots.ID, as frame.Encoding) ([]byte, error)
}

// BlobStore is Blobs as check and repair see them: what is really kept, good or
// not. The encoding "" means the text. Package blobstest holds the suite that
// every implementation passes.
type BlobStore interface {
	Blobs
	// Stored returns the bytes that are kept as the text id or as a frame of
	// it, good or not, or an error that wraps fs.ErrNotExist.
	Stored(id snapshots.ID, as frame.Encoding) ([]byte, error)
	// Walk calls blob for every text and every frame, with its size in bytes,
	// and other for the name of everything else that is there.
	Walk(blob func(id snapshots.ID, as frame.Encoding, size int64), other func(name string)) error
	// Name is how findings call a text or a frame. The name of a file is its
	// path from the directory that holds the published tree, so that a person
	// finds it, and a repair what is in its way. Parse returns what has a name,
	// and refuses all others.
	Name(id snapshots.ID, as frame.Encoding) string
	Parse(name string) (id snapshots.ID, as frame.Encoding, ok bool)
	// Encode makes a frame as AppendFrame does, and keeps nothing.
	Encode(text []byte, as frame.Encoding) ([]byte, error)
	// Restore puts a text under its id, RestoreFrame what the caller knows to be
	// a frame of the text id, in place of whatever is kept there.
	Restore(text []byte) error
	RestoreFrame(id snapshots.ID, as frame.Encoding, data []byte) error
	// Sync makes all that was put, made or restored before it durable.
	Sync() error
}
