package update

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/journal"
)

// TestDamagedDefaultAtEachStep: the power cut takes committed.env with it. The
// loader then boots what it finds, on trial or not.
func TestDamagedDefaultAtEachStep(t *testing.T) {
	for _, bad := range []string{"", "app.service failed"} {
		steps := stepsOf(t, bad)
		for at := 1; at <= len(steps); at++ {
			t.Run(fmt.Sprintf("%q/%02d after %s", bad, at, steps[at-1]), func(t *testing.T) {
				w := newWorld(t)
				w.offered, w.bad["new"], w.cutAt = "new", bad, at
				w.powerOn()
				for range 20 {
					if wasCut, _ := w.session(true); wasCut {
						break
					}
					if w.rebooting {
						w.powerOn()
					}
				}
				if !w.cutDid {
					t.Fatal("never came to this step")
				}
				w.powerCut()
				w.boot["committed.env"] = make([]byte, 1024)
				w.powerOn()
				checkEnd(t, w, bad != "", w.settle())
			})
		}
	}
}

// TestTriesThatCouldNotBeCounted: the loader goes back because it cannot write,
// the power fails before the updater has told it so too, and then it can write
// again.
func TestTriesThatCouldNotBeCounted(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	if _, err := w.session(true); err != nil || !w.rebooting {
		t.Fatalf("%v, rebooting: %v", err, w.rebooting)
	}
	w.noSave = true
	w.powerOn()
	if w.trialBoot {
		t.Fatal("it is on trial though nobody counts")
	}
	w.cutAt, w.before = len(w.steps)+2, true
	if wasCut, err := w.session(true); !wasCut || w.steps[len(w.steps)-1] != "write grubenv" {
		t.Fatalf("cut: %v before %s (%v)", wasCut, w.steps[len(w.steps)-1], err)
	}
	w.noSave = false
	w.powerOn()
	if !w.trialBoot {
		t.Fatal("no try was left")
	}
	var refused *Refused
	if err := w.settle(); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
	if state, committed := w.release(); state != "old" || !committed {
		t.Errorf("it runs %s, committed: %v", state, committed)
	}
	if left := w.leftOvers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestTheBootedDeploymentIsNotDeleted, whatever the records say.
func TestTheBootedDeploymentIsNotDeleted(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	m, done := w.machine()
	defer done()
	if err := m.deleteDeployment(t.Context(), w.current); err == nil || !w.Exists(deployment(w.current)) {
		t.Errorf("%v", err)
	}
}

// TestWhatCannotBeDeletedStopsNothing: somebody copied a directory there.
func TestWhatCannotBeDeletedStopsNothing(t *testing.T) {
	w := newWorld(t)
	w.offered, w.stray = "new", map[string]bool{"deployments/7": true}
	w.trees["deployments/8"] = tree{release: "ancient"}
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Error(err)
	}
	if state, committed := w.release(); state != "new" || !committed || w.trees["deployments/8"].release == "ancient" {
		t.Errorf("it runs %s, committed: %v; %v", state, committed, w.leftOvers())
	}
}

// TestNoRoomIsNoVerdict: a script that fails on a full disk says so in its own
// words.
func TestNoRoomIsNoVerdict(t *testing.T) {
	w := newWorld(t)
	w.offered, w.install["new"] = "new", errors.New("apt-get ended with status 100")
	w.powerOn()
	m, done := w.machine()
	defer done()
	m.Notify = func(s Status) {
		if s.Phase == string(journal.Install) {
			w.free = 1 << 20
		}
	}
	if err := m.Update(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "only 1 MB were free") {
		t.Errorf("%v", err)
	}
	if failed, err := m.Records.Failed(); err != nil || len(failed) > 0 {
		t.Errorf("remembered as failed: %+v, %v", failed, err)
	}
}

// TestRollbackLimitsItsTrial: the deployment has the limit of long ago, or that
// of the factory.
func TestRollbackLimitsItsTrial(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	w.armed = nil
	m, done := w.machine()
	defer done()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	reboot := slices.Index(w.steps[len(w.steps)-5:], "arm trial")
	if !slices.Equal(w.armed, []string{"deployments/1"}) || reboot < 0 {
		t.Errorf("armed %v; the last steps: %v", w.armed, w.steps[len(w.steps)-5:])
	}
}

// TestSeedsOfANumberThatComesAgain: what was seeded is forgotten with the
// deployment.
func TestSeedsOfANumberThatComesAgain(t *testing.T) {
	dir := t.TempDir()
	records, err := OpenRecords(dir)
	if err != nil {
		t.Fatal(err)
	}
	stamp := filepath.Join(dir, "seeded/4")
	if err := errors.Join(os.MkdirAll(filepath.Dir(stamp), 0o700), os.WriteFile(stamp, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := records.Forget(4); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(stamp); !os.IsNotExist(err) {
		t.Errorf("the next deployment 4 would get no seeds: %v", err)
	}
}

// TestACheckThatFindsNothingNewIsSilent: a release that failed is refused at
// every check, and the status, which the server is told, does not change.
func TestACheckThatFindsNothingNewIsSilent(t *testing.T) {
	w := newWorld(t)
	w.offered, w.bad["new"] = "new", "app.service failed"
	w.powerOn()
	if err := w.settle(); err == nil {
		t.Fatal("the bad release was taken")
	}
	m, done := w.machine()
	defer done()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.Notify = func(s Status) {
		if s.WhyNot != "state new failed here: app.service failed" {
			t.Errorf("why not: %q", s.WhyNot)
		}
	}
	for range 3 {
		if err := m.Update(t.Context(), Options{Patient: true}); err == nil {
			t.Error("want a refusal")
		}
		if _, err := m.Check(t.Context()); err != nil {
			t.Error(err)
		}
	}
	m.Notify = nil
	if err := m.Update(t.Context(), Options{Retry: true}); err != nil || m.Status().WhyNot != "" {
		t.Errorf("it is tried again: %v, why not: %q", err, m.Status().WhyNot)
	}
}

// TestARebootThatIsRefused is asked for again and again, without a record for
// each time: before the trial, and after it.
func TestARebootThatIsRefused(t *testing.T) {
	for _, when := range []string{"before the trial", "after the trial"} {
		w := newWorld(t)
		w.offered, w.bad["new"] = "new", "app.service failed"
		w.powerOn()
		if when == "after the trial" {
			if _, err := w.session(true); err != nil {
				t.Fatal(err)
			}
			w.powerOn()
		}
		w.noReboot = errors.New("cannot reboot: an application inhibits it")
		m, done := w.machine()
		if err := errors.Join(m.Recover(t.Context()), m.Update(t.Context(), Options{})); !errors.Is(err, w.noReboot) || !m.Unfinished() {
			t.Errorf("%s: %v, last record %+v", when, err, m.Journal.Last())
		}
		before := m.Journal.Last().Seq
		for range 3 {
			if err := m.Recover(t.Context()); !errors.Is(err, w.noReboot) {
				t.Errorf("%s: %v", when, err)
			}
		}
		if after := m.Journal.Last().Seq; after != before {
			t.Errorf("%s: %d more records", when, after-before)
		}
		w.noReboot = nil
		if err := m.Recover(t.Context()); err != nil || !w.rebooting || !m.Rebooting() {
			t.Errorf("%s: %v, rebooting: %v", when, err, w.rebooting)
		}
		done()
	}
}
