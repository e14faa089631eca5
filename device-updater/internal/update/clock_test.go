package update

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
)

// clocks are where the clock of a device may stand that has none, or whose owner
// has set it, beside the time that it is.
var clocks = []time.Time{
	time.Unix(0, 0), noon, noon.Add(-time.Hour), noon.Add(time.Hour), noon.AddDate(-1, 0, 0), noon.AddDate(80, 0, 0), time.Date(2038, 1, 19, 3, 14, 8, 0, time.UTC),
}

// TestAWrongClock stands wherever it wants, at each look of the updater at
// another time. Whatever is decided is decided without it: a good release is
// committed, a bad one goes back and is remembered, a release that is put off is
// not given up, and the next one comes.
func TestAWrongClock(t *testing.T) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 7))
		at := noon
		// Half of them leap at any moment, the others stand still from one boot
		// to the next.
		leaps := seed%2 == 0
		w := newWorld(t)
		w.hooks = map[hook.Point]error{}
		look := func() time.Time {
			if leaps && random.IntN(3) == 0 {
				at = clocks[random.IntN(len(clocks))]
			}
			return at
		}
		w.time = look
		w.wrap = func(m *Machine) {
			m.Hooks, m.Clock = w, look
			m.Settings.HookWait = 24 * time.Hour
			if !leaps {
				at = clocks[random.IntN(len(clocks))]
			}
		}
		w.powerOn()
		for _, step := range []struct {
			release, bad string
			later        bool
			want         string
		}{{"a", "", false, "a"}, {"b", "app.service failed", false, "a"}, {"c", "", true, "c"}, {"d", "", false, "d"}} {
			w.offered, w.bad[step.release] = step.release, step.bad
			if step.later {
				w.hooks[hook.BeforeFinalise] = &hook.Later{Hook: "10-app"}
				for range 3 { // of at most three askings
					if _, err := w.session(true); err == nil || w.rebooting {
						t.Fatalf("seed %d: %v, rebooting: %v", seed, err, w.rebooting)
					}
					w.powerCut()
					w.powerOn()
				}
				if last := lastOf(w); last.Phase != journal.Staged {
					t.Fatalf("seed %d: %s was given up: %+v", seed, step.release, last)
				}
				delete(w.hooks, hook.BeforeFinalise)
			}
			err := w.settle()
			var refused *Refused
			if (err != nil) != (step.bad != "") && !errors.As(err, &refused) {
				t.Fatalf("seed %d: towards %s: %v", seed, step.release, err)
			}
			if got := consistent(t, w); got != step.want {
				t.Fatalf("seed %d: %s is offered: it runs %s", seed, step.release, got)
			}
			failed, err := w.records().Failed()
			if err != nil || len(failed) > 1 || len(failed) == 1 && failed[0].State != "b" || step.release != "a" && len(failed) != 1 {
				t.Errorf("seed %d: after %s it remembers %+v, %v", seed, step.release, failed, err)
			}
		}
		last := int64(0)
		for _, r := range mustRead(w) {
			if r.Seq <= last {
				t.Errorf("seed %d: record %d follows %d", seed, r.Seq, last)
			}
			last = r.Seq
		}
		if past := journal.Transactions(mustRead(w)); len(past) != 4 {
			t.Errorf("seed %d: history has %d transactions", seed, len(past))
		}
	}
}
