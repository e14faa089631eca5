package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// logLines bounds the log of a change; the oldest lines go.
const logLines = 200

// saveEvery is how often the progress of a change is written down. Watchers
// see it at once.
const saveEvery = 2 * time.Second

// changes are the long acts under way.
type changes struct {
	ctx     context.Context // of all changes; ends when the server stops
	cancel  context.CancelCauseFunc
	mu      sync.Mutex
	running map[int64]*Progress // until their end is written down
	stopped bool
	wait    sync.WaitGroup
}

var (
	errAborted = errors.New("aborted")
	errStopped = errors.New("interrupted by a stop of the server")
)

// Progress is how a change tells how far it is. Its methods may be called
// concurrently.
type Progress struct {
	e      *Engine
	cancel context.CancelCauseFunc
	mu     sync.Mutex
	change Change
	saved  time.Time
}

// Total says how much there is to do, in unit.
func (p *Progress) Total(n int64, unit string) {
	p.update(func(c *Change) { c.Total, c.Unit = n, unit })
}

// Add says that n more are done.
func (p *Progress) Add(n int64) { p.update(func(c *Change) { c.Done += n }) }

// Logf adds a line to the log.
func (p *Progress) Logf(format string, args ...any) {
	p.update(func(c *Change) {
		c.Log = append(slices.Clone(c.Log), fmt.Sprintf(format, args...))
		c.Log = c.Log[max(0, len(c.Log)-logLines):]
	})
}

// Result records what the change found, as JSON; see Engine.Change.
func (p *Progress) Result(result []byte) error {
	if err := p.e.Store.PutResult(context.WithoutCancel(p.e.ctx), p.Change().ID, result); err != nil {
		return because(err, "cannot record what change %d found", p.Change().ID)
	}
	return nil
}

// Change is the change as it stands.
func (p *Progress) Change() Change {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.change
}

// update changes what is known, tells watchers, and now and then the store.
func (p *Progress) update(f func(*Change)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.change)
	now := p.e.now()
	if now.Sub(p.saved) < saveEvery {
		return
	}
	p.saved = now
	// Progress that cannot be written is no reason to stop what progresses.
	p.save()
	p.announce()
}

// save writes the change down; p.mu is held.
func (p *Progress) save() (ok bool) {
	_, err := p.e.Store.PutChange(context.WithoutCancel(p.e.ctx), p.change)
	if err != nil {
		p.e.Log.Error("cannot record a change", "change", p.change.ID, "status", p.change.Status, "error", err)
	}
	return err == nil
}

// record writes down how the change ended. A full disk must not leave it Doing
// for ever: it is tried again until ctx ends.
func (p *Progress) record(ctx context.Context) {
	for {
		p.mu.Lock()
		ok := p.save()
		p.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryAfter):
		}
	}
}

func (p *Progress) announce() {
	p.e.hub.send("change", p.change.Pipeline, fmt.Sprint(p.change.ID), p.e.now())
}

// The kinds of change that exclude each other, whatever they work on: what
// one copies the other might remove.
const (
	KindBackup = "backup"
	KindGC     = "gc"
)

// StartChange records a change as Doing and runs f in the background; what f
// returns makes it Done or Failed. Kind, Summary, Pipeline, Subject and Reason
// are taken from c. One change of a kind works on a subject at a time: a
// second one is Locked, and so is a gc during a backup and a backup during a
// gc. The context of f ends when the change is aborted and when the server
// stops.
func (e *Engine) StartChange(ctx context.Context, a Actor, c Change, f func(context.Context, *Progress) error) (Change, error) {
	cs := &e.changes
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.stopped {
		return Change{}, errClosed
	}
	for _, p := range cs.running {
		other := p.Change()
		switch hint := fmt.Sprintf("repo-manager watch %d", other.ID); {
		case other.Status != Doing:
		case other.Kind == c.Kind && other.Pipeline == c.Pipeline && other.Subject == c.Subject:
			return Change{}, fail(Locked, hint, "cannot start %s: change %d, started by %s, does the same", c.Summary, other.ID, other.By)
		case other.Kind == KindBackup && c.Kind == KindGC, other.Kind == KindGC && c.Kind == KindBackup:
			return Change{}, fail(Locked, hint, "cannot start %s while change %d is under way (%s, by %s): a backup must find every file that its copy of the database names",
				c.Summary, other.ID, other.Summary, other.By)
		}
	}
	c, err := e.Store.PutChange(ctx, Change{
		Kind: c.Kind, Summary: c.Summary, Pipeline: c.Pipeline, Subject: c.Subject, Reason: c.Reason,
		Status: Doing, By: a.Name, Created: e.now(),
	})
	if err != nil {
		return Change{}, because(err, "cannot start %s", c.Summary)
	}
	work, cancel := context.WithCancelCause(cs.ctx)
	p := &Progress{e: e, cancel: cancel, change: c, saved: c.Created}
	if cs.running == nil {
		cs.running = make(map[int64]*Progress)
	}
	cs.running[c.ID] = p
	cs.wait.Add(1)
	p.announce()
	go func() {
		defer cs.wait.Done()
		err := f(work, p)
		p.finish(err, context.Cause(work))
		cancel(nil)
		p.record(cs.ctx)
		cs.mu.Lock()
		delete(cs.running, c.ID)
		cs.mu.Unlock()
	}()
	return c, nil
}

// finish ends a change: err is what its work returned, cause why its context
// ended, if it did.
func (p *Progress) finish(err, cause error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.change
	c.Finished = p.e.now()
	switch {
	case err == nil:
		c.Status = Done
	case errors.Is(cause, errAborted):
		c.Status, c.Error = Aborted, "aborted"
	case errors.Is(cause, errStopped):
		c.Status, c.Error = Failed, errStopped.Error()
	default:
		c.Status, c.Error = Failed, err.Error()
	}
	p.announce()
}

// AbortChange asks a change to stop and returns it as it then stands: it is
// Aborted once its work has noticed. One that is over stays as it is.
func (e *Engine) AbortChange(ctx context.Context, id int64) (Change, error) {
	p := e.changes.find(id)
	if p == nil {
		return e.Change(ctx, id)
	}
	p.cancel(errAborted)
	return p.Change(), nil
}

// Change returns one change, with its result.
func (e *Engine) Change(ctx context.Context, id int64) (Change, error) {
	all, err := e.Changes(ctx)
	if err != nil {
		return Change{}, err
	}
	for _, c := range all {
		if c.ID == id {
			c.Result, _, err = e.Store.Result(ctx, id)
			if err != nil {
				return Change{}, because(err, "cannot read the result of change %d", id)
			}
			return c, nil
		}
	}
	return Change{}, fail(NotFound, "repo-manager changes", "cannot find change %d: there is none of that number", id)
}

// Changes lists all changes, newest first, with the progress of those under
// way.
func (e *Engine) Changes(ctx context.Context) ([]Change, error) {
	all, err := e.Store.Changes(ctx, 0)
	if err != nil {
		return nil, because(err, "cannot list changes")
	}
	for i := range all {
		if p := e.changes.find(all[i].ID); p != nil {
			all[i] = p.Change()
		}
	}
	return all, nil
}

func (cs *changes) find(id int64) *Progress {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.running[id]
}

// stopAll ends all changes and waits for them.
func (cs *changes) stopAll() {
	cs.mu.Lock()
	cs.stopped = true
	cs.mu.Unlock()
	cs.cancel(errStopped)
	cs.wait.Wait()
}

// failInterrupted ends the changes that a crash left Doing.
func (e *Engine) failInterrupted(ctx context.Context) error {
	all, err := e.Store.Changes(ctx, 0)
	if err != nil {
		return because(err, "cannot list changes")
	}
	for _, c := range all {
		if c.Status != Doing {
			continue
		}
		c.Status, c.Error, c.Finished = Failed, "interrupted by a restart of the server", e.now()
		if _, err := e.Store.PutChange(ctx, c); err != nil {
			return because(err, "cannot end change %d", c.ID)
		}
	}
	return nil
}
