package blobs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// List calls f for every text in the store, with the bytes that it and its
// frames take; also for one of which only a frame is left. What is put or
// dropped meanwhile may be missing or not. Other files are passed over.
func (s *Store) List(f func(id snapshots.ID, bytes int64)) error {
	groups, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("cannot list blobs: %w", err)
	}
	for _, group := range groups {
		if !group.IsDir() || len(group.Name()) != 2 {
			continue
		}
		files, err := os.ReadDir(filepath.Join(s.dir, group.Name()))
		if err != nil {
			return fmt.Errorf("cannot list blobs: %w", err)
		}
		sizes := make(map[snapshots.ID]int64)
		for _, file := range files {
			name := file.Name()
			for _, as := range frame.Encodings {
				name = strings.TrimSuffix(name, string(as))
			}
			id, err := snapshots.ParseID(name)
			if err != nil || name[:2] != group.Name() {
				continue
			}
			if info, err := file.Info(); err == nil {
				sizes[id] += info.Size()
			}
		}
		for id, bytes := range sizes {
			f(id, bytes)
		}
	}
	return nil
}

// Protect keeps every text that is put from now on, be it new or not, from
// being dropped until release is called. One protection is in force at a time.
func (s *Store) Protect() (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.protected = make(map[snapshots.ID]bool)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.protected = nil
	}
}

// protect notes that a text was put.
func (s *Store) protect(id snapshots.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.protected != nil {
		s.protected[id] = true
	}
}

// Drop takes a text and its frames away and forgets about them, and returns
// true; it returns false, and does nothing, if the text is protected. One that
// is not there is no error. The caller knows that no state needs it.
func (s *Store) Drop(id snapshots.ID) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.protected[id] {
		return false, nil
	}
	paths := []string{s.Path(id)}
	for _, as := range frame.Encodings {
		paths = append(paths, s.FramePath(id, as))
	}
	for _, path := range paths {
		delete(s.known, path)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("cannot drop blob %s: %w", id, err)
		}
	}
	return true, nil
}
