package update

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/firmware"
)

// chip is the firmware of a world: what runs on it is that of the release that
// converged last.
type chip struct {
	w    *world
	runs string
	bad  map[string]error // release → why it is not taken
	asks []string
}

func (c *chip) Converge(_ context.Context, s firmware.Situation) ([]firmware.Change, error) {
	c.w.t.Helper()
	release := c.w.trees[deployment(s.Deployment)].release
	if s.Deployment != c.w.current || s.Trial != (c.w.current != committed(c.w)) {
		c.w.t.Errorf("converges as %+v, deployment %d is booted", s, c.w.current)
	}
	if s.Due {
		return nil, nil
	}
	how := "committed"
	if s.Trial {
		how = "trial"
	}
	c.asks = append(c.asks, release+" "+how)
	if err := c.bad[release]; err != nil {
		return nil, err
	}
	var done []firmware.Change
	c.w.step("flash", func() {
		if c.runs != release {
			done = append(done, firmware.Change{Component: "mcu", From: c.runs, To: release})
		}
		c.runs = release
	})
	return done, nil
}

func committed(w *world) int {
	w.t.Helper()
	d, err := boot.New(blocks{w}).Default()
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Committed
}

// TestFirmwareFollowsWhatIsBooted: with the update, and back with the rollback,
// whatever makes it necessary and wherever the power fails.
func TestFirmwareFollowsWhatIsBooted(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  string // why the new release is not healthy
		chip error  // why its firmware is not taken
		want string
	}{
		{name: "good", want: "new"},
		{name: "unhealthy", bad: "app.service failed", want: "old"},
		{name: "not taken", chip: errors.New("cannot bring mcu to firmware 2: no answer"), want: "old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			play := func(at int, before bool) (steps int) {
				w := newWorld(t)
				chip := &chip{w: w, runs: "old", bad: map[string]error{"new": c.chip}}
				w.firmware = chip
				w.offered, w.bad["new"], w.cutAt, w.before = "new", c.bad, at, before
				w.powerOn()
				err := w.settle()
				steps = len(w.steps)
				checkEnd(t, w, c.want == "old", err)
				if chip.runs != c.want {
					t.Errorf("cut at %d (%v): the chip runs %s, want %s; it was asked %v", at, before, chip.runs, c.want, chip.asks)
				}
				if c.chip != nil && at == 0 {
					if failed, err := w.records().Failed(); err != nil || !strings.Contains(failed[0].Reason, "no answer") {
						t.Errorf("%+v, %v", failed, err)
					}
				}
				return steps
			}
			for at := range play(0, false) {
				play(at+1, true)
				play(at+1, false)
			}
		})
	}
}

// TestFirmwareThatFailsAfterTheCommit takes nothing back.
func TestFirmwareThatFailsAfterTheCommit(t *testing.T) {
	w := newWorld(t)
	w.firmware = &chip{w: w, runs: "old", bad: map[string]error{"old": errors.New("no answer")}}
	w.powerOn()
	m, done := w.machine()
	if err := m.Recover(t.Context()); err != nil || m.Status().LastError != "no answer" {
		t.Errorf("%+v, %v", m.Status(), err)
	}
	done()
	w.offered = "new"
	if err := w.settle(); err != nil {
		t.Error(err)
	}
	if state, ok := w.release(); state != "new" || !ok {
		t.Errorf("it runs %s", state)
	}
}

// TestAPersonAppliesFirmware where no update is under way.
func TestAPersonAppliesFirmware(t *testing.T) {
	w := newWorld(t)
	w.firmware = &chip{w: w, runs: "older"}
	w.powerOn()
	m, done := w.machine()
	defer done()
	changes, err := m.ApplyFirmware(t.Context(), "mcu", false)
	if err != nil || fmt.Sprint(changes) != "[{mcu older old}]" {
		t.Errorf("%v, %v", changes, err)
	}
	w.offered = "new"
	if err := m.Update(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	var refused *Refused
	if _, err := m.ApplyFirmware(t.Context(), "", false); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
}
