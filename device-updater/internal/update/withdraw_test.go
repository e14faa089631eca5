package update

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/journal"
)

// TestWithdraw: what is staged goes, and does not come back by itself, not even
// after a reboot; a person who asks gets it, and another release comes.
func TestWithdraw(t *testing.T) {
	for _, c := range []struct {
		name  string
		again func(w *world, check func() *Machine)
		want  string
	}{
		{"a person asks", func(w *world, _ func() *Machine) {
			w.asked = func(m *Machine) error { return m.Update(w.t.Context(), Options{Reboot: true}) }
		}, "new"},
		{"another release", func(w *world, _ func() *Machine) { w.offered = "newer" }, "newer"},
		{"another release and back", func(w *world, check func() *Machine) {
			w.offered = "old"
			check()
			w.offered = "new"
		}, "new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.offered = "new"
			w.tune = func(m *Machine) { m.Settings.RebootAuto = false }
			w.powerOn()
			patiently := func() *Machine {
				t.Helper()
				m, done := w.machine()
				defer done()
				if err := m.Recover(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := m.Update(t.Context(), Options{Patient: true}); err != nil {
					t.Fatal(err)
				}
				return m
			}
			if m := patiently(); m.Journal.Last().Phase != journal.Staged {
				t.Fatalf("%+v", m.Journal.Last())
			}
			m, done := w.machine()
			if err := m.Recover(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := m.Withdraw(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := m.Withdraw(t.Context()); !errors.Is(err, ErrNothingUnderWay) {
				t.Errorf("twice: %v", err)
			}
			done()
			if left := w.leftOvers(); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			for range 2 {
				m := patiently()
				if last := m.Journal.Last(); last.Phase != journal.Idle || m.Status().WhyNot != "cancelled by a person when it was staged" {
					t.Errorf("the next check: %+v, %q", last, m.Status().WhyNot)
				}
				if failed, err := m.Records.Failed(); err != nil || len(failed) > 0 {
					t.Errorf("it is remembered as failed: %+v, %v", failed, err)
				}
				w.powerCut()
				w.powerOn()
			}
			w.tune = nil
			c.again(w, patiently)
			if w.asked == nil {
				// Nobody asks: only the checks of the daemon.
				patiently()
			} else if _, err := w.session(true); err != nil {
				t.Fatal(err)
			}
			w.powerCut()
			w.powerOn()
			if err := w.settle(); err != nil {
				t.Fatal(err)
			}
			if state, committed := w.release(); state != c.want || !committed {
				t.Errorf("it runs %s", state)
			}
		})
	}
}

// TestWithdrawATry gives up what was put on top, and nothing else.
func TestWithdrawATry(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.tune = func(m *Machine) { m.Settings.RebootAuto = false }
	w.asked = tries(tryDeb(t, "app", "1~local"))
	if _, err := w.session(true); err != nil {
		t.Fatal(err)
	}
	w.asked = func(m *Machine) error { return m.Withdraw(t.Context()) }
	if _, err := w.session(true); err != nil {
		t.Fatal(err)
	}
	if len(w.local()) > 0 {
		t.Errorf("it keeps %v", w.local())
	}
	w.tune, w.offered = nil, "new"
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got := consistent(t, w); got != "new" {
		t.Errorf("it runs %s", got)
	}
}

// TestCutWhileWithdrawing: wherever the power fails, it is staged still or gone
// for good, and nothing is left of it.
func TestCutWhileWithdrawing(t *testing.T) {
	prepare := func(t *testing.T) *world {
		w := newWorld(t)
		w.offered = "new"
		w.tune = func(m *Machine) { m.Settings.RebootAuto = false }
		w.powerOn()
		if _, err := w.session(true); err != nil {
			t.Fatal(err)
		}
		w.disk = cloneTrees(w.trees)
		w.asked = func(m *Machine) error { return m.Withdraw(t.Context()) }
		return w
	}
	whole := prepare(t)
	before := len(whole.steps)
	if _, err := whole.session(true); err != nil {
		t.Fatal(err)
	}
	if len(whole.steps)-before < 3 {
		t.Fatalf("only %v", whole.steps[before:])
	}
	for at := before + 1; at <= len(whole.steps); at++ {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, before: %v", whole.steps[at-1], first), func(t *testing.T) {
				w := prepare(t)
				w.cutAt, w.before = at, first
				if wasCut, err := w.session(true); !wasCut {
					t.Fatal(err)
				}
				w.powerCut()
				w.powerOn()
				for range 2 {
					m, done := w.machine()
					if err := m.Recover(t.Context()); err != nil {
						t.Fatal(err)
					}
					if err := m.Update(t.Context(), Options{Patient: true}); err != nil {
						t.Fatal(err)
					}
					if last := m.Journal.Last(); last.Phase != journal.Idle || !strings.Contains(m.Status().WhyNot, "cancelled") {
						t.Errorf("%+v, %q", last, m.Status().WhyNot)
					}
					done()
				}
				if left := w.leftOvers(); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	}
}
