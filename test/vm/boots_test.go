package vm

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/test/device/bootcontrol"
	"aptfleet/test/order"
)

// patience is for one boot or one update on an emulated processor of a busy
// machine.
const patience = 20 * time.Minute

// boot is what the loader said it starts.
var bootLine = regexp.MustCompile(`aptfleet: boot (\d+)( aptfleet\.trial=1)?`)

// boots lists what the loader started since it was at offset of the console.
func bootsSince(d *Device, offset int) []string {
	var all []string
	for _, m := range bootLine.FindAllStringSubmatch(d.Console()[offset:], -1) {
		line := m[1]
		if m[2] != "" {
			line += " trial"
		}
		all = append(all, line)
	}
	if d.EFI {
		return halved(all)
	}
	return all
}

// halved takes one of each two that are alike: GRUB writes to the console of the
// firmware and to the serial port, which are the same with EFI.
func halved(all []string) (half []string) {
	for pair := range slices.Chunk(all, 2) {
		if slices.Equal(pair, []string{pair[0], pair[0]}) {
			pair = pair[:1]
		}
		half = append(half, pair...)
	}
	return half
}

// device makes a device of a test, which ends with it.
func newTestDevice(t *testing.T, image string, efi bool) *Device {
	t.Helper()
	d, err := NewDevice(t.Context(), t.TempDir(), image)
	must(t, err)
	d.EFI = efi
	t.Cleanup(func() {
		if err := d.Cut(); err != nil {
			t.Error(err)
		}
		if prompt := promptLine.FindString(d.Console()); prompt != "" {
			t.Errorf("a person is asked on the console: %q", prompt)
		}
		if t.Failed() {
			console := d.Console()
			t.Logf("the console's last words:\n%s", console[max(0, len(console)-6000):])
			told := d.Told()
			t.Logf("told:\n%s", strings.Join(told[max(0, len(told)-10):], "\n"))
		}
	})
	return d
}

// promptLine is what GRUB, an initrd or systemd says when it waits for a person.
var promptLine = regexp.MustCompile(`(?m)^.*(grub rescue>|grub>|\(initramfs\)|Give root password|Press Enter for maintenance|emergency mode).*$`)

// await waits until the device tells a line with all the words after it told
// the first skip lines.
func await(t *testing.T, d *Device, skip int, words ...string) {
	t.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, d.Until(ctx, strings.Join(words, " "), func() bool {
		told := d.Told()
		return slices.ContainsFunc(told[min(skip, len(told)):], func(line string) bool {
			fields := strings.Fields(line)
			return !slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(fields, w) })
		})
	}))
	t.Logf("%s after %v", strings.Join(words, " "), time.Since(start).Round(time.Second))
}

func version(kernel string) string { return "kernel=" + strings.TrimPrefix(kernel, "linux-image-") }

// A device with a real loader and a real kernel, made by builder: whatever is
// wrong with a deployment on trial, or with boot control, it ends in the
// committed deployment.
func TestRealBoots(t *testing.T) {
	if !order.Long() {
		t.Skip("a dozen boots on an emulated processor take some ten minutes: make test-long")
	}
	f, d := manufactured(t, "trixie", (*factory).newer, false)
	must(t, d.On())
	await(t, d, 0, "release=1", "root=/deployments/1", "trial=0", version(f.newer()), "phase=IDLE", "committed=1", "updater=active")
	f.runs(t, d, "1")
	must(t, d.Cut())

	for _, c := range []struct {
		name   string
		damage func(t *testing.T, control, top string) // a deployment 9 is there, on trial with two tries
		boots  []string
	}{
		{"kernel is missing", func(t *testing.T, _, top string) { remove(t, top, "boot/vmlinuz-*") }, []string{"9 trial", "1"}},
		{"initrd is missing", func(t *testing.T, _, top string) { remove(t, top, "boot/initrd.img-*") }, []string{"9 trial", "1"}},
		{"entry is missing", func(t *testing.T, _, top string) { remove(t, top, "boot/aptfleet/entry.cfg") }, []string{"9 trial", "1"}},
		{"init is missing", func(t *testing.T, _, top string) { remove(t, top, "usr/lib/systemd/systemd") }, []string{"1"}},
		{"kernel panics", func(t *testing.T, _, top string) {
			entry := filepath.Join(top, "deployments/9/boot/aptfleet/entry.cfg")
			text, err := os.ReadFile(entry)
			must(t, err)
			must(t, os.WriteFile(entry, []byte(strings.Replace(string(text), `set options="`, `set options="init=/bin/false `, 1)), 0o644))
		}, []string{"9 trial", "9 trial", "1"}},
		{"grubenv is empty", func(t *testing.T, control, _ string) {
			must(t, os.Truncate(filepath.Join(control, bootcontrol.TrialFile), 0))
		}, []string{"1"}},
		{"grubenv is zeros", func(t *testing.T, control, _ string) {
			must(t, os.WriteFile(filepath.Join(control, bootcontrol.TrialFile), make([]byte, bootcontrol.BlockSize), 0o600))
		}, []string{"1"}},
		{"tries are used up", func(t *testing.T, control, _ string) {
			must(t, os.WriteFile(filepath.Join(control, bootcontrol.TrialFile), bootcontrol.NewBlock("trial=9", "tries=0"), 0o600))
		}, []string{"1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newTestDevice(t, d.path("disk"), false)
			must(t, d.Open(t.Context(), func(control, top string) error {
				command(t, "btrfs", "subvolume", "snapshot", filepath.Join(top, "deployments/1"), filepath.Join(top, "deployments/9"))
				must(t, os.WriteFile(filepath.Join(control, bootcontrol.TrialFile), bootcontrol.NewBlock("trial=9", "tries=2"), 0o600))
				c.damage(t, control, top)
				return nil
			}))
			must(t, d.On())
			await(t, d, 0, "release=1", "root=/deployments/1", "trial=0", "phase=IDLE", "committed=1", "updater=active")
			if boots := bootsSince(d, 0); !slices.Equal(boots, c.boots) {
				t.Errorf("the loader started %v, want %v", boots, c.boots)
			}
		})
	}
}

// A device updates to another kernel and back, with the initrd built inside the
// clone, and gives a release up that is not healthy; on both releases of Debian,
// with a BIOS and with UEFI.
func TestUpdateToAnotherKernel(t *testing.T) {
	if !order.Long() {
		t.Skip("three updates on an emulated processor take a quarter of an hour: make test-long")
	}
	for _, c := range []struct {
		suite string
		efi   bool
	}{{"trixie", false}, {"bookworm", true}} {
		t.Run(c.suite, func(t *testing.T) { toAnotherKernel(t, c.suite, c.efi) })
	}
}

func toAnotherKernel(t *testing.T, suite string, efi bool) {
	firmware := "efi=no"
	if efi {
		firmware = "efi=yes"
	}
	f, d := manufactured(t, suite, (*factory).older, efi)
	must(t, d.On())
	await(t, d, 0, "release=1", "root=/deployments/1", "trial=0", version(f.older()), "phase=IDLE", "committed=1", "updater=active", firmware)
	// The factory's deployment is what is assigned: nothing is installed.
	f.runs(t, d, "1")
	if strings.Contains(strings.Join(d.Told(), "\n"), "phase=INSTALL") {
		t.Error("the new device installed something")
	}

	f.release(t, "2", f.newer(), nil)
	f.promote(t, "2")
	await(t, d, 0, "release=2", "trial=1", version(f.newer()), "phase=IDLE", "home=yes", firmware)
	f.runs(t, d, "2")

	// A release that is never healthy.
	f.release(t, "3", f.newer(), map[string]string{"/usr/lib/aptfleet/health.d/required/50-bad": "#!/bin/sh\necho no\nexit 1\n"})
	offset, told := len(d.Console()), len(d.Told())
	f.promote(t, "3")
	await(t, d, told, "release=2", "trial=0", "phase=IDLE", "home=yes", "failed=1")
	if boots := bootsSince(d, offset); !slices.Equal(boots, []string{"3 trial", "2"}) {
		t.Errorf("for the unhealthy release the loader started %v", boots)
	}

	// Back to the first kernel.
	f.release(t, "4", f.older(), nil)
	f.promote(t, "4")
	await(t, d, told, "release=4", version(f.older()), "phase=IDLE", "home=yes", "failed=1")
	f.runs(t, d, "4")
}

// A release whose PID 1 hangs while it is on trial: neither a health check nor a
// timer can end that, only the watchdog. It is the kernel's own here, which
// resets the machine as hardware does.
func TestATrialThatHangs(t *testing.T) {
	if !order.Long() {
		t.Skip("an update and its boots on an emulated processor take some ten minutes: make test-long")
	}
	f, d := manufactured(t, "trixie", (*factory).newer, false)
	must(t, d.On())
	await(t, d, 0, "release=1", "trial=0", "phase=IDLE", "committed=1", "updater=active")
	f.release(t, "2", f.newer(), map[string]string{
		"/usr/lib/modules-load.d/vm-softdog.conf": "softdog\n",
		// What systemd does when it crashes is to stand still (systemd(1), CrashReboot=).
		"/usr/lib/aptfleet/health.d/required/50-hang": "#!/bin/sh\nkill -SEGV 1\nsleep infinity\n",
	})
	offset, told := len(d.Console()), len(d.Told())
	f.promote(t, "2")
	await(t, d, told, "release=1", "trial=0", "phase=IDLE", "home=yes", "failed=1")
	// The kernel says so when PID 1 let go of the watchdog and did not end it.
	if n := strings.Count(d.Console()[offset:], "watchdog did not stop!"); n != 2 {
		t.Errorf("PID 1 hung %d times with a watchdog", n)
	}
	if boots := bootsSince(d, offset); !slices.Equal(boots, []string{"2 trial", "2 trial", "1"}) {
		t.Errorf("the loader started %v", boots)
	}
}

// A device whose clock lost its battery updates as any other. One whose clock
// stands ten years ahead stays as it is, says what day it takes it for, and goes
// on as soon as the clock is right.
func TestAWrongHardwareClock(t *testing.T) {
	if !order.Long() {
		t.Skip("two updates on an emulated processor take some ten minutes: make test-long")
	}
	f, d := manufactured(t, "trixie", (*factory).newer, false)
	d.Clock = "1990-01-01T00:00:00"
	must(t, d.On())
	await(t, d, 0, "release=1", "trial=0", "phase=IDLE", "committed=1", "updater=active")
	f.release(t, "2", f.newer(), nil)
	f.promote(t, "2")
	await(t, d, 0, "release=2", "trial=1", "phase=IDLE", "home=yes", "failed=0")
	f.runs(t, d, "2")
	must(t, d.Cut())

	year := time.Now().UTC().Year() + 10
	d.Clock = fmt.Sprintf("%d-01-01T00:00:00", year)
	f.release(t, "3", f.newer(), nil)
	f.promote(t, "3")
	told := len(d.Told())
	must(t, d.On())
	await(t, d, told, "release=2", "trial=0", "phase=IDLE", "home=yes", "updater=active")
	says := fmt.Sprintf("the clock of this device says %d-01-01: if that is wrong, set it (timedatectl set-time)", year)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, d.Until(ctx, says, func() bool {
		known, err := f.server.API.Device(ctx, serial)
		return err == nil && strings.Contains(known.WhyNot, says)
	}))
	must(t, d.Cut())
	if all := strings.Join(d.Told()[told:], "\n"); strings.Contains(all, "INSTALL") || strings.Contains(all, "release=3") {
		t.Errorf("with a clock ten years ahead it went on to release 3:\n%s", all)
	}

	d.Clock = ""
	must(t, d.On())
	await(t, d, told, "release=3", "trial=1", "phase=IDLE", "home=yes", "failed=0")
	f.runs(t, d, "3")
}

// remove deletes files of deployment 9.
func remove(t *testing.T, top, pattern string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(top, "deployments/9", pattern))
	must(t, err)
	if len(found) == 0 {
		t.Fatal(fmt.Errorf("there is no %s", pattern))
	}
	for _, path := range found {
		must(t, os.Remove(path))
	}
}
