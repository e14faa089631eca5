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

	"aptfleet/device-updater/internal/evidence"
	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/identity"
	"aptfleet/device-updater/internal/uplink"
	"aptfleet/internal/protocol"
)

// Systemd is the System of a machine whose PID 1 is systemd.
type Systemd struct {
	Run       string // "/run": what lies there ends with the boot
	Root      string // "/": the running deployment; "": its watchdog is not looked after
	Watchdog  Watchdog
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
func (Systemd) BootID() (string, error) { return identity.BootID(os.DirFS("/")) }

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
// deployment ships, and has PID 1 serve a hardware watchdog.
func (s Systemd) ArmTrial(root string, timeout time.Duration) error {
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
	if err := s.Watchdog.arm(dir); err != nil {
		return fmt.Errorf("cannot use a watchdog in the trial: %w", err)
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
	return s.endWatchdog()
}

// endWatchdog lets the next boots of the running deployment do without the
// watchdog, unless it is to stay.
func (s Systemd) endWatchdog() error {
	if s.Root == "" || s.Watchdog.Keep && s.Watchdog.Timeout > 0 {
		return nil
	}
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		return fmt.Errorf("cannot end the watchdog of the trial: %w", err)
	}
	defer root.Close()
	if err := s.Watchdog.disarm(root); err != nil {
		return fmt.Errorf("cannot end the watchdog of the trial: %w", err)
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
		Reachable: s.Reachable, Explain: uplink.Explain, Progress: progress, Clock: s.Clock,
	}
	return w.Watch(ctx)
}

// LastWords takes what the journal and the kernel kept of the boots since the
// one that set the trial.
func (Systemd) LastWords(ctx context.Context, since time.Time, notThis string) []protocol.Excerpt {
	words := evidence.Kernel("/", since)
	boot, err := evidence.Boot(ctx, notThis)
	if err != nil {
		boot = evidence.Take("the journal", "it has nothing of a boot of this deployment")
	}
	return evidence.Bound(append(words, boot...))
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
