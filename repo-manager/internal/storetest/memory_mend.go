package storetest

import (
	"context"
	"slices"

	"aptfleet/repo-manager/internal/release"
)

// Damage makes Integrity say so, until a Mending makes lookups again.
func (m *Memory) Damage(sentences ...string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.damage = sentences
}

// Alter lets a test change what is kept, as a broken disk would. It is called
// with all rows there are; what it leaves in them is kept.
func (m *Memory) Alter(f func(rows *release.Batch)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.releases.copy()
	b := release.Batch{
		Snapshots: slices.Clone(r.snapshots), Moves: slices.Clone(r.moves), Standings: slices.Clone(r.standings),
		Bases: slices.Clone(r.bases), Uploads: slices.Clone(r.uploads), Acts: slices.Clone(r.acts),
	}
	for _, p := range r.pipelines {
		b.Components = append(b.Components, p.Components...)
		p.Components = nil
		b.Pipelines = append(b.Pipelines, p)
	}
	for _, file := range r.files {
		b.Files = append(b.Files, file)
	}
	f(&b)
	altered := releases{changes: r.changes, files: make(map[[32]byte]release.File)}
	for _, p := range b.Pipelines {
		for _, c := range b.Components {
			if c.Pipeline == p.Name {
				p.Components = append(p.Components, c)
			}
		}
		altered.pipelines = append(altered.pipelines, p)
	}
	altered.snapshots, altered.moves, altered.standings, altered.bases = b.Snapshots, b.Moves, b.Standings, b.Bases
	altered.uploads, altered.acts = b.Uploads, b.Acts
	for _, file := range b.Files {
		altered.files[file.SHA256] = file
	}
	m.releases = altered
}

// Uploads implements release.Store.
func (m *Memory) Uploads(context.Context) ([]release.Accepted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.releases.uploads), nil
}

// Integrity implements release.Store.
func (m *Memory) Integrity(context.Context) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.damage), nil
}

// Mend implements release.Store.
func (m *Memory) Mend(_ context.Context, with release.Mending) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	next := m.releases.copy()
	for _, row := range with.Drop {
		next.drop(row)
	}
	for _, p := range with.Pipelines {
		if there := next.pipeline(p.Name); there != nil {
			p.Components = there.Components
			*there = p
			continue
		}
		p.Components = nil
		next.pipelines = append(next.pipelines, p)
	}
	for _, c := range with.Components {
		if p := next.pipeline(c.Pipeline); p != nil {
			p.Components = replace(p.Components, c, func(o release.Component) bool { return o.Name == c.Name })
		}
	}
	for _, s := range with.Snapshots {
		next.snapshots = replace(next.snapshots, s, func(o release.Snapshot) bool { return o.Pipeline == s.Pipeline && o.ID == s.ID })
	}
	for _, s := range with.Standings {
		next.standings = replace(next.standings, s, func(o release.Standing) bool { return o.Pipeline == s.Pipeline && o.Name == s.Name })
	}
	for _, b := range with.Bases {
		next.bases = replace(next.bases, b, func(o release.Base) bool { return o.Pipeline == b.Pipeline && o.Dir == b.Dir })
	}
	for _, f := range with.Files {
		f.Path = ""
		next.files[f.SHA256] = f
	}
	next.acts = append(next.acts, with.Acts...)
	m.releases = next
	if with.Lookups {
		m.damage = nil
	}
	return nil
}

func (r *releases) drop(row release.RowName) {
	switch row.Table {
	case "snapshots":
		r.snapshots = except(r.snapshots, func(o release.Snapshot) bool { return o.Pipeline == row.Pipeline && o.ID == row.Key })
	case "stages":
		r.standings = except(r.standings, func(o release.Standing) bool { return o.Pipeline == row.Pipeline && o.Name == row.Key })
	case "bases":
		r.bases = except(r.bases, func(o release.Base) bool { return o.Pipeline == row.Pipeline && o.Dir == row.Key })
	case "files":
		delete(r.files, row.SHA256)
	}
}

// replace puts one in the place of the element that is accepted, or at the end.
func replace[T any](all []T, one T, is func(T) bool) []T {
	all = slices.Clone(all)
	if at := slices.IndexFunc(all, is); at >= 0 {
		all[at] = one
		return all
	}
	return append(all, one)
}

// except returns the elements that are not accepted.
func except[T any](all []T, is func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(all), is)
}
