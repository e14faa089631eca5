package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestAPersonRollsBackAndTheDeviceStaysThere(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	d.on()
	d.promote("2")
	d.awaitCommit("2")
	// Neither stops what follows: a package on hold, and a local account.
	if _, err := d.Exec(d.patient(), "sh", "-c", "echo demo-app hold | dpkg --set-selections && echo 'alice:x:1000:1000::/home/alice:/bin/sh' >>/etc/passwd"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Exec(d.patient(), "device-updater", "rollback"); err != nil {
		t.Logf("the reboot cut its own command short: %v", err)
	}
	d.awaitCommit("1")
	d.runs("1", "demo-app")
	if last := d.lastBoot(); !last.Trial || last.Deployment != 1 {
		t.Errorf("the rollback booted %+v, want a trial of 1", last)
	}
	boots := len(d.Boots())
	d.saysWhyNot("2", "a person rolled it back")
	time.Sleep(3 * time.Second) // three polls: time for it to do what it must not
	if d.committed() != 1 || len(d.Boots()) != boots {
		t.Errorf("it did not stay: committed %d, boots %+v", d.committed(), d.Boots())
	}
	// A person who wants it back gets it, from where the device is now.
	if _, err := d.Exec(d.patient(), "sh", "-c", "echo demo-app hold | dpkg --set-selections && echo 'alice:x:1000:1000::/home/alice:/bin/sh' >>/etc/passwd && device-updater update --retry"); err != nil {
		t.Fatal(err)
	}
	d.awaitCommit("2")
	d.runs("2", "demo-app")
	if out, err := d.Exec(d.patient(), "grep", "^alice:", "/etc/passwd"); err != nil || !strings.Contains(out, "/home/alice") {
		t.Errorf("the local account is gone: %q, %v", out, err)
	}
}
