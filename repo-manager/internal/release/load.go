package release

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// load reads one pipeline from the store. Rows of stages and snapshots repeat
// what moves, bases and the published tree say; where they are lost or altered,
// the pipeline works with what those say, and Check names the rows.
func (e *Engine) load(ctx context.Context, p Pipeline) (*line, error) {
	l := &line{Pipeline: p}
	var err error
	if l.standings, err = e.loadStandings(ctx, p); err != nil {
		return nil, err
	}
	if l.snapshots, err = e.loadSnapshots(ctx, p.Name); err != nil {
		return nil, err
	}
	newest, err := e.Store.Moves(ctx, p.Name, "", 1)
	if err != nil {
		return nil, err
	}
	if len(newest) == 1 {
		l.lastMove = newest[0].Seq
	}
	for i := range l.standings {
		s := &l.standings[i]
		l.lastMove = max(l.lastMove, s.Standing) // the newest move may be lost
		var state snapshots.State
		if !s.Offer.State.IsZero() {
			if state, err = e.loadState(ctx, p, *s); err != nil {
				return nil, err
			}
			s.Packages = state.Count()
		}
		l.states = append(l.states, state)
	}
	if len(l.states) == 0 {
		return nil, errors.New("the database names no stage of it")
	}
	return l, nil
}

// loadState reads what a stage offers. A text that is lost is made again: a
// server that does not start cannot repair anything.
func (e *Engine) loadState(ctx context.Context, p Pipeline, s Standing) (snapshots.State, error) {
	state, err := snapshots.Load(ctx, e.Chunks, s.Offer.State)
	if err == nil {
		return state, nil
	}
	bases, listErr := e.Store.Bases(ctx, p.Name)
	if listErr != nil {
		return snapshots.State{}, errors.Join(err, listErr)
	}
	of := publish.Base{Pipeline: p.Name, Distribution: p.Distribution}
	places := []publish.ExpectedBase{{Base: of, Dir: s.Name, State: s.Offer.State}}
	for _, b := range bases {
		places = append(places, publish.ExpectedBase{Base: of, Dir: b.Dir, State: b.State, Signed: b.signed()})
	}
	if restoreErr := e.Publisher.RestoreState(ctx, places, s.Offer.State); restoreErr != nil {
		return snapshots.State{}, errors.Join(err, restoreErr)
	}
	e.Log.Warn("the text of a state was lost and is made again", "pipeline", p.Name, "stage", s.Name, "state", s.Offer.State, "error", err)
	return snapshots.Load(ctx, e.Chunks, s.Offer.State)
}

// loadStandings reads the stages of a pipeline. A stage's last move says what it
// offers; its row says so too, and what it was signed with.
func (e *Engine) loadStandings(ctx context.Context, p Pipeline) ([]Standing, error) {
	rows, err := e.Store.Standings(ctx, p.Name)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 && len(p.Stages) == 0 {
		return nil, nil
	}
	var standings []Standing
	for position, name := range p.Stages {
		row := Standing{Stage: Stage{Pipeline: p.Name, Name: name}}
		if at := slices.IndexFunc(rows, func(s Standing) bool { return s.Name == name }); at >= 0 {
			row = rows[at]
		}
		row.Position = position
		moves, err := e.Store.Moves(ctx, p.Name, name, 1)
		if err != nil {
			return nil, err
		}
		if len(moves) == 1 {
			row = e.agree(p, row, moves[0])
		}
		standings = append(standings, row)
	}
	return standings, nil
}

// agree returns the row of a stage as it should be beside its last move. If the
// two differ, the stage's InRelease says which is right.
func (e *Engine) agree(p Pipeline, row Standing, last Move) Standing {
	same := row.follows(last)
	var published publish.ReleaseFields
	base := publish.Base{Pipeline: p.Name, Distribution: p.Distribution}
	signed, err := e.Publisher.Published(base, row.Name)
	if err == nil {
		published = publish.ParseRelease(signed.Text)
	}
	modified := later(row.Modified, e.Publisher.Modified(base, row.Name))
	if !same && (row.Offer.State.IsZero() || row.Offer.State != published.State || last.To.State == published.State) {
		e.Log.Warn("the row of a stage does not say what its last move does; repo-manager check tells more", "pipeline", p.Name, "stage", row.Name)
		row.Offer, row.Since, row.By, row.Reason, row.Standing = last.To, last.At, last.By, last.Reason, last.Seq
	}
	switch {
	case published.State == row.Offer.State && (row.Date.IsZero() || published.Date.After(row.Date)):
		row.Date, row.ValidUntil, row.Modified = published.Date, published.ValidUntil, modified
		row.Archive, _, _ = strings.Cut(published.Snapshots, "/"+p.Name+"/snapshots/")
	case row.Date.IsZero() || published.Date.After(row.Date) || published.State != row.Offer.State && modified.After(row.Modified):
		// Clients have seen what is published: the database was restored from a
		// backup that is older than the tree, or the row is lost.
		row.Date, row.Modified = nextDate(later(row.Date, published.Date), last.At), nextModified(modified, last.At)
		row.ValidUntil = row.Date.Add(e.ValidFor)
	}
	return row
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// follows tells whether a stage stands where its last move left it.
func (s Standing) follows(last Move) bool {
	return s.Offer == last.To && s.Standing == last.Seq && s.Since.Equal(last.At) && s.By == last.By && s.Reason == last.Reason
}

// loadSnapshots reads the snapshots of a pipeline. Each has a base of its own,
// whose signed Release names the snapshot and its state.
func (e *Engine) loadSnapshots(ctx context.Context, pipeline string) ([]Snapshot, error) {
	rows, err := e.Store.Snapshots(ctx, pipeline)
	if err != nil {
		return nil, err
	}
	bases, err := e.Store.Bases(ctx, pipeline)
	if err != nil {
		return nil, err
	}
	found := make(map[string]bool)
	for _, b := range bases {
		id, is := strings.CutPrefix(b.Dir, "snapshots/")
		if !is {
			continue
		}
		at := slices.IndexFunc(rows, func(s Snapshot) bool { return s.ID == id })
		if at >= 0 && rows[at].State == b.State {
			found[id] = true
			continue
		}
		text, err := e.Publisher.VerifyPart(*b.signed())
		fields := publish.ParseRelease(text)
		if err != nil || fields.Snapshot != id || fields.Pipeline != pipeline {
			continue
		}
		found[id] = true
		if at >= 0 {
			rows[at].State = fields.State
			continue
		}
		again, err := e.rebuildSnapshot(ctx, pipeline, fields)
		if err != nil {
			return nil, err
		}
		rows = append(rows, again)
	}
	// A row whose id was altered has no base, and what it was has been found.
	all := slices.Clone(rows)
	rows = slices.DeleteFunc(rows, func(s Snapshot) bool {
		return !found[s.ID] && slices.ContainsFunc(all, func(o Snapshot) bool { return found[o.ID] && o.State == s.State && o.Created.Equal(s.Created) })
	})
	for i, s := range rows {
		if state, err := snapshots.Load(ctx, e.Chunks, s.State); err == nil {
			rows[i].Packages = state.Count()
		}
	}
	slices.SortFunc(rows, func(a, b Snapshot) int { return strings.Compare(a.ID, b.ID) })
	return rows, nil
}

// rebuildSnapshot makes the row of a snapshot from its Release and the audit
// trail. Its labels are lost.
func (e *Engine) rebuildSnapshot(ctx context.Context, pipeline string, fields publish.ReleaseFields) (Snapshot, error) {
	s := Snapshot{ID: fields.Snapshot, Pipeline: pipeline, State: fields.State, Created: fields.Date}
	acts, err := e.Store.Acts(ctx, pipeline, 0)
	if err != nil {
		return s, err
	}
	for _, act := range acts { // newest first: the act that named it is the last of them
		switch {
		case act.Verb == "name" && act.Object == "snapshot "+s.ID:
			s.By, s.Created, s.Note = act.By, act.At, act.Detail
		case act.Verb == "promote" && (act.Detail == s.ID || strings.HasPrefix(act.Detail, s.ID+":")):
			s.By, s.Created, s.Note = act.By, act.At, "named by its promotion to "+strings.TrimPrefix(act.Object, "stage ")
		}
	}
	e.Log.Warn("the row of a snapshot is lost; repo-manager check tells more", "pipeline", pipeline, "snapshot", s.ID)
	return s, nil
}
