package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/faultpoint"
	"aptfleet/snapshots"
)

// Pin keeps a snapshot from being deleted until somebody takes it off, as
// manufacturing does with what it installs.
type Pin struct {
	Pipeline string
	Snapshot string
	By       string
	Reason   string
	At       time.Time
}

// PinSnapshot pins the snapshot that ref means (see Resolve). One that is
// pinned is a Conflict: whose pin it is would get lost.
func (e *Engine) PinSnapshot(ctx context.Context, a Actor, pipeline, ref, reason string) (Snapshot, error) {
	if strings.TrimSpace(reason) == "" {
		return Snapshot{}, fail(Invalid, "say who needs it, so that somebody can tell later whether it may go", "cannot pin %s: there is no reason", ref)
	}
	if err := mustBeShort("pin "+ref, "reason", reason); err != nil {
		return Snapshot{}, err
	}
	return e.onSnapshot(ctx, pipeline, ref, func(t *turn, s *Snapshot) error {
		if s.Pin != nil {
			return fail(Conflict, "repo-manager snapshot unpin "+s.ID, "cannot pin snapshot %s: %s", s.ID, s.Pin)
		}
		s.Pin = &Pin{Pipeline: pipeline, Snapshot: s.ID, By: a.Name, Reason: reason, At: t.now}
		t.batch.Pins = []Pin{*s.Pin}
		t.act(a, "pin", "snapshot "+s.ID, reason)
		return nil
	})
}

// UnpinSnapshot takes the pin off. A snapshot without one is Refused.
func (e *Engine) UnpinSnapshot(ctx context.Context, a Actor, pipeline, ref, reason string) (Snapshot, error) {
	if err := mustBeShort("unpin "+ref, "reason", reason); err != nil {
		return Snapshot{}, err
	}
	return e.onSnapshot(ctx, pipeline, ref, func(t *turn, s *Snapshot) error {
		if s.Pin == nil {
			return fail(Refused, "repo-manager snapshot list", "cannot unpin snapshot %s: it is not pinned", s.ID)
		}
		t.batch.Unpinned = []SnapshotName{{pipeline, s.ID}}
		t.act(a, "unpin", "snapshot "+s.ID, reason)
		s.Pin = nil
		return nil
	})
}

// String says whose pin it is and why.
func (p *Pin) String() string {
	return fmt.Sprintf("it was pinned by %s on %s: %s", p.By, p.At.Format("2006-01-02"), p.Reason)
}

// onSnapshot changes what is known about a snapshot.
func (e *Engine) onSnapshot(ctx context.Context, pipeline, ref string, f func(t *turn, s *Snapshot) error) (Snapshot, error) {
	var changed Snapshot
	err := e.do(&job{ctx: ctx, pipeline: pipeline, act: func(ctx context.Context) error {
		l, err := e.line(pipeline)
		if err != nil {
			return err
		}
		found, err := e.Snapshot(ctx, pipeline, ref)
		if err != nil {
			return err
		}
		t := e.turn("pin", l)
		s := &t.line.snapshots[t.line.snapshot(found.ID)]
		if err := f(t, s); err != nil {
			return err
		}
		t.event("snapshot", s.ID)
		if err := t.commit(ctx); err != nil {
			return err
		}
		changed = *s
		return nil
	}})
	return changed, err
}

// snapshot is the place of a snapshot that exists.
func (l *line) snapshot(id string) int {
	return slices.IndexFunc(l.snapshots, func(s Snapshot) bool { return s.ID == id })
}

// DeleteSnapshot takes a snapshot's name and its base away; its packages go
// with the next gc, unless something else needs them. ref is its id or a
// unique prefix. It is Refused while a stage offers it or can be undone to it,
// while it is pinned, and while a device has it. A dry run only tells whether
// it could be deleted.
func (e *Engine) DeleteSnapshot(ctx context.Context, a Actor, pipeline, ref, reason string, dryRun bool) (Snapshot, error) {
	if err := mustBeShort("delete snapshot "+ref, "reason", reason); err != nil {
		return Snapshot{}, err
	}
	var deleted Snapshot
	err := e.do(&job{ctx: ctx, pipeline: pipeline, act: func(ctx context.Context) error {
		l, err := e.line(pipeline)
		if err != nil {
			return err
		}
		if _, err := l.position(ref); err == nil {
			return fail(Invalid, "repo-manager snapshot list", "cannot delete %s: it is a stage, and stages offer different snapshots from one moment to the next", ref)
		}
		s, err := e.Snapshot(ctx, pipeline, ref)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(s.ID, strings.TrimPrefix(ref, "snapshot:")) {
			return fail(Invalid, "repo-manager snapshot delete "+s.ID, "cannot delete %s: it is a state, and its name %s may be one of several", ref, s.ID)
		}
		if err := e.mayDelete(ctx, l, s); err != nil {
			return err
		}
		deleted = s
		if dryRun {
			return nil
		}
		t := e.turn("delete", l)
		dir := "snapshots/" + s.ID
		t.batch.Dropped = Dropped{Snapshots: []SnapshotName{{pipeline, s.ID}}, Bases: []BaseName{{pipeline, dir}}}
		t.line.snapshots = slices.Delete(t.line.snapshots, t.line.snapshot(s.ID), t.line.snapshot(s.ID)+1)
		t.line.Deleted = max(t.line.Deleted, s.ID)
		t.act(a, "delete", "snapshot "+s.ID, reason)
		t.event("snapshot", s.ID)
		if err := t.commit(ctx); err != nil {
			return err
		}
		faultpoint.Hit("delete:done")
		if err := e.Publisher.Withdraw(pipeline, dir); err != nil {
			e.Log.Error("cannot remove the base of a deleted snapshot; the next gc will", "pipeline", pipeline, "snapshot", s.ID, "error", err)
		}
		return nil
	}})
	return deleted, err
}

// mayDelete refuses the deletion of what somebody relies on.
func (e *Engine) mayDelete(ctx context.Context, l *line, s Snapshot) error {
	for position, standing := range l.standings {
		if standing.Offer.Snapshot == s.ID {
			return fail(Refused, "repo-manager stage show "+standing.Name, "cannot delete snapshot %s: stage %s offers it", s.ID, standing.Name)
		}
		if position == 0 {
			continue // cannot be undone
		}
		below, err := e.Store.Below(ctx, l.Name, standing.Standing)
		if err != nil {
			return because(err, "cannot delete snapshot %s", s.ID)
		}
		for _, move := range below {
			if move.To.Snapshot == s.ID {
				return fail(Refused, "repo-manager stage history "+standing.Name, "cannot delete snapshot %s: an undo of stage %s can lead back to it", s.ID, standing.Name)
			}
		}
	}
	if s.Pin != nil {
		return fail(Refused, "repo-manager snapshot unpin "+s.ID, "cannot delete snapshot %s: %s", s.ID, s.Pin)
	}
	deployed, err := e.deployed(ctx)
	if err != nil {
		return because(err, "cannot delete snapshot %s", s.ID)
	}
	for _, d := range deployed {
		if d.Pipeline == l.Name && (d.State == s.State || d.Snapshot == s.ID) {
			return fail(Refused, "repo-manager device show "+d.Device, "cannot delete snapshot %s: device %s has it (%s)", s.ID, d.Device, d.Role)
		}
	}
	return nil
}

// Deployed is a state that a device has, or is about to have.
type Deployed struct {
	Device   string
	Pipeline string
	Role     string       // of the deployment: "booted", "rollback", …; "wanted" and "followed" if there is none yet
	State    snapshots.ID // zero if only the snapshot is known
	Snapshot string       // or ""
}

// deployed asks the fleet.
func (e *Engine) deployed(ctx context.Context) ([]Deployed, error) {
	if e.Devices == nil {
		return nil, nil
	}
	return e.Devices(ctx)
}
