package snapshots

import (
	"context"
	"fmt"
	"slices"
)

// rewrite returns index after ops, which are sorted. The result is cut as if
// it had been built from nothing, but a chunk is opened only if an op falls
// into it or the border before it moves.
//
// A decision of the chunker depends on the packages since the last border.
// Where a new border falls on an old one, the old chunks behind it stay right
// up to the next op; where the first package of a chunk goes away, the chunk
// before it decides anew where it ends.
func rewrite(ctx context.Context, c Chunks, index Index, ops []change) (Index, error) {
	w := writer{ctx: ctx, chunks: c}
	old := index.Chunks
	for j := 0; j < len(old); j++ {
		mine := opsOf(old, j, ops)
		opens := len(mine) > 0 || j+1 < len(old) && losesFirst(old[j+1], opsOf(old, j+1, ops))
		if !opens && (len(w.pending) == 0 || w.cutter.cutsBefore(old[j].First)) {
			if err := w.flush(); err != nil {
				return Index{}, err
			}
			w.refs = append(w.refs, old[j])
			continue
		}
		packages, err := OpenChunk(ctx, c, old[j])
		if err != nil {
			return Index{}, err
		}
		for _, p := range merge(packages, mine) {
			if err := w.add(p); err != nil {
				return Index{}, err
			}
		}
	}
	if len(old) == 0 {
		for _, p := range merge(nil, ops) {
			if err := w.add(p); err != nil {
				return Index{}, err
			}
		}
	}
	if err := w.flush(); err != nil {
		return Index{}, err
	}
	return Index{w.refs}, nil
}

// opsOf returns the ops that fall into chunk j: from its first package on, or
// from the beginning for the first chunk, to before the next chunk's first.
func opsOf(chunks []ChunkRef, j int, ops []change) []change {
	position := func(ref Ref) int {
		i, _ := slices.BinarySearchFunc(ops, ref, func(op change, r Ref) int { return op.ref.compare(r) })
		return i
	}
	from, to := 0, len(ops)
	if j > 0 {
		from = position(chunks[j].First)
	}
	if j+1 < len(chunks) {
		to = position(chunks[j+1].First)
	}
	return ops[from:to]
}

// losesFirst reports whether one of ops, which fall into chunk, takes away its
// first package.
func losesFirst(chunk ChunkRef, ops []change) bool {
	return slices.ContainsFunc(ops, func(op change) bool {
		return op.ref.compare(chunk.First) == 0 && op.put == nil && op.remove.matches(chunk.First.Architecture)
	})
}

// merge returns packages after ops; both are sorted.
func merge(packages []Package, ops []change) []Package {
	merged := make([]Package, 0, len(packages)+len(ops))
	for _, op := range ops {
		for len(packages) > 0 && packages[0].Ref().compare(op.ref) < 0 {
			merged = append(merged, packages[0])
			packages = packages[1:]
		}
		if len(packages) > 0 && packages[0].Ref().compare(op.ref) == 0 {
			if op.put == nil && !op.remove.matches(packages[0].Architecture) {
				continue
			}
			packages = packages[1:]
		}
		if op.put != nil {
			merged = append(merged, *op.put)
		}
	}
	return append(merged, packages...)
}

// writer cuts a run of packages into chunks and stores them.
type writer struct {
	ctx     context.Context
	chunks  Chunks
	cutter  chunker
	pending []Package
	refs    []ChunkRef
}

// add takes the next package, after storing the chunk that ends before it.
func (w *writer) add(p Package) error {
	if w.cutter.cutsBefore(p.Ref()) {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.cutter.add(p)
	w.pending = append(w.pending, p)
	return nil
}

// flush stores what is pending as a chunk.
func (w *writer) flush() error {
	if len(w.pending) == 0 {
		return nil
	}
	text := encodeChunk(w.pending)
	id, err := w.chunks.Put(w.ctx, text)
	if err != nil {
		return fmt.Errorf("cannot store chunk: %w", err)
	}
	w.refs = append(w.refs, ChunkRef{id, len(w.pending), int64(len(text)), w.pending[0].Ref()})
	w.pending = w.pending[:0]
	w.cutter = chunker{}
	return nil
}
