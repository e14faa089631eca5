package update

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
)

// hooked is a device with hooks, a release on offer, and a clock.
func hooked(t *testing.T) (w *world, now *time.Time, session func(Options) error) {
	w = newWorld(t)
	w.offered, w.hooks = "new", map[hook.Point]error{}
	w.powerOn()
	now = new(time.Time)
	*now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	w.wrap = func(m *Machine) {
		m.Hooks = w
		m.Clock = func() time.Time { return *now }
	}
	return w, now, func(o Options) error {
		t.Helper()
		m, done := w.machine()
		defer done()
		if err := m.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		return m.Update(t.Context(), o)
	}
}

func TestHooksAreAskedAndTold(t *testing.T) {
	for _, c := range []struct {
		bad  string
		want []hook.Point
	}{
		{"", []hook.Point{hook.BeforeDownload, hook.BeforeFinalise, hook.AfterCommit}},
		{"app.service failed", []hook.Point{hook.BeforeDownload, hook.BeforeFinalise, hook.AfterRolledBack}},
	} {
		w, _, _ := hooked(t)
		w.bad["new"] = c.bad
		w.hooks[hook.AfterCommit], w.hooks[hook.AfterRolledBack] = errors.New("hook 10-a: no\nhook 20-b: nor I"), errors.New("hook 10-a: no")
		_ = w.settle()
		if !slices.Equal(w.asks, c.want) {
			t.Errorf("ran %v, want %v", w.asks, c.want)
		}
		records := mustRead(w)
		last := records[len(records)-1]
		if c.bad == "" && last.Reason != "hook 10-a: no; hook 20-b: nor I" || c.bad != "" && last.Reason != "app.service failed; hook 10-a: no" {
			t.Errorf("%+v", last)
		}
	}
}

// TestHooksPutOff: for some times and some time, over restarts; then the
// transaction ends, is not held against the release, and rests.
func TestHooksPutOff(t *testing.T) {
	for _, point := range []hook.Point{hook.BeforeDownload, hook.BeforeFinalise} {
		for _, bound := range []string{"times", "time"} {
			t.Run(string(point)+"/"+bound, func(t *testing.T) {
				w, now, session := hooked(t)
				w.hooks[point] = &hook.Later{Hook: "10-app", Said: "a sale is open"}
				pause := 2 * time.Minute
				if bound == "time" {
					pause = 59 * time.Minute
				}
				asked, boots := 0, w.boots
				for range 100 {
					_ = session(Options{Patient: true})
					if w.rebooting {
						t.Fatal("it reboots though it was asked not to")
					}
					if asked = len(w.asks); strings.HasPrefix(statusOf(t, w).WhyNot, "it was put off") {
						break
					}
					if point == hook.BeforeFinalise && lastOf(w).Phase != journal.Staged {
						t.Fatalf("%+v", mustRead(w))
					}
					*now = now.Add(pause)
				}
				count := len(slices.DeleteFunc(slices.Clone(w.asks), func(p hook.Point) bool { return p != point }))
				if want := map[string]int{"times": 4, "time": 3}[bound]; count != want {
					t.Errorf("asked %d times, want %d", count, want)
				}
				last := lastOf(w)
				if last.Phase != journal.Idle || !strings.HasSuffix(last.Reason, "a sale is open") || w.boots != boots {
					t.Errorf("%+v", last)
				}
				if left := w.leftOvers(); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
				// It rests, and is no failure.
				before := len(mustRead(w))
				*now = now.Add(time.Hour)
				if err := session(Options{Patient: true}); err != nil || len(w.asks) != asked || len(mustRead(w)) != before {
					t.Errorf("%v, %v", err, mustRead(w)[before:])
				}
				if failed, err := w.records().Failed(); err != nil || len(failed) > 0 {
					t.Errorf("%+v, %v", failed, err)
				}
				// A day later it is asked again, and by a person at once.
				*now = now.Add(23 * time.Hour)
				if err := session(Options{Patient: true}); err == nil || len(w.asks) == asked {
					t.Errorf("a day later: %v", err)
				}
				delete(w.hooks, point)
				if err := session(Options{}); err != nil || !w.rebooting {
					t.Errorf("a person: %v", err)
				}
			})
		}
	}
}

func statusOf(t *testing.T, w *world) Status {
	t.Helper()
	s, err := w.records().Status()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestHooksArePatientlyAsked: not at each check, and another release is asked
// about at once.
func TestHooksArePatientlyAsked(t *testing.T) {
	w, now, session := hooked(t)
	w.hooks[hook.BeforeDownload] = &hook.Later{Hook: "10-app"}
	for range 25 {
		_ = session(Options{Patient: true})
		*now = now.Add(time.Second)
	}
	if len(w.asks) != 1 || statusOf(t, w).WhyNot != "hook 10-app wants to be asked later" {
		t.Errorf("asked %d times; why not: %s", len(w.asks), statusOf(t, w).WhyNot)
	}
	w.offered = "newer"
	if err := session(Options{Patient: true}); err == nil || len(w.asks) != 2 {
		t.Errorf("another release: %v, asked %d times", err, len(w.asks))
	}
	delete(w.hooks, hook.BeforeDownload)
	*now = now.Add(time.Minute)
	if err := session(Options{Patient: true}); err != nil || !w.rebooting {
		t.Errorf("%v", err)
	}
}

// TestHooksThatSayNo end the transaction at once.
func TestHooksThatSayNo(t *testing.T) {
	for _, point := range []hook.Point{hook.BeforeDownload, hook.BeforeFinalise} {
		w, now, session := hooked(t)
		w.hooks[point] = errors.New("hook 10-app: the door is open")
		var refused *Refused
		if err := session(Options{Patient: true}); !errors.As(err, &refused) || w.rebooting {
			t.Errorf("%v", err)
		}
		asked := len(w.asks)
		*now = now.Add(time.Hour)
		if err := session(Options{Patient: true}); err != nil || len(w.asks) != asked || statusOf(t, w).WhyNot != "hook 10-app: the door is open" {
			t.Errorf("an hour later: %v, %+v", err, statusOf(t, w))
		}
		if left := w.leftOvers(); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

// TestRollbackIsNotKeptFrom: its hooks are told.
func TestRollbackIsNotKeptFrom(t *testing.T) {
	w, _, _ := hooked(t)
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	w.asks = nil
	w.hooks[hook.BeforeFinalise] = &hook.Later{Hook: "10-app"}
	w.asked = func(m *Machine) error { return m.Rollback(t.Context()) }
	_ = w.settle()
	if state, _ := w.release(); state != "old" || !slices.Equal(w.asks, []hook.Point{hook.BeforeFinalise, hook.AfterCommit}) {
		t.Errorf("it runs %s; asked %v", state, w.asks)
	}
}

// TestHooksThatEndTheUpdater: recovery runs them again, and then no more.
func TestHooksThatEndTheUpdater(t *testing.T) {
	for _, point := range []hook.Point{hook.AfterCommit, hook.AfterRolledBack} {
		w, _, _ := hooked(t)
		if point == hook.AfterRolledBack {
			w.bad["new"] = "app.service failed"
		}
		inner := w.wrap
		ended := 0
		w.wrap = func(m *Machine) {
			inner(m)
			m.Hooks = endingHooks{w, point, &ended}
		}
		_ = w.settle()
		last := lastOf(w)
		if ended != maxTold || last.Open() || !strings.Contains(last.Reason, "were cut off 3 times") {
			t.Errorf("%s: ended %d times, %+v", point, ended, last)
		}
	}
}

// endingHooks take the updater with them at one point.
type endingHooks struct {
	Hooks
	at    hook.Point
	ended *int
}

func (x endingHooks) Run(ctx context.Context, p hook.Point, env []string) error {
	if p == x.at {
		*x.ended++
		panic(cut{"in hook " + string(p)})
	}
	return x.Hooks.Run(ctx, p, env)
}
