package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/health"
)

// fakeSystemctl puts a systemctl on PATH that writes down how it was called.
func fakeSystemctl(t *testing.T, script string) (calls func() string) {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf("#!/bin/sh\necho \"$*\" >>%s/calls\n%s\n", dir, script)
	if err := os.WriteFile(filepath.Join(dir, "systemctl"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
}

func TestSystemdCommands(t *testing.T) {
	calls := fakeSystemctl(t, "exit 0")
	s := Systemd{Run: t.TempDir()}
	if err := s.Reboot(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.DisarmTrial(t.Context()); err != nil {
		t.Error(err)
	}
	if got := calls(); got != "reboot --check-inhibitors=no\nstop aptfleet-trial.timer" {
		t.Errorf("systemctl was called with %q", got)
	}
	if _, err := os.Lstat(filepath.Join(s.Run, trialOver)); err != nil {
		t.Errorf("what starts the timer again starts it: %v", err)
	}
	// The updater is being stopped: that is how a reboot begins.
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Reboot(stopped); err != nil {
		t.Error(err)
	}
	fakeSystemctl(t, "echo Access denied >&2; exit 1")
	if err := s.Reboot(t.Context()); err == nil || err.Error() != "cannot reboot: Access denied" {
		t.Errorf("%v", err)
	}
	if _, err := s.BootID(); err != nil {
		t.Error(err)
	}
}

func TestUptime(t *testing.T) {
	fakeSystemctl(t, "echo 1000000")
	first, err := Systemd{}.Uptime(t.Context())
	if err != nil || first < 0 {
		t.Fatalf("%v, %v", first, err)
	}
	fakeSystemctl(t, "echo 0")
	if second, err := (Systemd{}).Uptime(t.Context()); err != nil || second-first < time.Second {
		t.Errorf("PID 1 started a second earlier: %v, then %v (%v)", first, second, err)
	}
	fakeSystemctl(t, "echo never")
	if _, err := (Systemd{}).Uptime(t.Context()); err == nil {
		t.Error("want an error")
	}
}

func TestAnotherMachineIsBad(t *testing.T) {
	s := Systemd{Identity: func() error { return errors.New("/etc/machine-id is a and this machine is b") }, Clock: time.Now}
	var bad *health.Bad
	if _, err := s.Watch(t.Context(), health.Baseline{}, 0, nil); !errors.As(err, &bad) {
		t.Errorf("%v", err)
	}
}

func TestArmTrial(t *testing.T) {
	root := t.TempDir()
	for _, limit := range []time.Duration{time.Minute, 20 * time.Second} {
		if err := (Systemd{}).ArmTrial(root, limit); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(filepath.Join(root, "etc/systemd/system/aptfleet-trial.timer.d/timeout.conf"))
	if err != nil || string(got) != "[Timer]\nOnStartupSec=\nOnStartupSec=20s\n" {
		t.Errorf("%q, %v", got, err)
	}
	// A release cannot make the updater write outside of it.
	outside := t.TempDir()
	evil := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(evil, "etc")); err != nil {
		t.Fatal(err)
	}
	if err := (Systemd{}).ArmTrial(evil, time.Minute); err == nil {
		t.Error("wrote through a link that leaves the root")
	}
	if entries, err := os.ReadDir(outside); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestATrialThatIsOverStaysOver: both units look for the file that DisarmTrial
// leaves.
func TestATrialThatIsOverStaysOver(t *testing.T) {
	for _, name := range []string{"aptfleet-trial.timer", "aptfleet-trial.service"} {
		unit, err := os.ReadFile("../../package/" + name)
		if err != nil || !strings.Contains(string(unit), "\nConditionPathExists=!/run/"+trialOver+"\n") {
			t.Errorf("%s does not look for /run/%s (%v)", name, trialOver, err)
		}
	}
}

// TestUnits lets systemd judge the units that the package ships.
func TestUnits(t *testing.T) {
	root := t.TempDir()
	units := filepath.Join(root, "usr/lib/systemd/system")
	for _, dir := range []string{units, filepath.Join(root, "usr/bin")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/device-updater"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	shipped, err := filepath.Glob("../../package/aptfleet-*")
	if err != nil || len(shipped) != 10 {
		t.Fatalf("%v, %v", shipped, err)
	}
	var names []string
	for _, path := range shipped {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Base(path))
		// The judge looks for programs on the machine that it runs on.
		text := strings.ReplaceAll(string(content), "/usr/bin/device-updater", filepath.Join(root, "usr/bin/device-updater"))
		if err := os.WriteFile(filepath.Join(units, filepath.Base(path)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("systemd-analyze", append([]string{"verify", "--man=no", "--recursive-errors=no"}, names...)...)
	cmd.Dir = units
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+units+":")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "aptfleet") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
