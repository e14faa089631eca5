package update

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"aptfleet/device-updater/internal/journal"
)

// TestCutAtEachStep is the promise of the package: wherever the power fails or
// the updater is killed, the device boots a whole deployment, and then arrives
// at the release that is offered, or stays where it was if that is bad.
func TestCutAtEachStep(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  string // why the new release is not healthy
	}{{"good", ""}, {"bad", "app.service failed"}} {
		steps := stepsOf(t, c.bad)
		if len(steps) < 25 {
			t.Fatalf("only %d steps: %v", len(steps), steps)
		}
		for at := 1; at <= len(steps); at++ {
			for _, how := range []string{"before", "after"} {
				for _, what := range []string{"power", "power that loses what is not synced", "kill"} {
					t.Run(fmt.Sprintf("%s/%02d %s %s/%s", c.name, at, how, steps[at-1], what), func(t *testing.T) {
						w := newWorld(t)
						w.lose = what == "power that loses what is not synced"
						w.offered, w.bad["new"] = "new", c.bad
						w.cutAt, w.before = at, how == "before"
						w.powerOn()
						runToCut(w, what == "kill")
						if !w.cutDid {
							t.Fatalf("never came to step %d", at)
						}
						err := w.settle()
						checkEnd(t, w, c.bad != "", err)
					})
				}
			}
		}
	}
}

// stepsOf returns the steps of an undisturbed run.
func stepsOf(t *testing.T, bad string) []string {
	t.Helper()
	w := newWorld(t)
	w.offered, w.bad["new"] = "new", bad
	w.powerOn()
	checkEnd(t, w, bad != "", w.settle())
	return w.steps
}

// runToCut runs the device until it was cut. A killed updater finds the same
// boot again unless a reboot was asked for.
func runToCut(w *world, kill bool) {
	w.t.Helper()
	for range 20 {
		wasCut, _ := w.session(true)
		if wasCut && kill && !w.rebooting {
			return
		}
		if wasCut || w.rebooting {
			if wasCut {
				w.powerCut()
			} else {
				w.disk = cloneTrees(w.trees)
			}
			w.powerOn()
		}
		if wasCut || !w.rebooting && w.cutDid {
			return
		}
	}
}

func cloneTrees(trees map[string]tree) map[string]tree {
	c := make(map[string]tree, len(trees))
	for k, v := range trees {
		c[k] = v
	}
	return c
}

func checkEnd(t *testing.T, w *world, bad bool, err error) {
	t.Helper()
	state, committed := w.release()
	failed, recErr := w.records().Failed()
	if recErr != nil {
		t.Fatal(recErr)
	}
	want := "new"
	if bad {
		want = "old"
		var refused *Refused
		if !errors.As(err, &refused) {
			t.Errorf("the last check says %v, want that the release is refused", err)
		}
		if len(failed) != 1 || failed[0].State != "new" || failed[0].Reason == "" {
			t.Errorf("failed releases: %+v", failed)
		}
	} else if err != nil {
		t.Errorf("the last check says %v", err)
	}
	if state != want || !committed {
		t.Errorf("the device runs %s (committed: %v), want %s", state, committed, want)
	}
	if left := w.leftOvers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if w.disarmed == 0 {
		t.Error("nobody stopped the time limit of the trial")
	}
	// It stays like that, whatever the power does.
	boots := w.boots
	for range 3 {
		w.powerCut()
		w.powerOn()
		if w.trialBoot {
			t.Error("a power cycle later it is on trial again")
		}
		if cut, _ := w.session(true); cut {
			t.Error("cut twice")
		}
	}
	if state, _ := w.release(); state != want || w.boots != boots+3 {
		t.Errorf("three power cycles later it runs %s", state)
	}
}

// TestABadTrialIsBootedOnce: the tries are for boots that nobody could judge.
func TestABadTrialIsBootedOnce(t *testing.T) {
	w := newWorld(t)
	w.offered, w.bad["new"] = "new", "app.service failed"
	w.powerOn()
	checkEnd(t, w, true, w.settle())
	if w.boots != 3+3 { // the old, the trial, the old; three power cycles
		t.Errorf("%d boots", w.boots-3)
	}
}

// TestAVerdictStands: what was judged bad does not become good because the
// updater was cut off before it could act on it.
func TestAVerdictStands(t *testing.T) {
	w := newWorld(t)
	w.offered, w.bad["new"] = "new", "app.service failed"
	w.powerOn()
	if _, err := w.session(true); err != nil {
		t.Fatal(err)
	}
	w.disk = cloneTrees(w.trees)
	w.powerOn()
	// TRIAL, HEALTH, watch and the verdict are four steps; the power fails before
	// the fifth, which would tell the boot loader.
	w.cutAt, w.before = len(w.steps)+5, true
	if wasCut, err := w.session(true); !wasCut || w.steps[len(w.steps)-1] != "write grubenv" {
		t.Fatalf("not cut behind the verdict: %v, %v", w.steps[len(w.steps)-4:], err)
	}
	w.bad["new"] = ""
	w.powerOn()
	if !w.trialBoot {
		t.Fatal("no try is left")
	}
	if err := w.settle(); err == nil || !strings.Contains(err.Error(), "app.service failed") {
		t.Errorf("%v", err)
	}
	if state, _ := w.release(); state != "old" {
		t.Errorf("it runs %s", state)
	}
}

// TestSetTryWithoutItsRecord: the power fails behind SetTry, and the updater of
// the trial never runs.
func TestSetTryWithoutItsRecord(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	steps := stepsOf(t, "")
	w.cutAt = slices.Index(steps, "write grubenv") + 1
	if wasCut, err := w.session(true); !wasCut {
		t.Fatal(err)
	}
	for _, want := range []bool{true, true, false} {
		w.powerCut()
		w.powerOn()
		if w.trialBoot != want {
			t.Fatalf("trial %v, want %v", w.trialBoot, want)
		}
	}
	boots := w.boots
	if err := w.settle(); err == nil || !strings.Contains(err.Error(), "did not boot far enough") {
		t.Errorf("%v", err)
	}
	if state, _ := w.release(); state != "old" || w.boots != boots {
		t.Errorf("it runs %s after %d more boots", state, w.boots-boots)
	}
}

// TestTrialNeverCommitted: PID 1 ends each trial because the updater in the
// release does nothing.
func TestTrialNeverCommitted(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	if _, err := w.session(true); err != nil || !w.rebooting {
		t.Fatalf("%v, rebooting: %v", err, w.rebooting)
	}
	w.disk = cloneTrees(w.trees)
	for i, want := range []bool{true, true, false} {
		w.powerOn()
		if w.trialBoot != want {
			t.Fatalf("boot %d: trial %v, want %v", i, w.trialBoot, want)
		}
	}
	err := w.settle()
	if state, committed := w.release(); state != "old" || !committed {
		t.Errorf("it runs %s, committed: %v", state, committed)
	}
	if err == nil || !strings.Contains(err.Error(), "it did not boot far enough") {
		t.Errorf("the reason is %v", err)
	}
}

func TestAnotherReleaseIsTriedAfterAFailure(t *testing.T) {
	w := newWorld(t)
	w.offered, w.bad["new"] = "new", "app.service failed"
	w.powerOn()
	if err := w.settle(); err == nil {
		t.Fatal("the bad release was taken")
	}
	w.offered = "newer"
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if state, committed := w.release(); state != "newer" || !committed {
		t.Errorf("it runs %s, committed: %v", state, committed)
	}
}

func TestRetry(t *testing.T) {
	w := newWorld(t)
	w.offered, w.bad["new"] = "new", "app.service failed"
	w.powerOn()
	if err := w.settle(); err == nil {
		t.Fatal("the bad release was taken")
	}
	w.bad["new"] = ""
	if err := w.settle(); err == nil {
		t.Fatal("it was tried again though nobody said so")
	}
	m, done := w.machine()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Update(t.Context(), Options{Retry: true}); err != nil {
		t.Fatal(err)
	}
	done()
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if state, _ := w.release(); state != "new" {
		t.Errorf("it runs %s", state)
	}
}

func TestInstallFailureIsRemembered(t *testing.T) {
	w := newWorld(t)
	w.offered, w.install["new"] = "new", errors.New("apt-get ended with status 100")
	w.powerOn()
	for range 2 {
		err := w.settle()
		if err == nil || !strings.Contains(err.Error(), "dpkg: error processing package app (--configure)") {
			t.Errorf("the reason is %v", err)
		}
	}
	if n := strings.Count(strings.Join(w.steps, "\n"), "install begins"); n != 1 {
		t.Errorf("it was tried %d times", n)
	}
	if left := w.leftOvers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDiskFullDuringInstall says nothing about the release either.
func TestDiskFullDuringInstall(t *testing.T) {
	w := newWorld(t)
	w.offered, w.install["new"] = "new", fmt.Errorf("apt-get ended with status 100: %w", syscall.ENOSPC)
	w.powerOn()
	if err := w.settle(); err == nil {
		t.Fatal("want an error")
	}
	delete(w.install, "new")
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if state, _ := w.release(); state != "new" {
		t.Errorf("it runs %s", state)
	}
}

// TestPassingTroubleIsNotRemembered: what says nothing about the release.
func TestPassingTroubleIsNotRemembered(t *testing.T) {
	for name, trouble := range map[string]func(*world){
		"server":    func(w *world) { w.offerErr = errors.New("connection refused") },
		"solve":     func(w *world) { w.planErr = errors.New("cannot compute the packages") },
		"disk full": func(w *world) { w.free = 1 << 20 },
		"nested":    func(w *world) { w.nested = []string{"var/lib/machines"} },
		"merge":     func(w *world) { w.conflict = errors.New("two accounts have number 999") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.offered = "new"
			trouble(w)
			w.powerOn()
			err := w.settle()
			if err == nil {
				t.Fatal("want a reason")
			}
			status, recErr := w.records().Status()
			if recErr != nil || status.WhyNot == "" || !strings.Contains(err.Error(), status.WhyNot) && !strings.Contains(status.WhyNot, err.Error()) {
				t.Errorf("why not is %q, the error %q", status.WhyNot, err)
			}
			w.offerErr, w.planErr, w.free, w.nested, w.conflict = nil, nil, 100<<30, nil, nil
			if err := w.settle(); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if state, _ := w.release(); state != "new" {
				t.Errorf("it runs %s", state)
			}
		})
	}
}

// TestTroubleIsNotRepeatedAtEveryCheck: the same attempt waits longer each
// time, a person's is made at once, and so is one at another release.
func TestTroubleIsNotRepeatedAtEveryCheck(t *testing.T) {
	w := newWorld(t)
	w.offered, w.planErr = "new", errors.New("cannot download packages: Hash Sum mismatch")
	w.powerOn()
	m, done := w.machine()
	defer done()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	m.Clock = func() time.Time { return now }
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	attempts := func() int64 { return m.Journal.Last().Transaction }
	for range 3600 {
		if err := m.Update(t.Context(), Options{Patient: true}); err == nil && m.Status().WhyNot == "" {
			t.Fatal("nobody says why not")
		}
		now = now.Add(time.Second)
	}
	if n := attempts(); n < 10 || n > 25 {
		t.Errorf("%d attempts in an hour", n)
	}
	before := attempts()
	if err := m.Update(t.Context(), Options{}); err == nil || attempts() != before+1 {
		t.Errorf("a person's attempt: %v", err)
	}
	w.offered = "newer"
	if err := m.Update(t.Context(), Options{Patient: true}); err == nil || attempts() != before+2 {
		t.Errorf("another release: %v", err)
	}
}

func TestSamePackagesNeedNoReboot(t *testing.T) {
	w := newWorld(t)
	w.offered, w.same = "new", true
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	d, err := w.records().Deployment(1)
	if err != nil || d.State != "new" || w.boots != 1 {
		t.Errorf("deployment 1 is %+v after %d boots (%v)", d, w.boots, err)
	}
	w.offered, w.same = "newer", false
	if err := w.settle(); err != nil || w.current != 2 {
		t.Errorf("deployment %d came next, want 2 (%v)", w.current, err)
	}
}

// TestOtherPackagesOfTheSameRelease: the configuration names others now.
func TestOtherPackagesOfTheSameRelease(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	m, done := w.machine()
	defer done()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Update(t.Context(), Options{}); err != nil || len(m.Journal.Records()) > 0 {
		t.Fatalf("the same is wanted and it did something: %v, %v", m.Journal.Records(), err)
	}
	m.Settings.TopLevel = []string{"app", "editor"}
	if err := m.Update(t.Context(), Options{}); err != nil || !w.rebooting {
		t.Fatalf("%v, rebooting: %v", err, w.rebooting)
	}
	d, err := m.Records.Deployment(2)
	if err != nil || d.State != "old" || len(d.TopLevel) != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestStagedWaitsAndIsReplaced(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	manual := func(o Options) *Machine {
		t.Helper()
		m, done := w.machine()
		defer done()
		m.Settings.RebootAuto = false
		if err := m.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := manual(Options{})
	if last := m.Journal.Last(); last.Phase != journal.Staged || w.rebooting {
		t.Fatalf("%+v, rebooting: %v", last, w.rebooting)
	}
	w.powerCut()
	w.powerOn()
	w.offered = "newer"
	m = manual(Options{})
	if last := m.Journal.Last(); last.Phase != journal.Staged || last.State != "newer" {
		t.Fatalf("%+v", last)
	}
	manual(Options{Reboot: true})
	if !w.rebooting {
		t.Fatal("no reboot")
	}
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if state, _ := w.release(); state != "newer" {
		t.Errorf("it runs %s", state)
	}
}

func TestRollbackStays(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	m, done := w.machine()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	done()
	w.powerOn()
	err := w.settle()
	if state, committed := w.release(); state != "old" || !committed {
		t.Errorf("it runs %s, committed: %v", state, committed)
	}
	if err == nil || !strings.Contains(err.Error(), "a person rolled it back") {
		t.Errorf("the check after it says %v", err)
	}
}

func TestRollbackToABadDeploymentComesBack(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	w.bad["old"] = "its data is too new"
	m, done := w.machine()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	done()
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Error(err)
	}
	if state, committed := w.release(); state != "new" || !committed {
		t.Errorf("it runs %s, committed: %v", state, committed)
	}
}

func TestCommittedThatDoesNotLoad(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	delete(w.trees, deployment(w.current))
	w.powerCut()
	w.powerOn()
	err := w.settle()
	if state, committed := w.release(); state != "old" || !committed {
		t.Errorf("it runs %s, committed: %v", state, committed)
	}
	if err == nil || !strings.Contains(err.Error(), "does not load") {
		t.Errorf("the check after it says %v", err)
	}
}

func TestStoppedUpdater(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	m, done := w.machine()
	defer done()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	m.Notify = func(s Status) {
		if s.Phase == string(journal.Download) {
			stop()
		}
	}
	w.planErr = context.Canceled // what an apt that was killed leads to
	if err := m.Update(ctx, Options{}); err == nil || !strings.HasPrefix(err.Error(), "the updater was stopped during DOWNLOAD") {
		t.Errorf("%v", err)
	}
	w.planErr = nil
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("the next check: %v, rebooting: %v", err, w.rebooting)
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.powerOn()
	m, done := w.machine()
	defer done()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if m.Cancel() {
		t.Error("nothing runs and something was cancelled")
	}
	m.Notify = func(s Status) {
		if s.Phase == string(journal.Install) {
			m.Cancel()
		}
	}
	w.install["new"] = ErrCancelled // what a killed apt leads to
	if err := m.Update(t.Context(), Options{}); !errors.Is(err, ErrCancelled) || err.Error() != "cancelled by a person during INSTALL" {
		t.Errorf("%v", err)
	}
	if failed, err := m.Records.Failed(); err != nil || len(failed) > 0 {
		t.Errorf("a cancelled release is remembered as failed: %+v, %v", failed, err)
	}
	if left := w.leftOvers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// The next check does not begin it again; a person may, and another release
	// is another matter.
	last := m.Journal.Last().Seq
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || m.Journal.Last().Seq != last || m.Status().WhyNot != "cancelled by a person during INSTALL" {
		t.Errorf("the next check: %v, %+v", err, m.Status())
	}
	m.Notify = nil
	w.offered = "newer"
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("another release: %v, rebooting: %v", err, w.rebooting)
	}
}
