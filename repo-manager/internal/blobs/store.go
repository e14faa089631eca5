// Package blobs keeps the texts of chunks and states, and the compressed
// frames of chunks, as files under the SHA-256 of the text:
//
//	<2 hex>/<sha256>       the text
//	<2 hex>/<sha256>.gz    one gzip member
//	<2 hex>/<sha256>.zst   one zstd frame
//	.tmp/                  files under way; emptied by Open
//
// A frame is made once and then is primary data like the text: published
// indices are concatenations of frames, and a later version of a compressor
// need not repeat their bytes.
//
// Nothing is durable before Sync. Until then a power failure may leave any
// file absent, or present with other bytes; so a file that is already there is
// compared before it is believed.
package blobs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"aptfleet/internal/atomicfile"
	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// Store is a directory of blobs, beside the published tree. It implements
// publish.BlobStore and release.Blobs; all methods may be called by many at
// once. One process uses a directory.
type Store struct {
	dir     string
	encoder *frame.Encoder

	mu    sync.Mutex
	known map[string]bool // files that this process wrote or compared

	protected map[snapshots.ID]bool // put since Protect; nil: nobody wants to know
}

const temporary = ".tmp"

// maxKnown bounds the memory for known: some hundred bytes each. What was
// forgotten is compared again.
const maxKnown = 100000

// Open uses dir, which it makes if needed, and removes what a crash left
// unfinished there.
func Open(dir string) (*Store, error) {
	if err := os.RemoveAll(filepath.Join(dir, temporary)); err != nil {
		return nil, fmt.Errorf("cannot open blobs: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, temporary), 0o755); err != nil {
		return nil, fmt.Errorf("cannot open blobs: %w", err)
	}
	encoder, err := frame.NewEncoder()
	if err != nil {
		return nil, fmt.Errorf("cannot open blobs: %w", err)
	}
	return &Store{dir: dir, encoder: encoder, known: make(map[string]bool)}, nil
}

// Path returns where the text id lies, or will.
func (s *Store) Path(id snapshots.ID) string {
	name := id.String()
	return filepath.Join(s.dir, name[:2], name)
}

// Get implements snapshots.Chunks.
func (s *Store) Get(ctx context.Context, id snapshots.ID) ([]byte, error) {
	return s.AppendText(ctx, nil, id)
}

// AppendText appends the text id to dst and returns the extended slice. Errors
// are those of Get.
func (s *Store) AppendText(_ context.Context, dst []byte, id snapshots.ID) ([]byte, error) {
	text, err := appendFile(dst, s.Path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, snapshots.NotFound(id)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read blob %s: %w", id, err)
	}
	return text, nil
}

// appendFile appends the content of a file to dst.
func appendFile(dst []byte, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	start := len(dst)
	dst = slices.Grow(dst, int(info.Size()))[:start+int(info.Size())]
	_, err = io.ReadFull(f, dst[start:])
	return dst, errors.Join(err, f.Close())
}

// Put implements snapshots.Chunks. The text is durable after the next Sync.
func (s *Store) Put(ctx context.Context, text []byte) (snapshots.ID, error) {
	id := snapshots.ID(sha256.Sum256(text))
	if err := ctx.Err(); err != nil {
		return id, fmt.Errorf("cannot store blob %s: %w", id, err)
	}
	s.protect(id) // before it is looked for: a Drop comes before or not at all
	path := s.Path(id)
	if s.isKnown(path) {
		return id, nil
	}
	there, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return id, fmt.Errorf("cannot store blob %s: %w", id, err)
	}
	if err != nil || !bytes.Equal(there, text) {
		if err := s.write(path, text); err != nil {
			return id, fmt.Errorf("cannot store blob %s: %w", id, err)
		}
	}
	s.setKnown(path)
	return id, nil
}

// Sync makes all that was put before it durable: one syncfs.
func (s *Store) Sync() error { return atomicfile.SyncFS(s.dir) }

func (s *Store) isKnown(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.known[path]
}

func (s *Store) setKnown(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= maxKnown {
		clear(s.known)
	}
	s.known[path] = true
}

// write puts a whole file at path, in place of what is there. It does not
// sync. On an error no temporary file stays.
func (s *Store) write(path string, data []byte) (err error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, temporary), "")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o444)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	err = os.Rename(f.Name(), path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		err = os.Rename(f.Name(), path)
	}
	return err
}
