// Package rig gives tests of the whole pipeline what they all need: Aptfleet's
// own programs, built from this tree, a repo-manager that runs on loopback,
// and small packages to upload.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build compiles programs of this module, named by their directories
// ("repo-manager", "test/device/loader"), into the directory dir. tags are
// build tags besides the usual ones. Programs are static where they must be, and
// the updater's manual pages are beside it, as its package wants them.
func Build(ctx context.Context, dir, tags string, programs ...string) error {
	for _, program := range programs {
		if program == "device-updater" {
			if err := BuildUpdater(ctx, dir, "-tags", "nomsgpack "+tags); err != nil {
				return err
			}
			continue
		}
		if err := compile(ctx, dir, program, "-tags", "nomsgpack "+tags); err != nil {
			return err
		}
	}
	return nil
}

// BuildUpdater compiles device-updater into the directory dir, and writes its
// manual pages into dir/man8. flags are those of `go build`.
func BuildUpdater(ctx context.Context, dir string, flags ...string) error {
	if err := compile(ctx, dir, "device-updater", flags...); err != nil {
		return err
	}
	man := exec.CommandContext(ctx, filepath.Join(dir, "device-updater"), "man", filepath.Join(dir, "man8"))
	if out, err := man.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot write the manual pages of device-updater: %w\n%s", err, out)
	}
	return nil
}

func compile(ctx context.Context, dir, program string, flags ...string) error {
	args := append(append([]string{"build"}, flags...), "-o", filepath.Join(dir, filepath.Base(program)), "aptfleet/"+program)
	cmd := exec.CommandContext(ctx, "go", args...)
	if program == "device-updater" || program == "test/microcontroller/flash" {
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w\n%s", program, err, out)
	}
	return nil
}

// Main is the body of a TestMain: it builds programs into a temporary
// directory, calls run with that directory, and removes it. Its result is the
// exit code of the tests.
func Main(prefix, tags string, programs []string, run func(dir string) (code int, err error)) (code int) {
	dir, err := os.MkdirTemp("", prefix)
	if err == nil {
		if err = Build(context.Background(), dir, tags, programs...); err == nil {
			code, err = run(dir)
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}
