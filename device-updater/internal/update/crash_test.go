package update

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/test/order"
)

// scenario is a transaction that is cut off.
type scenario struct {
	name string
	// prepare makes the device as it is when the calls begin to count.
	prepare func(t *testing.T) *world
	// ends are the releases that may run in the end: the last one if nothing
	// interrupts it, the others if the power took what a person asked for with
	// it.
	ends []string
}

func scenarios(t *testing.T) []scenario {
	deb := tryDeb(t, "app", "1~local")
	updated := func(t *testing.T) *world {
		w := newWorld(t)
		w.offered = "new"
		w.powerOn()
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		return w
	}
	newer := func(t *testing.T) *world {
		w := newWorld(t)
		w.offered, w.newer = "new", map[string]bool{"new": true}
		w.powerOn()
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		return w
	}
	tried := func(t *testing.T) *world {
		w := newWorld(t)
		w.powerOn()
		w.asked = tries(deb)
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
		return w
	}
	back := func(m *Machine) error { return m.Rollback(t.Context()) }
	const on = "old+app 1~local"
	return []scenario{
		{"good update", func(t *testing.T) *world {
			w := newWorld(t)
			w.offered = "new"
			w.powerOn()
			return w
		}, []string{"new"}},
		{"bad trial", func(t *testing.T) *world {
			w := newWorld(t)
			w.offered, w.bad["new"] = "new", "app.service failed"
			w.powerOn()
			return w
		}, []string{"old"}},
		{"tries used up", func(t *testing.T) *world {
			w := newWorld(t)
			w.offered, w.dead = "new", map[string]bool{"new": true}
			w.powerOn()
			return w
		}, []string{"old"}},
		{"does not install", func(t *testing.T) *world {
			w := newWorld(t)
			w.offered, w.install["new"] = "new", errors.New("apt-get ended with status 100")
			w.powerOn()
			return w
		}, []string{"old"}},
		{"hooks say no", func(t *testing.T) *world {
			w := newWorld(t)
			w.offered = "new"
			w.hooks = map[hook.Point]error{hook.BeforeFinalise: errors.New("hook 10-app: never")}
			w.powerOn()
			return w
		}, []string{"old"}},
		{"rollback", func(t *testing.T) *world {
			w := updated(t)
			w.asked = back
			return w
		}, []string{"new", "old"}},
		{"bad rollback", func(t *testing.T) *world {
			w := updated(t)
			w.asked, w.bad["old"] = back, "its data is too new"
			return w
		}, []string{"new"}},
		{"try", func(t *testing.T) *world {
			w := newWorld(t)
			w.powerOn()
			w.asked = tries(deb)
			return w
		}, []string{"old", on}},
		{"bad try", func(t *testing.T) *world {
			w := newWorld(t)
			w.powerOn()
			w.asked, w.bad[on] = tries(deb), "app.service failed"
			return w
		}, []string{"old"}},
		{"rejoin", func(t *testing.T) *world {
			w := tried(t)
			w.asked = rejoins
			return w
		}, []string{on, "old"}},
		{"update to a newer updater", func(t *testing.T) *world {
			w := newWorld(t)
			w.offered, w.newer = "new", map[string]bool{"new": true}
			w.powerOn()
			return w
		}, []string{"new"}},
		{"bad trial of a newer updater", func(t *testing.T) *world {
			w := newWorld(t)
			w.offered, w.newer, w.bad["new"] = "new", map[string]bool{"new": true}, "app.service failed"
			w.powerOn()
			return w
		}, []string{"old"}},
		{"rollback from a newer updater", func(t *testing.T) *world {
			w := newer(t)
			w.asked = back
			return w
		}, []string{"new", "old"}},
		{"bad rollback from a newer updater", func(t *testing.T) *world {
			w := newer(t)
			w.asked, w.bad["old"] = back, "its data is too new"
			return w
		}, []string{"new"}},
		{"something else is staged", func(t *testing.T) *world {
			w := newWorld(t)
			w.offered = "newer"
			w.powerOn()
			m, done := w.machine()
			defer done()
			m.Settings.RebootAuto = false
			if err := errors.Join(m.Recover(t.Context()), m.Update(t.Context(), Options{})); err != nil || m.Journal.Last().Phase != journal.Staged {
				t.Fatal(err)
			}
			w.offered = "new"
			return w
		}, []string{"new"}},
	}
}

// interruption is what cuts a machine off, and what that does to the disk.
type interruption string

const (
	killed    interruption = "killed"                   // and started again, in the same boot
	powerAll  interruption = "power cut"                // everything that was written is there
	powerNone interruption = "power cut, unsynced lost" // nothing of what was not synced is
	powerSome interruption = "power cut, in between"    // a part of it is: what was done first
	powerTorn interruption = "power cut, torn record"   // and half a record of the journal
	usedUp    interruption = "power cut, tries used up" // and every boot on trial ends like that
)

var interruptions = []interruption{killed, powerAll, powerNone, powerSome, powerTorn}

// suffer lets an interruption happen.
func (w *world) suffer(how interruption, seed uint64) {
	w.t.Helper()
	if how == killed && !w.rebooting {
		return
	}
	if how == powerSome {
		w.some = rand.New(rand.NewPCG(seed, 1))
	}
	w.lose = how == powerNone
	w.powerCut()
	w.lose, w.some = false, nil
	w.powerOn()
	for how == usedUp && w.trialBoot {
		w.powerOn()
	}
}

// watch makes the world keep what a later interruption needs of its past.
func (w *world) watch(c *calls, how interruption) {
	w.since, w.some = nil, nil
	if how == powerSome {
		w.some = rand.New(rand.NewPCG(1, 1))
	}
	c.torn = how == powerTorn
}

// work runs the updater, and boots the device where that is asked for, until it
// rests or is cut off. A release whose updater does not start is ended by PID 1.
func (w *world) work() (wasCut bool, err error) { return w.workFor(2) }

// workFor ends after so many sessions in a row at rest.
func (w *world) workFor(sessions int) (wasCut bool, err error) {
	w.t.Helper()
	for rested := 0; rested < sessions; {
		switch {
		case w.boots > 200 || len(w.steps) > 5000:
			w.t.Fatalf("the device does not come to rest; its steps: %v", w.steps[len(w.steps)-100:])
		case w.dead[w.trees[deployment(w.current)].release]:
			w.rebooting = true
		default:
			if wasCut, err = w.session(true); wasCut {
				return true, nil
			}
		}
		rested++
		if w.rebooting {
			rested = 0
			w.disk, w.since = maps.Clone(w.trees), nil // an orderly reboot loses nothing
			w.powerOn()
		}
	}
	return false, err
}

// copy is the same device once more, at rest or cut off.
func (w *world) copy(t *testing.T) *world {
	t.Helper()
	twin := *w
	twin.t, twin.dir, twin.wrap = t, memoryDir(t), nil
	twin.trees, twin.disk, twin.boot = maps.Clone(w.trees), maps.Clone(w.disk), maps.Clone(w.boot)
	twin.bad, twin.install, twin.hooks = maps.Clone(w.bad), maps.Clone(w.install), maps.Clone(w.hooks)
	twin.steps, twin.since = slices.Clone(w.steps), slices.Clone(w.since)
	if err := os.CopyFS(twin.dir, os.DirFS(w.dir)); err != nil {
		t.Fatal(err)
	}
	return &twin
}

// endsWell checks a device that has come to rest, and that its next update
// succeeds.
func (s scenario) endsWell(t *testing.T, w *world) string {
	t.Helper()
	got := consistent(t, w)
	if !slices.Contains(s.ends, got) {
		t.Errorf("it runs %s, want one of %v", got, s.ends)
	}
	if boots := w.boots; w.hooks == nil {
		w.powerCut()
		w.powerOn()
		if _, err := w.work(); w.boots != boots+1 {
			t.Errorf("it does not rest: %v", err)
		}
	}
	w.offered, w.hooks, w.dead = "next", nil, nil
	if _, err := w.work(); err != nil {
		t.Errorf("the next update: %v", err)
	}
	next := consistent(t, w)
	if wanted, _, _ := strings.Cut(next, "+"); wanted != "next" {
		t.Errorf("after the next update it runs %s", next)
	}
	return got
}

// numbered are the calls of a scenario that nothing interrupts.
func (s scenario) numbered(t *testing.T) []string {
	t.Helper()
	w, c := s.prepare(t), &calls{}
	w.wrap = c.wrap(w)
	_, err := w.workFor(1)
	if got := consistent(t, w); got != s.ends[len(s.ends)-1] {
		t.Fatalf("%s: uninterrupted, it runs %s: %v", s.name, got, err)
	}
	return c.names
}

// TestCrashAtEachCall cuts the updater off before and after each call of each
// scenario, plays the loader, and lets the updater recover: the device runs
// exactly the old or exactly the new release, nothing is left over, and the
// next update succeeds. Each call meets about one kind of interruption on one
// side; with APTFLEET_LONG=1 all of them on both.
func TestCrashAtEachCall(t *testing.T) {
	seed := order.Seed(t)
	for _, s := range scenarios(t) {
		t.Run(s.name, func(t *testing.T) {
			names := s.numbered(t)
			if len(names) < 50 {
				t.Fatalf("only %d calls: %v", len(names), names)
			}
			table := outcomes{}
			dice := rand.New(rand.NewPCG(seed, 0))
			for at := 1; at <= len(names); at++ {
				for _, before := range []bool{true, false} {
					if !before && looks(names[at-1]) {
						continue // nothing has changed until the next call
					}
					hows := interruptions
					if !order.Long() {
						if !looks(names[at-1]) && before == (dice.IntN(2) == 0) {
							continue
						}
						hows = []interruption{hows[dice.IntN(len(hows))]}
					}
					for _, how := range hows {
						t.Run(fmt.Sprintf("%03d %s %s/%s", at, side(before), names[at-1], how), func(t *testing.T) {
							w, c := s.prepare(t), &calls{}
							c.again(at, before)
							w.wrap = c.wrap(w)
							w.watch(c, how)
							if wasCut, err := w.work(); !wasCut {
								t.Fatalf("never came to call %d: %v", at, err)
							}
							state := lastOf(w).Phase
							w.suffer(how, seed)
							c.again(0, false)
							w.work()
							table.add(state, s.endsWell(t, w))
						})
					}
				}
			}
			t.Logf("%s: %d calls\n%s", s.name, len(names), table)
		})
	}
}

// TestCrashDuringRecovery cuts the updater off once more while it recovers:
// random pairs, or with APTFLEET_LONG=1 one in eight of the calls of the recovery
// from each cut.
func TestCrashDuringRecovery(t *testing.T) {
	seed := order.Seed(t)
	dice := rand.New(rand.NewPCG(seed, 2))
	all := scenarios(t)
	pick := func() interruption { return interruptions[dice.IntN(len(interruptions))] }
	again := func(t *testing.T, s scenario, first *world, at int, before bool) (came bool) {
		t.Helper()
		w, c, how := first.copy(t), &calls{}, pick()
		c.again(at, before)
		w.wrap = c.wrap(w)
		w.watch(c, how)
		wasCut, _ := w.work()
		c.again(0, false)
		if wasCut {
			w.suffer(how, seed)
			w.work()
		}
		s.endsWell(t, w)
		return wasCut
	}
	cutOff := func(t *testing.T, s scenario, at int, before bool) *world {
		t.Helper()
		w, c, how := s.prepare(t), &calls{}, pick()
		c.again(at, before)
		w.wrap = c.wrap(w)
		w.watch(c, how)
		if wasCut, err := w.work(); !wasCut {
			t.Fatalf("never came to call %d: %v", at, err)
		}
		w.suffer(how, seed)
		return w
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			names := s.numbered(t)
			if !order.Long() {
				for range 30 {
					at, then := 1+dice.IntN(len(names)), 1+dice.IntN(60)
					before := dice.IntN(2) == 0 || looks(names[at-1])
					t.Run(fmt.Sprintf("%03d %s %s, then %d", at, side(before), names[at-1], then), func(t *testing.T) {
						again(t, s, cutOff(t, s, at, before), then, dice.IntN(2) == 0)
					})
				}
				return
			}
			for at := 1; at <= len(names); at++ {
				t.Run(fmt.Sprintf("%03d %s", at, names[at-1]), func(t *testing.T) {
					first := cutOff(t, s, at, dice.IntN(2) == 0 || looks(names[at-1]))
					for then := 1 + dice.IntN(8); again(t, s, first, then, true) && !t.Failed(); then += 1 + dice.IntN(15) {
					}
				})
			}
		})
	}
}

// looks reports whether a call only looks.
func looks(name string) bool {
	for _, prefix := range []string{
		"Records read", "Releases.Offer", "Releases.Held", "Releases.Plan", "Releases.Reachable", "Roots.Exists", "Roots.Nested", "Roots.List", "Roots.Free",
		"Hooks.Any", "Boot.Current", "Boot.Default", "Boot.Trial", "System.BootID", "System.Uptime", "System.Baseline",
	} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func side(before bool) string {
	if before {
		return "before"
	}
	return "after"
}

// outcomes counts which release devices run in the end that were cut off in a
// state.
type outcomes map[journal.Phase]map[string]int

func (o outcomes) add(state journal.Phase, release string) {
	if o[state] == nil {
		o[state] = map[string]int{}
	}
	o[state][release]++
}

func (o outcomes) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, p := range journal.Phases() {
		for _, release := range slices.Sorted(maps.Keys(o[p])) {
			fmt.Fprintf(w, "%s\t%s\t%d\n", p, release, o[p][release])
		}
	}
	if err := w.Flush(); err != nil {
		return err.Error()
	}
	return b.String()
}
