package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/apttest"
	"aptfleet/device-updater/internal/journal"
)

// tryDeb makes a local package for a device in memory.
func tryDeb(t *testing.T, name, version string) string {
	t.Helper()
	return apttest.New(t).Deb(apttest.Package{Name: name, Version: version})
}

func tries(files ...string) func(*Machine) error {
	return func(m *Machine) error { return m.Try(context.Background(), files, "ann", Options{}) }
}

func rejoins(m *Machine) error { return m.Rejoin(context.Background(), Options{}) }

// consistent checks that the device runs, wants and has recorded the same, that
// nothing is left over, and returns what it runs.
func consistent(t *testing.T, w *world) string {
	t.Helper()
	running, committed := w.release()
	records := w.records()
	wanted, err := records.Overlay()
	if err != nil {
		t.Fatal(err)
	}
	d, err := records.Deployment(w.current)
	if err != nil {
		t.Fatal(err)
	}
	if !committed {
		t.Errorf("%s is not committed", running)
	}
	if recorded := released(Offer{State: d.State, Overlay: d.Overlay}); recorded != running || wanted.ID() != d.Overlay.ID() {
		t.Errorf("it runs %s, recorded is %s, wanted on top %v", running, recorded, wanted.Names())
	}
	if left := w.leftOvers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for _, p := range wanted {
		if _, err := os.Stat(records.LocalFile(p)); err != nil {
			t.Error(err)
		}
	}
	return running
}

// local returns the .debs that are kept.
func (w *world) local() []string {
	found, err := filepath.Glob(filepath.Join(w.dir, "overlay/*.deb"))
	if err != nil {
		w.t.Fatal(err)
	}
	return found
}

// TestTryAndRejoin: on top of one release and the next, and gone again.
func TestTryAndRejoin(t *testing.T) {
	one, two, other := tryDeb(t, "app", "1~local"), tryDeb(t, "app", "2~local"), tryDeb(t, "tool", "1")
	w := newWorld(t)
	w.compares = true
	w.powerOn()
	for _, step := range []struct {
		ask     func(*Machine) error
		offered string
		want    string
	}{
		{tries(one), "old", "old+app 1~local"},
		{tries(one), "old", "old+app 1~local"}, // the same again is nothing to do
		{nil, "old", "old+app 1~local"},
		{tries(two, other), "old", "old+app 2~local+tool 1"},
		{nil, "new", "new+app 2~local+tool 1"},
		{rejoins, "new", "new"},
		{rejoins, "new", "new"},
		{tries(one), "newer", "newer+app 1~local"}, // on "new" first, then the offer is taken
		{rejoins, "old", "old"},
	} {
		w.asked, w.offered = step.ask, step.offered
		if err := w.settle(); err != nil {
			t.Fatalf("towards %s: %v", step.want, err)
		}
		if err := w.settle(); err != nil {
			t.Fatalf("at %s: %v", step.want, err)
		}
		if got := consistent(t, w); got != step.want {
			t.Fatalf("it runs %s, want %s", got, step.want)
		}
	}
	if kept := w.local(); len(kept) != 1 {
		t.Errorf("kept for the previous deployment: %v", kept)
	}
	w.offered = "new"
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if err := w.settle(); err != nil || len(w.local()) != 0 {
		t.Errorf("nobody needs %v (%v)", w.local(), err)
	}
}

// TestTryAndRejoinCutAtEachStep: wherever the power fails, the device ends with
// the overlay or without it, wants what it has, and blames no release.
func TestTryAndRejoinCutAtEachStep(t *testing.T) {
	deb := tryDeb(t, "app", "1~local")
	const on = "old+app 1~local"
	for _, c := range []struct {
		name string
		bad  string // what is not healthy
		from func(*Machine) error
		ask  func(*Machine) error
		want []string
	}{
		{"try", "", nil, tries(deb), []string{"old", on}},
		{"bad try", on, nil, tries(deb), []string{"old"}},
		{"rejoin", "", tries(deb), rejoins, []string{on, "old"}},
		{"bad rejoin", "old", tries(deb), rejoins, []string{on}},
	} {
		prepare := func(t *testing.T) *world {
			t.Helper()
			w := newWorld(t)
			w.powerOn()
			if c.from != nil {
				w.asked = c.from
				if err := w.settle(); err != nil {
					t.Fatal(err)
				}
			}
			if c.bad != "" {
				w.bad[c.bad] = "app.service failed"
			}
			w.asked = c.ask
			return w
		}
		undisturbed := prepare(t)
		first := len(undisturbed.steps)
		if err := undisturbed.settle(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := consistent(t, undisturbed); got != c.want[len(c.want)-1] {
			t.Errorf("%s: it runs %s", c.name, got)
		}
		for at := first + 1; at <= len(undisturbed.steps); at++ {
			for _, how := range []string{"before", "after"} {
				for _, what := range []string{"power", "power that loses what is not synced", "kill"} {
					t.Run(fmt.Sprintf("%s/%02d %s %s/%s", c.name, at, how, undisturbed.steps[at-1], what), func(t *testing.T) {
						w := prepare(t)
						w.lose = what == "power that loses what is not synced"
						w.disk = cloneTrees(w.trees)
						w.cutAt, w.before = at, how == "before"
						runToCut(w, what == "kill")
						if !w.cutDid {
							t.Fatalf("never came to step %d", at)
						}
						if err := w.settle(); err != nil {
							t.Errorf("the last check says %v", err)
						}
						if got := consistent(t, w); !slices.Contains(c.want, got) {
							t.Errorf("it runs %s, want one of %v", got, c.want)
						}
						if failed, err := w.records().Failed(); err != nil || len(failed) > 0 {
							t.Errorf("releases are blamed: %+v, %v", failed, err)
						}
					})
				}
			}
		}
	}
}

// TestTryThatDoesNotInstall is forgotten; nothing is tried again by itself.
func TestTryThatDoesNotInstall(t *testing.T) {
	deb := tryDeb(t, "app", "1~local")
	for name, trouble := range map[string]func(*world){
		"plan":    func(w *world) { w.plan["old+app 1~local"] = errors.New("app : Depends: nowhere") },
		"install": func(w *world) { w.install["old+app 1~local"] = errors.New("apt-get ended with status 100") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			trouble(w)
			w.powerOn()
			w.asked = tries(deb)
			if err := w.settle(); err == nil {
				t.Fatal("want the reason")
			}
			if err := w.settle(); err != nil {
				t.Errorf("the next check: %v", err)
			}
			if got := consistent(t, w); got != "old" || w.boots != 1 {
				t.Errorf("it runs %s after %d boots", got, w.boots)
			}
			w.offered = "new"
			if err := w.settle(); err != nil {
				t.Error(err)
			}
			if got := consistent(t, w); got != "new" || len(w.local()) != 0 {
				t.Errorf("it runs %s and keeps %v", got, w.local())
			}
		})
	}
}

// TestReleaseThatTheOverlayKeepsOff: it waits with the reason, or failed with
// the overlay alone, and comes without it.
func TestReleaseThatTheOverlayKeepsOff(t *testing.T) {
	deb := tryDeb(t, "app", "1~local")
	const on = "new+app 1~local"
	for name, trouble := range map[string]func(*world){
		"plan":    func(w *world) { w.plan[on] = errors.New("app : Conflicts: demo") },
		"install": func(w *world) { w.install[on] = errors.New("apt-get ended with status 100") },
		"trial":   func(w *world) { w.bad[on] = "app.service failed" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			trouble(w)
			w.powerOn()
			w.asked = tries(deb)
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			w.offered = "new"
			for range 2 {
				err := w.settle()
				if err == nil {
					t.Fatal("want the reason why it waits")
				}
				var refused *Refused
				if errors.As(err, &refused) && !strings.Contains(refused.Hint, "rejoin") {
					t.Errorf("%v; %s", err, refused.Hint)
				}
			}
			if got := consistent(t, w); got != "old+app 1~local" {
				t.Errorf("it runs %s", got)
			}
			w.asked = rejoins
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			if got := consistent(t, w); got != "new" {
				t.Errorf("in the end it runs %s", got)
			}
		})
	}
}

// TestRollbackTakesTheOverlayAlong: back to what was before the try, and it
// stays away; and back to it.
func TestRollbackTakesTheOverlayAlong(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.asked = tries(tryDeb(t, "app", "1~local"))
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"old", "old+app 1~local", "old"} {
		w.asked = func(m *Machine) error { return m.Rollback(context.Background()) }
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		if got := consistent(t, w); got != want {
			t.Fatalf("it runs %s, want %s", got, want)
		}
	}
}

// TestRejoinWithoutABetterRelease: nobody says which, or it failed here.
func TestRejoinWithoutABetterRelease(t *testing.T) {
	for _, offered := range []string{"", "failed"} {
		w := newWorld(t)
		w.compares = true
		w.powerOn()
		w.asked = tries(tryDeb(t, "app", "1~local"))
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		w.offered = offered
		w.asked = func(m *Machine) error {
			if err := m.remember(journal.Record{State: "failed"}, "it was bad"); err != nil {
				return err
			}
			return rejoins(m)
		}
		if wasCut, err := w.session(true); wasCut || err != nil || !w.rebooting {
			t.Fatalf("%v, rebooting: %v", err, w.rebooting)
		}
		w.powerOn()
		if _, err := w.session(false); err != nil {
			t.Fatal(err)
		}
		if got := consistent(t, w); got != "old" {
			t.Errorf("offered %q: it runs %s", offered, got)
		}
	}
}

// TestStagedTryWaits: with reboot: manual it stays staged through the checks,
// also where the offered release failed here, until somebody boots it.
func TestStagedTryWaits(t *testing.T) {
	deb := tryDeb(t, "app", "1~local")
	for _, offered := range []string{"old", "failed"} {
		w := newWorld(t)
		w.offered = offered
		w.powerOn()
		m, done := w.machine()
		defer done()
		m.Settings.RebootAuto = false
		if err := m.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if offered == "failed" {
			if err := m.remember(journal.Record{State: "failed"}, "it was bad"); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Try(t.Context(), []string{deb}, "", Options{}); err != nil || m.Journal.Last().Phase != journal.Staged {
			t.Fatalf("%v, %+v", err, m.Journal.Last())
		}
		err := m.Update(t.Context(), Options{Patient: true})
		if m.Journal.Last().Phase != journal.Staged || (err == nil) != (offered == "old") {
			t.Errorf("the next check: %v, %+v", err, m.Journal.Last())
		}
		if err := m.Try(t.Context(), []string{deb}, "", Options{Reboot: true}); err != nil || !w.rebooting || m.Journal.Last().Deployment != 2 {
			t.Errorf("%v, rebooting: %v", err, w.rebooting)
		}
	}
}

// TestTryWithoutARelease: nobody knows where its dependencies would come from.
func TestTryWithoutARelease(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	m, done := w.machine()
	defer done()
	if err := m.Records.PutDeployment(Deployment{ID: 1}); err != nil {
		t.Fatal(err)
	}
	var refused *Refused
	if err := m.Try(t.Context(), []string{tryDeb(t, "app", "1")}, "", Options{}); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
	if _, err := m.PreviewTry(t.Context(), []string{"/nowhere.deb"}); err == nil {
		t.Error("nothing was tried")
	}
}

// TestRejoinWithADamagedRecord: nobody knows any more what is on top, so no
// release is installed by itself; rejoin is the way out.
func TestRejoinWithADamagedRecord(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.asked = tries(tryDeb(t, "app", "1~local"))
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, overlayList), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.offered = "new"
	if err := w.settle(); err == nil || !strings.Contains(err.Error(), "overlay.json") {
		t.Errorf("%v", err)
	}
	w.asked = rejoins
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got := consistent(t, w); got != "new" {
		t.Errorf("it runs %s", got)
	}
}
