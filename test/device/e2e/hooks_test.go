package e2e

import (
	"strings"
	"testing"
)

// TestHooksPutAReleaseOffAndAreToldOfItsEnd: those of the booted release, which
// are carried along where a person put them there.
func TestHooksPutAReleaseOffAndAreToldOfItsEnd(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	d.on()
	const hooks = `set -e; cd /usr/lib/aptfleet/hooks.d; touch /srv/sale
printf '#!/bin/sh\ntest ! -e /srv/sale || { echo a sale is open; exit 21; }\n' >before-finalise/50-till
printf '#!/bin/sh\necho "$APTFLEET_POINT $APTFLEET_DEPLOYMENT" >>/srv/told\n' | tee after-commit/50-till >after-rolled-back/50-till
chmod +x */50-till`
	if out, err := d.Exec(d.patient(), "sh", "-c", hooks); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.promote("2")
	d.awaitWhyNot("a sale is open")
	d.await("the release staged", func() bool { return d.phase() == "STAGED" })
	d.stays()
	// A person has them asked again at once.
	if out, err := d.Exec(d.patient(), "sh", "-c", "rm /srv/sale && device-updater update"); err != nil {
		t.Logf("the reboot cut its own command short: %v: %s", err, out)
	}
	d.awaitCommit("2")
	d.runs("2", "demo-app")
	if told, err := d.Exec(d.patient(), "cat", "/srv/told"); err != nil || strings.TrimSpace(told) != "after-commit 2" {
		t.Errorf("told: %q, %v", told, err)
	}
	history, err := d.Exec(d.patient(), "device-updater", "history")
	if err != nil || !strings.Contains(history, "committed") {
		t.Errorf("%s, %v", history, err)
	}
}
