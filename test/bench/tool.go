package main

import (
	"context"
	"time"
)

// What is the same for all tools.
const (
	distribution = "trixie"
	component    = "main"
	architecture = "amd64"
	dev          = "dev"    // the stage that follows uploads
	canary       = "canary" // the stage that is promoted to
)

// tool is one of the programs that are compared. Its methods are called one
// after the other. They return when the tool says that it is done; whether that
// is true is looked up in what it publishes.
type tool interface {
	name() string
	// version says which program is measured.
	version(ctx context.Context) (string, error)
	// start makes an archive that has no packages yet.
	start(ctx context.Context) error
	// stop ends every process and removes nothing.
	stop() error

	// addAll publishes the files of dir in the stage dev.
	addAll(ctx context.Context, dir string, files []string) error
	// branch makes canary offer what dev does, for the first time.
	branch(ctx context.Context) error
	// snapshot names what dev offers now.
	snapshot(ctx context.Context, name string) error
	// addOne publishes one more file in the stage dev.
	addOne(ctx context.Context, path string) error
	// diff lists what promote would change.
	diff(ctx context.Context, snapshot string) (string, error)
	// promote makes canary offer a snapshot.
	promote(ctx context.Context, snapshot string) error
	// undo makes canary offer what it did before promote; names are the
	// packages that this changes.
	undo(ctx context.Context, names []string) error

	// dists is the URL of a stage's directory with InRelease.
	dists(stage string) string
	// certificate is the file with the key that signs InRelease.
	certificate() string
	// spent is what all acts so far cost. Its peak is that since resetPeak.
	spent() (cost, error)
	resetPeak() error
}

// measure runs one operation of a tool.
func measure(ctx context.Context, t tool, act func(ctx context.Context) error) (cost, error) {
	if err := forgetOwnPeak(); err != nil {
		return cost{}, err
	}
	if err := t.resetPeak(); err != nil {
		return cost{}, err
	}
	before, err := t.spent()
	if err != nil {
		return cost{}, err
	}
	begin := time.Now()
	if err := act(ctx); err != nil {
		return cost{}, err
	}
	wall := time.Since(begin)
	after, err := t.spent()
	return cost{
		wall: wall, last: after.last, cpu: after.cpu - before.cpu, peak: after.peak, written: after.written - before.written,
	}, err
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
