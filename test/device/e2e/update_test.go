package e2e

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/debian"
	"aptfleet/test/device"
	"aptfleet/test/device/bootcontrol"
)

func TestAGoodUpdateIsCommittedAfterItsTrial(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	began := time.Now()
	d.on()
	times.add("boot of a new device until it is up, enrolled and has its assignment", time.Since(began))
	d.runs("1", "demo-app")

	d.promote("2")
	promoted := time.Now()
	if _, err := d.AwaitBoots(d.patient(), func(b []device.Boot) bool { return len(b) == 2 }); err != nil {
		t.Fatal(err)
	}
	d.up()
	if i := slices.IndexFunc(d.journal(), func(r record) bool { return r.Phase == "REBOOT" }); i >= 0 {
		times.add("downtime: from REBOOT until the new release is up", time.Since(d.journal()[i].At))
	}
	d.awaitCommit("2")
	d.runs("2", "demo-app")

	boots := d.Boots()
	if len(boots) != 2 || boots[0].Trial || !boots[1].Trial || boots[1].Deployment != 2 {
		t.Errorf("boots: %+v, want 1 and then a trial of 2", boots)
	}
	times.add("promotion until the reboot into the new release", boots[0].Ended.Sub(promoted))
	times.add("promotion until the new release is committed", time.Since(promoted))
	if previous := d.control(bootcontrol.CommittedFile, "previous"); previous != "1" {
		t.Errorf("previous is %q, want 1", previous)
	}
	for _, phase := range []string{"CHECK", "DOWNLOAD", "INSTALL", "VERIFY", "STAGED", "FINALISE", "TRIAL", "HEALTH", "COMMIT"} {
		if !slices.ContainsFunc(d.journal(), func(r record) bool { return r.Phase == phase }) {
			t.Errorf("the journal has no %s", phase)
		}
	}
	report := d.status()
	if i := slices.IndexFunc(report.Deployments, func(x protocol.Deployment) bool { return x.Role == "booted" }); i < 0 ||
		report.Deployments[i].State != world.releases["2"].State || report.Deployments[i].Snapshot != world.releases["2"].ID {
		t.Errorf("status does not say that it runs release 2: %+v", report)
	}
	// State outlives the release: the application was started by both.
	starts, err := d.Exec(d.patient(), "cat", "/var/lib/demo/starts")
	if err != nil || starts != "1\n2\n" {
		t.Errorf("the application's state is %q (%v), want its starts as version 1 and 2", starts, err)
	}
	d.hasItsBOM("2")
	d.awaitKnown("that all is well", func(known protocol.Device) bool {
		return known.State == protocol.DeviceOK && known.Has.Snapshot == world.releases["2"].ID && *known.Healthy
	})
	// The command line still says trial, and whatever starts the timer again:
	// its time has passed.
	if out, err := d.Exec(d.patient(), "sh", "-c", "systemctl start aptfleet-trial.timer aptfleet-trial.service; systemctl is-active aptfleet-trial.timer"); strings.TrimSpace(out) != "inactive" {
		t.Errorf("after the commit the time limit of the trial is %q (%v)", out, err)
	}
	// The next ordinary boot is no trial.
	rebooted := time.Now()
	if _, err := d.Exec(d.patient(), "systemctl", "reboot"); err != nil {
		t.Logf("the reboot cut its own command short: %v", err)
	}
	if _, err := d.AwaitBoots(d.patient(), func(b []device.Boot) bool { return len(b) == 3 }); err != nil {
		t.Fatal(err)
	}
	d.up()
	times.add("an ordinary reboot until it is up, to compare", time.Since(rebooted))
	if last := d.lastBoot(); last.Trial || last.Deployment != 2 {
		t.Errorf("the boot after the commit: %+v", last)
	}
	d.runs("2", "demo-app")
}

// Without a server a device does what a stage or a snapshot of the archive
// says; there apt computes which packages that is.
func TestADeviceWithoutAServerFollowsAStageThenAnOlderSnapshot(t *testing.T) {
	t.Parallel()
	d := newDevice(t, plain)
	d.on()
	before := d.packages()
	d.promote("2")
	d.awaitCommit("2")
	d.off()
	d.stage = "snapshot:" + world.releases["1"].ID
	d.configure()
	d.on()
	d.awaitCommit("1")
	d.runs("1", "demo-app")
	if after := d.packages(); !slices.Equal(before, after) {
		t.Errorf("the packages are not those of before:\n%s", difference(before, after))
	}
	if _, err := os.Stat(filepath.Join(d.Top(), "identity/device.key")); err == nil {
		t.Error("it made itself an identity")
	}
}

// Everything in this package runs with loopback only. This test makes sure of
// it, from the test and from within a device.
func TestNoUpstreamCanBeReached(t *testing.T) {
	t.Parallel()
	mirror, _, err := debian.Mirror()
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(mirror)
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := net.DialTimeout("tcp", net.JoinHostPort(u.Hostname(), "80"), 3*time.Second); err == nil {
		conn.Close()
		t.Fatalf("%s can be reached", u.Hostname())
	}
	d := newDevice(t)
	d.on()
	out, err := d.Exec(d.patient(), "cat", "/proc/net/route")
	if err != nil {
		t.Fatal(err)
	}
	// Other tests have networks of their own, which lead nowhere.
	for _, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
		if route := strings.Fields(line); !strings.HasPrefix(route[0], "uplink") || route[2] != "00000000" {
			t.Errorf("the device has a way out: %s", line)
		}
	}
	sources, err := filepath.Glob(filepath.Join(d.Top(), "deployments/1/etc/apt/sources.list*/*"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(d.Top(), "deployments/1/etc/apt/sources.list")); err == nil || len(sources) > 0 {
		t.Errorf("the device has sources of its own: %v", sources)
	}
}

// difference lists what only one of two sorted lists has.
func difference(a, b []string) string {
	var out strings.Builder
	for _, line := range a {
		if !slices.Contains(b, line) {
			out.WriteString("- " + line + "\n")
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			out.WriteString("+ " + line + "\n")
		}
	}
	return out.String()
}
