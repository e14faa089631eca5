package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/order"
)

// do runs a command of the updater on the device.
func (d *fielded) do(args ...string) string {
	d.t.Helper()
	out, err := d.Exec(d.patient(), append([]string{"device-updater"}, args...)...)
	if err != nil {
		d.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return out
}

// has reports whether deployment n can be booted.
func (d *fielded) has(n string) bool {
	_, err := os.Stat(filepath.Join(d.Top(), "deployments", n))
	return err == nil
}

// A device in somebody's hands: it is held, its application must not be cut
// short, somebody thinks better of an update and then wants it, and a deployment
// is too good to lose.
func TestEverydayLifeOfADevice(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	d.on()
	d.do("hold", "--reason", "at the fair")
	d.promote("2")
	d.awaitWhyNot("it is held here")
	d.awaitKnown("that it is held", func(known protocol.Device) bool {
		return known.State == protocol.DeviceHeld && strings.Contains(known.WhyNot, "at the fair")
	})
	d.stays()
	if out := d.do("status"); !strings.Contains(out, "why not\tit is held here by root: at the fair") {
		t.Errorf("status says\n%s", out)
	}

	// The application is at work when the hold ends: the update is staged, and
	// its reboot waits.
	if out, err := d.Exec(d.patient(), "systemd-run", "--unit=pump", "--quiet", "device-updater", "inhibit", "--why", "flashing", "--who", "pump", "--", "sleep", "infinity"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.do("unhold")
	d.awaitWhyNot("it is staged and waits for pump (flashing), until ")
	if d.phase() != "STAGED" {
		t.Errorf("it is in phase %s", d.phase())
	}
	d.stays()

	d.do("cancel")
	d.awaitWhyNot("cancelled by a person when it was staged")
	if d.phase() != "IDLE" {
		t.Errorf("it is in phase %s", d.phase())
	}
	d.stays()
	out := d.do("update", "--wait", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(out, `{"phase":"INSTALL","progress":"`) || !strings.Contains(out, `"unit":"packages","percent":100}`) ||
		!strings.HasPrefix(last, `{"phase":"STAGED"`) || !strings.Contains(last, "pump (flashing)") {
		t.Errorf("it says\n%s", out)
	}
	d.stays()
	// The application crashes: its lock is gone, and the update goes on by itself.
	if out, err := d.Exec(d.patient(), "systemctl", "kill", "--signal=KILL", "pump.service"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.awaitCommit("2")
	d.runs("2", "demo-app")

	d.do("pin", "1", "--reason", "it went to the customer like that")
	d.promote("3")
	d.awaitCommit("3")
	d.promote("4")
	d.awaitCommit("4")
	d.await("the second deployment go", func() bool { return !d.has("2") })
	if !d.has("1") {
		t.Error("the pinned deployment is gone")
	}
	if out := d.do("status"); !strings.Contains(out, "1\tpinned") {
		t.Errorf("status says\n%s", out)
	}
	d.awaitKnown("the pinned deployment", func(known protocol.Device) bool {
		for _, x := range known.Report.Deployments {
			if x.ID == 1 && x.Role == "pinned" && x.Pinned && x.State == world.releases["1"].State {
				return true
			}
		}
		return false
	})
	d.do("unpin", "1")
	d.promote("2")
	d.awaitCommit("2")
	d.await("the unpinned deployment go", func() bool { return !d.has("1") })
}

// The maintenance window is for reboots that nobody asks for.
func TestAMaintenanceWindow(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; package update tries windows with all else that waits")
	}
	t.Parallel()
	d := newDevice(t, func(d *fielded) {
		day := strings.ToLower(time.Now().UTC().AddDate(0, 0, 3).Weekday().String()[:3])
		d.more = map[string]any{"window": day + " 02:00-04:00"}
	})
	d.on()
	d.promote("2")
	d.awaitWhyNot("it is staged and waits for the maintenance window (")
	d.stays()
	if out, err := d.Exec(d.patient(), "device-updater", "update", "--reboot", "--wait"); err != nil {
		t.Logf("the reboot cut its own command short: %v: %s", err, out)
	}
	d.awaitCommit("2")
}
