package release_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// keeps is what a pipeline must still have, said as simply as it can be.
type keeps struct {
	names   map[string]named // snapshots
	stack   []named          // what canary offers, last, and can be undone to
	devices map[string]snapshots.ID
	lists   map[snapshots.ID]string // what each state held when it was made
}

type named struct {
	id     string
	state  snapshots.ID
	pinned bool
	base   string // InRelease of the snapshot's base
}

// TestAnyOrderWithGC does acts in any order, gcs and restarts among them, some
// cut short, and then looks whether everything is there that must be.
func TestAnyOrderWithGC(t *testing.T) {
	plans := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) [3]int {
		return [3]int{rapid.IntRange(0, 15).Draw(r, "act"), rapid.IntRange(0, 2).Draw(r, "which"), rapid.IntRange(0, 3).Draw(r, "more")}
	}), 20, 45)
	for seed := range 16 {
		plan := plans.Example(seed)
		inWorld(t, func(t *testing.T, w *world) {
			w.retain(1+seed%3, seed%2)
			k := keeps{names: make(map[string]named), devices: make(map[string]snapshots.ID), lists: make(map[snapshots.ID]string)}
			for i, step := range plan {
				k.do(t, w, i, step)
				k.mustHold(t, w, i, step[0] >= 14)
				if t.Failed() {
					break
				}
			}
			w.gc(false) // finishes those that were cut short
			synctest.Wait()
		})
		if t.Failed() {
			t.Fatalf("plan %v", plan)
		}
	}
}

func (k *keeps) do(t *testing.T, w *world, i int, step [3]int) {
	ctx := t.Context()
	w.Config.Devices = func(context.Context) ([]release.Deployed, error) {
		var all []release.Deployed
		for name, state := range k.devices {
			all = append(all, release.Deployed{Device: name, Pipeline: "demo", Role: "booted", State: state})
		}
		return all, nil
	}
	head := func() snapshots.ID { return w.stage("dev").Offer.State }
	switch step[0] {
	case 0, 1, 2, 3: // older versions come back, so contents repeat
		version := fmt.Sprint(step[2])
		_, err := w.addSalted(fmt.Sprint("app", step[1]), version, "amd64", "", true)
		must(t, err)
		k.lists[head()] = w.list("dev")
	case 4:
		if _, err := w.Remove(ctx, ann, "demo", "apps", fmt.Sprint("app", step[1]), ""); err == nil {
			k.lists[head()] = w.list("dev")
		}
	case 5, 6:
		if move := w.promote("dev", "canary"); move.Seq != 0 {
			k.stack = append(k.stack, named{state: move.To.State})
			k.note(t, w, move.To.Snapshot, move.To.State)
		}
	case 7:
		if len(k.stack) > 1 {
			_, err := w.Undo(ctx, ann, "demo", "canary", "", nil)
			must(t, err)
			k.stack = k.stack[:len(k.stack)-1]
		}
	case 8:
		s, err := w.CreateSnapshot(ctx, ann, "demo", "", "", nil)
		must(t, err)
		k.note(t, w, s.ID, s.State)
	case 9:
		for id, n := range k.names {
			if !n.pinned {
				_, err := w.PinSnapshot(ctx, ann, "demo", id, "test")
				must(t, err)
				n.pinned = true
				k.names[id] = n
			}
			break
		}
	case 10:
		for id, n := range k.names { // any one
			if _, err := w.DeleteSnapshot(ctx, ann, "demo", id, "", false); err == nil {
				if n.pinned {
					t.Errorf("step %d: pinned snapshot %s was deleted", i, id)
				}
				delete(k.names, id)
			}
			break
		}
	case 11:
		k.devices[fmt.Sprint("device", step[1])] = head()
	case 12:
		w.close()
		w.open()
	case 13:
		hour()
	case 14:
		w.gc(step[2] == 0)
	case 15: // one that is cut short somewhere
		left := 5 * (step[1] + 3*step[2])
		w.Config.Publisher = &tired{Publisher: w.Config.Publisher, left: left}
		w.Config.Blobs = &tiredBlobs{w.Config.Blobs, w.Config.Publisher.(*tired)}
		w.startGC(false)
		w.close()
		w.open()
	}
}

func (k *keeps) note(t *testing.T, w *world, id string, state snapshots.ID) {
	t.Helper()
	if _, known := k.names[id]; known {
		return
	}
	text, err := os.ReadFile(filepath.Join(w.dir, "public/demo/snapshots", id, "dists/trixie/InRelease"))
	must(t, err)
	k.names[id] = named{id: id, state: state, base: string(text)}
}

// mustHold looks at everything that must be there; after a gc in all depth.
func (k *keeps) mustHold(t *testing.T, w *world, i int, deep bool) {
	t.Helper()
	whole := func(what string, state snapshots.ID) {
		t.Helper()
		packages, err := w.Packages(t.Context(), "demo", state.String(), release.Filter{})
		if err != nil {
			t.Errorf("step %d: %s: %v", i, what, err)
			return
		}
		for _, p := range packages {
			if !w.there("public", p.Filename) {
				t.Errorf("step %d: %s lacks %s", i, what, p.Filename)
			}
		}
		if got := w.list(state.String()); got != k.lists[state] {
			t.Errorf("step %d: %s lists %q, want %q", i, what, got, k.lists[state])
		}
	}
	for _, n := range k.stack {
		whole("the history of canary", n.state)
	}
	for id, n := range k.names {
		whole("snapshot "+id, n.state)
		text, err := os.ReadFile(filepath.Join(w.dir, "public/demo/snapshots", id, "dists/trixie/InRelease"))
		if err != nil || string(text) != n.base {
			t.Errorf("step %d: snapshot %s is published with other bytes (%v)", i, id, err)
		}
	}
	for name, state := range k.devices {
		whole(name, state)
	}
	if !deep {
		return
	}
	report, err := w.Check(t.Context(), nil)
	must(t, err)
	for _, f := range report.Findings {
		// A gc that was cut short leaves files that the next one removes.
		if f.Reason != "is there, and nothing in the database needs it" {
			t.Errorf("step %d: check: %s: %s", i, f.Path, f.Reason)
		}
	}
}

// tired is a publisher that fails once it has done enough of a gc's work.
type tired struct {
	release.Publisher
	left int
}

func (p *tired) work() error {
	if p.left--; p.left < 0 {
		return fmt.Errorf("the publisher is tired")
	}
	return nil
}

func (p *tired) Withdraw(pipeline, dir string) error {
	if err := p.work(); err != nil {
		return err
	}
	return p.Publisher.Withdraw(pipeline, dir)
}

type tiredBlobs struct {
	release.Blobs
	*tired
}

func (b *tiredBlobs) Drop(id snapshots.ID) (bool, error) {
	if err := b.work(); err != nil {
		return false, err
	}
	return b.Blobs.Drop(id)
}
