package storetest

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Memory is a release.Store, access.Store, fleet.Store, configuration.Store and
// product.Store in memory. Its zero value is empty. What it returns is the caller's.
type Memory struct {
	mu         sync.Mutex
	releases   releases
	people     people
	fleet      memoryFleet
	configured configured
	products   products
	failsNext  error
	damage     []string // for Integrity
	failsPut   error
}

// FailNext makes the next Commit or EditConfig fail with err, as if the disk had refused it.
func (m *Memory) FailNext(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failsNext = err
}

// FailChanges makes every PutChange fail with err, until it is nil.
func (m *Memory) FailChanges(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failsPut = err
}

type releases struct {
	pipelines []release.Pipeline
	snapshots []release.Snapshot
	moves     []release.Move
	standings []release.Standing
	bases     []release.Base
	files     map[[32]byte]release.File
	uploads   []release.Accepted
	acts      []release.Act
	changes   []release.Change
	pins      []release.Pin
	results   map[int64][]byte
}

// copy returns releases whose slices may be appended to without any effect on
// the original.
func (r releases) copy() releases {
	r.pipelines = slices.Clone(r.pipelines)
	for i := range r.pipelines {
		r.pipelines[i].Components = slices.Clone(r.pipelines[i].Components)
	}
	r.standings = slices.Clone(r.standings)
	r.snapshots = slices.Clip(r.snapshots)
	r.moves = slices.Clip(r.moves)
	r.bases = slices.Clip(r.bases)
	r.uploads = slices.Clip(r.uploads)
	r.acts = slices.Clip(r.acts)
	r.pins = slices.Clip(r.pins)
	r.files = maps.Clone(r.files)
	if r.files == nil {
		r.files = make(map[[32]byte]release.File)
	}
	return r
}

// Commit implements release.Store.
func (m *Memory) Commit(_ context.Context, b release.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failsNext; err != nil {
		m.failsNext = nil
		return err
	}
	next := m.releases.copy()
	if err := next.add(b); err != nil {
		return err
	}
	m.releases = next
	return nil
}

func (r *releases) add(b release.Batch) error {
	for _, p := range b.Pipelines {
		if r.pipeline(p.Name) != nil {
			return fmt.Errorf("pipeline %s exists", p.Name)
		}
		p.Components = nil
		r.pipelines = append(r.pipelines, p)
	}
	for _, c := range b.Components {
		p := r.pipeline(c.Pipeline)
		if p == nil || slices.ContainsFunc(p.Components, func(o release.Component) bool { return o.Name == c.Name }) {
			return fmt.Errorf("component %s exists or has no pipeline", c.Name)
		}
		p.Components = append(p.Components, c)
	}
	for _, c := range b.Mirrors {
		p := r.pipeline(c.Pipeline)
		if p == nil {
			return fmt.Errorf("mirror %s has no pipeline", c.Name)
		}
		i := slices.IndexFunc(p.Components, func(o release.Component) bool { return o.Name == c.Name && o.Kind == release.Mirror })
		if i < 0 {
			return fmt.Errorf("mirror %s does not exist", c.Name)
		}
		p.Components[i].Mirror = c.Mirror
	}
	for _, s := range b.Snapshots {
		if slices.ContainsFunc(r.snapshots, func(o release.Snapshot) bool { return o.Pipeline == s.Pipeline && o.ID == s.ID }) {
			return fmt.Errorf("snapshot %s exists", s.ID)
		}
		r.snapshots = append(r.snapshots, s)
	}
	for _, v := range b.Moves {
		if slices.ContainsFunc(r.moves, func(o release.Move) bool { return o.Pipeline == v.Pipeline && o.Seq == v.Seq }) {
			return fmt.Errorf("move %d exists", v.Seq)
		}
		r.moves = append(r.moves, v)
	}
	for _, s := range b.Standings {
		r.standings = slices.DeleteFunc(r.standings, func(o release.Standing) bool { return o.Pipeline == s.Pipeline && o.Name == s.Name })
		r.standings = append(r.standings, s)
	}
	for _, f := range b.Bases {
		if r.hasBase(f.Pipeline, f.Dir) {
			return fmt.Errorf("base %s exists", f.Dir)
		}
		r.bases = append(r.bases, f)
	}
	for _, f := range b.Files {
		if _, known := r.files[f.SHA256]; !known {
			f.Path = ""
			r.files[f.SHA256] = f
		}
	}
	r.uploads = append(r.uploads, b.Uploads...)
	r.acts = append(r.acts, b.Acts...)
	return r.retain(b)
}

func (r *releases) pipeline(name string) *release.Pipeline {
	for i := range r.pipelines {
		if r.pipelines[i].Name == name {
			return &r.pipelines[i]
		}
	}
	return nil
}

func (r *releases) hasBase(pipeline, dir string) bool {
	return slices.ContainsFunc(r.bases, func(b release.Base) bool { return b.Pipeline == pipeline && b.Dir == dir })
}

// Pipelines implements release.Store.
func (m *Memory) Pipelines(context.Context) ([]release.Pipeline, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.releases.copy().pipelines
	slices.SortFunc(list, func(a, b release.Pipeline) int { return cmp.Compare(a.Name, b.Name) })
	for i := range list {
		slices.SortFunc(list[i].Components, func(a, b release.Component) int { return cmp.Compare(a.Name, b.Name) })
	}
	return list, nil
}

// Standings implements release.Store.
func (m *Memory) Standings(_ context.Context, pipeline string) ([]release.Standing, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := only(m.releases.standings, func(s release.Standing) bool { return s.Pipeline == pipeline })
	slices.SortFunc(list, func(a, b release.Standing) int { return a.Position - b.Position })
	return list, nil
}

// Snapshots implements release.Store.
func (m *Memory) Snapshots(_ context.Context, pipeline string) ([]release.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := only(m.releases.snapshots, func(s release.Snapshot) bool { return s.Pipeline == pipeline })
	slices.SortFunc(list, func(a, b release.Snapshot) int { return cmp.Compare(a.ID, b.ID) })
	for i := range list {
		list[i].Pin = m.releases.pin(pipeline, list[i].ID)
	}
	return list, nil
}

// Moves implements release.Store.
func (m *Memory) Moves(_ context.Context, pipeline, stage string, limit int) ([]release.Move, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := only(m.releases.moves, func(v release.Move) bool { return v.Pipeline == pipeline && (stage == "" || v.Stage == stage) })
	slices.SortFunc(list, func(a, b release.Move) int { return cmp.Compare(b.Seq, a.Seq) })
	return first(list, limit), nil
}

// Move implements release.Store.
func (m *Memory) Move(_ context.Context, pipeline string, seq int64) (release.Move, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.releases.moves {
		if v.Pipeline == pipeline && v.Seq == seq {
			return v, true, nil
		}
	}
	return release.Move{}, false, nil
}

// Bases implements release.Store.
func (m *Memory) Bases(_ context.Context, pipeline string) ([]release.Base, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return only(m.releases.bases, func(b release.Base) bool { return b.Pipeline == pipeline }), nil
}

// Base implements release.Store.
func (m *Memory) Base(_ context.Context, pipeline, dir string) (release.Base, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.releases.bases {
		if b.Pipeline == pipeline && b.Dir == dir {
			return b, true, nil
		}
	}
	return release.Base{}, false, nil
}

// HasBase implements release.Store.
func (m *Memory) HasBase(_ context.Context, pipeline, dir string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.releases.hasBase(pipeline, dir), nil
}

// Files implements release.Store.
func (m *Memory) Files(context.Context) ([]release.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.SortedFunc(maps.Values(m.releases.files), func(a, b release.File) int {
		return bytes.Compare(a.SHA256[:], b.SHA256[:])
	}), nil
}

// HasFile implements release.Store.
func (m *Memory) HasFile(_ context.Context, sha256 [32]byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, known := m.releases.files[sha256]
	return known, nil
}

// Accepted implements release.Store.
func (m *Memory) Accepted(_ context.Context, pipeline string, packages ...snapshots.Ref) (map[snapshots.Ref]release.Accepted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := make(map[snapshots.Ref]release.Accepted)
	for _, a := range m.releases.uploads {
		if a.Pipeline == pipeline && slices.Contains(packages, a.Ref()) {
			found[a.Ref()] = a
		}
	}
	return found, nil
}

// Acts implements release.Store.
func (m *Memory) Acts(ctx context.Context, pipeline string, limit int) ([]release.Act, error) {
	return m.FindActs(ctx, release.ActFilter{Pipeline: pipeline, Limit: limit})
}

// FindActs implements release.Store.
func (m *Memory) FindActs(_ context.Context, f release.ActFilter) ([]release.Act, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := only(m.releases.acts, func(a release.Act) bool {
		return (f.By == "" || a.By == f.By) && (f.Pipeline == "" || a.Pipeline == f.Pipeline) && !a.At.Before(f.Since)
	})
	slices.Reverse(list)
	return first(list, f.Limit), nil
}

// PutChange implements release.Store.
func (m *Memory) PutChange(_ context.Context, c release.Change) (release.Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failsPut != nil {
		return release.Change{}, m.failsPut
	}
	c.Log = slices.Clone(c.Log)
	if c.ID == 0 {
		c.ID = int64(len(m.releases.changes) + 1)
		m.releases.changes = append(m.releases.changes, c)
		return c, nil
	}
	m.releases.changes[c.ID-1] = c
	return c, nil
}

// Changes implements release.Store.
func (m *Memory) Changes(_ context.Context, limit int) ([]release.Change, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := slices.Clone(m.releases.changes)
	slices.Reverse(list)
	return first(list, limit), nil
}

// only returns the elements that want accepts, in a slice of their own.
func only[T any](all []T, want func(T) bool) []T {
	var list []T
	for _, one := range all {
		if want(one) {
			list = append(list, one)
		}
	}
	return list
}

// first cuts a list at a limit; 0 means none.
func first[T any](list []T, limit int) []T {
	if limit > 0 && len(list) > limit {
		return list[:limit]
	}
	return list
}
