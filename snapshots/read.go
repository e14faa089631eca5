package snapshots

import (
	"bytes"
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
	found, err := FindAll(ctx, c, s, key, []string{name})
	return found[name], err
}

// FindAll is Find for many names, which are sorted: it opens each chunk once.
// Names that are not there are not in the map.
func FindAll(ctx context.Context, c Chunks, s State, key Key, names []string) (map[string][]Package, error) {
	chunks := s.Index(key).Chunks
	found := make(map[string][]Package)
	for j, ref := range chunks {
		// A name may begin in this chunk and go on in the next ones.
		names = names[sort.SearchStrings(names, ref.First.Name):]
		if len(names) == 0 {
			break
		}
		wanted := names
		if j+1 < len(chunks) {
			next := chunks[j+1].First.Name
			wanted = names[:sort.Search(len(names), func(i int) bool { return names[i] > next })]
		}
		if len(wanted) == 0 {
			continue
		}
		packages, err := OpenChunk(ctx, c, ref)
		if err != nil {
			return nil, fmt.Errorf("cannot look up %s in %s: %w", wanted[0], key, err)
		}
		for _, p := range packages {
			if _, is := slices.BinarySearch(wanted, p.Name); is {
				p.Stanza = slices.Clone(p.Stanza) // not all of the chunk
				found[p.Name] = append(found[p.Name], p)
			}
		}
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
		gone, came, err := apart(ctx, c, a.Index(key), b.Index(key))
		if err != nil {
			return nil, fmt.Errorf("cannot compare index %s: %w", key, err)
		}
		differences = append(differences, pair(key, gone, came)...)
	}
	return differences, nil
}

// apart returns the packages that only one of two indices has, in order. A
// package outside the chunks that they do not share is in a chunk of both, as no
// name and version occurs twice in an index; and of the packages in these chunks
// most are in both, so that only the others are worth parsing.
func apart(ctx context.Context, c Chunks, a, b Index) (gone, came []Package, err error) {
	inA, err := stanzasOnlyIn(ctx, c, a, b)
	if err != nil {
		return nil, nil, err
	}
	inB, err := stanzasOnlyIn(ctx, c, b, a)
	if err != nil {
		return nil, nil, err
	}
	if gone, err = without(inA, inB); err == nil {
		came, err = without(inB, inA)
	}
	return gone, came, err
}

// stanzasOnlyIn returns the stanzas of the chunks that index has and other has
// not, in order.
func stanzasOnlyIn(ctx context.Context, c Chunks, index, other Index) ([][]byte, error) {
	shared := make(map[ID]bool, len(other.Chunks))
	for _, ref := range other.Chunks {
		shared[ref.ID] = true
	}
	var stanzas [][]byte
	for _, ref := range index.Chunks {
		if shared[ref.ID] {
			continue
		}
		text, err := get(ctx, c, ref.ID)
		if err != nil {
			return nil, fmt.Errorf("cannot open chunk %s: %w", ref.ID, err)
		}
		before, size := len(stanzas), len(text)
		for len(text) > 0 {
			end := bytes.Index(text, []byte("\n\n"))
			if end < 0 {
				return nil, fmt.Errorf("cannot open chunk %s: its last stanza has no end", ref.ID)
			}
			stanzas, text = append(stanzas, text[:end+1]), text[end+2:]
		}
		if n := len(stanzas) - before; n != ref.Count || int64(size) != ref.Size {
			return nil, fmt.Errorf("cannot open chunk %s: its state counts %d packages, %d bytes; it has %d, %d bytes", ref.ID, ref.Count, ref.Size, n, size)
		}
	}
	return stanzas, nil
}

// without returns the packages of stanzas that are not among others.
func without(stanzas, others [][]byte) ([]Package, error) {
	there := make(map[string]bool, len(others))
	for _, stanza := range others {
		there[string(stanza)] = true
	}
	var packages []Package
	for _, stanza := range stanzas {
		if there[string(stanza)] {
			continue
		}
		p, err := ParsePackage(slices.Clone(stanza)) // not all of the chunk
		if err != nil {
			return nil, err
		}
		packages = append(packages, p)
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
