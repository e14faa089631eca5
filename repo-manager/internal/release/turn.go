package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"aptfleet/internal/faultpoint"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// turn gathers what one act, or one batch of edits, does to a pipeline, and
// then makes it durable and visible, in that order.
type turn struct {
	e      *Engine
	kind   string // names the fault points: "upload", "promote", …
	now    time.Time
	line   *line // as it will stand
	batch  Batch
	fixed  []fixedBase
	stages map[int]bool // positions to publish
	events []Event
}

type fixedBase struct {
	dir    string
	state  snapshots.State
	signed publish.Signed
}

// unpublished is the error of an act that is durable and not yet visible.
func unpublished(pipeline string, err error) error {
	text := fmt.Sprintf("cannot publish pipeline %s yet: what was done is recorded and will be published as soon as possible", pipeline)
	if isFull(err) {
		text += "; no space left on the disk of the data directory"
	}
	return &Error{Code: Unpublished, Text: text, Hint: "it need not be repeated; repo-manager check names what is not visible yet, the server's log what is in the way", Err: err}
}

func isUnpublished(err error) bool { return CodeOf(err) == Unpublished }

func (e *Engine) turn(kind string, l *line) *turn {
	return &turn{e: e, kind: kind, now: e.now(), line: l.clone(), stages: make(map[int]bool)}
}

// act adds a line to the audit trail.
func (t *turn) act(a Actor, verb, object, detail string) {
	t.batch.Acts = append(t.batch.Acts, Act{At: t.now, By: a.Name, Via: a.Via, Verb: verb, Pipeline: t.line.Name, Object: object, Detail: detail})
}

func (t *turn) event(kind, subject string) {
	t.events = append(t.events, Event{Kind: kind, Pipeline: t.line.Name, Subject: subject, At: t.now})
}

// name gives a state its id: the next free second.
func (t *turn) name(ctx context.Context, a Actor, state snapshots.State, note string, labels []string) (Snapshot, error) {
	second := t.now.Truncate(time.Second)
	newest := t.line.Deleted
	if n := len(t.line.snapshots); n > 0 {
		newest = max(newest, t.line.snapshots[n-1].ID)
	}
	if newest != "" {
		last, err := time.Parse(snapshotFormat, newest)
		if err != nil {
			return Snapshot{}, fmt.Errorf("cannot read snapshot id: %w", err)
		}
		if !second.After(last) {
			second = last.Add(time.Second)
		}
	}
	s := Snapshot{
		ID: second.Format(snapshotFormat), Pipeline: t.line.Name, State: state.ID(), Labels: labels, Note: note,
		By: a.Name, Created: t.now, Packages: state.Count(),
	}
	if err := t.base(ctx, "snapshots/"+s.ID, state, s.ID); err != nil {
		return Snapshot{}, err
	}
	t.line.snapshots = append(t.line.snapshots, s)
	t.batch.Snapshots = append(t.batch.Snapshots, s)
	t.event("snapshot", s.ID)
	return s, nil
}

// base fixes the Release text and signatures of a base, now and for ever.
func (t *turn) base(ctx context.Context, dir string, state snapshots.State, snapshot string) error {
	text, err := t.e.Publisher.ReleaseText(ctx, t.line.base(state), state, publish.Meta{Snapshot: snapshot, Date: t.now.Truncate(time.Second)})
	if err != nil {
		return because(err, "cannot write the Release of %s", dir)
	}
	signed, err := t.e.Publisher.Sign(text)
	if err != nil {
		return because(err, "cannot sign the Release of %s", dir)
	}
	t.fixed = append(t.fixed, fixedBase{dir, state, signed})
	t.batch.Bases = append(t.batch.Bases, Base{
		Pipeline: t.line.Name, Dir: dir, State: state.ID(), Text: signed.Text, InRelease: signed.InRelease, Signature: signed.Gpg,
	})
	return nil
}

// ownBase gives a state a base of its own, unless the pipeline had the same
// content before. It is what a device goes to that was told the state's id.
func (t *turn) ownBase(ctx context.Context, state snapshots.State) error {
	dir := "states/" + state.ID().String()
	known, err := t.e.Store.HasBase(ctx, t.line.Name, dir)
	if err != nil {
		return because(err, "cannot look for %s", dir)
	}
	if known {
		return nil
	}
	return t.base(ctx, dir, state, "")
}

// follow makes the first stage offer a new head, which gets a base of its own.
func (t *turn) follow(ctx context.Context, by, reason string, head snapshots.State) error {
	if err := t.ownBase(ctx, head); err != nil {
		return err
	}
	over := t.line.standings[0].Standing
	t.move(0, MovePublish, Offer{head.ID(), t.line.nameOf(head.ID())}, head, by, reason, over)
	return nil
}

// move makes a stage offer something else. over is what an undo of this move
// goes back to.
func (t *turn) move(position int, kind MoveKind, to Offer, state snapshots.State, by, reason string, over int64) Move {
	s := &t.line.standings[position]
	t.line.lastMove++
	m := Move{
		Seq: t.line.lastMove, Pipeline: t.line.Name, Stage: s.Name, Kind: kind, From: s.Offer, To: to,
		By: by, Reason: reason, At: t.now, Over: over,
	}
	t.batch.Moves = append(t.batch.Moves, m)
	s.Offer, s.Since, s.By, s.Reason, s.Packages, s.Standing = to, t.now, by, reason, state.Count(), m.Seq
	t.line.states[position] = state
	t.publish(position)
	t.event("stage", s.Name)
	return m
}

// publish has a stage published with a new Date.
func (t *turn) publish(position int) {
	if t.stages[position] {
		return
	}
	t.stages[position] = true
	s := &t.line.standings[position]
	s.Date, s.Modified = nextDate(s.Date, t.now), nextModified(s.Modified, t.now)
	s.ValidUntil = s.Date.Add(t.e.ValidFor)
	s.Archive = t.e.Archive
}

// commit makes everything durable, then visible. After an error that is not
// Unpublished nothing has happened.
func (t *turn) commit(ctx context.Context) error {
	for position := range t.line.standings {
		if t.stages[position] {
			t.batch.Standings = append(t.batch.Standings, t.line.standings[position])
		}
	}
	faultpoint.Hit(t.kind + ":chunks-written")
	if err := t.e.sync(); err != nil {
		return because(err, "cannot sync the data directory")
	}
	faultpoint.Hit(t.kind + ":synced")
	t.e.collector.note(t.batch)
	if err := t.e.Store.Commit(ctx, t.batch); err != nil {
		t.e.reload(ctx, t.line.Name)
		return because(err, "cannot commit to the database")
	}
	faultpoint.Hit(t.kind + ":committed")
	t.e.setLine(t.line)
	err := t.show(ctx)
	for _, event := range t.events {
		t.e.hub.send(event.Kind, event.Pipeline, event.Subject, event.At)
	}
	if err != nil {
		t.e.unpublished[t.line.Name] = t.e.now().Add(retryAfter)
		t.e.Log.Error("cannot publish what is committed; will try again", "pipeline", t.line.Name, "error", err)
		return unpublished(t.line.Name, err)
	}
	return nil
}

// show publishes fixed bases before stages: a client that pins what a stage
// offers finds it.
func (t *turn) show(ctx context.Context) error {
	var updates []publish.Update
	for _, f := range t.fixed {
		updates = append(updates, publish.Update{Base: t.line.base(f.state), Dir: f.dir, State: f.state, Signed: &f.signed})
	}
	for position := range t.line.standings {
		if t.stages[position] {
			updates = append(updates, t.line.update(position))
		}
	}
	if err := t.e.Publisher.Publish(ctx, updates...); err != nil {
		return err
	}
	faultpoint.Hit(t.kind + ":published")
	return nil
}

// republish makes the tree of a pipeline what the database says. It is cheap
// where it is so already. What cannot be published does not keep the rest from
// it: a fixed base whose blobs are damaged must not stop the stages.
func (e *Engine) republish(ctx context.Context, l *line) error {
	bases, err := e.Store.Bases(ctx, l.Name)
	if err != nil {
		return err
	}
	var failed []error
	for _, b := range bases {
		failed = append(failed, e.republishBase(ctx, l, b))
	}
	for position, s := range l.standings {
		if !s.Offer.State.IsZero() {
			failed = append(failed, e.Publisher.Publish(ctx, l.update(position)))
		}
	}
	return errors.Join(failed...)
}

func (e *Engine) republishBase(ctx context.Context, l *line, b Base) error {
	state, err := snapshots.Load(ctx, e.Chunks, b.State)
	if err != nil {
		return err
	}
	return e.Publisher.Publish(ctx, publish.Update{Base: l.base(state), Dir: b.Dir, State: state, Signed: b.signed()})
}

// update is what the base of a stage should offer.
func (l *line) update(position int) publish.Update {
	s := l.standings[position]
	return publish.Update{Base: l.base(l.states[position]), Dir: s.Name, State: l.states[position], Meta: s.meta()}
}

// meta is what a stage's Release says beyond its indices.
func (s Standing) meta() publish.Meta {
	meta := publish.Meta{Suite: s.Name, Snapshot: s.Offer.Snapshot, Date: s.Date, ValidUntil: s.ValidUntil, Modified: s.Modified}
	if s.Archive != "" {
		meta.Snapshots = s.Archive + "/" + s.Pipeline + "/snapshots/@SNAPSHOTID@/"
	}
	return meta
}

// signed is the content of a fixed base.
func (b Base) signed() *publish.Signed {
	return &publish.Signed{Text: b.Text, InRelease: b.InRelease, Gpg: b.Signature}
}

// refresh republishes pipelines that could not be, and signs stages anew whose
// time runs out or whose archive has another URL. It returns when to look
// again.
func (e *Engine) refresh(ctx context.Context) time.Duration {
	next := time.Hour
	for _, l := range e.all() {
		next = min(next, e.retry(ctx, l))
		next = min(next, e.refreshLine(ctx, l))
	}
	return next
}

// retry publishes a pipeline that could not be, if it is time to, and returns
// when to look again.
func (e *Engine) retry(ctx context.Context, l *line) time.Duration {
	at, failed := e.unpublished[l.Name]
	if !failed {
		return time.Hour
	}
	if wait := at.Sub(e.now()); wait > 0 {
		return wait
	}
	if err := e.catchUp(ctx, l); err != nil {
		return retryAfter
	}
	return time.Hour
}

// catchUp publishes what is recorded of a pipeline and is not visible yet, now.
// Whoever repeats an upload or a promotion that was recorded is answered after it.
func (e *Engine) catchUp(ctx context.Context, l *line) error {
	if _, late := e.unpublished[l.Name]; !late {
		return nil
	}
	if err := e.republish(ctx, l); err != nil {
		e.Log.Error("cannot publish everything; repo-manager check tells more", "pipeline", l.Name, "error", err)
		e.unpublished[l.Name] = e.now().Add(retryAfter)
		return unpublished(l.Name, err)
	}
	delete(e.unpublished, l.Name)
	return nil
}

// refreshLine signs anew what has less than half of its time left.
func (e *Engine) refreshLine(ctx context.Context, l *line) time.Duration {
	t := e.turn("refresh", l)
	next := time.Hour
	for position, s := range l.standings {
		if s.Offer.State.IsZero() {
			continue
		}
		left := s.ValidUntil.Sub(t.now) - e.ValidFor/2
		if left > 0 && s.Archive == e.Archive {
			next = min(next, left)
			continue
		}
		if wait := s.ahead(t.now); wait > 0 {
			next = min(next, wait)
			continue
		}
		t.publish(position)
		next = min(next, max(e.ValidFor/2, time.Second))
	}
	if len(t.stages) == 0 {
		return next
	}
	if err := t.commit(ctx); err != nil {
		e.Log.Error("cannot refresh stages", "pipeline", l.Name, "error", err)
		return retryAfter
	}
	return next
}

// base is what all Release files of a pipeline share, with the components
// that a state has: those declared later do not change it.
func (l *line) base(state snapshots.State) publish.Base {
	var components []string
	for _, key := range state.Keys() {
		components = append(components, key.Component)
	}
	return publish.Base{
		Pipeline: l.Name, Distribution: l.Distribution, Architectures: l.Architectures,
		Components: slices.Compact(components), // keys are sorted
	}
}

// nameOf is the newest name of a state, or "".
func (l *line) nameOf(state snapshots.ID) string {
	for _, s := range slices.Backward(l.snapshots) {
		if s.State == state {
			return s.ID
		}
	}
	return ""
}

// keys lists the indices of a pipeline with these components.
func (l *line) keys(components ...Component) []snapshots.Key {
	var keys []snapshots.Key
	for _, c := range components {
		for _, a := range l.Architectures {
			keys = append(keys, snapshots.Key{Component: c.Name, Architecture: a})
		}
	}
	return keys
}
