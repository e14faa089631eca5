package snapshots

import (
	"context"
	"crypto/sha256"
	"fmt"
)

// Assemble returns the state whose indices consist of these chunk texts, in
// order. Nothing is stored. It is for whoever has lost a state's text and has
// the Packages files of the state, cut at the borders of their chunks: equal
// contents have equal ids, so the ID tells whether it is the one that was lost.
func Assemble(ctx context.Context, chunks map[Key][][]byte) (State, error) {
	var indices []namedIndex
	for key, texts := range chunks {
		if err := key.validate(); err != nil {
			return State{}, fmt.Errorf("cannot assemble state: %w", err)
		}
		index := Index{}
		for _, text := range texts {
			packages, err := decodeChunk(text)
			if err != nil {
				return State{}, fmt.Errorf("cannot assemble index %s: chunk %d is wrong: %w", key, len(index.Chunks)+1, err)
			}
			index.Chunks = append(index.Chunks, ChunkRef{ID(sha256.Sum256(text)), len(packages), int64(len(text)), packages[0].Ref()})
		}
		indices = append(indices, namedIndex{key, index})
	}
	s, err := build(ctx, &Memory{}, indices)
	if err != nil {
		return State{}, fmt.Errorf("cannot assemble state: %w", err)
	}
	return s, nil
}
