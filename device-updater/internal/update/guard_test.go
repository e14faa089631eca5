package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
)

// rests checks that a device came to rest in what was committed, that the
// transaction ended as failed, and that it is not begun again by itself. It
// returns the reason.
func rests(t *testing.T, w *world) string {
	t.Helper()
	if state, _ := w.release(); state != "old" {
		t.Errorf("it runs %s", state)
	}
	records, err := journal.Read(filepath.Join(w.dir, "journal"))
	if err != nil || len(records) == 0 {
		t.Fatal(err)
	}
	past := journal.Transactions(records)
	last := past[len(past)-1]
	if last.Result != journal.Remains {
		t.Errorf("the last transaction: %+v", last)
	}
	before := len(records)
	m, done := w.machine()
	defer done()
	if err := m.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	var refused *Refused
	if err := m.Update(t.Context(), Options{Patient: true}); !errors.As(err, &refused) || m.Rebooting() {
		t.Errorf("the next check: %v, %+v", err, m.Journal.Last())
	}
	if n := len(m.Journal.Records()); n != before {
		t.Errorf("it goes on: %+v", m.Journal.Records()[before:])
	}
	return last.Reason
}

// bootsUntilRest runs a device until no reboot is asked for, and returns how often that
// was.
func (w *world) bootsUntilRest(limit int) int {
	w.t.Helper()
	for n := range limit {
		_, err := w.session(true)
		if !w.rebooting {
			w.t.Logf("at rest: %v", err)
			return n
		}
		w.disk = cloneTrees(w.trees)
		w.powerOn()
	}
	w.t.Fatalf("it reboots for ever: %+v", journal.Transactions(mustRead(w)))
	return 0
}

func mustRead(w *world) []journal.Record {
	records, err := journal.Read(filepath.Join(w.dir, "journal"))
	if err != nil {
		w.t.Fatal(err)
	}
	return records
}

// lastOf is the newest record on the disk.
func lastOf(w *world) journal.Record {
	records := mustRead(w)
	if len(records) == 0 {
		return journal.Record{Phase: journal.Idle}
	}
	return records[len(records)-1]
}

// TestBootControlThatForgets: the medium says that it has written, and never
// does again. The loader boots the bad trial each time, and counts nothing.
func TestBootControlThatForgets(t *testing.T) {
	for _, bad := range []string{"app.service failed", ""} {
		w := newWorld(t)
		w.offered, w.bad["new"] = "new", bad
		w.powerOn()
		if _, err := w.session(true); err != nil || !w.rebooting {
			t.Fatal(err)
		}
		w.powerOn()
		w.frozen = true
		if bad == "" {
			// Nor is it committed: PID 1 ends each trial.
			w.dead = map[string]bool{"new": true}
			for range 3 {
				w.powerOn()
			}
			if !w.trialBoot {
				t.Fatal("the tries were counted")
			}
			w.bad["new"] = "it never comes that far"
		}
		n := w.bootsUntilRest(50)
		if reason := rests(t, w); !strings.Contains(reason, "it came to no end in 20 reboots") {
			t.Errorf("after %d reboots: %s", n, reason)
		}
		if left := w.leftOvers(); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// TestTrialsThatEndBeforeTheVerdict, in which the updater starts, while nobody
// counts them.
func TestTrialsThatEndBeforeTheVerdict(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	if _, err := w.session(true); err != nil {
		t.Fatal(err)
	}
	w.powerOn()
	w.frozen = true
	w.wrap = func(m *Machine) { m.System = watchCut{m.System} }
	n := 0
	for ; n < 50; n++ {
		if wasCut, _ := w.session(false); !wasCut {
			break
		}
		w.powerCut()
		w.powerOn()
	}
	w.wrap, w.rebooting = nil, false
	w.powerOn()
	w.bootsUntilRest(10)
	if reason := rests(t, w); !strings.Contains(reason, "it came to no end in 20 reboots") || n != maxReboots-1 {
		t.Errorf("after %d trials: %s", n, reason)
	}
}

// TestRebootThatDoesNotCome: the service manager agrees, and nothing happens.
func TestRebootThatDoesNotCome(t *testing.T) {
	w := newWorld(t)
	w.offered, w.deaf = "new", true
	w.powerOn()
	m, done := w.machine()
	defer done()
	if err := m.Update(t.Context(), Options{}); err != nil || !m.Rebooting() {
		t.Fatalf("%v, %+v", err, m.Journal.Last())
	}
	n := 0
	for ; m.Unfinished(); n++ {
		if n > 50 {
			t.Fatal("it asks for ever")
		}
		if err := m.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if reason := rests(t, w); !strings.Contains(reason, "it came to no end in 20 reboots") || n != maxReboots {
		t.Errorf("asked %d times: %s", n, reason)
	}
	if trial, ok := m.Boot.Trial(); ok && trial.Tries > 0 {
		t.Errorf("the loader would boot %+v", trial)
	}
	// A later reboot is another matter, and so is another release.
	w.deaf, w.offered = false, "next"
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("another release: %v", err)
	}
}

// TestBootsThatCannotBeToldApart, by a loader that cannot count: each start takes
// the reboot for one that has not come yet.
func TestBootsThatCannotBeToldApart(t *testing.T) {
	w := newWorld(t)
	w.offered, w.oneBoot, w.noSave = "new", true, true
	w.powerOn()
	n := w.bootsUntilRest(50)
	if reason := rests(t, w); !strings.Contains(reason, "it came to no end") {
		t.Errorf("after %d reboots: %s", n, reason)
	}
}

// TestRollbackThatDoesNotEnd ends where it began, and blames nothing.
func TestRollbackThatDoesNotEnd(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	w.asked, w.bad["old"] = func(m *Machine) error { return m.Rollback(t.Context()) }, "its data is too new"
	if _, err := w.session(true); err != nil || !w.rebooting {
		t.Fatal(err)
	}
	w.powerOn()
	w.frozen = true
	w.bootsUntilRest(50)
	if state, committed := w.release(); state != "new" || !committed {
		t.Errorf("it runs %s, committed: %v", state, committed)
	}
	records := mustRead(w)
	if last := records[len(records)-1]; last.Phase != journal.Idle || !strings.Contains(last.Reason, "it came to no end") {
		t.Errorf("%+v", last)
	}
}

// TestInstallationThatCrashesTheMachine is given up after some times; one that
// is cut off now and then is not.
func TestInstallationThatCrashesTheMachine(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	crash := func() bool {
		w.wrap = func(m *Machine) { m.Releases = installCut{m.Releases} }
		defer func() { w.wrap = nil }()
		wasCut, _ := w.session(true)
		w.powerCut()
		w.powerOn()
		return wasCut
	}
	for n := range maxCuts + 1 {
		if !crash() {
			t.Fatalf("it was not tried an %dth time", n+1)
		}
	}
	if crash() {
		t.Error("it is tried for ever")
	}
	if reason := rests(t, w); reason != fmt.Sprintf("it was interrupted during INSTALL, as %d times before", maxCuts) {
		t.Error(reason)
	}
	w.offered = "next"
	if err := w.settle(); err != nil {
		t.Error(err)
	}
}

// installCut is cut off in each installation, watchCut in each trial.
type (
	installCut struct{ Releases }
	watchCut   struct{ System }
)

func (installCut) Install(context.Context, Offer, apt.Plan, string, io.Writer) error {
	panic(cut{"in the installation"})
}

func (watchCut) Watch(context.Context, health.Baseline, time.Duration, func(string)) ([]string, error) {
	panic(cut{"in the trial"})
}

// TestLostJournal: boot control has a trial that no record knows.
func TestLostJournal(t *testing.T) {
	for _, when := range []string{"before the trial", "in the trial", "after the commit"} {
		t.Run(when, func(t *testing.T) {
			w := newWorld(t)
			w.offered = "new"
			w.powerOn()
			if _, err := w.session(true); err != nil || !w.rebooting {
				t.Fatal(err)
			}
			want := "old"
			switch when {
			case "in the trial":
				w.powerOn()
			case "after the commit":
				want = "new"
				w.powerOn()
				if err := w.settle(); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Remove(filepath.Join(w.dir, "journal")); err != nil {
				t.Fatal(err)
			}
			w.rebooting = false
			// In the trial nothing can be told; PID 1 ends it, as often as it is tried.
			for range 4 {
				_, _ = w.session(false)
				if !w.trialBoot {
					break
				}
				w.powerOn()
			}
			if state, committed := w.release(); state != want || !committed {
				t.Errorf("it runs %s, committed: %v", state, committed)
			}
			if left := w.leftOvers(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			w.offered = "next"
			if err := w.settle(); err != nil {
				t.Errorf("the next update: %v", err)
			}
			if state, _ := w.release(); state != "next" {
				t.Errorf("it runs %s", state)
			}
		})
	}
}

// TestJournalThatLostItsEnd: whichever records are gone, what is booted counts.
func TestJournalThatLostItsEnd(t *testing.T) {
	for _, when := range []string{"in the trial", "after the commit", "after a bad trial"} {
		reach := func(t *testing.T) *world {
			w := newWorld(t)
			w.offered = "new"
			if when == "after a bad trial" {
				w.bad["new"] = "app.service failed"
			}
			w.powerOn()
			if _, err := w.session(true); err != nil || !w.rebooting {
				t.Fatal(err)
			}
			w.powerOn()
			if when != "in the trial" {
				_ = w.settle()
			}
			return w
		}
		whole := mustRead(reach(t))
		for n := range len(whole) {
			t.Run(fmt.Sprintf("%s, %d of %d records", when, n, len(whole)), func(t *testing.T) {
				w := reach(t)
				path := filepath.Join(w.dir, "journal")
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				lines := strings.SplitAfter(string(text), "\n")
				if err := os.WriteFile(path, []byte(strings.Join(lines[:n], "")), 0o600); err != nil {
					t.Fatal(err)
				}
				// Where nothing can be told, PID 1 ends the trial.
				for range 4 {
					if _, _ = w.session(false); !w.trialBoot && !w.rebooting {
						break
					}
					w.powerOn()
				}
				if got := consistent(t, w); got != "old" && got != "new" || when == "after the commit" && got != "new" || when == "after a bad trial" && got != "old" {
					t.Errorf("it runs %s", got)
				}
				w.offered = "next"
				if err := w.settle(); err != nil || consistent(t, w) != "next" {
					t.Errorf("the next update: %v", err)
				}
			})
		}
	}
}

// TestWhatFailsAgainAndAgain costs no records, and can be ended by whoever mends
// it.
func TestWhatFailsAgainAndAgain(t *testing.T) {
	w := newWorld(t)
	w.offered, w.bad["new"] = "new", "app.service failed"
	w.powerOn()
	for range 2 {
		if _, err := w.session(true); err != nil || !w.rebooting {
			t.Fatal(err)
		}
		w.powerOn()
	}
	w.stray = map[string]bool{"base/2": true} // cannot be deleted
	if _, err := w.session(true); err == nil {
		t.Fatal("it was deleted")
	}
	before := len(mustRead(w))
	for range 20 {
		if _, err := w.session(true); err == nil {
			t.Fatal("it was deleted")
		}
	}
	if n := len(mustRead(w)); n != before {
		t.Errorf("%d more records: %+v", n-before, mustRead(w)[before:])
	}
	w.stray = nil
	if _, err := w.work(); err == nil || consistent(t, w) != "old" {
		t.Errorf("%v", err)
	}
	if asks := slices.DeleteFunc(w.asks, func(p hook.Point) bool { return p != hook.AfterRolledBack }); len(asks) > 1 {
		t.Errorf("hooks ran %d times", len(asks))
	}
}
