package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// pipeline is the one that everything happens in.
const pipeline = "bench"

// aptfleet is a repo-manager that runs, and its own command line.
type aptfleet struct {
	runner
	dir     string // of programs: repo-manager, and one that can be profiled
	data    string
	server  *rig.Server
	profile bool // start a server that can be profiled
}

func newAptfleet(dir, data string, say func(string)) *aptfleet {
	return &aptfleet{runner: runner{say: say, env: []string{"APTFLEET_DATA=" + data}}, dir: dir, data: data}
}

func (a *aptfleet) name() string { return "aptfleet" }

func (a *aptfleet) program() string { return filepath.Join(a.dir, "repo-manager") }

func (a *aptfleet) version(ctx context.Context) (string, error) {
	out, err := new(runner).run(ctx, "/", a.program(), "--version")
	return strings.TrimSpace(out), err
}

// serve starts the server as it is, or one of another program or environment.
func (a *aptfleet) serve(ctx context.Context, program string, env ...string) (err error) {
	a.server, err = rig.Start(ctx, rig.Config{Program: program, Data: a.data, Env: env})
	return err
}

// serveProfiled starts a server that tells on a socket what it is doing.
func (a *aptfleet) serveProfiled(ctx context.Context) error {
	// A server before it may have left its socket.
	if err := os.Remove(a.profiles()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return a.serve(ctx, filepath.Join(a.dir, "profiled", "repo-manager"), "APTFLEET_PPROF="+a.profiles())
}

// profiles is the socket of the server's profiles.
func (a *aptfleet) profiles() string { return a.data + ".pprof" }

func (a *aptfleet) start(ctx context.Context) (err error) {
	if a.profile {
		err = a.serveProfiled(ctx)
	} else {
		err = a.serve(ctx, a.program())
	}
	if err != nil {
		return err
	}
	_, err = a.server.API.CreatePipeline(ctx, protocol.Pipeline{
		Name: pipeline, Distribution: distribution, Architectures: []string{architecture}, Stages: []string{dev, canary},
	})
	if err != nil {
		return err
	}
	_, err = a.server.API.CreateRepository(ctx, pipeline, component, 1)
	return err
}

func (a *aptfleet) stop() error {
	if a.server == nil {
		return nil
	}
	return a.server.Stop()
}

func (a *aptfleet) command(ctx context.Context, args ...string) (string, error) {
	return a.run(ctx, a.data, a.program(), args...)
}

func (a *aptfleet) addAll(ctx context.Context, dir string, files []string) error {
	_, err := a.run(ctx, dir, a.program(), append([]string{"package", "add", component}, files...)...)
	return err
}

func (a *aptfleet) branch(ctx context.Context) error {
	_, err := a.command(ctx, "promote", dev, "--to", canary, "--reason", "first")
	return err
}

func (a *aptfleet) snapshot(ctx context.Context, name string) error {
	_, err := a.command(ctx, "snapshot", "create", "--note", name)
	return err
}

func (a *aptfleet) addOne(ctx context.Context, path string) error {
	_, err := a.command(ctx, "package", "add", component, path)
	return err
}

func (a *aptfleet) diff(ctx context.Context, _ string) (string, error) {
	return a.command(ctx, "snapshot", "diff", canary, dev)
}

func (a *aptfleet) promote(ctx context.Context, _ string) error {
	_, err := a.command(ctx, "promote", dev, "--to", canary, "--reason", "benchmark")
	return err
}

func (a *aptfleet) undo(ctx context.Context, _ []string) error {
	_, err := a.command(ctx, "undo", canary, "--reason", "benchmark")
	return err
}

func (a *aptfleet) dists(stage string) string {
	return fmt.Sprintf("%s/%s/%s/dists/%s", a.server.Public, pipeline, stage, distribution)
}

func (a *aptfleet) certificate() string {
	return filepath.Join(a.data, "public", "archive-keyring.asc")
}

func (a *aptfleet) spent() (cost, error) {
	total := a.total
	pid := a.server.PID()
	cpu, err := cpuOf(pid)
	if err != nil {
		return total, err
	}
	written, err := writtenBy(pid)
	if err != nil {
		return total, err
	}
	peak, err := peakOf(pid)
	total.cpu += cpu
	total.written += written
	total.peak += peak // both are there at the same time
	return total, err
}

func (a *aptfleet) resetPeak() error {
	a.total.peak = 0
	return resetPeak(a.server.PID())
}
