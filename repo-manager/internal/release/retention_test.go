package release_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Each kind of root keeps what it should, and the report says so.
func TestRoots(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.retain(1, 0)
		states := make(map[string]snapshots.ID)
		for _, version := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
			up, err := w.addSalted("app", version, "amd64", bulk(version), false)
			must(t, err)
			states[version] = up.State
		}
		name := func(version string) string {
			s, err := w.CreateSnapshot(ctx, ann, "demo", states[version].String(), "of "+version, nil)
			must(t, err)
			return s.ID
		}
		w.promote(states["1"].String(), "canary") // undone to later
		w.promote(states["2"].String(), "canary")
		w.promote(states["3"].String(), "canary") // undone
		_, err := w.Undo(ctx, ann, "demo", "canary", "", nil)
		must(t, err)
		four, five := name("4"), name("5")
		_, err = w.PinSnapshot(ctx, ann, "demo", five, "line 3")
		must(t, err)
		w.Config.Devices = func(context.Context) ([]release.Deployed, error) {
			return []release.Deployed{
				{Device: "bench", Pipeline: "demo", Role: "rollback", State: states["6"]},
				{Device: "bus", Pipeline: "demo", Role: "booted", State: states["6"]},
				{Device: "odd", Pipeline: "demo", Role: "booted", State: snapshots.ID{1, 2, 3}},
				{Device: "abroad", Pipeline: "other", Role: "booted", State: states["7"]},
			}, nil
		}
		three := w.snapshotOf("3")
		hour()
		found := w.gc(false)
		for version, want := range map[string]bool{"1": true, "2": true, "3": true, "4": true, "5": true, "6": true, "7": false, "8": true} {
			if w.offered(states[version]) != want {
				t.Errorf("the state of version %s is offered: %v, want %v", version, !want, want)
			}
		}
		own := int64(len(bulk("1")))
		var got []string
		for _, r := range found.Roots {
			got = append(got, fmt.Sprintf("%s %s (%s) %d/%d/%d", r.Kind, r.Name, r.Note, r.States, r.OnlyFiles, r.OnlyBytes/own))
		}
		stages := map[string]string{}
		for _, s := range []string{"dev", "canary"} {
			stages[s] = w.stage(s).Offer.Snapshot
		}
		snaps, err := w.Snapshots(ctx, "demo")
		must(t, err)
		byState := map[snapshots.ID]string{}
		for _, s := range snaps {
			byState[s.State] = s.ID
		}
		want := []string{
			"stage dev () 1/0/0",
			"stage canary (" + stages["canary"] + ") 1/0/0",
			"history canary () 1/0/0",
			"pin " + five + " (ann: line 3) 1/1/1",
			"snapshot " + byState[states["1"]] + " (named by its promotion to canary) 1/0/0",
			"snapshot " + byState[states["2"]] + " (named by its promotion to canary) 1/0/0",
			"snapshot " + three + " (named by its promotion to canary) 1/1/1",
			"snapshot " + four + " (of 4) 1/1/1",
			"device bench (rollback, and one more device) 1/1/1",
			"retention the newest state () 1/0/0",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("roots:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}

		// An undo finds what it leads back to.
		_, err = w.Undo(ctx, ann, "demo", "canary", "", nil)
		must(t, err)
		if got := w.list("canary"); !strings.Contains(got, "app 1 amd64") {
			t.Errorf("canary offers %s", got)
		}
	})
}

// snapshotOf finds the snapshot that holds a version of app.
func (w *world) snapshotOf(version string) string {
	w.t.Helper()
	all, err := w.Snapshots(w.t.Context(), "demo")
	must(w.t, err)
	for _, s := range all {
		if strings.Contains(w.list(s.ID), "app "+version+" amd64") {
			return s.ID
		}
	}
	w.t.Fatalf("no snapshot holds version %s", version)
	return ""
}

func TestRetentionByDays(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(1, 10)
		old := w.version("1")
		time.Sleep(40 * 24 * time.Hour)
		replaced := w.version("2") // was offered until the next upload
		time.Sleep(9 * 24 * time.Hour)
		newest := w.version("3")
		w.gc(false)
		for state, want := range map[snapshots.ID]bool{old: true, replaced: true, newest: true} {
			if w.offered(state) != want {
				t.Errorf("state %s is offered: %v", state, !want)
			}
		}
		time.Sleep(2 * 24 * time.Hour)
		w.gc(false)
		for state, want := range map[snapshots.ID]bool{old: false, replaced: true, newest: true} {
			if w.offered(state) != want {
				t.Errorf("two days later state %s is offered: %v", state, !want)
			}
		}
	})
}

func TestSetRetention(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		p, err := w.Pipeline(ctx, "demo")
		must(t, err)
		if p.Retention != release.DefaultRetention {
			t.Errorf("a new pipeline keeps %s", p.Retention)
		}
		w.retain(5, 0)
		w.close()
		w.open()
		p, err = w.Pipeline(ctx, "demo")
		must(t, err)
		if p.Retention != (release.Retention{States: 5}) {
			t.Errorf("after a restart it keeps %s", p.Retention)
		}
		for _, bad := range []release.Retention{{}, {States: -1}, {States: 1, Days: -1}, {States: 1 << 40}, {States: 1, Days: 1 << 30}} {
			_, err := w.SetRetention(ctx, ann, "demo", func(release.Retention) release.Retention { return bad })
			wantCode(t, err, release.Invalid, "cannot set the retention of pipeline demo")
		}
		acts, err := w.Acts(ctx, "demo", 1)
		must(t, err)
		if acts[0].Verb != "set" || acts[0].Detail != "keeps the last 5 states" {
			t.Errorf("the audit trail says %+v", acts[0])
		}
	})
}

func TestPinAndDelete(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.version("1")
		make := func() string {
			s, err := w.CreateSnapshot(ctx, ann, "demo", "", "", nil)
			must(t, err)
			return s.ID
		}
		drop := func(ref string) error {
			_, err := w.DeleteSnapshot(ctx, ann, "demo", ref, "tidying", false)
			return err
		}
		first := make()
		w.promote(first, "canary")
		wantCode(t, drop(first), release.Refused, "stage canary offers it")
		w.version("2")
		second := make()
		w.promote(second, "canary")
		wantCode(t, drop(first), release.Refused, "an undo of stage canary can lead back to it")
		w.version("3")
		third := make()

		_, err := w.PinSnapshot(ctx, ann, "demo", third, " ")
		wantCode(t, err, release.Invalid, "no reason")
		pinned, err := w.PinSnapshot(ctx, ann, "demo", third, "line 3")
		must(t, err)
		if pinned.Pin == nil || pinned.Pin.By != "ann" || pinned.Pin.Reason != "line 3" {
			t.Errorf("pinned is %+v", pinned)
		}
		_, err = w.PinSnapshot(ctx, ann, "demo", third, "line 4")
		wantCode(t, err, release.Conflict, "pinned by ann", "line 3")
		w.close()
		w.open()
		wantCode(t, drop(third), release.Refused, "pinned by ann on ", "line 3")
		_, err = w.UnpinSnapshot(ctx, ann, "demo", third, "moved on")
		must(t, err)
		_, err = w.UnpinSnapshot(ctx, ann, "demo", third, "")
		wantCode(t, err, release.Refused, "it is not pinned")

		state := w.stage("dev").Offer.State
		for _, d := range []release.Deployed{
			{Device: "bench", Pipeline: "demo", Role: "rollback", State: state},
			{Device: "bench", Pipeline: "demo", Role: "followed", Snapshot: third},
		} {
			w.Config.Devices = func(context.Context) ([]release.Deployed, error) { return []release.Deployed{d}, nil }
			wantCode(t, drop(third), release.Refused, "device bench has it ("+d.Role+")")
		}
		w.Config.Devices = nil

		wantCode(t, drop("dev"), release.Invalid, "it is a stage")
		wantCode(t, drop(state.String()), release.Invalid, "it is a state")
		wantCode(t, drop("2099"), release.NotFound)
		_, err = w.DeleteSnapshot(ctx, ann, "demo", third, "", true)
		must(t, err)
		if !w.there("public/demo/snapshots", third) {
			t.Error("a dry run removed the snapshot")
		}
		must(t, drop(third))
		if w.there("public/demo/snapshots", third) {
			t.Error("the base of the snapshot is still there")
		}
		wantCode(t, drop(third), release.NotFound)
		fourth := make() // at the same moment: it must not become the one that was deleted
		if fourth <= third {
			t.Errorf("after %s was deleted, a new snapshot is called %s", third, fourth)
		}
		must(t, drop(fourth))
		w.close()
		w.open()
		if fifth := make(); fifth <= fourth {
			t.Errorf("after %s was deleted, a new snapshot is called %s", fourth, fifth)
		}
		var verbs []string
		acts, err := w.Acts(ctx, "demo", 0)
		must(t, err)
		for _, a := range acts {
			if a.Object == "snapshot "+third {
				verbs = append(verbs, a.Verb+" "+a.Detail)
			}
		}
		if got := strings.Join(verbs, ", "); got != "delete tidying, unpin moved on, pin line 3, name " {
			t.Errorf("the audit trail of the snapshot is %q", got)
		}
	})
}

// However much retention would keep, the index files of the past have a budget.
// What stages and names keep does not count.
func TestThePastHasABudget(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(100, 100)
		var states []snapshots.ID
		for n := range 20 {
			states = append(states, w.version(fmt.Sprint(n)))
			if n == 3 {
				w.promote("dev", "canary")
			}
			time.Sleep(time.Second)
		}
		hour()
		if done := w.gc(false); done.Gone.States > 0 {
			t.Errorf("a gc with room removed %d states", done.Gone.States)
		}
		size := w.Config.Publisher.IndexBytes()
		w.close()
		w.open() // and forgets what the last gc had to leave
		w.Config.IndexBudget = size / 2
		if w.OverBudget() != (size > w.Config.IndexBudget*5/4) || !w.OverBudget() {
			t.Errorf("%d bytes of index files are not over a budget of %d", size, w.Config.IndexBudget)
		}
		w.gc(false)
		if w.OverBudget() {
			t.Errorf("after a gc %d bytes of index files are over a budget of %d", w.Config.Publisher.IndexBytes(), w.Config.IndexBudget)
		}
		w.Config.IndexBudget = 1
		w.gc(false)
		if w.OverBudget() {
			t.Error("what a gc had to leave makes the next one due")
		}
		w.Config.IndexBudget = size / 2
		kept := 0
		for i, state := range states {
			switch offered := w.offered(state); {
			case offered:
				kept++
			case i == 3 || i >= len(states)-4:
				t.Errorf("state %d went, which canary offers or which is among the newest", i)
			}
		}
		if kept < 5 || kept > 8 {
			t.Errorf("%d of %d states are kept without any room", kept, len(states))
		}
		w.mustBeClean()
	})
}
