package snapshots

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sort"
)

// All returns the packages of an index in order, one chunk in memory at a
// time. An error is the last thing it yields. A key that the state does not
// have has no packages.
func All(ctx context.Context, c Chunks, s State, key Key) iter.Seq2[Package, error] {
	return func(yield func(Package, error) bool) {
		for _, ref := range s.Index(key).Chunks {
			packages, err := OpenChunk(ctx, c, ref)
			if err != nil {
				yield(Package{}, fmt.Errorf("cannot list index %s: %w", key, err))
				return
			}
			for _, p := range packages {
				if !yield(p, nil) {
					return
				}
			}
		}
	}
}

// Find returns the versions of a package, lowest first; none if it is not
// there. It opens the one chunk that holds them, or as many as they fill.
func Find(ctx context.Context, c Chunks, s State, key Key, name string) ([]Package, error) {
	var found []Package
	for _, ref := range s.Index(key).holding(name) {
		packages, err := OpenChunk(ctx, c, ref)
		if err != nil {
			return nil, fmt.Errorf("cannot look up %s in %s: %w", name, key, err)
		}
		found = append(found, named(packages, name)...)
	}
	return found, nil
}

// holding returns the chunks that can hold a package called name.
func (i Index) holding(name string) []ChunkRef {
	// The chunk before the first one that begins at or behind name may hold it.
	from := sort.Search(len(i.Chunks), func(j int) bool { return i.Chunks[j].First.Name >= name })
	from = max(from-1, 0)
	to := from
	for to < len(i.Chunks) && i.Chunks[to].First.Name <= name {
		to++
	}
	return i.Chunks[from:to]
}

// named returns those of sorted packages that are called name.
func named(packages []Package, name string) []Package {
	from := sort.Search(len(packages), func(i int) bool { return packages[i].Name >= name })
	found, _ := cutName(packages[from:], name)
	return found
}

// Difference is one package that two states do not share. Old is nil for a new
// package, New for one that is gone; with both, New takes Old's place: the same
// name with another version, architecture or stanza.
type Difference struct {
	Key      Key
	Name     string
	Old, New *Package
}

// Diff returns what separates b from a, by key, then name, then version. It
// opens only chunks that one of them has and the other has not. Where a name
// has several versions that differ, the highest new one stands against the
// highest old one, and so on down. A zero State has nothing.
func Diff(ctx context.Context, c Chunks, a, b State) ([]Difference, error) {
	keys := append(a.Keys(), b.Keys()...)
	slices.SortFunc(keys, Key.compare)
	var differences []Difference
	for _, key := range slices.Compact(keys) {
		gone, err := onlyIn(ctx, c, a.Index(key), b.Index(key))
		if err != nil {
			return nil, fmt.Errorf("cannot compare index %s: %w", key, err)
		}
		came, err := onlyIn(ctx, c, b.Index(key), a.Index(key))
		if err != nil {
			return nil, fmt.Errorf("cannot compare index %s: %w", key, err)
		}
		differences = append(differences, pair(key, gone, came)...)
	}
	return differences, nil
}

// onlyIn returns the packages of the chunks that index has and other has not.
// A package outside them is in a chunk of both: no name and version occurs
// twice in an index.
func onlyIn(ctx context.Context, c Chunks, index, other Index) ([]Package, error) {
	shared := make(map[ID]bool, len(other.Chunks))
	for _, ref := range other.Chunks {
		shared[ref.ID] = true
	}
	var packages []Package
	for _, ref := range index.Chunks {
		if shared[ref.ID] {
			continue
		}
		opened, err := OpenChunk(ctx, c, ref)
		if err != nil {
			return nil, err
		}
		packages = append(packages, opened...)
	}
	return packages, nil
}

// pair goes through two sorted lists name by name.
func pair(key Key, gone, came []Package) []Difference {
	var differences []Difference
	for len(gone) > 0 || len(came) > 0 {
		var name string
		switch {
		case len(gone) == 0:
			name = came[0].Name
		case len(came) == 0:
			name = gone[0].Name
		default:
			name = min(gone[0].Name, came[0].Name)
		}
		var old, now []Package
		old, gone = cutName(gone, name)
		now, came = cutName(came, name)
		differences = append(differences, pairVersions(key, name, old, now)...)
	}
	return differences
}

// cutName returns the leading packages called name, and the rest.
func cutName(packages []Package, name string) (named, rest []Package) {
	n := 0
	for n < len(packages) && packages[n].Name == name {
		n++
	}
	return packages[:n], packages[n:]
}

// pairVersions sets the versions of one name against each other.
func pairVersions(key Key, name string, old, now []Package) []Difference {
	var differences []Difference
	var left []Package // of old, without equals in now
	taken := make(map[string]bool, len(old))
	for i := range old {
		at := slices.IndexFunc(now, func(p Package) bool { return p.Version == old[i].Version })
		if at < 0 {
			left = append(left, old[i])
			continue
		}
		taken[old[i].Version] = true
		if string(old[i].Stanza) != string(now[at].Stanza) {
			differences = append(differences, Difference{key, name, &old[i], &now[at]})
		}
	}
	var added []Package
	for _, p := range now {
		if !taken[p.Version] {
			added = append(added, p)
		}
	}
	for len(left) > 0 || len(added) > 0 {
		d := Difference{Key: key, Name: name}
		if n := len(left); n > 0 {
			d.Old, left = &left[n-1], left[:n-1]
		}
		if n := len(added); n > 0 {
			d.New, added = &added[n-1], added[:n-1]
		}
		differences = append(differences, d)
	}
	slices.SortStableFunc(differences, func(x, y Difference) int { return x.ref().compare(y.ref()) })
	return differences
}

// ref places a difference: by what is new, else by what is gone.
func (d Difference) ref() Ref {
	if d.New != nil {
		return d.New.Ref()
	}
	return d.Old.Ref()
}

// Edits returns the edits that make what Diff compared equal: applied to a,
// the differences from a to b give b, if a has the indices of b.
func Edits(differences []Difference) []Edit {
	var removals, puts []Edit
	at := func(edits *[]Edit, component string) *Edit {
		for i := range *edits {
			if (*edits)[i].Component == component {
				return &(*edits)[i]
			}
		}
		*edits = append(*edits, Edit{Component: component})
		return &(*edits)[len(*edits)-1]
	}
	for _, d := range differences {
		if d.Old != nil {
			e := at(&removals, d.Key.Component)
			e.Remove = append(e.Remove, d.Old.Ref())
		}
		if d.New != nil {
			e := at(&puts, d.Key.Component)
			e.Put = append(e.Put, *d.New)
		}
	}
	return append(removals, puts...)
}
