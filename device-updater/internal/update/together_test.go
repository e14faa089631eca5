package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/firmware"
	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

// These are stories of two things that people or applications do at once, where
// each alone is well known.

// TestCancelledAmongHooks: who cancels what hooks have put off is who is named,
// and whoever asks for it later begins anew with them.
func TestCancelledAmongHooks(t *testing.T) {
	w, now, session := hooked(t)
	w.hooks[hook.BeforeFinalise] = &hook.Later{Hook: "10-app", Said: "a sale is open"}
	if err := session(Options{Patient: true}); err == nil {
		t.Fatal("it was not put off")
	}
	m, done := w.machine()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	done()
	if err := session(Options{Patient: true}); err != nil || !strings.HasPrefix(statusOf(t, w).WhyNot, "cancelled by a person") {
		t.Errorf("%v, %q", err, statusOf(t, w).WhyNot)
	}
	*now = now.Add(48 * time.Hour)
	if err := session(Options{Reboot: true}); err == nil || statusOf(t, w).WhyNot != "hook 10-app wants to be asked later: a sale is open" {
		t.Errorf("two days later: %v, %q", err, statusOf(t, w).WhyNot)
	}
	if last := lastOf(w); last.Phase != journal.Staged {
		t.Errorf("hooks were given up at once: %+v", last)
	}
}

// TestTheClockLeapsWhileHooksPutOff: a device without a clock learns the time
// after it has begun. That is not time for which the hooks were waited for.
func TestTheClockLeapsWhileHooksPutOff(t *testing.T) {
	w, now, session := hooked(t)
	w.tune = func(m *Machine) { m.Settings.HookWait, m.Settings.HookRetries = 24*time.Hour, 50 }
	w.hooks[hook.BeforeFinalise] = &hook.Later{Hook: "10-app"}
	for _, at := range []time.Time{time.Unix(0, 0), noon, noon.Add(-time.Hour), noon.AddDate(90, 0, 0), noon} {
		*now = at
		_ = session(Options{})
		if last := lastOf(w); last.Phase != journal.Staged {
			t.Fatalf("at %s: %+v", at, last)
		}
	}
	delete(w.hooks, hook.BeforeFinalise)
	*now = now.Add(time.Hour)
	if err := session(Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
}

// TestADeveloperBootsWhatIsStaged: as status says, also after a power cut.
func TestADeveloperBootsWhatIsStaged(t *testing.T) {
	for _, against := range []string{"", "the assignment has expired"} {
		w := newWorld(t)
		w.offered = "new"
		w.tune = func(m *Machine) { m.Settings.RebootAuto = false }
		m, _ := begun(t, w)
		if against == "" {
			if err := m.Records.PutDevelop(protocol.Hold{Reason: "a new pump"}); err != nil {
				t.Fatal(err)
			}
		}
		w.against = against
		if err := m.Try(t.Context(), []string{tryDeb(t, "app", "1~local")}, "ann", Options{}); err != nil || m.Status().WhyNot != stagedWaits {
			t.Fatalf("%v, %q", err, m.Status().WhyNot)
		}
		m.waiting = waiting{}
		if err := m.Update(t.Context(), Options{Patient: true}); err != nil || w.rebooting {
			t.Fatalf("%v, rebooting: %v", err, w.rebooting)
		}
		w.held = "it is held by vera: audit"
		if err := m.Update(t.Context(), Options{Reboot: true}); err == nil || w.rebooting {
			t.Errorf("%v, rebooting: %v", err, w.rebooting)
		}
		w.held = ""
		if err := m.Update(t.Context(), Options{Reboot: true}); err != nil || !w.rebooting {
			t.Fatalf("%v, rebooting: %v", err, w.rebooting)
		}
	}
}

// TestADeveloperBeginsWhileItStages: what was under way is staged, and is not
// booted.
func TestADeveloperBeginsWhileItStages(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	m, _ := begun(t, w)
	w.atDownload = func() {
		if err := m.Records.PutDevelop(protocol.Hold{Reason: "a new pump"}); err != nil {
			t.Error(err)
		}
	}
	refused(t, m.Update(t.Context(), Options{Patient: true}), "it follows nothing here: a new pump", "")
	if w.rebooting {
		t.Error("it reboots")
	}
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
	refused(t, m.Update(t.Context(), Options{Reboot: true}), "it follows nothing here", "")
}

// TestCancelOfOtherPackages: of the release that is booted, when the product was
// changed. They do not come back at the next check.
func TestCancelOfOtherPackages(t *testing.T) {
	for _, when := range []string{"staged", "under way"} {
		w := newWorld(t)
		w.list = &bom.BOM{State: "old", TopLevel: []string{"app"}}
		w.offered = "old"
		w.tune = func(m *Machine) { m.Settings.RebootAuto = false }
		m, _ := begun(t, w)
		if when == "under way" {
			w.atDownload = func() { m.Cancel() }
		}
		if err := m.Update(t.Context(), Options{Patient: true}); (err == nil) == (when == "under way") {
			t.Fatal(err)
		}
		w.atDownload = nil
		if when == "staged" {
			if err := m.Withdraw(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Update(t.Context(), Options{Patient: true}); err != nil || m.Journal.Last().Phase != journal.Idle || !strings.HasPrefix(m.Status().WhyNot, "cancelled") {
			t.Errorf("%s: %v, %+v, %q", when, err, m.Journal.Last(), m.Status().WhyNot)
		}
		if err := m.Update(t.Context(), Options{}); err != nil || m.Journal.Last().Phase != journal.Staged {
			t.Errorf("%s, a person asks: %v, %+v", when, err, m.Journal.Last())
		}
	}
}

// TestCancelOfATryUnderWay says nothing about the release below it.
func TestCancelOfATryUnderWay(t *testing.T) {
	w := newWorld(t)
	m, _ := begun(t, w)
	w.atDownload = func() { m.Cancel() }
	if err := m.Try(t.Context(), []string{tryDeb(t, "app", "1~local")}, "ann", Options{}); !errors.Is(err, ErrCancelled) {
		t.Fatal(err)
	}
	w.atDownload = nil
	w.list = &bom.BOM{State: "old", TopLevel: []string{"app"}}
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("other packages of that release: %v, rebooting: %v, %q", err, w.rebooting, m.Status().WhyNot)
	}
}

// TestARollbackThatIsRefused leaves what is staged.
func TestARollbackThatIsRefused(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.tune = func(m *Machine) { m.Settings.RebootAuto = false }
	m, _ := begun(t, w)
	if err := m.Update(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	refused(t, m.Rollback(t.Context()), "there is no previous deployment", "")
	if last := m.Journal.Last(); last.Phase != journal.Staged {
		t.Errorf("%+v", last)
	}
}

// heldFirmware is firmware that says how it was held.
type heldFirmware struct{ held string }

func (f *heldFirmware) Converge(_ context.Context, s firmware.Situation) ([]firmware.Change, error) {
	f.held = s.Held
	return nil, nil
}

// TestFirmwareUnderAHoldOfTheDevice: what cannot be undone waits for the end of
// that hold, too.
func TestFirmwareUnderAHoldOfTheDevice(t *testing.T) {
	w := newWorld(t)
	f := &heldFirmware{}
	w.firmware = f
	m, _ := begun(t, w)
	if err := m.Records.PutHold(protocol.Hold{Reason: "at the fair"}); err != nil {
		t.Fatal(err)
	}
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || f.held != "it is held here: at the fair" {
		t.Errorf("%v, %q", err, f.held)
	}
	w.held = "it is held by vera: audit"
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || f.held != w.held {
		t.Errorf("%v, %q", err, f.held)
	}
}

// TestMemoryIsShortForMinutes: an application that takes all there is says
// nothing about a release, however often that is tried meanwhile; scripts that do
// so for an hour do.
func TestMemoryIsShortForMinutes(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	m, now := begun(t, w)
	w.install["new"] = fmt.Errorf("cannot install packages: %w", sandbox.ErrKilled)
	failed := func() int {
		t.Helper()
		all, err := m.Records.Failed()
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for range 20 {
		if err := m.Update(t.Context(), Options{}); !errors.Is(err, sandbox.ErrKilled) || failed() > 0 {
			t.Fatalf("%v; %d releases failed", err, failed())
		}
		*now = now.Add(2 * time.Minute)
	}
	*now = now.Add(-24 * time.Hour)
	if err := m.Update(t.Context(), Options{}); failed() > 0 {
		t.Errorf("the clock was set back: %v", err)
	}
	*now = now.Add(time.Hour)
	for range 2 {
		_ = m.Update(t.Context(), Options{})
	}
	if failed() != 1 {
		t.Error("it is tried for ever")
	}
	w.offered = "newer"
	if err := m.Update(t.Context(), Options{}); err != nil || !w.rebooting {
		t.Errorf("%v", err)
	}
}

// TestEvidenceOfFirmware is what its hook said, without the secrets in it.
func TestEvidenceOfFirmware(t *testing.T) {
	w := newWorld(t)
	w.offered, w.secrets = "new", []string{"hunter2"}
	w.firmware = &chip{w: w, runs: "old", bad: map[string]error{"new": errors.New("cannot bring mcu to firmware 2: it does not run afterwards")}}
	said := filepath.Join(w.dir, "logs/firmware-mcu")
	w.powerOn()
	if err := os.WriteFile(said, []byte("== apply 2\npassword hunter2\nthe port is busy\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = w.settle()
	failed, err := w.records().Failed()
	if err != nil || len(failed) != 1 || len(failed[0].Evidence) != 1 {
		t.Fatalf("%+v, %v", failed, err)
	}
	if e := failed[0].Evidence[0]; e.From != "the hook of firmware mcu" || !strings.HasSuffix(e.Text, "the port is busy") || strings.Contains(e.Text, "hunter2") {
		t.Errorf("%+v", e)
	}
}

// TestHooksArePatientlyAskedAboutATry also where the device follows nothing.
func TestHooksArePatientlyAskedAboutATry(t *testing.T) {
	w := newWorld(t)
	w.offered, w.hooks = "new", map[hook.Point]error{hook.BeforeFinalise: &hook.Later{Hook: "10-app"}}
	m, now := begun(t, w)
	m.Hooks = w
	if err := m.Records.PutDevelop(protocol.Hold{Reason: "a new pump"}); err != nil {
		t.Fatal(err)
	}
	if err := m.Try(t.Context(), []string{tryDeb(t, "app", "1~local")}, "ann", Options{Reboot: true}); err == nil {
		t.Fatal("it was not put off")
	}
	asked := len(w.asks)
	for range 10 {
		if err := m.Update(t.Context(), Options{Patient: true}); err != nil || m.Status().WhyNot != "hook 10-app wants to be asked later" {
			t.Fatalf("%v, %q", err, m.Status().WhyNot)
		}
		*now = now.Add(time.Second)
	}
	if len(w.asks) != asked {
		t.Errorf("asked %d times more", len(w.asks)-asked)
	}
	delete(w.hooks, hook.BeforeFinalise)
	*now = now.Add(time.Minute)
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
}

// TestFinaliseLeftBehind: that what it made was deleted again may be lost with the
// power, and that it is STAGED again is written.
func TestFinaliseLeftBehind(t *testing.T) {
	w, _, session := hooked(t)
	w.hooks[hook.BeforeFinalise] = &hook.Later{Hook: "10-app"}
	_ = session(Options{Reboot: true})
	staged := lastOf(w)
	if staged.Phase != journal.Staged {
		t.Fatalf("%+v", staged)
	}
	for _, left := range []string{deployment(staged.Deployment), deployment(staged.Deployment) + work} {
		w.trees[left] = w.trees[pristine(staged.Deployment)]
		m, done := w.machine()
		if err := m.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		done()
		if _, ok := w.trees[left]; ok || lastOf(w).Phase != journal.Staged {
			t.Errorf("%s is there: %v, %+v", left, ok, lastOf(w))
		}
	}
}
