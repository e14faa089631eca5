package blobs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// FramePath returns where a frame lies, or will.
func (s *Store) FramePath(id snapshots.ID, as frame.Encoding) string { return s.Path(id) + string(as) }

// AppendFrame appends the frame of a chunk to dst and returns the extended
// slice. A frame that is not there is made; it is durable after the next Sync.
func (s *Store) AppendFrame(ctx context.Context, dst []byte, id snapshots.ID, as frame.Encoding) ([]byte, error) {
	path := s.FramePath(id, as)
	if s.isKnown(path) {
		if extended, err := appendFile(dst, path); err == nil {
			return extended, nil
		}
	}
	data, err := s.frame(ctx, id, as)
	if err != nil {
		return nil, fmt.Errorf("cannot compress chunk %s to %s: %w", id, as, err)
	}
	return append(dst, data...), nil
}

// frame reads a frame and holds it against its text, or makes it.
func (s *Store) frame(ctx context.Context, id snapshots.ID, as frame.Encoding) ([]byte, error) {
	path := s.FramePath(id, as)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	text, getErr := s.Get(ctx, id)
	if getErr != nil {
		return nil, getErr
	}
	if sha256.Sum256(text) != id {
		return nil, errors.New("its text has another SHA-256: the blob is damaged")
	}
	if err != nil || !frame.Holds(data, as, text) {
		if data, err = s.Encode(text, as); err != nil {
			return nil, err
		}
		if err := s.write(path, data); err != nil {
			return nil, err
		}
	}
	s.setKnown(path)
	return data, nil
}

// Encode compresses a text as AppendFrame does. The same version of the
// encoder gives the same bytes; another one may not.
func (s *Store) Encode(text []byte, as frame.Encoding) ([]byte, error) {
	return s.encoder.Encode(text, as)
}
