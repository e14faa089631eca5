package release

import (
	"context"
	"slices"
	"strings"

	"aptfleet/internal/faultpoint"
	"aptfleet/snapshots"
)

// snapshotFormat is the form of a snapshot's id: a UTC time to the second.
const snapshotFormat = "20060102T150405Z"

// Stages lists the stages of a pipeline in order of promotion.
func (e *Engine) Stages(_ context.Context, pipeline string) ([]Stage, error) {
	l, err := e.line(pipeline)
	if err != nil {
		return nil, err
	}
	stages := make([]Stage, len(l.standings))
	for i, s := range l.standings {
		stages[i] = s.Stage
		stages[i].Offer = l.offer(i)
	}
	return stages, nil
}

// History lists the moves of a stage, newest first.
func (e *Engine) History(ctx context.Context, pipeline, stage string) ([]Move, error) {
	l, err := e.line(pipeline)
	if err != nil {
		return nil, err
	}
	if _, err := l.position(stage); err != nil {
		return nil, err
	}
	moves, err := e.Store.Moves(ctx, pipeline, stage, 0)
	if err != nil {
		return nil, because(err, "cannot read the history of stage %s", stage)
	}
	return moves, nil
}

// Resolve finds what ref names in a pipeline: a stage, a snapshot by its id or
// a unique prefix of it, or a state by its full id; "snapshot:" and "state:"
// may precede an id. An empty ref is the newest state.
func (e *Engine) Resolve(ctx context.Context, pipeline, ref string) (Offer, error) {
	l, err := e.line(pipeline)
	if err != nil {
		return Offer{}, err
	}
	offer, _, err := e.resolve(ctx, l, ref)
	return offer, err
}

func (e *Engine) resolve(ctx context.Context, l *line, ref string) (Offer, snapshots.State, error) {
	if ref == "" {
		return l.offer(0), l.head(), nil
	}
	for i, s := range l.standings {
		if s.Name != ref {
			continue
		}
		if s.Offer.State.IsZero() {
			return Offer{}, snapshots.State{}, fail(NotFound, "promote something to it first", "cannot use stage %s: it offers nothing yet", ref)
		}
		return l.offer(i), l.states[i], nil
	}
	offer, err := e.resolveID(ctx, l, ref)
	if err != nil {
		return Offer{}, snapshots.State{}, err
	}
	state, err := snapshots.Load(ctx, e.Chunks, offer.State)
	if err != nil {
		return Offer{}, snapshots.State{}, because(err, "cannot use %s", ref)
	}
	return offer, state, nil
}

func (e *Engine) resolveID(ctx context.Context, l *line, ref string) (Offer, error) {
	id := strings.TrimPrefix(ref, "state:")
	if state, err := snapshots.ParseID(id); err == nil {
		known, err := e.Store.HasBase(ctx, l.Name, "states/"+id)
		if err != nil {
			return Offer{}, because(err, "cannot look up state %s", id)
		}
		if !known && l.nameOf(state) == "" {
			return Offer{}, fail(NotFound, "", "cannot find state %s: pipeline %s never had it, or does not keep it any more", id, l.Name)
		}
		return Offer{state, l.nameOf(state)}, nil
	}
	prefix := strings.TrimPrefix(ref, "snapshot:")
	var found []Snapshot
	for _, s := range l.snapshots {
		if s.ID == prefix {
			return Offer{s.State, s.ID}, nil
		}
		if prefix != "" && strings.HasPrefix(s.ID, prefix) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 1:
		return Offer{found[0].State, found[0].ID}, nil
	case 0:
		return Offer{}, fail(NotFound, "repo-manager snapshot list", "cannot find %q: pipeline %s has no snapshot, stage or state of that name", ref, l.Name)
	}
	return Offer{}, fail(Invalid, "give more of its id", "cannot tell which snapshot %q is: %s and %s begin like that", ref, found[0].ID, found[1].ID)
}

// offer is what a stage offers, by its newest name.
func (l *line) offer(position int) Offer {
	o := l.standings[position].Offer
	if o.Snapshot == "" {
		o.Snapshot = l.nameOf(o.State)
	}
	return o
}

func (l *line) position(stage string) (int, error) {
	i := slices.IndexFunc(l.standings, func(s Standing) bool { return s.Name == stage })
	if i < 0 {
		return 0, fail(NotFound, "repo-manager stage list", "cannot find stage %q: pipeline %s has %s", stage, l.Name, strings.Join(l.Stages, ", "))
	}
	return i, nil
}

// Diff lists what separates two refs (see Resolve). from may be the name of a
// stage that offers nothing yet: then everything is new.
func (e *Engine) Diff(ctx context.Context, pipeline, from, to string) (a, b Offer, differences []snapshots.Difference, err error) {
	l, err := e.line(pipeline)
	if err != nil {
		return a, b, nil, err
	}
	var before, after snapshots.State
	if i, err := l.position(from); err != nil || !l.standings[i].Offer.State.IsZero() {
		if a, before, err = e.resolve(ctx, l, from); err != nil {
			return a, b, nil, err
		}
	}
	if b, after, err = e.resolve(ctx, l, to); err != nil {
		return a, b, nil, err
	}
	differences, err = snapshots.Diff(ctx, e.Chunks, before, after)
	if err != nil {
		err = because(err, "cannot compare %s with %s", from, to)
	}
	return a, b, differences, err
}

// Promote makes a stage offer what ref names (see Resolve); a state without a
// name is given one. If expect is not nil and the stage no longer offers that
// state (the zero ID: nothing), nothing happens and the error is a Conflict
// that says what moved. A stage that offers the state already stays as it is,
// and the Move has Seq 0; so has the Move of a dry run, which only tells what
// would happen. The first stage follows uploads and is Refused.
func (e *Engine) Promote(ctx context.Context, a Actor, pipeline, ref, to, reason string, expect *snapshots.ID, dryRun bool) (Move, error) {
	if err := mustBeShort("promote to stage "+to, "reason", reason); err != nil {
		return Move{}, err
	}
	var move Move
	err := e.do(&job{ctx: ctx, pipeline: pipeline, stage: to, act: func(ctx context.Context) error {
		l, err := e.line(pipeline)
		if err != nil {
			return err
		}
		position, err := l.movable(to, "promote to", "upload a package, or promote to a later stage")
		if err != nil {
			return err
		}
		offer, state, err := e.resolve(ctx, l, ref)
		if err != nil {
			return err
		}
		standing := l.standings[position]
		if err := standing.mustOffer(expect, "promote "+ref+" to"); err != nil {
			return err
		}
		move = Move{Pipeline: pipeline, Stage: to, Kind: MovePromote, From: l.offer(position), To: offer, By: a.Name, Reason: reason}
		switch {
		case dryRun:
			return nil
		case standing.Offer.State == offer.State:
			return e.catchUp(ctx, l)
		}
		t := e.turn("promote", l)
		if offer.Snapshot == "" {
			snapshot, err := t.name(ctx, a, state, "named by its promotion to "+to, nil)
			if err != nil {
				return err
			}
			offer.Snapshot = snapshot.ID
		}
		made := t.move(position, MovePromote, offer, state, a.Name, reason, standing.Standing)
		t.act(a, "promote", "stage "+to, detail(offer.Snapshot, reason))
		faultpoint.Hit("promote:decided")
		if err := t.commit(ctx); err != nil {
			return err
		}
		move = made
		return nil
	}})
	return move, err
}

// Undo makes a stage offer again what it offered before its current offer was
// promoted. Undo once more goes further back, never forward. expect is that
// of Promote. A stage that offered nothing before is Refused.
func (e *Engine) Undo(ctx context.Context, a Actor, pipeline, stage, reason string, expect *snapshots.ID) (Move, error) {
	if err := mustBeShort("undo stage "+stage, "reason", reason); err != nil {
		return Move{}, err
	}
	var move Move
	err := e.do(&job{ctx: ctx, pipeline: pipeline, stage: stage, act: func(ctx context.Context) error {
		l, err := e.line(pipeline)
		if err != nil {
			return err
		}
		position, err := l.movable(stage, "undo", "to bring an older version back: repo-manager package add --allow-older")
		if err != nil {
			return err
		}
		standing := l.standings[position]
		if err := standing.mustOffer(expect, "undo"); err != nil {
			return err
		}
		target, err := e.below(ctx, standing)
		if err != nil {
			return err
		}
		state, err := snapshots.Load(ctx, e.Chunks, target.To.State)
		if err != nil {
			return because(err, "cannot undo stage %s", stage)
		}
		t := e.turn("undo", l)
		made := t.move(position, MoveUndo, target.To, state, a.Name, reason, target.Over)
		t.act(a, "undo", "stage "+stage, detail(target.To.Snapshot, reason))
		if err := t.commit(ctx); err != nil {
			return err
		}
		move = made
		return nil
	}})
	return move, err
}

// below finds the move that an undo of a stage goes back to.
func (e *Engine) below(ctx context.Context, s Standing) (Move, error) {
	nothing := fail(Refused, "repo-manager stage history "+s.Name, "cannot undo stage %s: it offered nothing before", s.Name)
	if s.Standing == 0 {
		return Move{}, nothing
	}
	current, ok, err := e.Store.Move(ctx, s.Pipeline, s.Standing)
	if err != nil || !ok {
		return Move{}, because(err, "cannot undo stage %s: cannot read move %d", s.Name, s.Standing)
	}
	if current.Over == 0 {
		return Move{}, nothing
	}
	target, ok, err := e.Store.Move(ctx, s.Pipeline, current.Over)
	if err != nil || !ok {
		return Move{}, because(err, "cannot undo stage %s: cannot read move %d", s.Name, current.Over)
	}
	return target, nil
}

// movable finds a stage that people may move.
func (l *line) movable(stage, verb, hint string) (int, error) {
	position, err := l.position(stage)
	if err != nil {
		return 0, err
	}
	if position == 0 {
		return 0, fail(Refused, hint, "cannot %s stage %s: it always offers the newest state", verb, stage)
	}
	return position, nil
}

// mustOffer is the check behind expect.
func (s Standing) mustOffer(expect *snapshots.ID, verb string) error {
	if expect == nil || *expect == s.Offer.State {
		return nil
	}
	now := "nothing"
	switch {
	case s.Offer.Snapshot != "":
		now = "snapshot " + s.Offer.Snapshot
	case !s.Offer.State.IsZero():
		now = "state " + s.Offer.State.String()
	}
	since := ""
	if !s.Since.IsZero() {
		since = " since " + s.Since.Format("15:04:05 UTC on 2006-01-02") + ", by " + s.By
	}
	return fail(Conflict, "look again at what would change, then repeat",
		"cannot %s stage %s: it moved meanwhile and offers %s%s", verb, s.Name, now, since)
}

// detail is the snapshot and the reason of an act.
func detail(snapshot, reason string) string {
	if reason == "" {
		return snapshot
	}
	return snapshot + ": " + reason
}
