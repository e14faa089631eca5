package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"aptfleet/test/device"
	"aptfleet/test/order"
)

// hurried lets a device wait for a person for seconds, and makes it end in
// emergency mode at each boot until /root/repaired is there.
const hurried = `set -e
cd /etc/systemd/system
mkdir -p aptfleet-console.timer.d aptfleet-console.service.d multi-user.target.wants
printf '[Timer]\nOnActiveSec=\nOnActiveSec=4s\nOnUnitInactiveSec=1s\n' >aptfleet-console.timer.d/short.conf
printf '[Service]\nExecStart=\nExecStart=/bin/sh /usr/lib/aptfleet/console-attended 15 60\n' >aptfleet-console.service.d/short.conf
printf '[Unit]\nOnFailure=emergency.target\nOnFailureJobMode=replace-irreversibly\n[Service]\nType=oneshot\nExecStart=/usr/bin/test -e /root/repaired\n' >disk.service
ln -sf ../disk.service multi-user.target.wants/disk.service
systemctl daemon-reload
`

// awaitEmergency waits until the boot with that number, from 0, is in emergency
// mode.
func (d *fielded) awaitEmergency(boot int) {
	d.t.Helper()
	d.awaitEvery(300*time.Millisecond, "emergency mode", func() bool {
		if len(d.Boots()) != boot+1 {
			return false
		}
		ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
		defer cancel()
		out, _ := d.Exec(ctx, "systemctl", "is-active", "emergency.target") // fails until it is
		return strings.TrimSpace(out) == "active"
	})
}

// A committed deployment that ends in emergency mode does not stay there: it is
// booted again, without any trial, until it gets further. A person at the console
// is not interrupted.
func TestACommittedBootInEmergencyModeIsRepeatedUnlessSomebodyIsThere(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; it waits for reboots that come of waiting")
	}
	t.Parallel()
	d := newDevice(t)
	d.on()
	if out, err := d.Exec(d.patient(), "sh", "-c", hurried); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	first := len(d.Boots())
	if out, err := d.Exec(d.patient(), "systemctl", "--no-block", "reboot"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.await("three boots without anybody", func() bool { return len(d.Boots()) >= first+3 })
	for _, b := range d.Boots()[first : first+2] {
		if b.Trial || b.Deployment != 1 || b.End != device.Rebooted {
			t.Errorf("it booted %+v", b)
		}
	}

	// A key is read from the console now and then: the kernel notes when.
	boot := len(d.Boots()) - 1
	d.awaitEmergency(boot)
	stays := func(how string, seconds int, act ...string) {
		t.Helper()
		for range seconds {
			if len(act) > 0 {
				if out, err := d.Exec(d.patient(), act...); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			time.Sleep(time.Second)
		}
		if len(d.Boots()) != boot+1 {
			t.Fatalf("it was rebooted although %s", how)
		}
	}
	stays("somebody types", 22, "touch", "-a", "/dev/console")
	d.await("that the person is gone", func() bool { return len(d.Boots()) > boot+1 })

	// Somebody has logged in, and thinks.
	boot = len(d.Boots()) - 1
	d.awaitEmergency(boot)
	session, logOut := context.WithCancel(t.Context())
	defer logOut()
	go d.Exec(session, "sh", "-c", "echo $$ >/sys/fs/cgroup/system.slice/emergency.service/cgroup.procs && exec sleep 300")
	stays("somebody has logged in", 24)
	// It is repaired, and goes on from where it is.
	if out, err := d.Exec(d.patient(), "sh", "-c", "touch /root/repaired && systemctl --no-block default"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	logOut()
	d.await("the end of the time limit", func() bool {
		out, _ := d.Exec(d.patient(), "systemctl", "is-active", "aptfleet-console.timer", "multi-user.target")
		return out == "inactive\nactive\n" || strings.TrimSpace(out) == "inactive\nactive"
	})
	d.up()
	if len(d.Boots()) != boot+1 || d.committed() != 1 {
		t.Errorf("%d boots, %d is committed", len(d.Boots()), d.committed())
	}
}
