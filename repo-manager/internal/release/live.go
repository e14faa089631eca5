package release

import (
	"context"
	"fmt"

	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// keeper is the one root that keeps something, as its place in a list, or
// shared: then it stays whichever root goes.
type keeper int

const shared keeper = -1

// live is everything that states need which must stay: what is not in it may
// go. It only grows, so what a gc found live stays for all of its run.
type live struct {
	chunks  snapshots.Chunks
	kept    map[pipelineState]bool
	states  map[snapshots.ID]keeper // in any pipeline
	opened  map[snapshots.ID]*openedChunk
	indices map[publish.IndexKey]keeper
	files   map[[32]byte]*neededFile
}

type pipelineState struct {
	pipeline string
	state    snapshots.ID
}

type openedChunk struct {
	ref  snapshots.ChunkRef
	by   keeper
	read bool // its packages are in files
}

type neededFile struct {
	by    keeper
	bytes int64
}

func newLive(chunks snapshots.Chunks) *live {
	return &live{
		chunks: chunks, kept: make(map[pipelineState]bool), states: make(map[snapshots.ID]keeper),
		opened: make(map[snapshots.ID]*openedChunk), files: make(map[[32]byte]*neededFile),
		indices: map[publish.IndexKey]keeper{publish.IndexKeyOf(snapshots.Index{}): shared}, // every new component has empty ones
	}
}

// keep notes that a root keeps a state. mark has to follow.
func (l *live) keep(at pipelineState, by keeper) {
	l.kept[at] = true
	if before, known := l.states[at.state]; known && before != by {
		by = shared
	}
	l.states[at.state] = by
}

// mark finds out what the states that are kept need. A state that cannot be
// read is an error: nothing may go while that is so.
func (l *live) mark(ctx context.Context) error {
	for id, by := range l.states {
		if _, err := l.spread(ctx, id, by); err != nil {
			return err
		}
	}
	for _, chunk := range l.opened {
		if err := l.open(ctx, chunk); err != nil {
			return err
		}
	}
	return nil
}

// admit marks one more state, if it takes no more than limit unknown chunks to
// read, which it counts down, and reports whether it did. Called again it goes
// on.
func (l *live) admit(ctx context.Context, at pipelineState, limit *int) (done bool, err error) {
	if _, known := l.states[at.state]; known {
		l.kept[at] = true
		return true, nil
	}
	chunks, err := l.spread(ctx, at.state, shared)
	if err != nil {
		return false, err
	}
	for _, chunk := range chunks {
		if chunk.read {
			continue
		}
		if *limit == 0 {
			return false, nil
		}
		*limit--
		if err := l.open(ctx, chunk); err != nil {
			return false, err
		}
	}
	l.keep(at, shared)
	return true, nil
}

// spread hands the keeper of a state on to its chunks and indices.
func (l *live) spread(ctx context.Context, id snapshots.ID, by keeper) ([]*openedChunk, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	state, err := snapshots.Load(ctx, l.chunks, id)
	if err != nil {
		return nil, fmt.Errorf("cannot tell what is still needed: %w", err)
	}
	var chunks []*openedChunk
	for _, key := range state.Keys() {
		index := state.Index(key)
		name := publish.IndexKeyOf(index)
		if before, known := l.indices[name]; known && before != by {
			l.indices[name] = shared
		} else {
			l.indices[name] = by
		}
		for _, ref := range index.Chunks {
			chunk := l.opened[ref.ID]
			if chunk == nil {
				chunk = &openedChunk{ref: ref, by: by}
				l.opened[ref.ID] = chunk
			} else if chunk.by != by {
				chunk.by = shared
			}
			chunks = append(chunks, chunk)
		}
	}
	return chunks, nil
}

// open hands the keeper of a chunk on to the files of its packages.
func (l *live) open(ctx context.Context, chunk *openedChunk) error {
	if err := ctx.Err(); err != nil || chunk.read {
		return err
	}
	packages, err := snapshots.OpenChunk(ctx, l.chunks, chunk.ref)
	if err != nil {
		return fmt.Errorf("cannot tell what is still needed: %w", err)
	}
	for _, p := range packages {
		file := l.files[p.SHA256]
		if file == nil {
			l.files[p.SHA256] = &neededFile{chunk.by, p.Size}
		} else if file.by != chunk.by {
			file.by = shared
		}
	}
	chunk.read = true
	return nil
}

// needsBlob tells whether a text is a state or a chunk that stays.
func (l *live) needsBlob(id snapshots.ID) bool {
	_, state := l.states[id]
	_, chunk := l.opened[id]
	return state || chunk
}

func (l *live) needsIndex(key publish.IndexKey) bool { _, ok := l.indices[key]; return ok }

func (l *live) needsFile(sha256 [32]byte) bool { _, ok := l.files[sha256]; return ok }
