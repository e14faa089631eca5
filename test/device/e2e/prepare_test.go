package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"aptfleet/internal/protocol"
	"aptfleet/test/debian"
	"aptfleet/test/microcontroller/bench"
	"aptfleet/test/rig"
)

// module is the root of the source tree, as seen from this directory, where
// `go test` runs the tests.
const module = "../../.."

// mirrored are the base system's packages beyond Essential, Priority: required
// and apt.
var mirrored = []string{"systemd-sysv", "nftables"}

// prepare fills dir with what the tests need of the network: the programs
// (dir/bin) and a server's data directory with the base system in it (dir/data).
func prepare(ctx context.Context, dir string) error {
	programs := append([]string{"repo-manager", "builder", "device-updater", "test/device/loader"}, bench.Programs...)
	if err := rig.Build(ctx, filepath.Join(dir, "bin"), "", programs...); err != nil {
		return err
	}
	if err := buildNewer(ctx, dir); err != nil {
		return err
	}
	return prepareData(ctx, dir)
}

// prepareData copies a data directory that has the base system. It is kept in
// the cache for as long as repo-manager and the list of packages are the same.
func prepareData(ctx context.Context, dir string) error {
	server, err := os.ReadFile(program(dir, "repo-manager"))
	if err != nil {
		return err
	}
	key := fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(server, "%q %d", mirrored, stageCount)))[:24]
	cache := filepath.Join(debian.CacheDir(), "device-archives")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("cannot lock %s: %w", cache, err)
	}
	kept := filepath.Join(cache, key)
	if _, err := os.Stat(kept); errors.Is(err, os.ErrNotExist) {
		if err := mirrorBase(ctx, dir, filepath.Join(dir, "mirroring")); err != nil {
			return err
		}
		old, err := filepath.Glob(filepath.Join(cache, "[0-9a-f]*"))
		if err != nil {
			return err
		}
		for _, o := range old {
			if err := os.RemoveAll(o); err != nil {
				return err
			}
		}
		if err := copyTree(ctx, filepath.Join(dir, "mirroring"), kept+".partial"); err != nil {
			return err
		}
		if err := os.Rename(kept+".partial", kept); err != nil {
			return err
		}
	}
	return copyTree(ctx, kept, filepath.Join(dir, "data"))
}

// mirrorBase makes a data directory with the pipeline and its two components.
func mirrorBase(ctx context.Context, dir, data string) (err error) {
	url, keyring, err := debian.Mirror()
	if err != nil {
		return err
	}
	certificates, err := os.ReadFile(keyring)
	if err != nil {
		return err
	}
	architecture, err := debian.Architecture(ctx)
	if err != nil {
		return err
	}
	server, err := rig.Start(ctx, rig.Config{Program: program(dir, "repo-manager"), Data: data})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	stages := []string{"dev"}
	for i := range stageCount {
		stages = append(stages, stageName(i))
	}
	if _, err := server.API.CreatePipeline(ctx, protocol.Pipeline{
		Name: pipeline, Distribution: distribution, Architectures: []string{architecture}, Stages: stages,
	}); err != nil {
		return err
	}
	if _, err := server.API.CreateRepository(ctx, pipeline, components[0], 1); err != nil {
		return err
	}
	if _, err := server.API.CreateMirror(ctx, pipeline, components[1], protocol.Mirror{
		Suites:   []protocol.MirrorSuite{{URL: url, Suite: distribution, Components: []string{"main"}, Keyring: certificates}},
		Packages: mirrored,
	}); err != nil {
		return err
	}
	change, err := server.API.UpdateMirror(ctx, pipeline, components[1], protocol.MirrorUpdate{})
	if err != nil {
		return err
	}
	change, err = server.API.Wait(ctx, change.ID, nil)
	if err == nil && change.Status != "done" {
		err = fmt.Errorf("cannot mirror the base system: %s: %s", change.Status, change.Error)
	}
	return err
}

func stageName(i int) string { return fmt.Sprintf("stage-%02d", i) }

// copyTree copies a directory to a path that does not exist.
func copyTree(ctx context.Context, from, to string) error {
	if out, err := exec.CommandContext(ctx, "cp", "--archive", "--reflink=auto", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot copy %s: %w: %s", from, err, out)
	}
	return nil
}
