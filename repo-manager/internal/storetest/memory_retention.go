package storetest

import (
	"context"
	"fmt"
	"slices"

	"aptfleet/repo-manager/internal/release"
)

// retain does what a batch says about the past. r is a copy; slices that lose
// elements are replaced.
func (r *releases) retain(b release.Batch) error {
	for _, v := range b.Retentions {
		r.pipeline(v.Pipeline).Retention = v.Retention
	}
	for _, v := range b.Readings {
		r.pipeline(v.Pipeline).Private = v.Private
	}
	for _, p := range b.Pins {
		if r.pin(p.Pipeline, p.Snapshot) != nil || !slices.ContainsFunc(r.snapshots, named(release.SnapshotName{Pipeline: p.Pipeline, ID: p.Snapshot})) {
			return fmt.Errorf("snapshot %s is pinned or does not exist", p.Snapshot)
		}
		r.pins = append(r.pins, p)
	}
	for _, s := range b.Unpinned {
		r.pins = only(r.pins, func(p release.Pin) bool { return p.Pipeline != s.Pipeline || p.Snapshot != s.ID })
	}
	for _, s := range b.Dropped.Snapshots {
		if r.pin(s.Pipeline, s.ID) != nil {
			return fmt.Errorf("snapshot %s is pinned", s.ID)
		}
		r.snapshots = only(r.snapshots, func(o release.Snapshot) bool { return !named(s)(o) })
		if p := r.pipeline(s.Pipeline); p != nil {
			p.Deleted = max(p.Deleted, s.ID)
		}
	}
	for _, f := range b.Dropped.Bases {
		r.bases = only(r.bases, func(o release.Base) bool { return o.Pipeline != f.Pipeline || o.Dir != f.Dir })
	}
	for _, sum := range b.Dropped.Files {
		delete(r.files, sum)
	}
	return nil
}

func named(s release.SnapshotName) func(release.Snapshot) bool {
	return func(o release.Snapshot) bool { return o.Pipeline == s.Pipeline && o.ID == s.ID }
}

// pin is that of a snapshot, or nil.
func (r *releases) pin(pipeline, snapshot string) *release.Pin {
	for _, p := range r.pins {
		if p.Pipeline == pipeline && p.Snapshot == snapshot {
			return &p
		}
	}
	return nil
}

// Below implements release.Store.
func (m *Memory) Below(ctx context.Context, pipeline string, seq int64) ([]release.Move, error) {
	var chain []release.Move
	for seq != 0 {
		move, ok, err := m.Move(ctx, pipeline, seq)
		if err != nil || !ok {
			return chain, err
		}
		chain = append(chain, move)
		seq = move.Over
	}
	return chain, nil
}

// BaseStates implements release.Store.
func (m *Memory) BaseStates(ctx context.Context, pipeline string) ([]release.Base, error) {
	bases, err := m.Bases(ctx, pipeline)
	for i := range bases {
		bases[i].Text, bases[i].InRelease, bases[i].Signature = nil, nil, nil
	}
	return bases, err
}

// PutResult implements release.Store.
func (m *Memory) PutResult(_ context.Context, change int64, result []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.releases.results == nil {
		m.releases.results = make(map[int64][]byte)
	}
	m.releases.results[change] = slices.Clone(result)
	return nil
}

// Result implements release.Store.
func (m *Memory) Result(_ context.Context, change int64) ([]byte, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	result, ok := m.releases.results[change]
	return slices.Clone(result), ok, nil
}

// Compact implements release.Store.
func (m *Memory) Compact(context.Context) (bool, error) { return false, nil }
