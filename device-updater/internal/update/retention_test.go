package update

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"aptfleet/device-updater/internal/journal"
)

// there are the numbers of deployments that can be booted.
func (w *world) there() []int {
	all, _ := loaderDisk{w}.Deployments()
	slices.Sort(all)
	return all
}

// follows brings the device to each release, one after the other.
func (w *world) follows(releases ...string) {
	w.t.Helper()
	for _, release := range releases {
		w.offered = release
		if err := w.settle(); err != nil {
			w.t.Fatal(err)
		}
	}
}

func TestKeepAndPin(t *testing.T) {
	for _, c := range []struct {
		keep int
		pins []int
		want string // after the fifth release, which is deployment 6
	}{
		{0, nil, "[5 6]"},
		{2, nil, "[5 6]"},
		{3, nil, "[4 5 6]"},
		{2, []int{1, 3}, "[1 3 5 6]"},
		{3, []int{1}, "[1 4 5 6]"},
		{3, []int{5}, "[4 5 6]"},
		{20, nil, "[1 2 3 4 5 6]"},
	} {
		t.Run(fmt.Sprint(c.keep, c.pins), func(t *testing.T) {
			w := newWorld(t)
			w.tune = func(m *Machine) { m.Settings.Keep = c.keep }
			w.powerOn()
			for i := range 5 {
				w.follows(fmt.Sprint("release-", i+2))
				m, done := w.machine()
				for _, n := range c.pins {
					if slices.Contains(w.there(), n) {
						if err := m.Pin(n, "ann", "acceptance"); err != nil {
							t.Error(err)
						}
					}
				}
				done()
			}
			if got := fmt.Sprint(w.there()); got != c.want {
				t.Errorf("there are %s, want %s", got, c.want)
			}
		})
	}
}

// TestPin: what may be pinned, what status says, and that an unpinned one goes.
func TestPin(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.follows("2")
	m, done := w.machine()
	defer done()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	refused(t, m.Pin(7, "ann", ""), "cannot pin deployment 7: there is none", "status")
	if err := m.Pin(1, "ann", "acceptance"); err != nil {
		t.Fatal(err)
	}
	d, err := m.Records.Deployment(1)
	if err != nil || d.Pin == nil || d.Pin.By != "ann" || d.Pin.Reason != "acceptance" || !d.Pin.At.Equal(noon) || d.State != "old" {
		t.Errorf("%+v, %v", d, err)
	}
	roles := func() string {
		t.Helper()
		v, err := Look(m.Boot, m.Records, m.Journal.Last(), "production")
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, d := range v.Report.Deployments {
			all = append(all, fmt.Sprint(d.ID, d.Role, d.Pinned))
		}
		return strings.Join(all, " ")
	}
	if got := roles(); got != "2bootedfalse 1rollbacktrue" {
		t.Errorf("%s", got)
	}
	w.offered = "3"
	m.Settings.RebootAuto = false
	if err := m.Update(t.Context(), Options{}); err != nil || m.Journal.Last().Phase != journal.Staged {
		t.Fatal(err)
	}
	refused(t, m.Pin(3, "ann", ""), "there is none", "")
	if err := m.Update(t.Context(), Options{Reboot: true}); err != nil || !w.rebooting {
		t.Fatal(err)
	}
	w.disk = cloneTrees(w.trees)
	refused(t, m.Pin(3, "ann", ""), "cannot pin deployment 3: it is in phase REBOOT, and not committed yet", "")
	w.powerOn()
	if err := m.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := roles(); got != "3bootedfalse 2rollbackfalse 1pinnedtrue" {
		t.Errorf("%s", got)
	}
	if err := m.Unpin(1); err != nil {
		t.Fatal(err)
	}
	if err := m.Prune(t.Context()); err != nil || fmt.Sprint(w.there()) != "[2 3]" {
		t.Errorf("there are %v, %v", w.there(), err)
	}
	if got := roles(); got != "3bootedfalse 2rollbackfalse" {
		t.Errorf("%s", got)
	}
}

// TestNothingGoesThatMayBePinned: a record that cannot be read keeps all.
func TestNothingGoesThatMayBePinned(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.tune = func(m *Machine) { m.Settings.Keep = 9 }
	w.follows("2", "3", "4")
	m, done := w.machine()
	defer done()
	m.Settings.Keep = 2
	if err := os.WriteFile(filepath.Join(w.dir, "deployments/1.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.Prune(t.Context()); err == nil || fmt.Sprint(w.there()) != "[1 2 3 4]" {
		t.Errorf("there are %v, %v", w.there(), err)
	}
}

// TestWhatPruningNeverTouches: the booted, the committed, the previous and
// pinned deployments stay, whatever happened and whatever is to be kept.
func TestWhatPruningNeverTouches(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t)
		keep := rapid.IntRange(0, 5).Draw(r, "keep")
		w.tune = func(m *Machine) { m.Settings.Keep = keep }
		w.powerOn()
		pinned := map[int]bool{}
		for i := range rapid.IntRange(1, 8).Draw(r, "acts") {
			switch rapid.SampledFrom([]string{"update", "bad", "pin", "unpin", "rollback"}).Draw(r, "act") {
			case "update":
				w.offered = fmt.Sprint("good-", i)
			case "bad":
				w.offered = fmt.Sprint("bad-", i)
				w.bad[w.offered] = "it is ill"
			case "pin":
				n := rapid.SampledFrom(w.there()).Draw(r, "pinned")
				pinned[n] = true
				w.asked = func(m *Machine) error { return m.Pin(n, "", "") }
			case "unpin":
				n := rapid.SampledFrom(w.there()).Draw(r, "unpinned")
				delete(pinned, n)
				w.asked = func(m *Machine) error { return m.Unpin(n) }
			case "rollback":
				w.asked = func(m *Machine) error { return m.Rollback(w.t.Context()) }
			}
			_ = w.settle() // a bad release is refused, and there may be nothing to go back to
			needed := []int{w.current}
			for n := range pinned {
				needed = append(needed, n)
			}
			m, done := w.machine()
			if err := m.Recover(w.t.Context()); err != nil {
				r.Fatal(err)
			}
			there := w.there() // what was unpinned goes with the next start
			d, err := m.Boot.Default()
			if err != nil {
				r.Fatal(err)
			}
			if needed = append(needed, d.Committed); d.HasPrevious {
				needed = append(needed, d.Previous)
			}
			for _, n := range needed {
				if !slices.Contains(there, n) {
					r.Fatalf("deployment %d is gone: there are %v", n, there)
				}
			}
			if extra := len(there) - len(pinned); extra > max(keep, 2) {
				r.Fatalf("%d deployments besides %d pinned ones, and %d are to be kept", extra, len(pinned), keep)
			}
			done()
		}
	})
}
