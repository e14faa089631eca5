package snapshots

import (
	"context"
	"fmt"
	"iter"
	"slices"
)

// Select returns the packages of an index that q takes, in order, one chunk in
// memory at a time. An error is the last thing it yields. Chunks that no name
// of the query can lie in stay closed: Name (= X), Name (% X*) and X_1_amd64
// limit the names, a plain X does not, as others may provide X.
func Select(ctx context.Context, c Chunks, s State, key Key, q Query) iter.Seq2[Package, error] {
	return func(yield func(Package, error) bool) {
		spans, limited := q.names()
		chunks := s.Index(key).Chunks
		for i, ref := range chunks {
			if limited && !slices.ContainsFunc(spans, func(names span) bool { return names.meets(chunks, i) }) {
				continue
			}
			packages, err := OpenChunk(ctx, c, ref)
			if err != nil {
				yield(Package{}, fmt.Errorf("cannot search index %s: %w", key, err))
				return
			}
			for _, p := range packages {
				if q.Takes(p) && !yield(p, nil) {
					return
				}
			}
		}
	}
}

// meets tells whether chunk i can hold a name of the span: its names go from
// that of its first package to that of the next chunk's.
func (s span) meets(chunks []ChunkRef, i int) bool {
	return chunks[i].First.Name < s.to && (i+1 == len(chunks) || s.from <= chunks[i+1].First.Name)
}

// Filter returns the state that has the indices of s and of its packages those
// that q takes.
func Filter(ctx context.Context, c Chunks, s State, q Query) (State, error) {
	indices := slices.Clone(s.indices)
	for i, n := range indices {
		w := writer{ctx: ctx, chunks: c}
		for p, err := range Select(ctx, c, s, n.key, q) {
			if err == nil {
				err = w.add(p)
			}
			if err != nil {
				return State{}, fmt.Errorf("cannot filter state: %w", err)
			}
		}
		if err := w.flush(); err != nil {
			return State{}, fmt.Errorf("cannot filter state: %w", err)
		}
		indices[i].index = Index{w.refs}
	}
	return build(ctx, c, indices)
}
