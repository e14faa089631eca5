package blobs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// Stored returns the bytes that lie as the text id, with the encoding "", or
// as a frame of it, good or not. Errors are those of the file system.
func (s *Store) Stored(id snapshots.ID, as frame.Encoding) ([]byte, error) {
	return os.ReadFile(s.FramePath(id, as))
}

// Restore puts a text under its id in place of whatever lies there, where Put
// would believe a file that this process wrote. It is durable after the next
// Sync.
func (s *Store) Restore(text []byte) error {
	id := snapshots.ID(sha256.Sum256(text))
	if err := s.write(s.Path(id), text); err != nil {
		return fmt.Errorf("cannot restore blob %s: %w", id, err)
	}
	s.setKnown(s.Path(id))
	return nil
}

// RestoreFrame puts a frame in place of whatever lies there. The caller knows
// that it holds the text id. It is durable after the next Sync.
func (s *Store) RestoreFrame(id snapshots.ID, as frame.Encoding, data []byte) error {
	if err := s.write(s.FramePath(id, as), data); err != nil {
		return fmt.Errorf("cannot restore frame %s of blob %s: %w", as, id, err)
	}
	s.setKnown(s.FramePath(id, as))
	return nil
}

// Walk calls blob for every text (with the encoding "") and every frame, with
// its size in bytes, and other for the name of every file that is neither.
func (s *Store) Walk(blob func(id snapshots.ID, as frame.Encoding, size int64), other func(name string)) error {
	err := filepath.WalkDir(s.dir, func(file string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since its directory was read
			return nil
		case err != nil:
			return err
		case entry.IsDir() && file == filepath.Join(s.dir, temporary):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		below, err := filepath.Rel(s.dir, file)
		if err != nil {
			return err
		}
		name := path.Join(filepath.Base(s.dir), filepath.ToSlash(below))
		id, as, ok := s.Parse(name)
		if !ok {
			other(name)
			return nil
		}
		if info, err := entry.Info(); err == nil {
			blob(id, as, info.Size())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot list blobs: %w", err)
	}
	return nil
}

// Name returns how people are told of the text id, with the encoding "", or of
// a frame of it: its path from the directory that holds the store's.
func (s *Store) Name(id snapshots.ID, as frame.Encoding) string {
	digits := id.String()
	return path.Join(filepath.Base(s.dir), digits[:2], digits+string(as))
}

// Parse returns what has a name.
func (s *Store) Parse(name string) (id snapshots.ID, as frame.Encoding, ok bool) {
	digits := path.Base(name)
	for _, encoding := range frame.Encodings {
		if cut, isFrame := strings.CutSuffix(digits, string(encoding)); isFrame {
			digits, as = cut, encoding
		}
	}
	id, err := snapshots.ParseID(digits)
	return id, as, err == nil && s.Name(id, as) == name
}
