package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aptfleet/test/device/bootcontrol"
)

// answer is what a command of the updater said on the device, and its status.
type answer struct {
	status int
	said   string
}

// atOnce runs commands of the updater at the same time.
func (d *fielded) atOnce(commands ...string) []answer {
	d.t.Helper()
	var script strings.Builder
	script.WriteString("rm -rf /run/at-once; mkdir /run/at-once; cd /run/at-once\n")
	for i, c := range commands {
		fmt.Fprintf(&script, "(device-updater %s >%d.said 2>&1; echo $? >%d.status) &\n", c, i, i)
	}
	script.WriteString("wait\n")
	for i := range commands {
		fmt.Fprintf(&script, "cat %d.status; tr '\\n' ' ' <%d.said; echo\n", i, i)
	}
	out, err := d.Exec(d.patient(), "sh", "-c", script.String())
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if len(lines) == 2*len(commands)-1 { // the last one said nothing
		lines = append(lines, "")
	}
	if err != nil || len(lines) != 2*len(commands) {
		d.t.Fatalf("%v: %v\n%s", commands, err, out)
	}
	var all []answer
	for i, c := range commands {
		a := answer{said: lines[2*i+1]}
		if _, err := fmt.Sscan(lines[2*i], &a.status); err != nil {
			d.t.Fatal(err)
		}
		d.t.Logf("%s: %d %s", c, a.status, a.said)
		all = append(all, a)
	}
	return all
}

// staged are the deployments that wait for their boot.
func (d *fielded) staged() []string {
	d.t.Helper()
	entries, err := os.ReadDir(filepath.Join(d.Top(), "pristine"))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(d.Top(), "deployments", e.Name())); err != nil {
			names = append(names, e.Name())
		}
	}
	return names
}

// Two who want something at once: with a daemon one after the other has it,
// without one there is a lock. Each gets a clear answer with its status, and the
// device does one thing.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	d := newDevice(t, func(d *fielded) { d.reboot = "manual" })
	d.on()
	d.promote("2")
	d.await("it is staged", func() bool { return d.phase() == "STAGED" })

	// A daemon takes them in turn. That there is no way back changes nothing.
	for i, a := range d.atOnce("update --wait", "update --wait", "check", "rollback", "daemon") {
		if want := []int{0, 0, 0, 3, 11}[i]; a.status != want {
			t.Errorf("command %d: status %d, want %d: %s", i, a.status, want, a.said)
		}
	}
	if staged := d.staged(); d.phase() != "STAGED" || len(staged) != 1 {
		t.Errorf("in phase %s, staged are %v", d.phase(), staged)
	}

	// Another process works on the device.
	if out, err := d.Exec(d.patient(), "sh", "-c", "systemctl stop aptfleet-updater.service && systemd-run --quiet --unit=other flock /sysroot/updater/lock sleep 1000 && until ! flock -n /sysroot/updater/lock true; do sleep 0.1; done"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for i, a := range d.atOnce("update", "update --reboot --wait", "update --dry-run", "check", "rollback", "retry", "rejoin", "cancel", "pin 1", "daemon") {
		if a.status != 11 || !strings.Contains(a.said, "another process works on this device") {
			t.Errorf("command %d: status %d: %s", i, a.status, a.said)
		}
	}
	for i, a := range d.atOnce("status", "history", "hold --reason fair") {
		if a.status != 0 {
			t.Errorf("command %d: status %d: %s", i, a.status, a.said)
		}
	}
	for i, a := range d.atOnce("unhold", "verify") {
		if a.status != 0 {
			t.Errorf("command %d: status %d: %s", i, a.status, a.said)
		}
	}
	if out, err := d.Exec(d.patient(), "systemctl", "stop", "other.service"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	// Two commands without a daemon.
	d.promote("3")
	answers := d.atOnce("update", "update", "update")
	done := 0
	for _, a := range answers {
		if a.status == 0 {
			done++
		} else if a.status != 11 {
			t.Errorf("status %d: %s", a.status, a.said)
		}
	}
	if staged := d.staged(); done == 0 || d.phase() != "STAGED" || len(staged) != 1 {
		t.Errorf("%d of them are done, in phase %s; staged are %v", done, d.phase(), staged)
	}

	// The daemon again, with all that boots.
	if out, err := d.Exec(d.patient(), "systemctl", "start", "aptfleet-updater.service"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	boots := len(d.Boots())
	if out, err := d.Exec(d.patient(), "sh", "-c", "device-updater update --reboot & device-updater update --reboot & device-updater check & wait"); err != nil {
		t.Logf("the reboot cut the commands short: %v: %s", err, out)
	}
	d.awaitCommit("3")
	if n := len(d.Boots()) - boots; n != 1 {
		t.Errorf("it booted %d times", n)
	}
	d.promote("4")
	d.await("the next is staged", func() bool { return d.phase() == "STAGED" })
	if out, err := d.Exec(d.patient(), "sh", "-c", "device-updater rollback & device-updater update --reboot --wait & device-updater cancel & wait"); err != nil {
		t.Logf("the reboot cut the commands short: %v: %s", err, out)
	}
	// Whoever came first: one release, whole and committed.
	ends := []string{world.releases["1"].State, world.releases["3"].State, world.releases["4"].State}
	d.await("an end", func() bool {
		phase := d.phase()
		return (phase == "IDLE" || phase == "STAGED") && d.control(bootcontrol.TrialFile, "trial") == "" && d.lastBoot().End == "" && d.lastBoot().Deployment == d.committed()
	})
	d.up()
	if state := d.stateOf(d.committed()); !slices.Contains(ends, state) {
		t.Errorf("it runs state %s", state)
	}
	if staged := d.staged(); len(staged) > 1 {
		t.Errorf("staged are %v", staged)
	}
	if a := d.atOnce("verify"); a[0].status != 0 {
		t.Errorf("%s", a[0].said)
	}
}
