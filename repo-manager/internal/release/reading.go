package release

import (
	"context"
	"slices"

	"aptfleet/snapshots"
)

// SetPrivate says from now on whether reading a pipeline needs credentials.
// What was read before cannot be taken back.
func (e *Engine) SetPrivate(ctx context.Context, a Actor, pipeline string, private bool) (Pipeline, error) {
	var changed Pipeline
	err := e.do(&job{ctx: ctx, pipeline: pipeline, act: func(ctx context.Context) error {
		l, err := e.line(pipeline)
		if err != nil {
			return err
		}
		t := e.turn("reading", l)
		t.line.Private = private
		if private != l.Private {
			t.batch.Readings = []Reading{{pipeline, private}}
			detail := "public"
			if private {
				detail = "private"
			}
			t.act(a, "set", "pipeline "+pipeline, detail)
			t.event("pipeline", pipeline)
			if err := t.commit(ctx); err != nil {
				return err
			}
		}
		changed = t.line.Pipeline
		return nil
	}})
	return changed, err
}

// HasPrivate tells whether any pipeline is private.
func (e *Engine) HasPrivate() bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, l := range e.lines {
		if l.Private {
			return true
		}
	}
	return false
}

// Lists tells whether a state of a pipeline has a package of that name and
// content: the one that base offers ("dev", "snapshots/<id>", "states/<state
// id>"), which is looked into first, or any other that has a base, from the
// newest. A no takes as long as there are states.
func (e *Engine) Lists(ctx context.Context, pipeline, base, name string, sha256 [32]byte) (bool, error) {
	l, err := e.line(pipeline)
	if err != nil || name == "" {
		return false, err
	}
	var states []snapshots.ID
	for _, s := range l.standings {
		if s.Name == base && !s.Offer.State.IsZero() {
			states = append(states, s.Offer.State)
		}
	}
	bases, err := e.Store.BaseStates(ctx, pipeline)
	if err != nil {
		return false, because(err, "cannot list the states of pipeline %s", pipeline)
	}
	for _, b := range slices.Backward(bases) {
		if b.Dir == base {
			states = append(states, b.State)
		}
	}
	for _, b := range slices.Backward(bases) {
		states = append(states, b.State)
	}
	looked := make(map[snapshots.ID]bool) // states, and chunks, most of which they have in common
	for _, id := range states {
		if looked[id] {
			continue
		}
		looked[id] = true
		found, err := e.listedIn(ctx, id, name, sha256, looked)
		if err != nil {
			return false, because(err, "cannot look for %s in state %s", name, id)
		}
		if found {
			return true, nil
		}
	}
	return false, nil
}

// listedIn is Lists for one state, without the chunks that were looked into.
func (e *Engine) listedIn(ctx context.Context, id snapshots.ID, name string, sha256 [32]byte, looked map[snapshots.ID]bool) (bool, error) {
	state, err := snapshots.Load(ctx, e.Chunks, id)
	if err != nil {
		return false, err
	}
	for _, key := range state.Keys() {
		chunks := state.Index(key).Chunks
		for i, ref := range chunks {
			before := i+1 < len(chunks) && chunks[i+1].First.Name < name
			if before || ref.First.Name > name || looked[ref.ID] {
				continue
			}
			looked[ref.ID] = true
			packages, err := snapshots.OpenChunk(ctx, e.Chunks, ref)
			if err != nil {
				return false, err
			}
			for _, p := range packages {
				if p.Name == name && p.SHA256 == sha256 {
					return true, nil
				}
			}
		}
	}
	return false, nil
}
