package release_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// promote moves a stage without conditions.
func (w *world) promote(ref, to string) release.Move {
	w.t.Helper()
	move, err := w.Promote(w.t.Context(), ann, "demo", ref, to, "because", nil, false)
	must(w.t, err)
	return move
}

// release uploads a version of app and returns the state that has it.
func (w *world) version(version string) snapshots.ID {
	w.t.Helper()
	upload, err := w.add("app", version, "amd64")
	must(w.t, err)
	return upload.State
}

func TestPromote(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		one := w.version("1.0")
		plan, err := w.Promote(ctx, ann, "demo", "dev", "canary", "", nil, true)
		must(t, err)
		if plan.Seq != 0 || plan.To.State != one || !w.stage("canary").Offer.State.IsZero() {
			t.Errorf("a dry run gave %+v", plan)
		}
		move := w.promote("dev", "canary")
		if move.To.State != one || move.To.Snapshot == "" {
			t.Errorf("the promotion of an unnamed state gave it the name %q", move.To.Snapshot)
		}
		named, err := w.Snapshots(ctx, "demo")
		must(t, err)
		if len(named) != 1 || named[0].ID != move.To.Snapshot || named[0].By != "ann" {
			t.Errorf("snapshots are %+v", named)
		}
		again := w.promote(named[0].ID, "canary")
		if again.Seq != 0 {
			t.Errorf("a promotion to what the stage offers was move %d", again.Seq)
		}
		production := w.promote("canary", "production")
		if production.To != move.To {
			t.Errorf("production got %+v, want %+v", production.To, move.To)
		}
		text, _ := w.inRelease("production")
		for name, want := range map[string]string{
			"Aptfleet-State": one.String(), "Aptfleet-Snapshot": move.To.Snapshot, "Suite": "production", "Codename": "trixie",
			"Snapshots": "http://archive.example/demo/snapshots/@SNAPSHOTID@/",
		} {
			if got := field(text, name); got != want {
				t.Errorf("field %s is %q, want %q", name, got, want)
			}
		}

		two := w.version("2.0")
		var zero snapshots.ID
		for _, stale := range []*snapshots.ID{&two, &zero} {
			_, err = w.Promote(ctx, ann, "demo", "dev", "canary", "", stale, false)
			wantCode(t, err, release.Conflict, "it moved meanwhile", move.To.Snapshot, "ann")
		}
		_, err = w.Promote(ctx, ann, "demo", "dev", "canary", "", &one, false)
		must(t, err)

		_, err = w.Promote(ctx, ann, "demo", "canary", "dev", "", nil, false)
		wantCode(t, err, release.Refused, "always offers the newest state")
		_, err = w.Promote(ctx, ann, "demo", "nonsense", "canary", "", nil, false)
		wantCode(t, err, release.NotFound, "nonsense")
		_, err = w.Promote(ctx, ann, "demo", "dev", "nowhere", "", nil, false)
		wantCode(t, err, release.NotFound, "nowhere")
		_, err = w.Promote(ctx, ann, "nothing", "dev", "canary", "", nil, false)
		wantCode(t, err, release.NotFound, "nothing")
	})
}

// An undo goes to what stood before the current offer was promoted, never
// forward again.
func TestUndo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		states := make(map[string]snapshots.ID)
		for _, version := range []string{"1", "2", "3"} {
			states[version] = w.version(version)
			w.promote("dev", "canary")
		}
		undo := func(want string) {
			t.Helper()
			before := w.modified("canary")
			move, err := w.Undo(ctx, ann, "demo", "canary", "bad", nil)
			must(t, err)
			if move.To.State != states[want] || move.Kind != release.MoveUndo || move.To.Snapshot == "" {
				t.Errorf("undo led to %+v, want the state of version %s", move.To, want)
			}
			text, _ := w.inRelease("canary")
			if after := w.modified("canary"); field(text, "Aptfleet-State") != states[want].String() || !after.After(before) {
				t.Errorf("published is %s of %s, before it was of %s", field(text, "Aptfleet-State"), after, before)
			}
		}
		undo("2")
		states["4"] = w.version("4")
		w.promote("dev", "canary")
		undo("2")
		undo("1")
		_, err := w.Undo(ctx, ann, "demo", "canary", "", nil)
		wantCode(t, err, release.Refused, "it offered nothing before")
		w.promote("dev", "canary")
		undo("1")
		_, err = w.Undo(ctx, ann, "demo", "production", "", nil)
		wantCode(t, err, release.Refused, "it offered nothing before")
		_, err = w.Undo(ctx, ann, "demo", "dev", "", nil)
		wantCode(t, err, release.Refused, "always offers the newest")
		stale := states["3"]
		_, err = w.Undo(ctx, ann, "demo", "canary", "", &stale)
		wantCode(t, err, release.Conflict, "it moved meanwhile")

		history, err := w.History(ctx, "demo", "canary")
		must(t, err)
		var kinds []string
		for _, m := range history {
			kinds = append(kinds, string(m.Kind))
		}
		if got, want := strings.Join(kinds, " "), "undo promote undo undo promote undo promote promote promote"; got != want {
			t.Errorf("history is %q, want %q", got, want)
		}
	})
}

func TestSnapshotIDs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.version("1.0")
		last := ""
		for range 5 {
			s, err := w.CreateSnapshot(ctx, ann, "demo", "", "note", []string{"rc"})
			must(t, err)
			if s.ID <= last {
				t.Errorf("snapshot %s follows %s", s.ID, last)
			}
			last = s.ID
		}
		list, err := w.Snapshots(ctx, "demo")
		must(t, err)
		if len(list) != 5 || list[0].ID != last {
			t.Errorf("the newest of %d snapshots is %s, want %s", len(list), list[0].ID, last)
		}
		for ref, want := range map[string]string{
			last: last, "snapshot:" + last: last, list[1].State.String(): last, "state:" + list[1].State.String(): last, "dev": last, "": last,
		} {
			offer, err := w.Resolve(ctx, "demo", ref)
			if err != nil || offer.Snapshot != want {
				t.Errorf("%q is %+v, %v; want snapshot %s", ref, offer, err, want)
			}
		}
		_, err = w.Resolve(ctx, "demo", last[:8])
		wantCode(t, err, release.Invalid, "cannot tell which snapshot")
		_, err = w.Resolve(ctx, "demo", "canary")
		wantCode(t, err, release.NotFound, "offers nothing yet")
		_, err = w.Resolve(ctx, "demo", strings.Repeat("ab", 32))
		wantCode(t, err, release.NotFound, "never had it")

		base := filepath.Join(w.dir, "public/demo/snapshots", last, "dists/trixie/Release")
		before, err := os.ReadFile(base)
		must(t, err)
		if field(string(before), "Valid-Until") != "" || strings.Contains(string(before), "archive.example") {
			t.Errorf("the Release of a snapshot is not fixed:\n%s", before)
		}
		w.close()
		must(t, os.RemoveAll(filepath.Join(w.dir, "public/demo/snapshots")))
		w.open()
		after, err := os.ReadFile(base)
		must(t, err)
		if string(after) != string(before) {
			t.Error("a rebuilt snapshot has another Release")
		}
	})
}

func TestDiff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.version("1.0")
		_, _, all, err := w.Diff(t.Context(), "demo", "canary", "dev")
		must(t, err)
		if len(all) != 1 || all[0].Old != nil {
			t.Errorf("against a stage that offers nothing, %d packages differ", len(all))
		}
		w.promote("dev", "canary")
		w.version("2.0")
		a, b, changed, err := w.Diff(t.Context(), "demo", "canary", "dev")
		must(t, err)
		if len(changed) != 1 || changed[0].Old.Version != "1.0" || changed[0].New.Version != "2.0" || a.State == b.State {
			t.Errorf("the difference is %+v", changed)
		}
	})
}

// Time passes and nobody does anything: stages stay valid, their indices are
// not touched.
func TestRefresh(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.version("1.0")
		w.promote("dev", "canary")
		index := filepath.Join(w.dir, "public/demo/canary/dists/trixie/apps/binary-amd64/Packages.gz")
		before, err := os.Stat(index)
		must(t, err)
		for range 10 {
			time.Sleep(3 * 24 * time.Hour)
			text, _ := w.inRelease("canary")
			until, err := time.Parse(time.RFC1123, field(text, "Valid-Until"))
			must(t, err)
			if left := time.Until(until); left < 3*24*time.Hour {
				t.Errorf("canary is valid for %s more", left)
			}
		}
		after, err := os.Stat(index)
		must(t, err)
		if !os.SameFile(before, after) {
			t.Error("the index was written again")
		}
		moves, err := w.History(t.Context(), "demo", "canary")
		must(t, err)
		if len(moves) != 1 {
			t.Errorf("refreshing made %d moves", len(moves)-1)
		}
		// A server that was off for long refreshes at its start.
		w.close()
		time.Sleep(30 * 24 * time.Hour)
		w.open()
		time.Sleep(time.Second)
		text, _ := w.inRelease("canary")
		if until, err := time.Parse(time.RFC1123, field(text, "Valid-Until")); err != nil || !until.After(time.Now()) {
			t.Errorf("after a long stop canary is valid until %s (%v)", until, err)
		}
	})
}

func TestPipelineNames(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		good := release.Pipeline{Name: "p", Distribution: "trixie", Architectures: []string{"amd64"}}
		for name, change := range map[string]func(*release.Pipeline){
			"no name":             func(p *release.Pipeline) { p.Name = "" },
			"a path":              func(p *release.Pipeline) { p.Name = "../x" },
			"the pool":            func(p *release.Pipeline) { p.Name = "pool" },
			"no distribution":     func(p *release.Pipeline) { p.Distribution = "" },
			"no architecture":     func(p *release.Pipeline) { p.Architectures = nil },
			"all":                 func(p *release.Pipeline) { p.Architectures = []string{"all"} },
			"twice":               func(p *release.Pipeline) { p.Architectures = []string{"amd64", "amd64"} },
			"a stage like a base": func(p *release.Pipeline) { p.Stages = []string{"dev", "snapshots"} },
			"a stage like an id":  func(p *release.Pipeline) { p.Stages = []string{"dev", "20261120T101500Z"} },
			"a stage twice":       func(p *release.Pipeline) { p.Stages = []string{"dev", "dev"} },
		} {
			p := good
			change(&p)
			if _, err := w.CreatePipeline(t.Context(), ann, p); release.CodeOf(err) != release.Invalid {
				t.Errorf("%s: %v, want it refused as invalid", name, err)
			}
		}
		_, err := w.CreatePipeline(t.Context(), ann, release.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"}})
		wantCode(t, err, release.Conflict, "demo")
		_, err = w.CreateRepository(t.Context(), ann, "demo", "apps", 1)
		wantCode(t, err, release.Conflict, "apps")
		_, err = w.CreateRepository(t.Context(), ann, "demo", "a/b", 1)
		wantCode(t, err, release.Invalid, "a/b")
	})
}

// Every act leaves its trace with a name.
func TestActs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.version("1.0")
		w.promote("dev", "canary")
		acts, err := w.Acts(t.Context(), "demo", 0)
		must(t, err)
		var verbs []string
		for _, a := range acts {
			verbs = append(verbs, a.Verb+" "+a.Object)
			if a.By != "ann" || a.Via != "socket" || a.At.IsZero() {
				t.Errorf("act %+v has no actor or time", a)
			}
		}
		if got, want := strings.Join(verbs, ", "), "promote stage canary, upload repository apps, create repository apps, create pipeline demo"; got != want {
			t.Errorf("acts are %q, want %q", got, want)
		}
	})
}

func TestChanges(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		work := release.Change{Kind: "mirror-update", Pipeline: "demo", Subject: "debian", Summary: "update debian", Reason: "weekly"}
		hold := make(chan error)
		waits := func(ctx context.Context, p *release.Progress) error {
			p.Total(10, "packages")
			p.Add(4)
			p.Logf("line %d", 1)
			select {
			case err := <-hold:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		await := func(id int64, want release.ChangeStatus) release.Change {
			t.Helper()
			time.Sleep(time.Second)
			c, err := w.Change(ctx, id)
			must(t, err)
			if c.Status != want {
				t.Errorf("change %d is %s (%s), want %s", id, c.Status, c.Error, want)
			}
			return c
		}
		one, err := w.StartChange(ctx, ann, work, waits)
		must(t, err)
		_, err = w.StartChange(ctx, ann, work, waits)
		wantCode(t, err, release.Locked, "change 1", "ann")
		c := await(one.ID, release.Doing)
		if c.Done != 4 || c.Total != 10 || c.Unit != "packages" || len(c.Log) != 1 || c.By != "ann" || c.Reason != "weekly" {
			t.Errorf("under way it is %+v", c)
		}
		hold <- nil
		if c := await(one.ID, release.Done); c.Finished.IsZero() {
			t.Error("a change that is done has no end")
		}
		two, err := w.StartChange(ctx, ann, work, waits)
		must(t, err)
		hold <- errors.New("the mirror is gone")
		if c := await(two.ID, release.Failed); c.Error != "the mirror is gone" {
			t.Errorf("it failed with %q", c.Error)
		}
		three, err := w.StartChange(ctx, ann, work, waits)
		must(t, err)
		_, err = w.AbortChange(ctx, three.ID)
		must(t, err)
		await(three.ID, release.Aborted)
		_, err = w.AbortChange(ctx, 99)
		wantCode(t, err, release.NotFound, "99")

		four, err := w.StartChange(ctx, ann, work, waits)
		must(t, err)
		w.close()
		lost, err := w.store.PutChange(ctx, release.Change{Kind: "check", Status: release.Doing, Created: time.Now()}) // as a crash leaves it
		must(t, err)
		w.open()
		if c := await(four.ID, release.Failed); !strings.Contains(c.Error, "stop of the server") {
			t.Errorf("a change that a stop ended says %q", c.Error)
		}
		if c := await(lost.ID, release.Failed); !strings.Contains(c.Error, "restart") {
			t.Errorf("a change that a crash ended says %q", c.Error)
		}
	})
}

// What people write down is bounded: it is kept for ever.
func TestLongTexts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		novel := strings.Repeat("x", 5000)
		_, err := w.CreateSnapshot(t.Context(), ann, "demo", "", novel, nil)
		wantCode(t, err, release.Invalid, "5000 bytes")
		_, err = w.CreateSnapshot(t.Context(), ann, "demo", "", "", []string{"a", novel})
		wantCode(t, err, release.Invalid, "5000 bytes")
		_, err = w.CreateSnapshot(t.Context(), ann, "demo", "", "", make([]string, 200))
		wantCode(t, err, release.Invalid, "labels")
		_, err = w.Promote(t.Context(), ann, "demo", "dev", "canary", novel, nil, false)
		wantCode(t, err, release.Invalid, "reason")
		_, err = w.Undo(t.Context(), ann, "demo", "canary", novel, nil)
		wantCode(t, err, release.Invalid, "reason")
	})
}

// A change whose end cannot be written down has ended all the same: whoever
// watches sees how, another one may start, and it is written down later.
func TestAnEndThatCannotBeRecorded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		work := release.Change{Kind: "mirror-update", Pipeline: "demo", Subject: "debian", Summary: "update debian"}
		one, err := w.StartChange(t.Context(), ann, work, func(context.Context, *release.Progress) error {
			w.store.FailChanges(syscall.ENOSPC)
			return errors.New("no space left")
		})
		must(t, err)
		time.Sleep(time.Second)
		seen, err := w.Change(t.Context(), one.ID)
		must(t, err)
		if seen.Status != release.Failed || seen.Error != "no space left" {
			t.Errorf("the change is %s (%s), want that it failed", seen.Status, seen.Error)
		}
		w.store.FailChanges(nil)
		_, err = w.StartChange(t.Context(), ann, work, func(context.Context, *release.Progress) error { return nil })
		must(t, err)
		time.Sleep(time.Minute)
		all, err := w.store.Changes(t.Context(), 0)
		must(t, err)
		if all[1].Status != release.Failed || all[0].Status != release.Done {
			t.Errorf("recorded are %s and %s, want failed and done", all[1].Status, all[0].Status)
		}
	})
}

func TestEvents(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		events, cancel := w.Subscribe(10)
		slow, cancelSlow := w.Subscribe(1)
		defer cancelSlow()
		w.version("1.0")
		var got []string
		for len(events) > 0 {
			e := <-events
			got = append(got, e.Kind+" "+e.Subject)
		}
		if want := "stage dev, upload app"; strings.Join(got, ", ") != want {
			t.Errorf("events are %q, want %q", got, want)
		}
		if len(slow) != 1 {
			t.Errorf("a watcher with room for one has %d events", len(slow))
		}
		cancel()
		cancel()
		if _, open := <-events; open {
			t.Error("the channel is open after its cancel")
		}
		w.EndEvents()
		late, cancelLate := w.Subscribe(1)
		defer cancelLate()
		if _, open := <-late; open {
			t.Error("who subscribes after the end waits for ever")
		}
	})
}

// Whoever asks a stopped engine gets an answer.
func TestClosed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.close()
		_, err := w.CreateSnapshot(t.Context(), ann, "demo", "", "", nil)
		wantCode(t, err, release.Conflict, "the server is stopping")
		w.open()
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		before := w.stage("dev")
		in := w.receive("app", "1", "all", "")
		if _, err := w.Add(cancelled, ann, "demo", "apps", in, false); !errors.Is(err, context.Canceled) {
			t.Errorf("an upload whose client had left: %v", err)
		}
		must(t, in.Discard())
		if w.stage("dev") != before {
			t.Error("an upload whose client had left was accepted")
		}
	})
}

// A clock that was set back does not make anybody hang, and cannot make apt
// ignore a publication.
func TestClockSetBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.version("1.0")
		w.promote("dev", "canary")
		w.offset.Store(-int64(time.Hour))
		before := w.stage("dev")
		_, err := w.add("app", "2.0", "amd64")
		wantCode(t, err, release.Refused, "ahead of the clock")
		_, err = w.Undo(t.Context(), ann, "demo", "canary", "", nil)
		wantCode(t, err, release.Refused, "ahead of the clock")
		if w.stage("dev") != before {
			t.Error("dev moved")
		}
		_, err = w.CreateSnapshot(t.Context(), ann, "demo", "", "needs no stage", nil)
		must(t, err)
		w.offset.Store(0)
		w.version("2.0")
	})
}
