package snapshots

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"aptfleet/internal/deb"
)

// maxComponentName is the longest name of a component, in bytes.
const maxComponentName = 64

// ValidComponent accepts what can be the name of a component: a letter or
// digit, then letters, digits and + - . _, at most 64 bytes. It becomes a
// directory, a word of sources.list and a word of a state's text.
func ValidComponent(name string) error {
	if name == "" || len(name) > maxComponentName {
		return fmt.Errorf("the component name %q is not 1 to %d bytes long", name, maxComponentName)
	}
	for i, c := range []byte(name) {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || c != '+' && c != '-' && c != '.' && c != '_') {
			return fmt.Errorf("the component name %q holds other than letters, digits and, after the first, + - . _", name)
		}
	}
	return nil
}

// validate refuses keys that no index can have.
func (k Key) validate() error {
	if err := ValidComponent(k.Component); err != nil {
		return err
	}
	if k.Architecture == "all" {
		return fmt.Errorf("an index has a real architecture; packages for all go into every one")
	}
	return deb.ValidArchitecture(k.Architecture)
}

// New returns the state that has an empty index for every key. An index
// exists from its declaration on: apt expects one even where nothing is.
func New(ctx context.Context, c Chunks, keys []Key) (State, error) {
	return WithKeys(ctx, c, State{}, keys...)
}

// WithKeys returns s with further indices; those it has stay as they are. The
// index of a new architecture begins with the component's packages for all, as
// each of its indices holds them; that of a new component is empty.
func WithKeys(ctx context.Context, c Chunks, s State, keys ...Key) (State, error) {
	indices, err := extend(ctx, c, s, keys)
	if err != nil {
		return State{}, err
	}
	return build(ctx, c, indices)
}

// extend returns the indices of WithKeys, sorted.
func extend(ctx context.Context, c Chunks, s State, keys []Key) ([]namedIndex, error) {
	indices := slices.Clone(s.indices)
	for _, key := range keys {
		if err := key.validate(); err != nil {
			return nil, fmt.Errorf("cannot add index: %w", err)
		}
		if slices.ContainsFunc(indices, func(n namedIndex) bool { return n.key == key }) {
			continue
		}
		added := namedIndex{key: key}
		if sibling := slices.IndexFunc(s.indices, func(n namedIndex) bool { return n.key.Component == key.Component }); sibling >= 0 {
			var forAll []Package
			for p, err := range All(ctx, c, s, s.indices[sibling].key) {
				if err != nil {
					return nil, fmt.Errorf("cannot add index %s: %w", key, err)
				}
				if p.Architecture == "all" {
					forAll = append(forAll, p)
				}
			}
			index, err := rewrite(ctx, c, Index{}, changesOf(nil, forAll))
			if err != nil {
				return nil, fmt.Errorf("cannot add index %s: %w", key, err)
			}
			added.index = index
		}
		indices = append(indices, added)
	}
	slices.SortFunc(indices, func(a, b namedIndex) int { return a.key.compare(b.key) })
	return indices, nil
}

// Edit changes one component. Remove happens before Put; a Ref that is not
// there is no error. A name and version occurs once per index, so a Put takes
// the place of what has the same name and version there; if one of the two is
// for all, in every index of the component.
type Edit struct {
	Component string
	Put       []Package
	Remove    []Ref
}

// Apply returns s after edits, in their order. Packages for all go into every
// architecture of their component, others into that of theirs. Only chunks
// that an edit touches, and at times a neighbour, are opened and written. The
// result depends on what s then holds and on nothing else. On an error nothing
// refers to what was written.
func Apply(ctx context.Context, c Chunks, s State, edits ...Edit) (State, error) {
	pending := make(map[Key]changes)
	for _, edit := range edits {
		if err := edit.spread(s, pending); err != nil {
			return State{}, fmt.Errorf("cannot change component %s: %w", edit.Component, err)
		}
	}
	indices := slices.Clone(s.indices)
	for i, n := range indices {
		ops := pending[n.key]
		if len(ops) == 0 {
			continue
		}
		index, err := rewrite(ctx, c, n.index, slices.SortedFunc(maps.Values(ops), func(a, b change) int { return a.ref.compare(b.ref) }))
		if err != nil {
			return State{}, fmt.Errorf("cannot change index %s: %w", n.key, err)
		}
		indices[i].index = index
	}
	return build(ctx, c, indices)
}

// nameVersion is what occurs once per index.
type nameVersion struct{ name, version string }

// changes is what happens to an index, by name and version.
type changes map[nameVersion]change

// change puts a package, or takes away those of its name and version whose
// architecture is in remove.
type change struct {
	ref    Ref
	put    *Package
	remove removal
}

// removal says which occupants of a name and version go away. A name and
// version occurs once, for all or for the architecture of the index.
type removal uint8

const (
	removeAll  removal = 1 << iota // what is for all
	removeReal                     // what is for the architecture of the index
)

func (r removal) matches(architecture string) bool {
	if architecture == "all" {
		return r&removeAll != 0
	}
	return r&removeReal != 0
}

func (ops changes) add(ref Ref, put *Package, remove removal) {
	at := nameVersion{ref.Name, ref.Version}
	before := ops[at]
	now := change{ref: ref, put: put, remove: remove | before.remove}
	if put == nil && before.put != nil && !remove.matches(before.put.Architecture) {
		now.put = before.put
		now.ref = before.ref
	}
	ops[at] = now
}

// spread writes what an edit does to each index into pending.
func (e Edit) spread(s State, pending map[Key]changes) error {
	if err := ValidComponent(e.Component); err != nil {
		return err
	}
	var keys []Key
	for _, n := range s.indices {
		if n.key.Component == e.Component {
			keys = append(keys, n.key)
			if pending[n.key] == nil {
				pending[n.key] = make(changes)
			}
		}
	}
	if len(keys) == 0 {
		return fmt.Errorf("the state has no such component")
	}
	for _, ref := range e.Remove {
		if err := ref.validate(); err != nil {
			return fmt.Errorf("cannot remove %s: %w", ref, err)
		}
		for _, key := range keys {
			switch ref.Architecture {
			case "all":
				pending[key].add(ref, nil, removeAll)
			case key.Architecture:
				pending[key].add(ref, nil, removeReal)
			}
		}
	}
	for _, p := range e.Put {
		parsed, err := ParsePackage(p.Stanza)
		if err != nil {
			return err
		}
		ref := parsed.Ref()
		if ref != p.Ref() || parsed.Size != p.Size || parsed.SHA256 != p.SHA256 {
			return fmt.Errorf("cannot put %s: its stanza describes %s or another file", p.Ref(), ref)
		}
		parsed.Stanza = slices.Clone(parsed.Stanza)
		placed := false
		for _, key := range keys {
			switch ref.Architecture {
			case "all", key.Architecture:
				pending[key].add(ref, &parsed, removeAll|removeReal)
				placed = true
			default:
				pending[key].add(ref, nil, removeAll)
			}
		}
		if !placed {
			return fmt.Errorf("cannot put %s: the component has no index for %s", ref, ref.Architecture)
		}
	}
	return nil
}

// changesOf returns the changes that put packages, which are in order.
func changesOf(ops []change, packages []Package) []change {
	for i := range packages {
		ops = append(ops, change{ref: packages[i].Ref(), put: &packages[i], remove: removeAll | removeReal})
	}
	return ops
}
