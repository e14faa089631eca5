package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cutIn switches the device on, ships release "2" and pulls the plug once the
// journal says that phase has begun, after a further moment.
func cutIn(t *testing.T, d *fielded, phase string, after time.Duration) {
	t.Helper()
	d.on()
	d.promote("2")
	began := func() bool {
		return slices.ContainsFunc(d.journal(), func(r record) bool { return r.Phase == phase })
	}
	d.awaitEvery(time.Millisecond, "phase "+phase, began)
	time.Sleep(after)
	d.cut()
	t.Logf("power cut %v after %s had begun; the journal's last phase is %s", after, phase, d.phase())
}

func TestAPowerCutDuringInstallLeavesTheOldDeploymentBootingAndTheNextRunSucceeds(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	cutIn(t, d, "INSTALL", 400*time.Millisecond)
	if phase := d.phase(); phase != "INSTALL" {
		t.Fatalf("the cut was in %s, not in the middle of INSTALL: the moment is chosen badly", phase)
	}
	d.on()
	if last := d.lastBoot(); last.Trial || last.Deployment != 1 {
		t.Fatalf("after the cut it boots %+v, want deployment 1", last)
	}
	d.runs("1", "demo-app")
	d.awaitCommit("2")
	d.runs("2", "demo-app")
	d.noLeftovers()
}

// Whatever the moment, the device boots exactly the old or exactly the new
// release, and arrives at the new one by itself.
func TestAPowerCutInAnyPhaseLeavesADeviceThatArrives(t *testing.T) {
	phases := []string{"DOWNLOAD", "SNAPSHOT", "VERIFY", "STAGED", "FINALISE", "REBOOT", "TRIAL", "HEALTH", "COMMIT"}
	if os.Getenv("APTFLEET_LONG") == "" {
		phases = []string{"DOWNLOAD", "STAGED", "FINALISE", "TRIAL"}
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("APTFLEET_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("APTFLEET_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, phase := range phases {
		after := time.Duration(random.IntN(300)) * time.Millisecond
		t.Run(phase, func(t *testing.T) {
			t.Parallel()
			d := newDevice(t, func(d *fielded) {
				d.trial.Tries = 3
				if phase == "STAGED" { // lasts until somebody reboots the device
					d.reboot = "manual"
				}
			})
			cutIn(t, d, phase, after)
			d.reboot = "auto"
			d.configure()
			d.on()
			switch d.lastBoot().Deployment {
			case 1:
				d.runs("1", "demo-app")
			default:
				d.runs("2", "demo-app")
			}
			d.awaitCommit("2")
			d.runs("2", "demo-app")
			d.noLeftovers()
		})
	}
}

// noLeftovers checks that no unfinished work of the updater stays.
func (d *fielded) noLeftovers() {
	d.t.Helper()
	for _, dir := range []string{"deployments", "pristine", "base"} {
		entries, err := os.ReadDir(filepath.Join(d.Top(), dir))
		if err != nil {
			d.t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name(), ".work") {
				d.t.Errorf("unfinished work is left: %s/%s", dir, e.Name())
			}
		}
	}
}
