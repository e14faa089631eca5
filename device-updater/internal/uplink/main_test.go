package uplink

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"aptfleet/test/rig"
)

// insideEnv marks the second run of this program.
const insideEnv = "APTFLEET_UPLINK_TEST"

// TestMain runs the tests in a network namespace of their own, which is the
// device's: what they do to its network, they do to no other. The world around it
// is a second namespace, named in a directory that only they see.
func TestMain(m *testing.M) {
	if os.Getenv(insideEnv) == "" {
		os.Exit(again())
	}
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"),
		// What sysfs shows of the network is that of who mounts it.
		unix.Mount("sysfs", "/sys", "sysfs", 0, ""),
	); err != nil {
		fmt.Fprintln(os.Stderr, "cannot prepare a network for tests:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// again runs this program inside and returns its exit code.
func again() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "cannot test uplinks: not root; run the tests with `make test`")
		return 1
	}
	return rig.Again(context.Background(), unix.CLONE_NEWNET|unix.CLONE_NEWNS, insideEnv+"=1")
}
