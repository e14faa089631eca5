package snapshots

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"aptfleet/internal/deb"
)

// Rule says what Merge does with a package that its states have differently.
type Rule int

const (
	// Refuse merges nothing if there is a conflict. The order of the states
	// does not matter.
	Refuse Rule = iota
	// Latest takes the package from the state with the highest versions: the
	// highest of all its entries decides, then the next one; of two lists that
	// begin alike the longer wins, and of equal ones that of the state named
	// first.
	Latest
	// First takes the package from the state named first.
	First
)

// Conflict is a package that several states have, and not alike.
type Conflict struct {
	Component string
	Name      string
	Versions  [][]string // of each state, highest first; nil where it has none
	Taken     int        // the state that the package is taken from
}

// ConflictError says why Refuse merged nothing: the conflicts by component and
// name, at least one.
type ConflictError struct{ Conflicts []Conflict }

func (e *ConflictError) Error() string {
	first := e.Conflicts[0]
	text := fmt.Sprintf("the states differ in %s of component %s", first.Name, first.Component)
	if n := len(e.Conflicts) - 1; n > 0 {
		text += fmt.Sprintf(" and in %d more packages", n)
	}
	return text
}

// Merge returns a state with every package of states, which has the indices of
// all of them, and the conflicts that rule decided, by component and name.
//
// What is merged is a name: all that a component has under it, in all versions
// and architectures, comes from one state, so that what was built together
// stays together. A name that only one state has, or that all that have it
// have alike, is no conflict. With Refuse a conflict is a *ConflictError.
//
// Each rule is associative: merging two states first and then the third with
// the result gives what merging the three gives. Only chunks that not all
// states share are opened, and now and then one to see that a name is not
// there.
func Merge(ctx context.Context, c Chunks, rule Rule, states ...State) (State, []Conflict, error) {
	if len(states) == 0 {
		return State{}, nil, errors.New("cannot merge states: there is none")
	}
	var keys []Key
	for _, s := range states {
		keys = append(keys, s.Keys()...)
	}
	slices.SortFunc(keys, Key.compare)
	keys = slices.Compact(keys)
	inputs := make([]State, len(states))
	for i, s := range states {
		indices, err := extend(ctx, c, s, keys)
		if err != nil {
			return State{}, nil, fmt.Errorf("cannot merge states: %w", err)
		}
		inputs[i] = State{indices: indices}
	}
	var merged []namedIndex
	var conflicts []Conflict
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && keys[n].Component == keys[0].Component {
			n++
		}
		m := merger{ctx: ctx, chunks: c, rule: rule, keys: keys[:n], all: len(states)}
		keys = keys[n:]
		indices, err := m.component(inputs)
		if err != nil {
			return State{}, nil, fmt.Errorf("cannot merge component %s: %w", m.keys[0].Component, err)
		}
		merged = append(merged, indices...)
		conflicts = append(conflicts, m.conflicts...)
	}
	if rule == Refuse && len(conflicts) > 0 {
		return State{}, nil, fmt.Errorf("cannot merge states: %w", &ConflictError{conflicts})
	}
	s, err := build(ctx, c, merged)
	return s, conflicts, err
}

// merger merges one component.
type merger struct {
	ctx    context.Context
	chunks Chunks
	rule   Rule
	keys   []Key // of the component
	all    int   // states that are merged

	members   []member // the states that have any package of the component
	conflicts []Conflict
}

// member is a state that takes part in the merge of a component.
type member struct {
	position int     // among the states of Merge
	indices  []Index // by the merger's keys
}

// possession is what the members have of a name in chunks that not all of them
// share: the packages by member and then by key.
type possession [][][]Package

// component returns the merged indices. The first state that has the component
// is taken, and only what comes from another is written into it.
func (m *merger) component(states []State) ([]namedIndex, error) {
	for i, s := range states {
		indices := make([]Index, len(m.keys))
		count := 0
		for k, key := range m.keys {
			indices[k] = s.Index(key)
			count += len(indices[k].Chunks)
		}
		if count > 0 {
			m.members = append(m.members, member{i, indices})
		}
	}
	merged := make([]namedIndex, len(m.keys))
	for k, key := range m.keys {
		merged[k].key = key
		if len(m.members) > 0 {
			merged[k].index = m.members[0].indices[k]
		}
	}
	if len(m.members) < 2 {
		return merged, nil
	}
	ops, err := m.decide()
	if err != nil {
		return nil, err
	}
	if m.rule == Refuse && len(m.conflicts) > 0 {
		return merged, nil // Merge says so, once it knows all conflicts
	}
	for k := range merged {
		if len(ops[k]) == 0 {
			continue
		}
		if merged[k].index, err = rewrite(m.ctx, m.chunks, merged[k].index, ops[k]); err != nil {
			return nil, err
		}
	}
	return merged, nil
}

// decide returns, for each key, what changes the first member into the merge.
func (m *merger) decide() ([][]change, error) {
	held := make(map[string]possession)
	shared := make([]map[ID]bool, len(m.keys))
	for k := range m.keys {
		shared[k] = m.shared(k)
		if err := m.read(k, shared[k], held); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(held))
	var unsure []string // that some members seem not to have
	for name, h := range held {
		switch {
		case h.allAlike():
			continue // a neighbour of what changed
		case slices.ContainsFunc(h, isEmpty):
			unsure = append(unsure, name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Sort(unsure)
	everywhere, err := m.inShared(unsure, shared)
	if err != nil {
		return nil, err
	}
	ops := make([][]change, len(m.keys))
	var disputed []string
	for _, name := range names {
		h := held[name]
		winner, differ := m.winner(h, len(everywhere[name]) > 0)
		for k := range m.keys {
			ops[k] = append(ops[k], replacing(h[0][k], h[winner][k])...)
		}
		if differ {
			disputed = append(disputed, name)
			m.conflicts = append(m.conflicts, Conflict{Component: m.keys[0].Component, Name: name, Taken: m.members[winner].position})
		}
	}
	if everywhere, err = m.inShared(disputed, shared); err != nil {
		return nil, err
	}
	for i := range m.conflicts {
		c := &m.conflicts[i]
		c.Versions = make([][]string, m.all)
		for j, member := range m.members {
			c.Versions[member.position] = slices.Compact(versions(append(held[c.Name][j], everywhere[c.Name])))
		}
	}
	return ops, nil
}

// shared returns the chunks that all members have in an index.
func (m *merger) shared(k int) map[ID]bool {
	count := make(map[ID]int)
	for _, member := range m.members {
		for _, ref := range member.indices[k].Chunks {
			count[ref.ID]++
		}
	}
	shared := make(map[ID]bool)
	for id, n := range count {
		if n == len(m.members) {
			shared[id] = true
		}
	}
	return shared
}

// read opens the chunks of an index that not all members share.
func (m *merger) read(k int, shared map[ID]bool, held map[string]possession) error {
	opened := make(map[ID][]Package)
	for i, member := range m.members {
		for _, ref := range member.indices[k].Chunks {
			if shared[ref.ID] {
				continue
			}
			packages, ok := opened[ref.ID]
			if !ok {
				var err error
				if packages, err = OpenChunk(m.ctx, m.chunks, ref); err != nil {
					return err
				}
				opened[ref.ID] = packages
			}
			for _, p := range packages {
				h := held[p.Name]
				if h == nil {
					h = make(possession, len(m.members))
					for j := range h {
						h[j] = make([][]Package, len(m.keys))
					}
					held[p.Name] = h
				}
				h[i][k] = append(h[i][k], p)
			}
		}
	}
	return nil
}

// inShared returns what of names is in chunks that all members share: for
// another architecture, or in other versions.
func (m *merger) inShared(names []string, shared []map[ID]bool) (map[string][]Package, error) {
	found := make(map[string][]Package)
	for k := range m.keys {
		var last ID
		var packages []Package
		for _, name := range names {
			for _, ref := range m.members[0].indices[k].holding(name) {
				if !shared[k][ref.ID] {
					continue
				}
				if ref.ID != last {
					var err error
					if packages, err = OpenChunk(m.ctx, m.chunks, ref); err != nil {
						return nil, err
					}
					last = ref.ID
				}
				found[name] = append(found[name], named(packages, name)...)
			}
		}
	}
	return found, nil
}

// winner returns the member that a name is taken from, and whether those that
// have it differ. everywhere says that all members have it.
func (m *merger) winner(h possession, everywhere bool) (winner int, differ bool) {
	winner = -1
	for i := range h {
		switch {
		case !everywhere && isEmpty(h[i]):
		case winner < 0:
			winner = i
		case !h.alike(winner, i):
			differ = true
			if m.rule == Latest && slices.CompareFunc(versions(h[i]), versions(h[winner]), deb.Compare) > 0 {
				winner = i
			}
		}
	}
	return winner, differ
}

// isEmpty tells whether a member has a name in none of the keys.
func isEmpty(byKey [][]Package) bool {
	return !slices.ContainsFunc(byKey, func(packages []Package) bool { return len(packages) > 0 })
}

// alike tells whether two members have the same of a name.
func (h possession) alike(i, j int) bool {
	for k := range h[i] {
		if !slices.EqualFunc(h[i][k], h[j][k], isSame) {
			return false
		}
	}
	return true
}

// allAlike tells whether all members have the same of a name.
func (h possession) allAlike() bool {
	for i := 1; i < len(h); i++ {
		if !h.alike(0, i) {
			return false
		}
	}
	return true
}

// isSame tells whether two packages are one entry of an index.
func isSame(p, q Package) bool { return string(p.Stanza) == string(q.Stanza) }

// versions lists the versions of what a member has of a name, from the highest
// down. A package for all counts once. What all members share in other chunks
// is in both or in none of two such lists and does not change their order.
func versions(byKey [][]Package) []string {
	seen := make(map[Ref]bool)
	var versions []string
	for _, packages := range byKey {
		for _, p := range packages {
			if !seen[p.Ref()] {
				seen[p.Ref()] = true
				versions = append(versions, p.Version)
			}
		}
	}
	slices.SortFunc(versions, func(a, b string) int { return cmp.Or(deb.Compare(b, a), cmp.Compare(b, a)) })
	return versions
}

// replacing returns the sorted changes to an index that put now, all that is
// to be there of a name, in the place of old.
func replacing(old, now []Package) []change {
	var ops []change
	for _, p := range old {
		if !slices.ContainsFunc(now, func(q Package) bool { return q.Version == p.Version }) {
			ops = append(ops, change{ref: p.Ref(), remove: removeAll | removeReal})
		}
	}
	for i, p := range now {
		if !slices.ContainsFunc(old, func(q Package) bool { return isSame(p, q) }) {
			ops = append(ops, change{ref: p.Ref(), put: &now[i], remove: removeAll | removeReal})
		}
	}
	slices.SortFunc(ops, func(a, b change) int { return a.ref.compare(b.ref) })
	return ops
}
