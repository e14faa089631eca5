package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/test/order"
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
	d.isExactly(1, "1")
	d.awaitCommit("2")
	d.runs("2", "demo-app")
	d.isExactly(d.committed(), "2")
	d.noLeftovers()
}

// Whatever the moment, the device boots exactly the old or exactly the new
// release, and arrives at the new one by itself.
func TestAPowerCutInAnyPhaseLeavesADeviceThatArrives(t *testing.T) {
	phases := []string{"DOWNLOAD", "STAGED", "FINALISE", "TRIAL"}
	if order.Long() {
		phases = []string{"CHECK", "PREFLIGHT", "DOWNLOAD", "SNAPSHOT", "VERIFY", "STAGED", "FINALISE", "REBOOT", "TRIAL", "HEALTH", "COMMIT"}
	}
	random := seeded(t)
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
			d.bootedExactly()
			d.awaitCommit("2")
			d.runs("2", "demo-app")
			d.isExactly(d.committed(), "2")
			d.noLeftovers()
		})
	}
}

// Cuts at any moment of updates to and fro, one after the other on the same
// disk.
func TestManyPowerCutsAtRandomMoments(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; the cuts above are one in each of a few phases")
	}
	random := seeded(t)
	const devices, cuts = 4, 10
	for i := range devices {
		own := rand.New(rand.NewPCG(random.Uint64(), 0))
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			t.Parallel()
			// A cut trial costs a try, and this is not about running out of them.
			d := newDevice(t, func(d *fielded) { d.trial.Tries = 9 })
			goal, phases := "1", map[string]int{}
			d.on()
			for range cuts {
				if d.release(d.committed()) == goal && d.phase() == "IDLE" {
					goal = map[string]string{"1": "2", "2": "1"}[goal]
					d.promote(goal)
				}
				time.Sleep(time.Duration(own.IntN(12_000)) * time.Millisecond)
				d.cut()
				phases[d.phase()]++
				d.on()
				d.bootedExactly()
			}
			d.promote("2")
			d.awaitCommit("2")
			d.isExactly(d.committed(), "2")
			d.noLeftovers()
			t.Logf("cuts by phase: %v", phases)
		})
	}
}

// seeded returns a source of random numbers whose seed is logged and can be
// given again.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	return rand.New(rand.NewPCG(order.Seed(t), 0))
}

// release returns the release of a deployment, from the state id that the
// updater has recorded for it.
func (d *fielded) release(deployment int) string {
	d.t.Helper()
	state := d.stateOf(deployment)
	for name, snapshot := range world.releases {
		if snapshot.State == state {
			return name
		}
	}
	d.t.Fatalf("deployment %d has state %q, which is none of the releases", deployment, state)
	return ""
}

// isExactly compares every file of a deployment with the same release on a
// device that nobody disturbed.
func (d *fielded) isExactly(deployment int, release string) {
	d.t.Helper()
	if got := d.release(deployment); got != release {
		d.t.Errorf("deployment %d is of release %s, want %s", deployment, got, release)
		return
	}
	sameFiles(d.t, "undisturbed", undisturbed(d.t, release, deployment == 1), "here", filesOf(d.t, d.Machine, deployment))
}

// bootedExactly compares what was booted after a cut with its release, whichever
// that is. A trial has the watchdog's drop-in until its COMMIT.
func (d *fielded) bootedExactly() {
	d.t.Helper()
	deployment := d.lastBoot().Deployment
	want, here := undisturbed(d.t, d.release(deployment), deployment == 1), filesOf(d.t, d.Machine, deployment)
	delete(here, "etc/systemd/system.conf.d/00-aptfleet-watchdog.conf")
	sameFiles(d.t, "undisturbed", want, "here", here)
}

// references are the files of releases on devices that nobody disturbed.
var references struct {
	sync.Mutex
	files map[string]map[string]string
}

// undisturbed returns the files of a release on a device that was switched on,
// updated, and switched off: as installed in the factory, which is release
// "1" only, or as updates bring it.
func undisturbed(t *testing.T, release string, factory bool) map[string]string {
	t.Helper()
	references.Lock()
	defer references.Unlock()
	key := release
	if factory {
		key += " from the factory"
	}
	if files, ok := references.files[key]; ok {
		return files
	}
	d := newDevice(t)
	if release == "1" && !factory {
		d.promote("2")
		d.on()
		d.awaitCommit("2")
	}
	d.promote(release)
	d.on()
	d.awaitCommit(release)
	d.off()
	files := filesOf(t, d.Machine, d.committed())
	if references.files == nil {
		references.files = map[string]map[string]string{}
	}
	references.files[key] = files
	return files
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
