package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"

	"golang.org/x/sync/errgroup"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/debian"
)

// The names of the demo's world.
const (
	pipelineName = "demo"
	repository   = "apps"
	mirrorName   = "debian"
	deviceName   = "demo-device-1"
	deviceSerial = "DEMO-0001" // what is printed on its box
	distribution = "trixie"
	application  = "demo-app"    // what the visitor sees move; reports name its version
	product      = "demo-device" // its package of that name depends on all that it needs
)

// topLevel are the packages that the product names; all others come by
// dependency. A report names the version of the first.
var topLevel = []string{application, product}

// basePackages are wanted of Debian besides what is essential: what a device
// needs to boot and to be updated. The dependencies follow.
var basePackages = []string{"apt", "systemd-sysv", "udev", "dbus", "ca-certificates"}

// signIn makes the visitor known to the server and returns a one-time link.
func (d *demo) signIn(ctx context.Context) (string, error) {
	users, err := d.server.Users(ctx)
	if err != nil {
		return "", err
	}
	name := visitor()
	if !slices.ContainsFunc(users, func(u protocol.User) bool { return u.Name == name }) {
		if _, err := d.server.CreateUser(ctx, name, []string{"admin"}); err != nil {
			return "", err
		}
	}
	link, err := d.server.CreateLoginLink(ctx, name)
	return link.URL, err
}

// visitor is the login name of whoever typed `make run`.
func visitor() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "visitor"
}

// fill brings the pipeline to its first interesting moment, says so, and
// stays until the context ends.
func (d *demo) fill(ctx context.Context, link string) (err error) {
	var prepare errgroup.Group // downloading and compiling do not mind each other
	prepare.Go(func() error { return d.pipeline(ctx) })
	if d.device {
		prepare.Go(func() error { return d.buildUpdater(ctx) })
	}
	if err := prepare.Wait(); err != nil {
		return err
	}
	if err := d.publish(ctx, "1.0", true); err != nil {
		return err
	}
	if !d.device {
		if err := d.publish(ctx, "2.0", true); err != nil {
			return err
		}
		if err := d.publish(ctx, "3.0", false); err != nil {
			return err
		}
		return d.stay(ctx, link, nil)
	}

	// The device's power: its own context, so that it is switched off before
	// the server goes.
	power, off := context.WithCancel(context.WithoutCancel(ctx))
	defer off()
	if err := d.register(ctx); err != nil {
		return err
	}
	dev, err := d.install(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.close()) }()
	running := make(chan error, 1)
	go func() { running <- dev.run(power) }()
	defer func() { off(); <-running }()

	watch, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		err := <-running
		running <- err
		if err == nil {
			err = errors.New("the device was switched off; its console is log/device.log")
		}
		cancel(err)
	}()
	err = func() error {
		if err := d.follows(watch, dev, "1.0"); err != nil {
			return err
		}
		if err := d.publish(watch, "2.0", true); err != nil {
			return err
		}
		if err := d.follows(watch, dev, "2.0"); err != nil {
			return err
		}
		if err := d.publish(watch, "3.0", false); err != nil {
			return err
		}
		return d.stay(watch, link, dev)
	}()
	if cause := context.Cause(watch); ctx.Err() == nil && cause != nil {
		return cause
	}
	return err
}

// pipeline makes pipeline, repository, mirror and the first packages.
func (d *demo) pipeline(ctx context.Context) error {
	arch, err := debian.Architecture(ctx)
	if err != nil {
		return err
	}
	pipelines, err := d.server.Pipelines(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(pipelines, func(p protocol.Pipeline) bool { return p.Name == pipelineName })
	var have protocol.Pipeline
	if at >= 0 {
		if have, err = d.server.Pipeline(ctx, pipelineName); err != nil {
			return err
		}
	} else {
		d.say.note("making the pipeline " + pipelineName + ": dev → canary → production")
		have, err = d.server.CreatePipeline(ctx, protocol.Pipeline{
			Name: pipelineName, Distribution: distribution, Architectures: []string{arch},
			Stages: []string{"dev", "canary", "production"},
		})
		if err != nil {
			return err
		}
	}
	component := func(name string) bool {
		return slices.ContainsFunc(have.Components, func(c protocol.Component) bool { return c.Name == name })
	}
	if !component(repository) {
		if _, err := d.server.CreateRepository(ctx, pipelineName, repository, 0); err != nil {
			return err
		}
	}
	if !d.device {
		return nil
	}
	if !component(mirrorName) {
		url, keyring, err := debian.Mirror()
		if err != nil {
			return err
		}
		certificates, err := os.ReadFile(keyring)
		if err != nil {
			return fmt.Errorf("cannot read Debian's keyring: %w", err)
		}
		_, err = d.server.CreateMirror(ctx, pipelineName, mirrorName, protocol.Mirror{
			Suites:   []protocol.MirrorSuite{{URL: url, Suite: distribution, Components: []string{"main"}, Keyring: certificates}},
			Packages: basePackages,
		})
		if err != nil {
			return err
		}
	}
	base, err := d.server.Packages(ctx, pipelineName, client.PackageQuery{Component: mirrorName, Limit: 1})
	if err != nil {
		return err
	}
	if len(base) == 0 {
		d.say.note("bringing the base system into the pipeline, verified against Debian's keys")
		change, err := d.server.UpdateMirror(ctx, pipelineName, mirrorName, protocol.MirrorUpdate{})
		if err != nil {
			return err
		}
		change, err = d.server.Wait(ctx, change.ID, func(c protocol.Change) {
			if c.Total > 0 {
				d.say.progress(fmt.Sprintf("%s: %d of %d %s", mirrorName, c.Done, c.Total, c.Unit))
			}
		})
		if err != nil {
			return err
		}
		if change.Status != "done" {
			return fmt.Errorf("cannot mirror the base system: %s", change.Error)
		}
	}
	return nil
}

// notes are what the demo's snapshots say of themselves.
var notes = map[string]string{"1.0": "the first release", "2.0": "the device took this one by itself", "3.0": "waits for you in canary"}

// publish builds a version of the demo's application, uploads it, names the
// state and promotes it: to canary, and on to production if far is set. The
// snapshot's label remembers that it was done.
func (d *demo) publish(ctx context.Context, version string, far bool) error {
	label := "demo-app-" + version
	snapshots, err := d.server.Snapshots(ctx, pipelineName)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(snapshots, func(s protocol.Snapshot) bool { return slices.Contains(s.Labels, label) })
	var snapshot protocol.Snapshot
	if at >= 0 {
		snapshot = snapshots[at]
	} else {
		d.say.note("building and uploading demo-app " + version)
		sources := []source{{dir: "examples/demo-app", version: version}}
		if version == "1.0" && d.device {
			sources = append(sources, source{dir: "device-updater"}, source{dir: "examples/demo-device"})
		}
		for _, s := range sources {
			if err := d.ship(ctx, s); err != nil {
				return err
			}
		}
		snapshot, err = d.server.CreateSnapshot(ctx, pipelineName, protocol.NewSnapshot{
			Note: notes[version], Labels: []string{label},
		})
		if err != nil {
			return err
		}
	}
	for _, stage := range []string{"canary", "production"} {
		if stage == "production" && !far {
			break
		}
		offered, err := d.offered(ctx, stage, snapshot.ID)
		if err != nil {
			return err
		}
		if offered {
			continue
		}
		d.say.note("promoting demo-app " + version + " to " + stage)
		_, err = d.server.Promote(ctx, pipelineName, stage, protocol.Promote{Snapshot: snapshot.ID, Reason: "demo-app " + version})
		if err != nil {
			return err
		}
	}
	return nil
}

// offered reports whether a stage ever offered the snapshot: what the visitor
// did since is not undone.
func (d *demo) offered(ctx context.Context, stage, snapshot string) (bool, error) {
	moves, err := d.server.History(ctx, pipelineName, stage)
	return slices.ContainsFunc(moves, func(m protocol.Move) bool { return m.ToSnapshot == snapshot }), err
}

// pending tells whether the promotion that is left to the visitor still is.
func (d *demo) pending(ctx context.Context) (bool, error) {
	canary, err := d.server.Stage(ctx, pipelineName, "canary")
	if err != nil {
		return false, err
	}
	snapshots, err := d.server.Snapshots(ctx, pipelineName)
	if err != nil {
		return false, err
	}
	at := slices.IndexFunc(snapshots, func(s protocol.Snapshot) bool { return s.ID == canary.Snapshot })
	if at < 0 || !slices.Contains(snapshots[at].Labels, "demo-app-3.0") {
		return false, nil
	}
	offered, err := d.offered(ctx, "production", canary.Snapshot)
	return !offered, err
}

// source is a directory with a manifest, to be built.
type source struct {
	dir     string // below the source tree
	version string // "" leaves it to git
}

// ship builds a package with our own builder and uploads it.
func (d *demo) ship(ctx context.Context, s source) error {
	out, err := os.MkdirTemp(filepath.Join(d.dir, "packages"), "build-")
	if err != nil {
		return fmt.Errorf("cannot build %s: %w", s.dir, err)
	}
	defer os.RemoveAll(out)
	args := []string{"build", filepath.Join(d.source, s.dir), "--output", out}
	if s.version != "" {
		args = append(args, "--version", s.version)
	}
	build := exec.CommandContext(ctx, filepath.Join(d.dir, "bin", "builder"), args...)
	build.Env = append(os.Environ(), "APTFLEET_BIN="+filepath.Join(d.dir, "bin"))
	if text, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build %s: %w\n%s", s.dir, err, text)
	}
	return filepath.WalkDir(out, func(name string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".deb" {
			return err
		}
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		// The application that the visitor uploaded may be newer by now.
		_, err = d.server.Upload(ctx, pipelineName, repository, client.File{Name: e.Name(), Body: file, Size: info.Size()})
		return err
	})
}
