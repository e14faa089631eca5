package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"aptfleet/snapshots"
)

// Naming is what a state that is made from others is named with.
type Naming struct {
	Note   string // "" says how it was made
	Labels []string
	DryRun bool // only tell what would be made
}

// Composed is a state that was made from others of its pipeline.
type Composed struct {
	Snapshot    Snapshot // its id is "" in a dry run
	Base        Offer    // the first of the states it was made from
	Differences []snapshots.Difference
	Conflicts   []snapshots.Conflict // that the rule of a merge decided
	Picked      []string             // names that came from the other state
	Unmet       []snapshots.Unmet    // what a pick with dependencies could not find
}

// Merge makes one state of what refs name (see Resolve), as snapshots.Merge
// does by its rule, and names it. Conflicts under the rule Refuse are a
// Conflict that names the first few. The states and stages that it is made
// from stay as they are.
func (e *Engine) Merge(ctx context.Context, a Actor, pipeline string, refs []string, rule snapshots.Rule, naming Naming) (Composed, error) {
	if len(refs) < 2 {
		return Composed{}, fail(Invalid, "repo-manager snapshot merge --help", "cannot merge: it takes two states or more")
	}
	return e.compose(ctx, a, pipeline, "merge", refs, naming, func(ctx context.Context, w workshop) (made, error) {
		state, conflicts, err := snapshots.Merge(ctx, w.chunks, rule, w.states...)
		var refused *snapshots.ConflictError
		if errors.As(err, &refused) {
			return made{}, fail(Conflict, "decide with --on-conflict latest, or with --on-conflict first for what stands first",
				"cannot merge %s: %s", strings.Join(refs, ", "), conflictText(refused.Conflicts, refs))
		}
		if err != nil {
			return made{}, because(err, "cannot merge %s", strings.Join(refs, ", "))
		}
		how := "merge of " + strings.Join(w.names, ", ")
		switch rule {
		case snapshots.Latest:
			how += "; the latest versions"
		case snapshots.First:
			how += "; the first goes before"
		}
		return made{state: state, how: how, composed: Composed{Conflicts: conflicts}}, nil
	})
}

// conflictText tells the first few conflicts: "2 packages differ: hello of
// apps (1.0 in canary, 2.0 in dev), …".
func conflictText(conflicts []snapshots.Conflict, refs []string) string {
	const shown = 3
	var told []string
	for _, c := range conflicts[:min(shown, len(conflicts))] {
		var held []string
		different := false
		last := ""
		for i, versions := range c.Versions {
			if versions == nil {
				continue
			}
			list := strings.Join(versions, " and ")
			held = append(held, list+" in "+refs[i])
			different = different || last != "" && last != list
			last = list
		}
		text := fmt.Sprintf("%s of %s (%s", c.Name, c.Component, strings.Join(held, ", "))
		if !different {
			text += ", but not the same"
		}
		told = append(told, text+")")
	}
	text := strings.Join(told, ", ")
	if more := len(conflicts) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	if len(conflicts) == 1 {
		return "one package differs: " + text
	}
	return fmt.Sprintf("%d packages differ: %s", len(conflicts), text)
}

// Pick puts packages of one state onto another, as snapshots.Pick does, and
// names the result. Names that the other state does not have are NotFound.
func (e *Engine) Pick(ctx context.Context, a Actor, pipeline, base, from string, names []string, dependencies bool, naming Naming) (Composed, error) {
	if len(names) == 0 {
		return Composed{}, fail(Invalid, "repo-manager snapshot pick --help", "cannot pick: it takes the name of a package or more")
	}
	return e.compose(ctx, a, pipeline, "pick", []string{base, from}, naming, func(ctx context.Context, w workshop) (made, error) {
		picked, err := snapshots.Pick(ctx, w.chunks, w.states[0], w.states[1], names, dependencies)
		var missing *snapshots.MissingError
		if errors.As(err, &missing) {
			return made{}, fail(NotFound, "repo-manager package list --in "+from,
				"cannot pick %s: %s has no package of that name", strings.Join(missing.Names, ", "), from)
		}
		if err != nil {
			return made{}, because(err, "cannot pick from %s", from)
		}
		how := fmt.Sprintf("%s from %s onto %s", summary(picked.Names), w.names[1], w.names[0])
		return made{state: picked.State, how: how, composed: Composed{Picked: picked.Names, Unmet: picked.Unmet}}, nil
	})
}

// FilterState names the state that has of ref what a query takes. A query that
// cannot be read is Invalid.
func (e *Engine) FilterState(ctx context.Context, a Actor, pipeline, ref, text string, naming Naming) (Composed, error) {
	if text == "" {
		return Composed{}, fail(Invalid, "repo-manager snapshot filter --help", "cannot filter %s: the query is empty", ref)
	}
	query, err := readQuery("filter "+ref, text)
	if err != nil {
		return Composed{}, err
	}
	return e.compose(ctx, a, pipeline, "filter", []string{ref}, naming, func(ctx context.Context, w workshop) (made, error) {
		state, err := snapshots.Filter(ctx, w.chunks, w.states[0], query)
		if err != nil {
			return made{}, because(err, "cannot filter %s", ref)
		}
		return made{state: state, how: fmt.Sprintf("%s of %s", query, w.names[0])}, nil
	})
}

// workshop is what a state is made from.
type workshop struct {
	chunks snapshots.Chunks
	states []snapshots.State
	names  []string // of the states, for people
}

// made is the state that was made, and how, for people.
type made struct {
	state    snapshots.State
	how      string
	composed Composed
}

// compose makes a state of what refs name and names it.
//
// States never change, so it is made beside the writer, which others need: a
// large merge holds up no upload. What it writes is held in memory until the
// writer's turn. So a dry run, and whoever gives up or fails, leaves nothing
// behind; and between the writing and the commit that refers to it no other
// act comes that could take unreferenced blobs away.
func (e *Engine) compose(ctx context.Context, a Actor, pipeline, verb string, refs []string, naming Naming, work func(context.Context, workshop) (made, error)) (Composed, error) {
	if err := mustBeName(verb, naming.Note, naming.Labels); err != nil {
		return Composed{}, err
	}
	l, err := e.line(pipeline)
	if err != nil {
		return Composed{}, err
	}
	staged := &snapshots.Staged{Below: e.Chunks}
	w := workshop{chunks: staged}
	var offers []Offer
	for _, ref := range refs {
		offer, state, err := e.resolve(ctx, l, ref)
		if err != nil {
			return Composed{}, err
		}
		offers = append(offers, offer)
		w.states = append(w.states, state)
		w.names = append(w.names, offer.name())
	}
	m, err := work(ctx, w)
	if err != nil {
		return Composed{}, err
	}
	c := m.composed
	c.Base = offers[0]
	if c.Differences, err = snapshots.Diff(ctx, staged, w.states[0], m.state); err != nil {
		return Composed{}, because(err, "cannot %s: cannot compare the result with %s", verb, refs[0])
	}
	note := naming.Note
	if note == "" {
		note = shorten(m.how)
	}
	c.Snapshot = Snapshot{
		Pipeline: pipeline, State: m.state.ID(), Labels: slices.Clone(naming.Labels), Note: note, By: a.Name, Packages: m.state.Count(),
	}
	if naming.DryRun {
		return c, nil
	}
	err = e.do(&job{ctx: ctx, pipeline: pipeline, act: func(ctx context.Context) error {
		l, err := e.line(pipeline)
		if err != nil {
			return err
		}
		for i, offer := range offers {
			// Its chunks are there as long as it is.
			if _, err := e.resolveID(ctx, l, offer.State.String()); err != nil {
				return because(err, "cannot %s: cannot use %s any more", verb, refs[i])
			}
		}
		if err := staged.Write(ctx); err != nil {
			return because(err, "cannot %s: cannot store the result", verb)
		}
		t := e.turn("snapshot", l)
		if err := t.ownBase(ctx, m.state); err != nil {
			return err
		}
		snapshot, err := t.name(ctx, a, m.state, note, c.Snapshot.Labels)
		if err != nil {
			return err
		}
		t.act(a, verb, "snapshot "+snapshot.ID, shorten(m.how))
		if err := t.commit(ctx); err != nil {
			return err
		}
		c.Snapshot = snapshot
		return nil
	}})
	if err != nil {
		return Composed{}, err
	}
	return c, nil
}

// name is what people call an offer.
func (o Offer) name() string {
	if o.Snapshot != "" {
		return o.Snapshot
	}
	return "state " + o.State.String()[:12]
}

// shorten keeps a text that was made to the length of one that people write.
func shorten(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
