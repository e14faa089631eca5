package snapshots

import (
	"context"
	"errors"
	"io/fs"
)

// Staged is a Chunks above another one: what is put stays in memory, and what
// was not put is read from below. So a state can be computed without anything
// being written, and written once it is wanted.
type Staged struct {
	Below Chunks
	put   Memory
}

// Get implements Chunks.
func (s *Staged) Get(ctx context.Context, id ID) ([]byte, error) {
	text, err := s.put.Get(ctx, id)
	if errors.Is(err, fs.ErrNotExist) {
		return s.Below.Get(ctx, id)
	}
	return text, err
}

// Put implements Chunks.
func (s *Staged) Put(ctx context.Context, text []byte) (ID, error) { return s.put.Put(ctx, text) }

// Write puts everything into the Chunks below.
func (s *Staged) Write(ctx context.Context) error {
	s.put.mu.RLock()
	defer s.put.mu.RUnlock()
	for _, text := range s.put.texts {
		if _, err := s.Below.Put(ctx, text); err != nil {
			return err
		}
	}
	return nil
}
