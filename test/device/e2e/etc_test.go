package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

// What somebody edits while a release is staged is in that release, a conflict
// with it is told, and the device's own apt and dpkg say how packages are changed
// here.
func TestEditsWhileStagedAreInTheNewReleaseAndAptExplains(t *testing.T) {
	t.Parallel()
	d := newDevice(t, func(d *fielded) { d.reboot = "manual" })
	d.on()
	d.promote("2")
	d.await("STAGED", func() bool { return d.phase() == "STAGED" })
	run := func(script string) string {
		t.Helper()
		out, err := d.Exec(d.patient(), "sh", "-c", script)
		if err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
		return out
	}
	run(`printf 'greeting = local\n' >/etc/demo-app.conf; echo local >/etc/local; chmod 600 /etc/local
		useradd --create-home --shell /bin/sh alice && usermod --append --groups dialout alice`)
	for _, command := range []string{"apt-get -y purge demo-app", "dpkg --purge --force-depends demo-app"} {
		out, err := d.Exec(d.patient(), "sh", "-c", "TERM=dumb "+command+" 2>&1")
		if err == nil || !strings.Contains(out, "device-updater try FILE.deb") {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	run("apt-get update && apt-get -s dist-upgrade && dpkg --audit && dpkg -l demo-app")
	if _, err := d.Exec(d.patient(), "device-updater", "update", "--reboot"); err != nil {
		t.Logf("the reboot cut its own command short: %v", err)
	}
	d.awaitCommit("2")
	d.runs("2", "demo-app")
	run(`[ "$(cat /etc/local)" = local ] && [ "$(stat -c %a /etc/local)" = 600 ] && [ "$(cat /etc/demo-app.conf)" = "greeting = local" ]
		grep -q volume /etc/demo-app.conf.aptfleet-new && id alice | grep -q dialout && grep -q ^alice: /etc/shadow`)
	if out := run("device-updater status"); !strings.Contains(out, "conflict\t/etc/demo-app.conf: changed here and by the release") {
		t.Errorf("status says nothing of the conflict:\n%s", out)
	}
	run("rm /etc/demo-app.conf.aptfleet-new")
	if out := run("device-updater status"); strings.Contains(out, "conflict") {
		t.Errorf("status tells a conflict that was resolved:\n%s", out)
	}
	// The daily comparison, and what it found.
	run("systemctl is-active aptfleet-verify.timer && echo x >/usr/share/demo-app/by-hand && systemctl start aptfleet-verify.service")
	var status struct {
		Verified struct {
			Equal   bool
			Unowned int
		}
	}
	if out := run("device-updater status --json"); json.Unmarshal([]byte(out), &status) != nil || status.Verified.Equal || status.Verified.Unowned != 1 {
		t.Errorf("what the comparison found: %+v\n%s", status, out)
	}
}
