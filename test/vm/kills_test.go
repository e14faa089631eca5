package vm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/bom"
	"aptfleet/test/device/bootcontrol"
	"aptfleet/test/order"
)

// moments are after which record of the updater's journal a device is killed,
// in turn, and how much later at most: within it, or in what follows it.
var moments = []struct {
	phase string
	later time.Duration
}{
	{"DOWNLOAD", 3 * time.Second},
	{"INSTALL", 40 * time.Second},
	{"FINALISE", 3 * time.Second},
	{"REBOOT", 25 * time.Second}, // the shutdown, GRUB, the kernel, its initrd
	{"TRIAL", 8 * time.Second},
	{"COMMIT", 3 * time.Second},
}

// TestKilledWhileUpdating takes the power from a real device in the middle of
// its updates, again and again. It starts by itself each time, in exactly the
// old or the new release, and reaches what is assigned. APTFLEET_QEMU says how
// often, APTFLEET_SEED repeats the moments.
func TestKilledWhileUpdating(t *testing.T) {
	kills := 0
	if order.Long() {
		kills = len(moments)
	}
	if text := os.Getenv("APTFLEET_QEMU"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil || kills < 1 {
			t.Fatalf("cannot use QEMU=%s: it is a number from 1", text)
		}
	}
	if kills == 0 {
		t.Skip("each kill is a boot or two on an emulated processor: make faults-device QEMU=30, make test-long")
	}
	f, d := manufactured(t, "trixie", (*factory).older, false)
	v := &victim{Device: d, factory: f, from: "1", to: "1", random: rand.New(rand.NewPCG(order.Seed(t), 0))}
	// What a factory leaves out is no damage.
	v.asMade = v.damage(v.decide(t))
	must(t, v.On())
	await(t, v.Device, 0, "release=1", "trial=0", "phase=IDLE", "committed=1")
	outcome := map[string]int{}
	for n := range kills {
		m := moments[n%len(moments)]
		v.reach(t, m.phase)
		later := time.Duration(v.random.Int64N(int64(m.later) + 1))
		time.Sleep(later)
		must(t, v.Cut())
		found := v.decide(t)
		outcome[found.which(v)]++
		v.check(t, found)
		v.since = len(v.Told())
		must(t, v.On())
		v.starts(t, found)
		t.Logf("kill %d of %d, %v after %s of release %s: %s", n+1, kills, later.Round(time.Millisecond), m.phase, v.to, found)
		if t.Failed() {
			break
		}
	}
	v.rest(t)
	must(t, v.Cut())
	v.check(t, v.decide(t))
	t.Logf("faults: %d kills of a running device; it started in the old release %d times, in the new one %d times", kills, outcome["old"], outcome["new"])
}

// victim is a device that is killed while it updates.
type victim struct {
	*Device
	factory  *factory
	random   *rand.Rand
	from, to string   // releases: that is committed, and that is assigned
	since    int      // lines that it had told when it was switched on
	failed   int      // releases that it gave up: its tries were used up by kills
	asMade   []string // what dpkg says of a device that was never killed
}

// found is what a killed device is about to boot.
type found struct {
	bootcontrol.Decision
	release  string
	packages []string // name=version, sorted
	damage   []string // lines of dpkg --verify
}

func (s found) String() string { return fmt.Sprintf("%s, release %s", s.Decision, s.release) }

func (s found) which(v *victim) string {
	switch s.release {
	case v.to:
		return "new"
	case v.from:
		return "old"
	}
	return "neither"
}

// decide plays the loader on a copy of the disk, and lets dpkg look at what
// boots.
func (v *victim) decide(t *testing.T) (s found) {
	t.Helper()
	dir := t.TempDir()
	twin, err := NewDevice(t.Context(), dir, v.path("disk"))
	must(t, err)
	must(t, twin.Open(t.Context(), func(control, top string) error {
		if s.Decision, err = bootcontrol.Decide(bootcontrol.Files{BootControl: control, Top: top}); err != nil {
			return err
		}
		root := filepath.Join(top, "deployments", strconv.Itoa(s.Deployment))
		release, err := os.ReadFile(filepath.Join(root, "usr/share/vm-device/release"))
		if err != nil {
			return err
		}
		s.release = string(release)
		s.packages = strings.Fields(command(t, "dpkg-query", "--admindir="+filepath.Join(root, "var/lib/dpkg"), "--show", "--showformat=${Package}=${Version}=${db:Status-Status}\n"))
		slices.Sort(s.packages)
		// It ends with 1 if there is anything to say.
		out, err := exec.CommandContext(t.Context(), "dpkg", "--root="+root, "--verify").Output()
		var ended *exec.ExitError
		if err != nil && !errors.As(err, &ended) {
			return err
		}
		s.damage = strings.Split(strings.TrimSpace(string(out)), "\n")
		return nil
	}))
	must(t, os.Remove(twin.path("disk")))
	return s
}

// conffile is a line about what people and programs may change.
var conffile = regexp.MustCompile(`^\S+ +c /etc/`)

// damage are files that are not as their packages shipped them.
func (v *victim) damage(s found) []string {
	return slices.DeleteFunc(s.damage, func(line string) bool {
		return line == "" || conffile.MatchString(line) || slices.Contains(v.asMade, line)
	})
}

// check says whether what boots is exactly the old or the new release.
func (v *victim) check(t *testing.T, s found) {
	t.Helper()
	if s.which(v) == "neither" {
		t.Errorf("%s would start, and there are %s and %s", s, v.from, v.to)
		return
	}
	bill, err := bom.Decode(v.factory.bill(t, s.release))
	must(t, err)
	want := map[string]bool{}
	for _, p := range bill.Packages {
		want[p.Name+"="+p.Version+"=installed"] = true
	}
	if list := slices.Sorted(maps.Keys(want)); !slices.Equal(s.packages, list) {
		t.Errorf("%s: it has the packages %v, not %v", s, s.packages, list)
	}
	if damage := v.damage(s); len(damage) > 0 {
		t.Errorf("%s: files that are not their packages': %q", s, damage)
	}
}

// starts waits until the device has started after a kill, in what it was found
// to boot.
func (v *victim) starts(t *testing.T, s found) {
	t.Helper()
	trial := "trial=0"
	if s.Trial {
		trial = "trial=1"
	}
	await(t, v.Device, v.since, "release="+s.release, fmt.Sprintf("root=/deployments/%d", s.Deployment), trial)
}

// reach waits until the updater has written a phase down in this boot. Whenever the device
// has come to rest, there is something new for it.
func (v *victim) reach(t *testing.T, phase string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, v.Until(ctx, "the phase "+phase, func() bool {
		told := v.Told()
		fresh := told[min(v.since, len(told)):]
		if slices.ContainsFunc(fresh, func(line string) bool { return strings.Contains(line, `"phase":"`+phase+`"`) }) {
			return true
		}
		if v.rests(fresh) {
			v.next(t)
		}
		return false
	}))
}

var failures = regexp.MustCompile(` failed=(\d+) `)

// rests reports whether the last of the lines is of a device that has what is
// assigned, or has given it up.
func (v *victim) rests(told []string) bool {
	for _, line := range slices.Backward(told) {
		if !strings.HasPrefix(line, "release=") {
			continue
		}
		number := failures.FindStringSubmatch(line)
		if number == nil || !strings.Contains(line, " phase=IDLE ") || !strings.Contains(line, " home=yes ") {
			return false
		}
		failed, err := strconv.Atoi(number[1])
		switch {
		case err != nil:
			return false
		case strings.HasPrefix(line, "release="+v.to+" "):
			v.from = v.to
			return true
		case failed > v.failed && strings.HasPrefix(line, "release="+v.from+" "):
			v.failed = failed
			return true
		}
		return false
	}
	return false
}

// next promotes another release; every fourth has another kernel.
func (v *victim) next(t *testing.T) {
	t.Helper()
	n := len(v.factory.releases) + 1
	kernel := v.factory.older()
	if n/4%2 == 1 {
		kernel = v.factory.newer()
	}
	v.to = strconv.Itoa(n)
	v.factory.release(t, v.to, kernel, nil)
	v.factory.promote(t, v.to)
}

// rest waits until the device has what is assigned, or has given it up.
func (v *victim) rest(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, v.Until(ctx, "the device come to rest", func() bool {
		told := v.Told()
		return v.rests(told[min(v.since, len(told)):])
	}))
}
