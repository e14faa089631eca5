package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/test/device"
	"aptfleet/test/rig"
)

// stageEnv tells the second run of this program where the first has prepared
// everything.
const stageEnv = "APTFLEET_E2E_DIR"

// startEnv tells it when the first run began: its time counts, too.
const startEnv = "APTFLEET_E2E_START"

// devicesAtOnce is how many tests run side by side. Devices mostly wait.
const devicesAtOnce = "4"

var world *archive // made by the second run before any test

func TestMain(m *testing.M) {
	flag.Parse()
	if dir := os.Getenv(stageEnv); dir != "" {
		os.Exit(offline(m, dir))
	}
	os.Exit(online())
}

// online prepares a directory and runs this program again without a network.
func online() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "cannot test devices: not root; run the tests with `make test`")
		return 1
	}
	// SIGQUIT is how `go test` ends a test that takes too long.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGQUIT)
	defer stop()
	if err := sweepOld(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	start := time.Now()
	dir, err := os.MkdirTemp("", "aptfleet-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	used, err := lockRun(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer used.Close()
	code := 1
	if err := prepare(ctx, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		fmt.Printf("prepared programs and the base system in %v\n", time.Since(start).Round(time.Second))
		// What it mounts goes with its namespace.
		code = rig.Again(ctx, unix.CLONE_NEWNET|unix.CLONE_NEWNS, stageEnv+"="+dir, startEnv+"="+start.Format(time.RFC3339))
	}
	if err := errors.Join(device.Sweep(context.WithoutCancel(ctx), filepath.Join(dir, "devices")), os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// offline is the second run: it starts the server and runs the tests.
func offline(m *testing.M, dir string) int {
	err := errors.Join(loopbackUp(), ownMounts())
	if err == nil {
		world, err = openArchive(context.Background(), dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if err := shortenTimeout(os.Getenv(startEnv)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		if err := flag.Set("test.parallel", devicesAtOnce); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code := m.Run()
	times.print(os.Stdout)
	if err := world.close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// loopbackUp switches on the only interface of the namespace.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot switch loopback on: %w", err)
	}
	defer unix.Close(fd)
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("cannot switch loopback on: %w", err)
	}
	ifreq.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq); err != nil {
		return fmt.Errorf("cannot switch loopback on: %w", err)
	}
	return nil
}

// ownMounts keeps the mounts of this namespace from the others, and lets go of
// copies of disks that somebody else has mounted.
func ownMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("cannot keep mounts private: %w", err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return fmt.Errorf("cannot read mounts: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[0], "/dev/loop") && fields[2] == "btrfs" {
			if err := unix.Unmount(fields[1], unix.MNT_DETACH); err != nil {
				return fmt.Errorf("cannot let go of %s: %w", fields[1], err)
			}
		}
	}
	return nil
}

// shortenTimeout takes the time since start off the tests' own time limit, so
// that they end and clean up before `go test` loses its patience.
func shortenTimeout(start string) error {
	began, err := time.Parse(time.RFC3339, start)
	if err != nil {
		return fmt.Errorf("cannot read when the tests began: %w", err)
	}
	limit := flag.Lookup("test.timeout")
	d, err := time.ParseDuration(limit.Value.String())
	if err != nil || d == 0 {
		return err
	}
	return flag.Set(limit.Name, max(d-time.Since(began), time.Second).String())
}

// lockRun marks a directory as one that a living process uses.
func lockRun(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// sweepOld removes what earlier runs that were killed have left.
func sweepOld(ctx context.Context) error {
	old, err := filepath.Glob(filepath.Join(os.TempDir(), "aptfleet-e2e-*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		used, err := lockRun(dir)
		if err != nil {
			continue // another run uses it
		}
		if err := errors.Join(device.Sweep(ctx, filepath.Join(dir, "devices")), os.RemoveAll(dir), used.Close()); err != nil {
			return fmt.Errorf("cannot remove what an earlier run left: %w", err)
		}
	}
	return nil
}
