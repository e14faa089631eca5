package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

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
	moved   map[string]time.Time // when a stage was published last
	profile bool                 // start a server that can be profiled
}

func newAptfleet(dir, data string, say func(string)) *aptfleet {
	return &aptfleet{runner: runner{say: say, env: []string{"APTFLEET_DATA=" + data}}, dir: dir, data: data, moved: make(map[string]time.Time)}
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

// publish runs a command that publishes a stage.
func (a *aptfleet) publish(ctx context.Context, stage string, args ...string) error {
	_, err := a.command(ctx, args...)
	a.moved[stage] = time.Now()
	return err
}

func (a *aptfleet) addAll(ctx context.Context, dir string, files []string) error {
	_, err := a.run(ctx, dir, a.program(), append([]string{"package", "add", component}, files...)...)
	// The Dates of many publications run ahead of the clock: by five seconds at most.
	a.moved[dev] = time.Now().Add(5 * time.Second)
	return err
}

func (a *aptfleet) branch(ctx context.Context) error {
	return a.publish(ctx, canary, "promote", dev, "--to", canary, "--reason", "first")
}

func (a *aptfleet) snapshot(ctx context.Context, name string) error {
	_, err := a.command(ctx, "snapshot", "create", "--note", name)
	return err
}

func (a *aptfleet) addOne(ctx context.Context, path string) error {
	return a.publish(ctx, dev, "package", "add", component, path)
}

func (a *aptfleet) diff(ctx context.Context, _ string) (string, error) {
	return a.command(ctx, "snapshot", "diff", canary, dev)
}

func (a *aptfleet) promote(ctx context.Context, _ string) error {
	return a.publish(ctx, canary, "promote", dev, "--to", canary, "--reason", "benchmark")
}

func (a *aptfleet) undo(ctx context.Context, _ []string) error {
	return a.publish(ctx, canary, "undo", canary, "--reason", "benchmark")
}

func (a *aptfleet) dists(stage string) string {
	return fmt.Sprintf("%s/%s/%s/dists/%s", a.server.Public, pipeline, stage, distribution)
}

func (a *aptfleet) certificate() string {
	return filepath.Join(a.data, "public", "archive-keyring.asc")
}

// settle waits for more than a second after the last publication: the Dates of
// a stage grow by a second each, and uploads wait when they get too far ahead of
// the clock. That is a limit on how often, not a cost of one.
func (a *aptfleet) settle(ctx context.Context, stage string) error {
	return sleep(ctx, time.Until(a.moved[stage].Add(1100*time.Millisecond)))
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
