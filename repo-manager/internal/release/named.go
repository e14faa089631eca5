package release

import (
	"context"
	"errors"
	"slices"

	"aptfleet/snapshots"
)

// CreateSnapshot names the state that from means (see Resolve; "" is the
// newest), and publishes its fixed base. One state may have several names.
func (e *Engine) CreateSnapshot(ctx context.Context, a Actor, pipeline, from, note string, labels []string) (Snapshot, error) {
	if err := mustBeName("create snapshot", note, labels); err != nil {
		return Snapshot{}, err
	}
	var snapshot Snapshot
	err := e.do(&job{ctx: ctx, pipeline: pipeline, act: func(ctx context.Context) error {
		l, err := e.line(pipeline)
		if err != nil {
			return err
		}
		_, state, err := e.resolve(ctx, l, from)
		if err != nil {
			return err
		}
		t := e.turn("snapshot", l)
		made, err := t.name(ctx, a, state, note, slices.Clone(labels))
		if err != nil {
			return err
		}
		t.act(a, "name", "snapshot "+made.ID, note)
		if err := t.commit(ctx); err != nil {
			return err
		}
		snapshot = made
		return nil
	}})
	return snapshot, err
}

// What people write down is kept for ever and in memory: a text has at most
// maxText bytes, and a snapshot at most maxLabels labels.
const (
	maxText   = 4000
	maxLabels = 100
)

// mustBeName refuses a note and labels that a snapshot cannot have.
func mustBeName(verb, note string, labels []string) error {
	if len(labels) > maxLabels {
		return fail(Invalid, "", "cannot %s: %d labels are more than %d", verb, len(labels), maxLabels)
	}
	return errors.Join(mustBeShort(verb, "note", note), mustBeShort(verb, "label", labels...))
}

// mustBeShort refuses texts that are no notes, reasons or labels any more.
func mustBeShort(verb, what string, texts ...string) error {
	for _, text := range texts {
		if len(text) > maxText {
			return fail(Invalid, "say it shorter", "cannot %s: the %s has %d bytes, at most %d are kept", verb, what, len(text), maxText)
		}
	}
	return nil
}

// Snapshots lists the snapshots of a pipeline, newest first.
func (e *Engine) Snapshots(_ context.Context, pipeline string) ([]Snapshot, error) {
	l, err := e.line(pipeline)
	if err != nil {
		return nil, err
	}
	list := slices.Clone(l.snapshots)
	slices.Reverse(list)
	return list, nil
}

// Snapshot finds one snapshot: by its id or a unique prefix, or as what a stage
// offers.
func (e *Engine) Snapshot(ctx context.Context, pipeline, ref string) (Snapshot, error) {
	l, err := e.line(pipeline)
	if err != nil {
		return Snapshot{}, err
	}
	offer, _, err := e.resolve(ctx, l, ref)
	if err != nil {
		return Snapshot{}, err
	}
	for _, s := range l.snapshots {
		if s.ID == offer.Snapshot {
			return s, nil
		}
	}
	return Snapshot{}, fail(NotFound, "repo-manager snapshot create --from "+ref, "cannot show %s: state %s has no name", ref, offer.State)
}

// Acts lists the audit trail of a pipeline, or of the whole server if it is
// "", newest first, at most limit entries; 0 means all.
func (e *Engine) Acts(ctx context.Context, pipeline string, limit int) ([]Act, error) {
	acts, err := e.Store.Acts(ctx, pipeline, limit)
	if err != nil {
		return nil, because(err, "cannot read the audit trail")
	}
	return acts, nil
}

// FindActs lists those of the audit trail that a filter takes, newest first.
func (e *Engine) FindActs(ctx context.Context, filter ActFilter) ([]Act, error) {
	acts, err := e.Store.FindActs(ctx, filter)
	if err != nil {
		return nil, because(err, "cannot read the audit trail")
	}
	return acts, nil
}

// Knows tells whether a repository of the pipeline ever took exactly this
// name, version and architecture.
func (e *Engine) Knows(ctx context.Context, pipeline, name, version, architecture string) (bool, error) {
	found, err := e.Store.Accepted(ctx, pipeline, snapshots.Ref{Name: name, Version: version, Architecture: architecture})
	return len(found) > 0, err
}
