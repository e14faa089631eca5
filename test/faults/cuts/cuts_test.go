package cuts

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/test/order"
	"aptfleet/test/rig"
)

// programs is where TestMain built the updater with its fault points.
var programs string

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Argument {
		os.Exit(Main())
	}
	if code, ended := rig.Apart(); ended {
		os.Exit(code)
	}
	os.Exit(rig.Main("cuts-", "faults", []string{"device-updater"}, func(dir string) (int, error) {
		programs = dir
		return m.Run(), nil
	}))
}

// cut makes and judges images; APTFLEET_SEED repeats the choices of an earlier
// run.
func cut(t *testing.T, c Config) *Result {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("a block device needs root; make test runs as root")
	}
	c.Seed = order.Seed(t)
	if c.Program == "" {
		c.Program = filepath.Join(programs, "device-updater")
	}
	c.Say = t.Logf
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d images of %d updates in %v; %d of a second cut; in %d the next update was made, too; in %d the firmware was half; about %d GRUB was asked; %v\n%v",
		r.Images, r.Rounds, r.Took.Round(time.Second), r.Twice, r.GoneOn, r.Half, r.Booted, r.Writes, r.Tally)
	return r
}

// TestPowerCuts is a short run; make faults-device is a long one, and so is this
// with APTFLEET_LONG.
func TestPowerCuts(t *testing.T) {
	c := Config{Images: 24, GRUB: 0.05}
	if order.Long() {
		c.Images, c.Worlds = 1000, 2
	}
	r := cut(t, c)
	// test/run.sh shows these lines although the test passes.
	for _, state := range States {
		t.Logf("%-28s during %-28s %d", "power cuts of a device", state, r.Tally.In(state))
	}
	if r.Unbootable+r.Mixed > 0 {
		t.Errorf("%d images do not boot, and %d are neither old nor new", r.Unbootable, r.Mixed)
	}
	if missing := r.Tally.Missing(c.Least()); len(missing) > 0 {
		t.Errorf("there are fewer than %d cuts in %q", c.Least(), missing)
	}
	if r.Writes.Lost == 0 || r.Writes.Torn == 0 {
		t.Errorf("nothing was lost: %v", r.Writes)
	}
}

// TestPowerCutsFindBrokenUpdaters lets updaters that leave out one sync prove
// that the judge is not blind, and so does a disk that ignores flushes.
func TestPowerCutsFindBrokenUpdaters(t *testing.T) {
	for _, c := range []struct {
		name, tags string
		quick      Config // if there is one; the long tests look anywhere
	}{
		{"a disk that ignores flushes", "", Config{Images: 4, Deaf: true}},
		{"deployments that are not on the disk before the loader is told", "break_try_sync", Config{Images: 20, Only: []string{"REBOOT"}}},
		{"boot control that is not synced", "break_boot_sync", Config{}},
		{"a journal that is not synced", "break_journal_sync", Config{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := c.quick
			if order.Long() {
				config = Config{Images: 200, Deaf: c.quick.Deaf}
			}
			if config.Images == 0 {
				t.Skip("long: make test-long runs it; it may take many images until such a one is found")
			}
			config.UntilFound = true
			if c.tags != "" {
				dir := t.TempDir()
				if err := rig.Build(t.Context(), dir, "faults "+c.tags, "device-updater"); err != nil {
					t.Fatal(err)
				}
				config.Program = filepath.Join(dir, "device-updater")
			}
			if r := cut(t, config); r.Unbootable+r.Mixed == 0 {
				t.Error("it was not found")
			}
		})
	}
}
