package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/debian"
	"aptfleet/test/device"
	"aptfleet/test/rig"
)

// deviceBench measures what staging an update costs a device, beside apt's own
// dist-upgrade of the same packages on the same system.
type deviceBench struct {
	updates int    // packages that the update brings
	runs    int    // of each tool
	work    string // directory for everything that is made
	cache   string // directory that keeps indices
	results string // directory for the result
	out     io.Writer

	server   *rig.Server
	before   protocol.Snapshot // a point release of trixie
	after    protocol.Snapshot // with its security updates
	packages []string          // what the system is asked to have
	release  map[string]string // package → version, as Aptfleet left them last
	upgraded map[string]string // as apt did
	rows     []deviceRow
}

// deviceRow is what one run cost.
type deviceRow struct {
	Op       string  `json:"op"`
	Tool     string  `json:"tool"`
	Run      int     `json:"run"`
	Packages int     `json:"packages"` // that the update brings
	Wall     float64 `json:"wall_s"`
	CPU      float64 `json:"cpu_s"` // user and system, of all processes
	Written  int64   `json:"bytes_written"`
}

// The programs of the benchmark's machine.
var devicePrograms = []string{"repo-manager", "builder", "device-updater", "test/device/loader"}

// What the archive's parts are called.
const (
	devicePipeline = "bench"
	deviceMirror   = "debian"
	deviceApps     = "apps"
)

// run prints the runs and writes device.json.
func (b *deviceBench) run(ctx context.Context) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("cannot measure devices: mounting needs root")
	}
	dir, err := os.MkdirTemp(b.work, "af-device-")
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, device.Sweep(context.WithoutCancel(ctx), filepath.Join(dir, "machines")), os.RemoveAll(dir))
	}()
	if err := rig.Build(ctx, filepath.Join(dir, "bin"), "", devicePrograms...); err != nil {
		return err
	}
	chosen, err := chooseUpdates(ctx, b.cache, filepath.Join(dir, "choose"), b.updates)
	if err != nil {
		return err
	}
	b.packages = append(chosen, "systemd-sysv", "device-updater", "aptfleet-archive-keyring")
	fmt.Fprintf(b.out, "%d CPUs; trixie with %s\n", runtime.NumCPU(), strings.Join(b.packages, " "))
	if b.server, err = rig.Start(ctx, rig.Config{Program: filepath.Join(dir, "bin", "repo-manager"), Data: filepath.Join(dir, "data")}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.server.Stop()) }()
	if err := b.publish(ctx, dir); err != nil {
		return err
	}
	machine, err := b.install(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, machine.Close()) }()
	for run := 1; run <= b.runs; run++ {
		for _, tool := range []stager{stageByApt, stageByAptfleet} {
			if err := b.measure(ctx, dir, machine, tool, run); err != nil {
				return err
			}
		}
	}
	if err := b.compare(); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(b.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.results, "device.json"), append(raw, '\n'), 0o644)
}

// publish mirrors the point release, then the same with its security updates,
// and takes a snapshot of each.
func (b *deviceBench) publish(ctx context.Context, dir string) error {
	mirror, keyring, err := debian.Mirror()
	if err != nil {
		return err
	}
	security, securityKeyring, err := debian.Security()
	if err != nil {
		return err
	}
	suites := []protocol.MirrorSuite{
		{URL: mirror, Suite: distribution, Components: []string{component}},
		{URL: security, Suite: distribution + "-security", Components: []string{component}},
	}
	for i, path := range []string{keyring, securityKeyring} {
		if suites[i].Keyring, err = os.ReadFile(path); err != nil {
			return err
		}
	}
	architecture, err := debian.Architecture(ctx)
	if err != nil {
		return err
	}
	api := b.server.API
	if _, err := api.CreatePipeline(ctx, protocol.Pipeline{
		Name: devicePipeline, Distribution: distribution, Architectures: []string{architecture}, Stages: []string{dev},
	}); err != nil {
		return err
	}
	if _, err := api.CreateRepository(ctx, devicePipeline, deviceApps, 1); err != nil {
		return err
	}
	updater, err := buildUpdater(ctx, dir)
	if err != nil {
		return err
	}
	for _, path := range []string{updater, filepath.Join(b.server.Data, "public", "archive-keyring.deb")} {
		if err := uploadFile(ctx, api, path); err != nil {
			return err
		}
	}
	mirrored := slices.DeleteFunc(slices.Clone(b.packages), func(name string) bool { return slices.Contains(ownPackages, name) })
	if _, err := api.CreateMirror(ctx, devicePipeline, deviceMirror, protocol.Mirror{Suites: suites[:1], Packages: mirrored}); err != nil {
		return err
	}
	if b.before, err = b.mirrorAndName(ctx, "point release"); err != nil {
		return err
	}
	if _, err := api.SetMirror(ctx, devicePipeline, deviceMirror, protocol.Mirror{Suites: suites, Packages: mirrored}, false); err != nil {
		return err
	}
	b.after, err = b.mirrorAndName(ctx, "security updates")
	return err
}

// mirrorAndName brings the mirror up to date and takes a snapshot.
func (b *deviceBench) mirrorAndName(ctx context.Context, note string) (protocol.Snapshot, error) {
	api := b.server.API
	change, err := api.UpdateMirror(ctx, devicePipeline, deviceMirror, protocol.MirrorUpdate{})
	if err == nil {
		change, err = api.Wait(ctx, change.ID, nil)
	}
	if err == nil && change.Status != "done" {
		err = fmt.Errorf("%s: %s", change.Status, change.Error)
	}
	if err != nil {
		return protocol.Snapshot{}, fmt.Errorf("cannot mirror the %s: %w", note, err)
	}
	return api.CreateSnapshot(ctx, devicePipeline, protocol.NewSnapshot{Note: note})
}

// ownPackages come from this tree and not from Debian.
var ownPackages = []string{"device-updater", "aptfleet-archive-keyring"}

// buildUpdater makes the updater's package and returns its path.
func buildUpdater(ctx context.Context, dir string) (string, error) {
	bin, out := filepath.Join(dir, "bin"), filepath.Join(dir, "packages")
	builder := runner{env: []string{"APTFLEET_BIN=" + bin}}
	_, err := builder.run(ctx, ".", filepath.Join(bin, "builder"), "build", filepath.Join("device-updater", "aptfleet.yaml"), "--version", "1.0", "--output", out)
	if err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(out, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("cannot find the updater's package: %d files, %w", len(debs), err)
	}
	return debs[0], nil
}

func uploadFile(ctx context.Context, api *client.Client, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	_, err = api.Upload(ctx, devicePipeline, deviceApps, client.File{Name: filepath.Base(path), Body: file, Size: info.Size()})
	return err
}

// base is the URL of a snapshot.
func (b *deviceBench) base(s protocol.Snapshot) string {
	return b.server.Public + "/" + devicePipeline + "/snapshots/" + s.ID
}

// install makes the device that all runs start from: it has the point release,
// and in the caches of both tools the packages of the update.
func (b *deviceBench) install(ctx context.Context, dir string) (_ *device.Machine, err error) {
	keyring := filepath.Join(b.server.Data, "public", "archive-keyring.asc")
	tar, err := device.Root{
		Base: b.base(b.before), State: b.before.State, Distribution: distribution,
		Components: []string{deviceApps, deviceMirror}, Packages: b.packages, Keyring: keyring,
	}.Tar(ctx)
	if err != nil {
		return nil, err
	}
	machine, err := device.Create(ctx, device.Config{
		Dir: filepath.Join(dir, "machines", "installed"), Name: "installed", Loader: filepath.Join(dir, "bin", "loader"),
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, machine.Close())
		}
	}()
	const inside = "/usr/share/keyrings/aptfleet-archive-keyring.pgp"
	sources := fmt.Sprintf("Types: deb\nURIs: %s\nSuites: %s\nComponents: %s %s\nSigned-By: %s\n", b.base(b.after), distribution, deviceApps, deviceMirror, inside)
	settings := fmt.Sprintf("archive: %s\npipeline: %s\nfollow: snapshot:%s\ncomponents: [%s, %s]\nkeyring: %s\npackages: [%s]\nreboot: manual\n",
		b.server.Public, devicePipeline, b.after.ID, deviceApps, deviceMirror, inside, strings.Join(b.packages, ", "))
	if err := machine.Install(ctx, device.Setup{
		Tar: tar, MachineID: strings.Repeat("5ea1ed00", 4), Updater: filepath.Join(dir, "bin", "device-updater"), State: b.before.State, Snapshot: b.before.ID,
		Files: map[string][]byte{
			"/etc/aptfleet/device.yaml": []byte(settings), "/etc/apt/sources.list.d/bench.sources": []byte(sources),
			// As in Debian's images for devices and clouds: documented defaults, no questions.
			"/etc/apt/apt.conf.d/90bench": []byte("APT::Get::Assume-Yes \"true\";\nAcquire::Languages \"none\";\nAPT::Sandbox::User \"root\";\n"),
		},
	}); err != nil {
		return nil, err
	}
	r := &runner{env: cageEnv}
	for _, args := range [][]string{{"apt-get", "-q", "update"}, {"apt-get", "-q", "--download-only", "dist-upgrade"}} {
		if _, err := cage(ctx, r, machine, args...); err != nil {
			return nil, err
		}
	}
	archives := filepath.Join(machine.Top(), "updater", "apt", "archives")
	if err := os.MkdirAll(archives, 0o700); err != nil {
		return nil, err
	}
	debs, err := filepath.Glob(filepath.Join(machine.Top(), "deployments/1/var/cache/apt/archives/*.deb"))
	if err != nil {
		return nil, err
	}
	for _, deb := range debs {
		if _, err := r.run(ctx, "/", "cp", deb, archives); err != nil {
			return nil, err
		}
	}
	_, err = r.run(ctx, "/", "btrfs", "filesystem", "sync", machine.Top())
	return machine, err
}
