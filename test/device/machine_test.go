package device

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/test/debian"
	"aptfleet/test/device/bootcontrol"
)

// These tests are about the machine itself: a plain Debian root without any
// part of Aptfleet in it.

func plainMachine(t *testing.T, name string) *Machine {
	t.Helper()
	ctx := t.Context()
	loader := filepath.Join(t.TempDir(), "loader")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", loader, "./loader").CombinedOutput(); err != nil {
		t.Fatalf("cannot build the loader: %v: %s", err, out)
	}
	tar, err := debian.Root(ctx, debian.Spec{Suite: "trixie", Packages: []string{"systemd-sysv"}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Create(ctx, Config{Dir: t.TempDir(), Name: name, Loader: loader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			logConsole(t, m)
		}
	})
	if err := m.Install(ctx, Setup{Tar: tar, MachineID: "0123456789abcdef0123456789abcdef"}); err != nil {
		t.Fatal(err)
	}
	return m
}

// logConsole shows the end of a machine's console.
func logConsole(t *testing.T, m *Machine) {
	t.Helper()
	b, err := os.ReadFile(m.ConsoleLog())
	if err != nil {
		t.Logf("no console: %v", err)
		return
	}
	t.Logf("console of %s:\n%s", m.Name(), b[max(0, len(b)-6000):])
}

func limited(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestAMachineBootsRebootsAndPowersOff(t *testing.T) {
	t.Parallel()
	m := plainMachine(t, "plain")
	ctx := limited(t, time.Minute)
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if state, err := m.AwaitUp(ctx); err != nil {
		t.Fatal(state, err)
	}
	t.Logf("up after %v", time.Since(m.Boots()[0].Started).Round(time.Millisecond))
	out, err := m.Exec(ctx, "sh", "-c", "cat /etc/hostname; findmnt -no FSROOT /; test -d /sysroot/deployments/1 && test -f /boot-control/grubenv && echo seen")
	if err != nil || out != "plain\n/deployments/1\nseen\n" {
		t.Fatalf("%q, %v", out, err)
	}
	if _, err := m.Exec(ctx, "systemctl", "reboot"); err != nil {
		t.Logf("the reboot cut the command short: %v", err)
	}
	boots, err := m.AwaitBoots(ctx, func(b []Boot) bool { return len(b) == 2 })
	if err != nil {
		t.Fatal(err)
	}
	if boots[0].End != Rebooted || boots[1].Trial || boots[1].Deployment != 1 {
		t.Fatalf("%+v", boots)
	}
	if err := m.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if end := m.Boots()[1].End; end != PoweredOff {
		t.Fatalf("the second boot ended by %q", end)
	}
}

func TestATrialIsTheLoadersWordAndAPanicStartsAgain(t *testing.T) {
	t.Parallel()
	m := plainMachine(t, "trial")
	ctx := limited(t, time.Minute)
	top := m.Top()
	if err := run(ctx, "btrfs", "subvolume", "snapshot", filepath.Join(top, "deployments/1"), filepath.Join(top, "deployments/2")); err != nil {
		t.Fatal(err)
	}
	// PID 1 of deployment 2 exists but does not run: as a kernel panic.
	if err := os.WriteFile(filepath.Join(top, "deployments/2/usr/lib/systemd/systemd"), []byte("#!/bin/false\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.BootControl(), bootcontrol.TrialFile), bootcontrol.NewBlock("trial=2", "tries=2"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	boots, err := m.AwaitBoots(ctx, func(b []Boot) bool { return len(b) == 3 })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range boots {
		got = append(got, fmt.Sprintf("%d %v %s", b.Deployment, b.Trial, b.End))
	}
	if want := "2 true crash,2 true crash,1 false "; strings.Join(got, ",") != want {
		t.Fatalf("boots: %q, want %q", strings.Join(got, ","), want)
	}
	if _, err := m.AwaitUp(ctx); err != nil {
		t.Fatal(err)
	}
}

// The positive control of every power-cut test: without a sync data is lost,
// with one it is kept. If nothing could be lost, those tests would be blind.
func TestAPowerCutLosesWhatWasNotSynced(t *testing.T) {
	t.Parallel()
	m := plainMachine(t, "cut")
	ctx := limited(t, time.Minute)
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.AwaitUp(ctx); err != nil {
		t.Fatal(err)
	}
	if out, err := m.Exec(ctx, "sh", "-c", "echo kept >/root/kept && sync && echo lost >/root/lost"); err != nil {
		t.Fatal(out, err)
	}
	if err := m.PowerCut(ctx); err != nil {
		t.Fatal(err)
	}
	if end := m.Boots()[0].End; end != PowerLost {
		t.Fatalf("the boot ended by %q", end)
	}
	root := filepath.Join(m.Top(), "deployments/1/root")
	if b, err := os.ReadFile(filepath.Join(root, "kept")); err != nil || string(b) != "kept\n" {
		t.Errorf("what was synced is %q, %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "lost")); err == nil {
		t.Errorf("what was not synced is still there: %q", b)
	}
	if err := m.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.AwaitUp(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestAClonedMachineRunsBesideTheOther(t *testing.T) {
	t.Parallel()
	m := plainMachine(t, "first")
	ctx := limited(t, time.Minute)
	clone, err := m.Clone(ctx, Config{Dir: t.TempDir(), Name: "second", Loader: m.config.Loader})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := clone.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, each := range []*Machine{m, clone} {
		if err := each.PowerOn(); err != nil {
			t.Fatal(err)
		}
		if _, err := each.AwaitUp(ctx); err != nil {
			t.Fatal(err)
		}
		if out, err := each.Exec(ctx, "sh", "-c", "echo "+each.Name()+" >/root/who"); err != nil {
			t.Fatal(out, err)
		}
	}
	if _, err := m.Clone(ctx, Config{Dir: t.TempDir(), Name: "third", Loader: m.config.Loader}); err == nil {
		t.Error("a running machine was cloned")
	}
	// Stopping the services of one must not stop those of the other.
	if err := m.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if state, err := clone.AwaitUp(ctx); err != nil {
		t.Fatal(state, err)
	}
	for each, want := range map[*Machine]string{m: "first\n", clone: "second\n"} {
		b, err := os.ReadFile(filepath.Join(each.Top(), "deployments/1/root/who"))
		if err != nil || string(b) != want {
			t.Errorf("%s wrote %q, %v", each.Name(), b, err)
		}
	}
}
