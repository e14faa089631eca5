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
// build tags besides the usual ones. Programs are static where they must be.
func Build(ctx context.Context, dir, tags string, programs ...string) error {
	for _, program := range programs {
		cmd := exec.CommandContext(ctx, "go", "build", "-tags", "nomsgpack "+tags, "-o", filepath.Join(dir, filepath.Base(program)), "aptfleet/"+program)
		if program == "device-updater" || program == "test/microcontroller/flash" {
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cannot build %s: %w\n%s", program, err, out)
		}
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
