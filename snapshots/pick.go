package snapshots

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"aptfleet/internal/deb"
)

// Picked is the result of Pick.
type Picked struct {
	State State
	// Names are the packages that came, by name: those asked for and the
	// dependencies that followed them.
	Names []string
	// Unmet lists what packages that came depend on and the result does not
	// have, by package, architecture and relation. Only a Pick with
	// dependencies looks.
	Unmet []Unmet
}

// Unmet is a relation that no package of a state satisfies.
type Unmet struct {
	Package      Ref    // that has the relation
	Architecture string // for which it is not satisfied
	Relation     string // as in Depends: "libfoo (>= 2) | libbar"
}

// MissingError lists the names that Pick was given and the other state does not
// have, in the order given.
type MissingError struct{ Names []string }

func (e *MissingError) Error() string {
	return "the other state does not have " + strings.Join(e.Names, ", ")
}

// Pick returns base with packages of another state: all that from has of a
// name, in every component, version and architecture, is there in the place of
// what base has of it. Names that from does not have are a *MissingError.
//
// With dependencies, what the packages that come need (Depends, Pre-Depends)
// and base does not satisfy comes from the other state too, and what that
// needs, and so on. Of alternatives the first that from has is taken: real
// packages in the order of the relation, then those that provide one, by name.
//
// The result depends on the set of names and not on their order. Only chunks
// that hold a picked package or a dependency are opened; but whether somebody
// provides what no package is called, the texts of a whole state tell, which
// are then read once.
func Pick(ctx context.Context, c Chunks, base, from State, names []string, dependencies bool) (Picked, error) {
	p := picker{
		reader: reader{ctx: ctx, chunks: c, opened: make(map[ID][]Package)},
		base:   base, from: from, picked: make(map[string]bool), provided: make(map[source]map[string][]provider),
	}
	var missing []string
	for _, name := range names {
		found, err := p.has(from, name)
		if err != nil {
			return Picked{}, fmt.Errorf("cannot pick %s: %w", name, err)
		}
		if !found && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
		p.picked[name] = found
	}
	if len(missing) > 0 {
		return Picked{}, fmt.Errorf("cannot pick packages: %w", &MissingError{missing})
	}
	var unmet []Unmet
	if dependencies {
		var err error
		if unmet, err = p.follow(); err != nil {
			return Picked{}, fmt.Errorf("cannot pick dependencies: %w", err)
		}
	}
	s, err := p.apply()
	if err != nil {
		return Picked{}, fmt.Errorf("cannot pick packages: %w", err)
	}
	return Picked{State: s, Names: slices.Sorted(maps.Keys(p.picked)), Unmet: unmet}, nil
}

// picker is a Pick under way.
type picker struct {
	reader
	base, from State
	picked     map[string]bool
	provided   map[source]map[string][]provider
}

// source is what one of the two states has for one architecture.
type source struct {
	from         bool
	architecture string
}

// provider is a package that provides a name.
type provider struct {
	name    string
	version string // of what it provides, "" for none
}

// apply returns base with what was picked.
func (p *picker) apply() (State, error) {
	names := slices.Sorted(maps.Keys(p.picked))
	keys := p.base.Keys()
	for _, key := range p.from.Keys() {
		if slices.Contains(keys, key) {
			continue
		}
		needed, err := p.hasAny(p.from, key.Component, names)
		if err != nil {
			return State{}, err
		}
		if needed {
			keys = append(keys, key)
		}
	}
	indices, err := extend(p.ctx, p.chunks, p.base, keys)
	if err != nil {
		return State{}, err
	}
	other, err := extend(p.ctx, p.chunks, p.from, keys)
	if err != nil {
		return State{}, err
	}
	from := State{indices: other}
	for i, n := range indices {
		var ops []change
		for _, name := range names {
			old, err := p.find(n.index, name)
			if err != nil {
				return State{}, err
			}
			now, err := p.find(from.Index(n.key), name)
			if err != nil {
				return State{}, err
			}
			ops = append(ops, replacing(old, now)...)
		}
		if len(ops) == 0 {
			continue
		}
		if indices[i].index, err = rewrite(p.ctx, p.chunks, n.index, ops); err != nil {
			return State{}, err
		}
	}
	return build(p.ctx, p.chunks, indices)
}

// follow picks dependencies until nothing more is missing that from has, and
// returns what is missing then.
func (p *picker) follow() ([]Unmet, error) {
	for {
		before := len(p.picked)
		var unmet []Unmet
		for _, key := range p.from.Keys() {
			for _, name := range slices.Sorted(maps.Keys(p.picked)) {
				packages, err := p.find(p.from.Index(key), name)
				if err != nil {
					return nil, err
				}
				for _, needy := range packages {
					missing, err := p.satisfy(needy, key.Architecture)
					if err != nil {
						return nil, err
					}
					unmet = append(unmet, missing...)
				}
			}
		}
		if len(p.picked) == before {
			slices.SortFunc(unmet, func(a, b Unmet) int {
				if c := a.Package.compare(b.Package); c != 0 {
					return c
				}
				return strings.Compare(a.Architecture+" "+a.Relation, b.Architecture+" "+b.Relation)
			})
			return slices.Compact(unmet), nil
		}
	}
}

// satisfy picks what a package lacks on an architecture, and returns what it
// cannot find.
func (p *picker) satisfy(needy Package, architecture string) ([]Unmet, error) {
	stanza, err := deb.ParseStanza(needy.Stanza)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", needy.Ref(), err)
	}
	var unmet []Unmet
	for _, field := range [...]string{"Pre-Depends", "Depends"} {
		groups, err := deb.ParseRelations(stanza.Get(field))
		if err != nil {
			return nil, fmt.Errorf("%s: cannot read %s: %w", needy.Ref(), field, err)
		}
		for _, group := range groups {
			met, err := p.meets(group, architecture)
			if err != nil {
				return nil, err
			}
			if met {
				continue
			}
			name, err := p.offer(group, architecture)
			if err != nil {
				return nil, err
			}
			if name == "" {
				unmet = append(unmet, Unmet{needy.Ref(), architecture, deb.Alternatives(group)})
				continue
			}
			p.picked[name] = true
		}
	}
	return unmet, nil
}

// meets tells whether base with what is picked so far satisfies a group of
// alternatives.
func (p *picker) meets(group []deb.Relation, architecture string) (bool, error) {
	now, base := p.from.of(architecture), p.base.of(architecture)
	for _, r := range group {
		indices := base
		if p.picked[r.Name] {
			indices = now
		}
		if met, err := p.satisfied(r, architecture, indices); err != nil || met {
			return met, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.picked)) {
		for _, index := range now {
			packages, err := p.find(index, name)
			if err != nil {
				return false, err
			}
			for _, q := range packages {
				for virtual, version := range provides(q) {
					if slices.ContainsFunc(group, func(r deb.Relation) bool {
						return r.Name == virtual && provider{name, version}.satisfies(r, architecture)
					}) {
						return true, nil
					}
				}
			}
		}
	}
	name, err := p.provider(source{false, architecture}, base, group)
	return name != "", err
}

// offer returns the package of the other state that satisfies a group of
// alternatives, or "".
func (p *picker) offer(group []deb.Relation, architecture string) (string, error) {
	indices := p.from.of(architecture)
	for _, r := range group {
		if met, err := p.satisfied(r, architecture, indices); err != nil || met {
			return r.Name, err
		}
	}
	return p.provider(source{true, architecture}, indices, group)
}

// satisfied tells whether a relation is satisfied by a package of its name.
func (p *picker) satisfied(r deb.Relation, architecture string, indices []Index) (bool, error) {
	if !r.Concerns(architecture) {
		return false, nil
	}
	for _, index := range indices {
		packages, err := p.find(index, r.Name)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(packages, func(q Package) bool { return deb.Satisfies(q.Version, r.Op, r.Version) }) {
			return true, nil
		}
	}
	return false, nil
}

// provider returns the first package of a source, which has these indices,
// that provides one of a group of alternatives, or "". What a picked package
// provided in base counts no more.
func (p *picker) provider(in source, indices []Index, group []deb.Relation) (string, error) {
	for _, r := range group {
		providers, err := p.providers(in, indices, r.Name)
		if err != nil {
			return "", err
		}
		for _, q := range providers {
			if (in.from || !p.picked[q.name]) && q.satisfies(r, in.architecture) {
				return q.name, nil
			}
		}
	}
	return "", nil
}

// satisfies tells whether what is provided is what r asks for. A relation with
// a version needs a Provides with one (Policy 7.5).
func (q provider) satisfies(r deb.Relation, architecture string) bool {
	return r.Concerns(architecture) && (r.Op == "" || q.version != "" && deb.Satisfies(q.version, r.Op, r.Version))
}

// of returns the indices of an architecture.
func (s State) of(architecture string) []Index {
	var indices []Index
	for _, n := range s.indices {
		if n.key.Architecture == architecture {
			indices = append(indices, n.index)
		}
	}
	return indices
}

// providers returns who provides a name, by name.
func (p *picker) providers(in source, indices []Index, name string) ([]provider, error) {
	all, ok := p.provided[in]
	if !ok {
		all = make(map[string][]provider)
		for _, index := range indices {
			for _, ref := range index.Chunks {
				text, err := get(p.ctx, p.chunks, ref.ID)
				if err != nil {
					return nil, fmt.Errorf("cannot open chunk %s: %w", ref.ID, err)
				}
				if err := addProviders(all, text); err != nil {
					return nil, fmt.Errorf("cannot open chunk %s: %w", ref.ID, err)
				}
			}
		}
		for _, providers := range all {
			slices.SortStableFunc(providers, func(a, b provider) int { return strings.Compare(a.name, b.name) })
		}
		p.provided[in] = all
	}
	return all[name], nil
}

// addProviders adds the packages of a chunk that provide anything. The others
// are passed over without reading their fields.
func addProviders(all map[string][]provider, text []byte) error {
	for stanza := range bytes.SplitSeq(text, []byte("\n\n")) {
		for line := range bytes.Lines(stanza) {
			if name, _, _ := bytes.Cut(line, []byte(":")); !bytes.EqualFold(name, []byte("Provides")) {
				continue
			}
			q, err := ParsePackage(slices.Concat(stanza, []byte("\n")))
			if err != nil {
				return err
			}
			for virtual, version := range provides(q) {
				all[virtual] = append(all[virtual], provider{q.Name, version})
			}
			break
		}
	}
	return nil
}

// provides yields the names that a package provides, each with its version or
// "". What cannot be read provides nothing: nobody can depend on it.
func provides(q Package) iter.Seq2[string, string] {
	return func(yield func(name, version string) bool) {
		stanza, err := deb.ParseStanza(q.Stanza)
		if err != nil {
			return
		}
		groups, err := deb.ParseRelations(stanza.Get("Provides"))
		if err != nil {
			return
		}
		for _, group := range groups {
			for _, r := range group {
				if (r.Op == "" || r.Op == "=") && !yield(r.Name, r.Version) {
					return
				}
			}
		}
	}
}

// has tells whether a state has a package in any of its indices.
func (p *picker) has(s State, name string) (bool, error) {
	for _, n := range s.indices {
		if found, err := p.find(n.index, name); err != nil || len(found) > 0 {
			return len(found) > 0, err
		}
	}
	return false, nil
}

// hasAny tells whether a component of a state has one of names.
func (p *picker) hasAny(s State, component string, names []string) (bool, error) {
	for _, n := range s.indices {
		if n.key.Component != component {
			continue
		}
		for _, name := range names {
			if found, err := p.find(n.index, name); err != nil || len(found) > 0 {
				return len(found) > 0, err
			}
		}
	}
	return false, nil
}

// reader opens each chunk once.
type reader struct {
	ctx    context.Context
	chunks Chunks
	opened map[ID][]Package
}

func (r *reader) open(ref ChunkRef) ([]Package, error) {
	packages, ok := r.opened[ref.ID]
	if !ok {
		var err error
		if packages, err = OpenChunk(r.ctx, r.chunks, ref); err != nil {
			return nil, err
		}
		r.opened[ref.ID] = packages
	}
	return packages, nil
}

// find returns the versions of a package in an index, lowest first.
func (r *reader) find(index Index, name string) ([]Package, error) {
	var found []Package
	for _, ref := range index.holding(name) {
		packages, err := r.open(ref)
		if err != nil {
			return nil, err
		}
		found = append(found, named(packages, name)...)
	}
	return found, nil
}
