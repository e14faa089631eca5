package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"aptfleet/snapshots"
)

// Published is a release as a device can be told to install it. Its values
// never change: a fixed base is the same bytes for ever.
type Published struct {
	Offer
	Base         string // below the archive: <pipeline>/snapshots/<id> or <pipeline>/states/<state id>
	Distribution string
	Components   []string // that the base has, sorted
	Release      string   // SHA-256 of the file Release of the base, hex
}

// published remembers what was looked up for a pipeline as it stands.
type published struct {
	line   *line // what it was looked up in; another one: all of it may have changed
	stages map[string]*Published
	bases  map[string]*Published // by Base; nothing of it ever changes
}

// Offered is what a stage offers now; nil while it offers nothing. Until
// something of the pipeline moves the answer comes from memory, in constant
// time, and is the same pointer.
func (e *Engine) Offered(ctx context.Context, pipeline, stage string) (*Published, error) {
	l, err := e.line(pipeline)
	if err != nil {
		return nil, err
	}
	e.publishedMu.RLock()
	known := e.published[pipeline]
	if known != nil && known.line == l {
		if p, ok := known.stages[stage]; ok {
			e.publishedMu.RUnlock()
			return p, nil
		}
	}
	e.publishedMu.RUnlock()
	position, err := l.position(stage)
	if err != nil {
		return nil, err
	}
	var p *Published
	if offer := l.offer(position); !offer.State.IsZero() {
		if p, err = e.lookUp(ctx, l, offer); err != nil {
			return nil, err
		}
	}
	e.remember(l, func(known *published) { known.stages[stage] = p })
	return p, nil
}

// PublishedSnapshot is a snapshot of a pipeline, by its whole id. What was
// asked for before comes from memory.
func (e *Engine) PublishedSnapshot(ctx context.Context, pipeline, id string) (*Published, error) {
	l, err := e.line(pipeline)
	if err != nil {
		return nil, err
	}
	i, found := slices.BinarySearchFunc(l.snapshots, id, func(s Snapshot, id string) int {
		switch {
		case s.ID < id:
			return -1
		case s.ID > id:
			return 1
		}
		return 0
	})
	if !found {
		return nil, fail(NotFound, "repo-manager snapshot list", "cannot find snapshot %q: pipeline %s has none of that id", id, pipeline)
	}
	return e.lookUp(ctx, l, Offer{l.snapshots[i].State, id})
}

// lookUp finds the fixed base of an offer.
func (e *Engine) lookUp(ctx context.Context, l *line, offer Offer) (*Published, error) {
	dir := "states/" + offer.State.String()
	if offer.Snapshot != "" {
		dir = "snapshots/" + offer.Snapshot
	}
	base := l.Name + "/" + dir
	e.publishedMu.RLock()
	if known := e.published[l.Name]; known != nil && known.bases[base] != nil {
		defer e.publishedMu.RUnlock()
		return known.bases[base], nil
	}
	e.publishedMu.RUnlock()
	row, ok, err := e.Store.Base(ctx, l.Name, dir)
	if err == nil && !ok {
		err = fail(NotFound, "repo-manager check", "cannot find the base %s: it is not on record", base)
	}
	if err != nil {
		return nil, because(err, "cannot look up the base %s", base)
	}
	state, err := snapshots.Load(ctx, e.Chunks, offer.State)
	if err != nil {
		return nil, because(err, "cannot look up the base %s", base)
	}
	sum := sha256.Sum256(row.Text)
	shared := l.base(state)
	p := &Published{Offer: offer, Base: base, Distribution: shared.Distribution, Components: shared.Components, Release: hex.EncodeToString(sum[:])}
	e.remember(l, func(known *published) { known.bases[base] = p })
	return p, nil
}

// maxPublished bounds the bases of a pipeline that are remembered.
const maxPublished = 4096

func (e *Engine) remember(l *line, note func(*published)) {
	e.publishedMu.Lock()
	defer e.publishedMu.Unlock()
	if e.published == nil {
		e.published = make(map[string]*published)
	}
	known := e.published[l.Name]
	if known == nil || len(known.bases) > maxPublished {
		known = &published{bases: make(map[string]*Published)}
		e.published[l.Name] = known
	}
	if known.line != l {
		known.line, known.stages = l, make(map[string]*Published)
	}
	note(known)
}
