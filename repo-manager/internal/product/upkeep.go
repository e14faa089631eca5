package product

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"aptfleet/snapshots"
)

// Files lists the files of bills below the published tree, each with the SHA-256
// that it has and is called after.
func (s *Service) Files() map[string][32]byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	files := make(map[string][32]byte)
	for _, e := range s.entries {
		if e.status == Computed {
			files[billPath(e.key.pipeline, e.sha256)] = e.sha256
		}
	}
	return files
}

// Restore writes bills anew whose files are missing or altered, and returns
// their paths below the published tree.
func (s *Service) Restore(ctx context.Context) ([]string, error) { return s.publish(ctx, s.tree.whole) }

// publish writes every bill that has not.
func (s *Service) publish(ctx context.Context, has func(pipeline string, sha256 [32]byte, size int64) bool) (written []string, err error) {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	for _, e := range s.settled() {
		if e.status != Computed || has(e.key.pipeline, e.sha256, e.ready.Size) {
			continue
		}
		a, ok, err := s.config.Store.Answer(ctx, e.key.pipeline, e.key.question)
		if err != nil {
			return written, fmt.Errorf("cannot read bill of materials %x: %w", e.sha256, err)
		}
		if !ok {
			continue
		}
		if err := s.tree.put(e.key.pipeline, e.sha256, a.Text); err != nil {
			return written, err
		}
		written = append(written, billPath(e.key.pipeline, e.sha256))
	}
	return written, nil
}

// settled lists the answers. They do not change while s.deciding is held.
func (s *Service) settled() []*entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*entry
	for _, e := range s.entries {
		if e.status != Computing {
			all = append(all, e)
		}
	}
	return all
}

// Forget drops the answers about states that their pipeline does not keep any
// more, and files of bills that no answer names. It is called after a gc.
func (s *Service) Forget(ctx context.Context) error {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	of := make(map[string][]*entry)
	for _, e := range s.settled() {
		of[e.key.pipeline] = append(of[e.key.pipeline], e)
	}
	for pipeline, entries := range of {
		kept, err := s.config.States(ctx, pipeline)
		if err != nil {
			return err
		}
		there := make(map[snapshots.ID]bool, len(kept))
		for _, id := range kept {
			there[id] = true
		}
		if err := s.drop(ctx, pipeline, slices.DeleteFunc(entries, func(e *entry) bool { return there[e.state] })); err != nil {
			return err
		}
	}
	return s.sweep()
}

// drop forgets answers, rows first.
func (s *Service) drop(ctx context.Context, pipeline string, gone []*entry) error {
	if len(gone) == 0 {
		return nil
	}
	var states []snapshots.ID
	for _, e := range gone {
		if !slices.Contains(states, e.state) {
			states = append(states, e.state)
		}
	}
	if err := s.config.Store.DropAnswers(ctx, pipeline, states); err != nil {
		return fmt.Errorf("cannot forget bills of materials: %w", err)
	}
	s.mu.Lock()
	for _, e := range gone {
		s.forgetEntry(e)
	}
	s.mu.Unlock()
	return s.dropFiles(gone)
}

func (s *Service) dropFiles(gone []*entry) error {
	var errs []error
	for _, e := range gone {
		if e.status == Computed {
			errs = append(errs, s.tree.drop(e.key.pipeline, e.sha256))
		}
	}
	return errors.Join(errs...)
}

// sweep removes files that no answer names: what a crash left between the file
// and its row, or between the row and its file.
func (s *Service) sweep() error {
	known := s.Files()
	found, err := fs.Glob(os.DirFS(s.tree.root), "*/boms/*")
	if err != nil {
		return err
	}
	for _, name := range found {
		_, needed := known[name]
		if raw, err := hex.DecodeString(filepath.Base(name)); needed || err != nil || len(raw) != 32 {
			continue // what is not called like a bill is for check to find
		}
		if err := os.Remove(filepath.Join(s.tree.root, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove bill of materials: %w", err)
		}
	}
	return nil
}
