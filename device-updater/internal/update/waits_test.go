package update

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/inhibit"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/window"
	"aptfleet/internal/protocol"
)

// noon is when devices in memory live.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// begun is a machine that has recovered and whose clock a test moves.
func begun(t *testing.T, w *world) (m *Machine, now *time.Time) {
	t.Helper()
	w.powerOn()
	m, done := w.machine()
	t.Cleanup(done)
	at := noon
	m.Clock = func() time.Time { return at }
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m, &at
}

func parseWindow(t *testing.T, text string) window.Window {
	t.Helper()
	w, err := window.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// refused checks that an error is a refusal with words in its reason and hint.
func refused(t *testing.T, err error, reason, hint string) {
	t.Helper()
	var r *Refused
	if !errors.As(err, &r) || !strings.Contains(r.Reason, reason) || !strings.Contains(r.Hint, hint) {
		t.Errorf("want a refusal with %q and %q, got %v", reason, hint, err)
	}
}

// TestAHoldOfTheDeviceItself keeps it as it is, whoever asks, until its time or
// until it is taken off; who holds it may go back.
func TestAHoldOfTheDeviceItself(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	m, now := begun(t, w)
	hold := protocol.Hold{Reason: "at the fair", By: "ann", Until: noon.Add(time.Hour)}
	if err := m.Records.PutHold(hold); err != nil {
		t.Fatal(err)
	}
	const why = "it is held here by ann until 2026-11-20T13:00:00Z: at the fair"
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || m.Status().WhyNot != why {
		t.Errorf("a check: %v, %q", err, m.Status().WhyNot)
	}
	refused(t, m.Update(t.Context(), Options{Reboot: true}), why, "device-updater unhold")
	_, err := m.Preview(t.Context())
	refused(t, err, why, "device-updater unhold")
	refused(t, m.Try(t.Context(), []string{tryDeb(t, "app", "1~local")}, "ann", Options{}), why, "device-updater unhold")
	refused(t, m.Rejoin(t.Context(), Options{}), why, "device-updater unhold")
	if len(m.Journal.Records()) > 0 {
		t.Errorf("it did something: %+v", m.Journal.Records())
	}
	v, err := Look(m.Boot, m.Records, m.Journal.Last(), "production")
	if err != nil || len(v.Report.Holds) != 1 || v.Report.Holds[0] != hold {
		t.Errorf("it reports %+v, %v", v.Report.Holds, err)
	}
	// An operator's comes first.
	w.against = "it is held by vera: audit"
	refused(t, m.Update(t.Context(), Options{}), w.against, "")
	w.against = ""

	*now = hold.Until
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("after its time: %v, rebooting: %v", err, w.rebooting)
	}
}

// TestAHoldThatIsTakenOff, with a clock that was set back meanwhile: what was
// signed says how late it is at least.
func TestAHoldThatIsTakenOff(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	m, now := begun(t, w)
	if err := m.Records.PutHold(protocol.Hold{Reason: "x", Until: noon.Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	*now = time.Unix(0, 0)
	refused(t, m.Update(t.Context(), Options{}), "held here", "")
	if err := m.Records.PutTimes(Times{Floor: noon.Add(2 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if m.heldHere() != "" {
		t.Error("it is held though its time has passed")
	}
	if err := m.Records.PutHold(protocol.Hold{Reason: "y"}); err != nil {
		t.Fatal(err)
	}
	refused(t, m.Update(t.Context(), Options{}), "it is held here: y", "")
	for range 2 {
		if err := m.Records.PutHold(protocol.Hold{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Update(t.Context(), Options{}); err != nil || !w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
}

// TestAHoldThatCannotBeRead is one: nobody knows what it said.
func TestAHoldThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	m, _ := begun(t, w)
	if err := os.WriteFile(filepath.Join(w.dir, holdRecord), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, m.Update(t.Context(), Options{}), holdRecord, "unhold")
	if v, err := Look(m.Boot, m.Records, m.Journal.Last(), "production"); err != nil || len(v.Report.Holds) != 1 {
		t.Errorf("it reports %+v, %v", v.Report.Holds, err)
	}
	if err := m.Records.PutHold(protocol.Hold{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Update(t.Context(), Options{}); err != nil {
		t.Error(err)
	}
}

// TestAHoldOfTheDeviceThatComesWhileItStages: it is staged then, and booted once nothing
// holds it.
func TestAHoldOfTheDeviceThatComesWhileItStages(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	m, _ := begun(t, w)
	w.atDownload = func() {
		if err := m.Records.PutHold(protocol.Hold{Reason: "wait"}); err != nil {
			t.Error(err)
		}
	}
	refused(t, m.Update(t.Context(), Options{Patient: true}), "held here: wait", "unhold")
	if m.Journal.Last().Phase != journal.Staged || w.rebooting {
		t.Fatalf("%+v, rebooting: %v", m.Journal.Last(), w.rebooting)
	}
	if err := m.Records.PutHold(protocol.Hold{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
}

// TestADeveloperFollowsNothing: whatever is offered, what was tried stays, over
// many releases and boots; one command brings the device back.
func TestADeveloperFollowsNothing(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	develop := func(m *Machine) error {
		if err := m.Records.PutDevelop(protocol.Hold{Reason: "a new pump", By: "ann"}); err != nil {
			return err
		}
		return tries(tryDeb(t, "app", "1~local"))(m)
	}
	w.asked = develop
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	for _, release := range []string{"a", "b", "c", "d", "e"} {
		w.offered = release
		boots := w.boots
		err := w.settle()
		refused(t, err, "it follows nothing here by ann: a new pump", "")
		if got := consistent(t, w); got != "old+app 1~local" || w.boots != boots {
			t.Fatalf("%s is offered: it runs %s", release, got)
		}
		w.powerCut()
		w.powerOn()
	}
	m, done := w.machine()
	v, err := Look(m.Boot, m.Records, m.Journal.Last(), "production")
	if err != nil || !v.Report.Developer || v.Develop == nil || v.Develop.Reason != "a new pump" {
		t.Errorf("it reports %+v, %v", v.Report, err)
	}
	done()
	// One that comes to nothing leaves everything as it is.
	w.plan["e"] = errors.New("cannot compute the packages")
	w.asked = rejoins
	if _, err := w.session(true); err == nil {
		t.Fatal("want an error")
	}
	refused(t, w.settle(), "it follows nothing", "")
	delete(w.plan, "e")
	w.asked = rejoins
	for range 2 {
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
	}
	if got := consistent(t, w); got != "e" {
		t.Errorf("it runs %s", got)
	}
	w.offered = "f"
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got := consistent(t, w); got != "f" {
		t.Errorf("it does not follow again: it runs %s", got)
	}
}

// TestTheWindowIsForTheReboot: outside of it everything else happens.
func TestTheWindowIsForTheReboot(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.tune = func(m *Machine) { m.Settings.Window = parseWindow(t, "02:00-04:00") }
	m, now := begun(t, w)
	for range 3 {
		if err := m.Update(t.Context(), Options{Patient: true}); err != nil || w.rebooting {
			t.Fatalf("%v, rebooting: %v", err, w.rebooting)
		}
		const why = "it is staged and waits for the maintenance window (02:00-04:00), which opens at 2026-11-21T02:00:00Z"
		if m.Journal.Last().Phase != journal.Staged || m.Status().WhyNot != why || m.Status().LastError != "" || !m.Waits() || m.Ready(t.Context()) {
			t.Errorf("%s, %+v, waits: %v", m.Journal.Last().Phase, m.Status(), m.Waits())
		}
	}
	if n := strings.Count(strings.Join(w.steps, "\n"), "install begins"); n != 1 {
		t.Errorf("it was installed %d times", n)
	}
	*now = noon.Add(14 * time.Hour)
	if !m.Ready(t.Context()) || m.Waits() {
		t.Error("it still waits")
	}
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
}

// TestAPersonDoesNotWaitForTheWindow: they know what time it is.
func TestAPersonDoesNotWaitForTheWindow(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.tune = func(m *Machine) {
		m.Settings.Window, m.Settings.RebootAuto = parseWindow(t, "02:00-04:00"), false
	}
	m, _ := begun(t, w)
	if err := m.Update(t.Context(), Options{}); err != nil || w.rebooting || m.Status().WhyNot != stagedWaits || m.Waits() {
		t.Fatalf("%v, rebooting: %v, %q", err, w.rebooting, m.Status().WhyNot)
	}
	if err := m.Update(t.Context(), Options{Reboot: true}); err != nil || !w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
}

// TestALockIsWaitedForAtMost: staging goes on, the reboot waits, whoever asked
// for it; a lock that is given up ends that at once, one that stays ends it in
// time.
func TestALockIsWaitedForAtMost(t *testing.T) {
	for _, c := range []struct {
		name   string
		asked  bool // by a person, of a device that does not reboot by itself
		stays  bool // the lock
		second bool // another lock takes its place: that does not begin anew
	}{{"given up", false, false, false}, {"stays", false, true, false}, {"asked for, given up", true, false, false}, {"asked for, stays", true, true, false}, {"one after the other", false, true, true}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.offered = "new"
			locks := []inhibit.Lock{{Who: "pump", Why: "flashing"}, {Who: "app", Why: "a call"}}
			w.tune = func(m *Machine) {
				m.Settings.RebootAuto, m.Settings.InhibitMax = !c.asked, time.Hour
				m.Locks = func(context.Context) []inhibit.Lock { return locks }
			}
			m, now := begun(t, w)
			if err := m.Update(t.Context(), Options{Patient: !c.asked, Reboot: c.asked}); err != nil {
				t.Fatal(err)
			}
			const why = "it is staged and waits for pump (flashing) and 1 more, until 2026-11-20T13:00:00Z at the latest"
			if w.rebooting || m.Journal.Last().Phase != journal.Staged || m.Status().WhyNot != why || !m.Waits() {
				t.Fatalf("%s, %q, rebooting: %v", m.Journal.Last().Phase, m.Status().WhyNot, w.rebooting)
			}
			*now = now.Add(59 * time.Minute)
			if m.Ready(t.Context()) {
				t.Error("it does not wait")
			}
			if c.second {
				locks = locks[1:]
				if m.Ready(t.Context()) || !strings.Contains(m.Status().WhyNot, "app (a call), until 2026-11-20T13:00:00Z") {
					t.Errorf("%q", m.Status().WhyNot)
				}
			}
			if err := m.Update(t.Context(), Options{Patient: true}); err != nil || w.rebooting {
				t.Fatalf("a check meanwhile: %v, rebooting: %v", err, w.rebooting)
			}
			if !c.stays {
				locks = nil
			} else {
				*now = now.Add(time.Minute)
			}
			if !m.Ready(t.Context()) {
				t.Error("it still waits")
			}
			if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
				t.Errorf("%v, rebooting: %v, %q", err, w.rebooting, m.Status().WhyNot)
			}
		})
	}
}

// TestLocksThatDoNotCount: where the configuration says so, and a clock that
// is set back makes nobody wait for longer than the maximum from then on.
func TestLocksThatDoNotCount(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.tune = func(m *Machine) {
		m.Settings.InhibitMax = time.Hour
		m.Locks = func(context.Context) []inhibit.Lock { return []inhibit.Lock{{Who: "pump", Why: "flashing"}} }
	}
	m, now := begun(t, w)
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || w.rebooting {
		t.Fatal(err)
	}
	*now = now.Add(-1000 * time.Hour)
	if m.Ready(t.Context()) {
		t.Error("it does not wait")
	}
	*now = now.Add(time.Hour)
	if !m.Ready(t.Context()) {
		t.Error("it still waits, an hour after the clock was set back")
	}
	m.waiting = waiting{}
	m.Settings.InhibitMax = 0
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
}

// TestAnotherReleaseWhileItWaits takes the place of what is staged, and has its
// own time to wait.
func TestAnotherReleaseWhileItWaits(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.tune = func(m *Machine) { m.Settings.Window = parseWindow(t, "02:00-04:00") }
	m, _ := begun(t, w)
	for _, release := range []string{"new", "newer"} {
		w.offered = release
		if err := m.Update(t.Context(), Options{Patient: true}); err != nil || m.Journal.Last().State != release || m.Journal.Last().Phase != journal.Staged || !m.Waits() {
			t.Fatalf("%v, %+v", err, m.Journal.Last())
		}
	}
	w.powerCut()
	w.powerOn()
	w.tune = nil
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if state, _ := w.release(); state != "newer" {
		t.Errorf("it runs %s", state)
	}
	if left := w.leftOvers(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestTheClockGoesBackInAPause ends it: nobody knows how long it would last.
func TestTheClockGoesBackInAPause(t *testing.T) {
	w := newWorld(t)
	w.offered, w.planErr = "new", errors.New("cannot download packages")
	m, now := begun(t, w)
	for range 12 { // the pauses grow to their maximum
		if err := m.Update(t.Context(), Options{}); err == nil {
			t.Fatal("want an error")
		}
	}
	if m.rests("new") == "" {
		t.Fatal("it does not wait")
	}
	*now = time.Unix(0, 0)
	w.planErr = nil
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("%v, rebooting: %v", err, w.rebooting)
	}
}

// TestATryWaitsForALock also where its device follows nothing, and goes on by
// itself; it does not wait for the window.
func TestATryWaitsForALock(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	locks := []inhibit.Lock{{Who: "pump", Why: "flashing"}}
	w.tune = func(m *Machine) {
		m.Settings.Window, m.Settings.InhibitMax = parseWindow(t, "02:00-04:00"), time.Hour
		m.Locks = func(context.Context) []inhibit.Lock { return locks }
	}
	m, _ := begun(t, w)
	if err := m.Records.PutDevelop(protocol.Hold{Reason: "a new pump"}); err != nil {
		t.Fatal(err)
	}
	check := func(why string) {
		t.Helper()
		if err := m.Update(t.Context(), Options{Patient: true}); err != nil && why == "" || w.rebooting != (why == "") || !strings.Contains(m.Status().WhyNot, why) {
			t.Fatalf("%v, %q, rebooting: %v", err, m.Status().WhyNot, w.rebooting)
		}
	}
	if err := m.Try(t.Context(), []string{tryDeb(t, "app", "1~local")}, "ann", Options{}); err != nil || w.rebooting || !m.Waits() {
		t.Fatalf("%v, rebooting: %v", err, w.rebooting)
	}
	check("pump (flashing)")
	locks = nil
	w.held = "it is held by vera: audit"
	check("follows nothing")
	w.held = ""
	check("")
	w.powerOn()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := consistent(t, w); got != "old+app 1~local" {
		t.Errorf("it runs %s", got)
	}
}

// TestRejoinInstallsWhatWasCancelled: a person asks for it, and a restart of the
// updater does not take that back.
func TestRejoinInstallsWhatWasCancelled(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.tune = func(m *Machine) { m.Settings.RebootAuto = false }
	m, _ := begun(t, w)
	if err := m.Update(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Rejoin(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if last := m.Journal.Last(); last.Phase != journal.Staged || last.State != "new" {
		t.Errorf("%+v", last)
	}
}
