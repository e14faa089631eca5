package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/health"
)

// Systemd is the System of a machine whose PID 1 is systemd.
type Systemd struct {
	Run       string // "/run": what lies there ends with the boot
	Reachable func(context.Context) error
	Identity  func() error // whether this still is the machine it was
	Clock     func() time.Time
}

const (
	trialTimer  = "aptfleet-trial.timer"
	trialDropIn = "etc/systemd/system/" + trialTimer + ".d"

	// trialOver is the file below /run without which the timer and the service
	// that ends a trial act.
	trialOver = "aptfleet-trial.over"
)

// BootID is the kernel's, or in a container the container's own.
func (Systemd) BootID() (string, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot tell which boot this is: %w", err)
	}
	return strings.TrimSpace(string(id)), nil
}

// Reboot is systemctl reboot, past the locks of logind: they have been waited
// for. PID 1 stops the updater at once, which must not take systemctl with it.
func (Systemd) Reboot(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := systemctl(ctx, "reboot", "--check-inhibitors=no"); err != nil {
		return fmt.Errorf("cannot reboot: %w", err)
	}
	return nil
}

// ArmTrial writes the time limit of the trial beside the timer that the
// deployment ships.
func (Systemd) ArmTrial(root string, timeout time.Duration) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return fmt.Errorf("cannot limit the trial: %w", err)
	}
	defer dir.Close()
	if err := dir.MkdirAll(trialDropIn, 0o755); err != nil {
		return fmt.Errorf("cannot limit the trial: %w", err)
	}
	limit := fmt.Sprintf("[Timer]\nOnStartupSec=\nOnStartupSec=%ds\n", int(timeout.Seconds()))
	if err := dir.WriteFile(trialDropIn+"/timeout.conf", []byte(limit), 0o644); err != nil {
		return fmt.Errorf("cannot limit the trial: %w", err)
	}
	return nil
}

// DisarmTrial stops the timer, and what would start it again: the command line
// says trial until the next boot, and whatever pulls in sysinit.target anew
// (systemctl isolate) pulls in a timer whose time has passed.
func (s Systemd) DisarmTrial(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(s.Run, trialOver), nil, 0o644); err != nil {
		return fmt.Errorf("cannot end the time limit of the trial: %w", err)
	}
	if err := systemctl(ctx, "stop", trialTimer); err != nil {
		return fmt.Errorf("cannot stop the time limit of the trial: %w", err)
	}
	return nil
}

// Uptime asks PID 1 when it started: in a container the kernel runs longer.
func (Systemd) Uptime(ctx context.Context) (time.Duration, error) {
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=UserspaceTimestampMonotonic", "--value").Output()
	if err != nil {
		return 0, fmt.Errorf("cannot tell when this boot began: %w", err)
	}
	began, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("cannot tell when this boot began: %w", err)
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("cannot tell when this boot began: %w", err)
	}
	return time.Duration(now.Nano()) - time.Duration(began)*time.Microsecond, nil
}

// Baseline asks systemd.
func (Systemd) Baseline(ctx context.Context) (health.Baseline, error) { return health.Units(ctx) }

// Watch judges by the checks of the running deployment.
func (s Systemd) Watch(ctx context.Context, b health.Baseline, observe time.Duration, progress func(string)) ([]string, error) {
	if err := s.Identity(); err != nil {
		return nil, &health.Bad{Reason: err.Error()}
	}
	w := health.Watcher{
		Dir: health.CheckDir, Baseline: b, Observe: observe, Limit: 30 * time.Second, Pause: max(time.Second, observe/10),
		Reachable: s.Reachable, Progress: progress, Clock: s.Clock,
	}
	return w.Watch(ctx)
}

func systemctl(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
	if err != nil {
		if said := strings.TrimSpace(string(out)); said != "" {
			return errors.New(said)
		}
		return err
	}
	return nil
}
