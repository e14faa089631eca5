package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/device-updater/internal/rootfs/rootfstest"
)

// TestWorldIsABackEnd: what the tests of this package believe of btrfs is so.
func TestWorldIsABackEnd(t *testing.T) {
	rootfstest.Names(t, func(t *testing.T) rootfstest.Backend {
		w := newWorld(t)
		w.trees, w.stray = map[string]tree{}, map[string]bool{}
		return rootfstest.Backend{
			Roots: w, Size: w.free,
			Create: func(rel string) { w.trees[rel] = tree{release: "old"} },
			Plain:  func(rel string) { w.stray[rel] = true },
		}
	})
}

// epochs is a world whose releases old and new read one format each.
func epochs(t *testing.T) *world {
	w := newWorld(t)
	w.declared = map[string]string{"old": "unit app 1 /var/lib/app", "new": "unit app 2 /var/lib/app", "newer": "unit app 2 /var/lib/app"}
	return w
}

func (w *world) database() string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "top/state/var-lib/app/db"))
	if err != nil {
		w.t.Error(err)
	}
	return string(b)
}

// TestATrialThatFailsTakesItsStateWithIt, wherever the power fails or the
// updater is killed: the old application reads what it last wrote, byte for byte.
func TestATrialThatFailsTakesItsStateWithIt(t *testing.T) {
	play := func(w *world) string {
		w.offered, w.bad["new"] = "new", "app.service failed"
		w.powerOn()
		last := ""
		for range 20 {
			release, _ := w.release()
			if release == "old" {
				// Only boots of the old release add to what it reads.
				if !strings.HasPrefix(w.database(), last) {
					w.t.Errorf("old reads\n%safter it wrote\n%s", w.database(), last)
				}
				last = w.database()
				if strings.Contains(last, "of new") {
					w.t.Errorf("old reads what new wrote:\n%s", last)
				}
			}
			wasCut, _ := w.session(true)
			if !wasCut && !w.rebooting {
				return last
			}
			w.powerCut()
			w.powerOn()
		}
		w.t.Fatalf("the device does not come to rest; its steps: %v", w.steps)
		return ""
	}
	plain := epochs(t)
	play(plain)
	if state, committed := plain.release(); state != "old" || !committed || plain.boots != 3 {
		t.Fatalf("it runs %s, committed: %v, after %d boots", state, committed, plain.boots)
	}
	for at := 1; at <= len(plain.steps); at++ {
		for _, before := range []bool{true, false} {
			t.Run(fmt.Sprintf("%02d %s, before %v", at, plain.steps[at-1], before), func(t *testing.T) {
				w := epochs(t)
				w.cutAt, w.before = at, before
				play(w)
				if state, committed := w.release(); state != "old" || !committed {
					t.Errorf("it runs %s, committed: %v", state, committed)
				}
				if kept, err := w.states().Kept(); err != nil || len(kept) > 0 {
					t.Errorf("kept of what failed: %+v, %v", kept, err)
				}
			})
		}
	}
}

// TestATrialThatTheUpdaterNeverSaw: the loader goes back, and the old release
// reads its data before its updater has even started.
func TestATrialThatTheUpdaterNeverSaw(t *testing.T) {
	w := epochs(t)
	w.offered = "new"
	w.powerOn()
	if _, err := w.session(true); err != nil {
		t.Fatal(err)
	}
	before := w.database()
	for range 2 { // its tries: the kernel panics, say, after the state was mounted
		w.powerOn()
		if !w.trialBoot || !strings.Contains(w.database(), "of new") {
			t.Fatalf("no trial, or new wrote nothing:\n%s", w.database())
		}
	}
	w.powerOn()
	if w.found != before {
		t.Errorf("old found\n%sand had written\n%s", w.found, before)
	}
	if err := w.settle(); err == nil {
		t.Error("the release that failed is not refused")
	}
}

// committedNew is a device that went from old to new, across an epoch.
func committedNew(t *testing.T) *world {
	w := epochs(t)
	w.offered = "new"
	w.powerOn()
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) keptNow() string {
	w.t.Helper()
	kept, err := w.states().Kept()
	if err != nil {
		w.t.Error(err)
	}
	var all []string
	for _, c := range kept {
		all = append(all, fmt.Sprintf("%s of %d by %d", c.Name, c.Epoch, c.Deployment))
	}
	return strings.Join(all, ", ")
}

// TestALaterRollbackSaysWhatWouldBeLost and leaves everything as it is, also what is
// staged; a person who wants it nevertheless gets the data of then, and can come
// back to those of now.
func TestALaterRollbackSaysWhatWouldBeLost(t *testing.T) {
	w := committedNew(t)
	old := "format 1\nboot 1 of old\n"
	if got := w.keptNow(); got != "app of 1 by 1" {
		t.Errorf("kept: %s", got)
	}
	m, done := w.machine()
	var refused *Refused
	err := errors.Join(m.Recover(t.Context()), m.Rollback(t.Context()))
	if !errors.As(err, &refused) || !strings.Contains(refused.Hint, "--restore-state") ||
		!strings.Contains(refused.Reason, "what was written to /var/lib/app since 2026-11-20T12:00:00Z (state unit app, epoch 2) would be lost") {
		t.Errorf("%v", err)
	}
	if m.Unfinished() || m.Rebooting() {
		t.Errorf("it began nevertheless: %+v", m.Journal.Last())
	}
	done()
	new := w.database()
	w.asked = func(m *Machine) error { return m.RollbackState(context.Background()) }
	if err := w.settle(); err != nil && !errors.As(err, &refused) {
		t.Fatal(err)
	}
	if state, committed := w.release(); state != "old" || !committed || w.found != old {
		t.Errorf("it runs %s, committed: %v, and found\n%s", state, committed, w.found)
	}
	if got := w.keptNow(); got != "app of 2 by 2" {
		t.Errorf("kept: %s", got)
	}
	w.asked = func(m *Machine) error { return m.Rollback(context.Background()) }
	if _, err := w.session(true); !errors.As(err, &refused) || !strings.Contains(err.Error(), "epoch 1) would be lost: deployment 2 reads epoch 2, as it left it then") {
		t.Errorf("going forth by rollback: %v", err)
	}
	w.asked = func(m *Machine) error { return m.RollbackState(context.Background()) }
	if err := w.settle(); err != nil && !errors.As(err, &refused) {
		t.Fatal(err)
	}
	if state, _ := w.release(); state != "new" || w.found != new {
		t.Errorf("it runs %s and found\n%swant\n%s", state, w.found, new)
	}
}

// TestARollbackWhoseTrialFails comes back with the state it left.
func TestARollbackWhoseTrialFails(t *testing.T) {
	w := committedNew(t)
	before := w.database()
	w.bad["old"] = "old.service failed"
	w.asked = func(m *Machine) error { return m.RollbackState(context.Background()) }
	if err := w.settle(); err != nil {
		t.Log(err)
	}
	if state, committed := w.release(); state != "new" || !committed || w.found != before {
		t.Errorf("it runs %s, committed: %v, and found\n%swant\n%s", state, committed, w.found, before)
	}
}

// TestARollbackWithinAnEpoch is refused by nobody, and keeps what was written.
func TestARollbackWithinAnEpoch(t *testing.T) {
	w := committedNew(t)
	w.offered = "newer"
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got := w.keptNow(); got != "" {
		t.Errorf("kept of a deployment that is gone: %s", got)
	}
	before := w.database()
	w.asked = func(m *Machine) error { return m.Rollback(context.Background()) }
	var refused *Refused
	if err := w.settle(); err != nil && !errors.As(err, &refused) {
		t.Fatal(err)
	}
	if state, _ := w.release(); state != "new" || w.found != before {
		t.Errorf("it runs %s and found\n%s", state, w.found)
	}
}

// TestWhatWasCommittedDoesNotLoad: the loader takes the previous deployment
// across an epoch. It reads its own data, and what was written since is not
// deleted with the deployment, until another release is committed.
func TestWhatWasCommittedDoesNotLoad(t *testing.T) {
	w := committedNew(t)
	delete(w.trees, "deployments/2")
	w.powerOn()
	if w.current != 1 || w.found != "format 1\nboot 1 of old\n" {
		t.Errorf("%d is booted and found\n%s", w.current, w.found)
	}
	w.offered = "old"
	if err := w.settle(); err != nil {
		t.Log(err)
	}
	if got := w.keptNow(); got != "app of 2 by 2" {
		t.Errorf("kept: %s", got)
	}
	w.offered = "newer"
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got := w.keptNow(); got != "app of 1 by 1" {
		t.Errorf("kept: %s", got)
	}
}

// TestAReleaseThatReadsLess is not accepted: its application could not read what
// was written.
func TestAReleaseThatReadsLess(t *testing.T) {
	for declared, words := range map[string]string{
		"unit app 1 /var/lib/app": "it reads epoch 1 of state unit app, and what was written to /var/lib/app since 2026-11-20T12:00:00Z is of epoch 2",
		"unit app x /var/lib/app": "the epoch is not a number",
		"path /etc/x":             "needs /etc as it is",
	} {
		w := committedNew(t)
		w.offered, w.declared["less"] = "less", declared
		if err := w.settle(); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", declared, err)
		}
		if state, committed := w.release(); state != "new" || !committed || w.trialBoot && w.boots > 2 {
			t.Errorf("%s: it runs %s, committed: %v", declared, state, committed)
		}
	}
	// One that does not have the application may come, and go.
	w := committedNew(t)
	w.offered, w.declared["without"] = "without", "# nothing"
	w.declared["old"], w.declared["new"] = "# nothing", "unit app 2 /var/lib/app"
	m, done := w.machine()
	defer done()
	if units, err := m.acceptUnits("deployments/1"); err != nil || len(units) > 0 {
		t.Errorf("%v, %v", units, err)
	}
}

// TestADamagedLedgerStopsUpdates, and is not held against a release.
func TestADamagedLedgerStopsUpdates(t *testing.T) {
	w := epochs(t)
	w.powerOn()
	if err := os.WriteFile(filepath.Join(w.dir, "top/kept/units.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.offered = "new"
	if _, err := w.session(true); err == nil || !strings.Contains(err.Error(), "cannot read which state units there are") {
		t.Errorf("%v", err)
	}
	m, done := w.machine()
	defer done()
	if failed, err := m.Records.Failed(); err != nil || len(failed) > 0 {
		t.Errorf("remembered as failed: %+v, %v", failed, err)
	}
}

// TestATrialWithoutItsState is not good.
func TestATrialWithoutItsState(t *testing.T) {
	w := epochs(t)
	w.offered = "new"
	w.powerOn()
	if _, err := w.session(true); err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(w.dir, "top/kept/units.json")
	before, err := os.ReadFile(live)
	if err != nil {
		t.Fatal(err)
	}
	w.powerOn()
	if err := os.WriteFile(live, before, 0o600); err != nil { // as if it had failed
		t.Fatal(err)
	}
	if _, err := w.session(true); err != nil || !w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
	m, done := w.machine()
	defer done()
	if last := m.Journal.Last(); !last.Bad || !strings.Contains(last.Reason, "state unit app could not be made ready") {
		t.Errorf("%+v", last)
	}
}

var _ States = rootfs.Units{}

// TestSeedsOfAPrunedDeploymentStayKnown: what its owner deleted does not come
// back with the third release.
func TestSeedsOfAPrunedDeploymentStayKnown(t *testing.T) {
	w := committedNew(t)
	seeded := filepath.Join(w.dir, "top/updater/seeded")
	for n, path := range map[string]string{"1": "srv/of-one", "2": "srv/of-two"} {
		if err := errors.Join(os.MkdirAll(seeded, 0o700), os.WriteFile(filepath.Join(seeded, n), []byte(strconv.Quote(path)+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	w.offered = "newer"
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(seeded, "known")); err != nil || string(got) != "\"srv/of-one\"\n" {
		t.Errorf("known: %q, %v", got, err)
	}
}
