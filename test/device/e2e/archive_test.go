package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/debian"
	"aptfleet/test/device"
)

const (
	pipeline     = "demo"
	distribution = "trixie"
	stageCount   = 80 // every device of a test follows a stage of its own
	keyringPath  = "/usr/share/keyrings/aptfleet-archive-keyring.pgp"
)

var components = []string{"apps", "debian"}

// archive is the server with everything the tests ship, and the device they
// start from.
type archive struct {
	dir          string // as prepare left it
	architecture string // of this machine
	site         *site
	releases     map[string]protocol.Snapshot
	base         *device.Machine // has release "1" and no identity; off
	stages       atomic.Int32    // handed out
	copies       copies
}

func program(dir, name string) string { return filepath.Join(dir, "bin", name) }

// openArchive starts the server, ships every release and installs the device
// that the tests clone.
func openArchive(ctx context.Context, dir string) (_ *archive, err error) {
	a := &archive{dir: dir, releases: map[string]protocol.Snapshot{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.architecture, err = debian.Architecture(ctx); err != nil {
		return nil, err
	}
	if a.site, err = openSite(ctx, program(dir, "repo-manager"), filepath.Join(dir, "data")); err != nil {
		return nil, err
	}
	done := times.start(fmt.Sprintf("ship %d releases", len(releases())))
	if err := a.ship(ctx); err != nil {
		return nil, err
	}
	done()
	return a, a.install(ctx)
}

// ship uploads the releases one after the other and takes a snapshot of each.
func (a *archive) ship(ctx context.Context) error {
	out := filepath.Join(a.dir, "packages")
	updater, err := packUpdater(ctx, a.dir, filepath.Join(a.dir, "bin"), "1.0")
	if err != nil {
		return err
	}
	for _, deb := range []string{updater, filepath.Join(a.site.Data, "public/archive-keyring.deb")} {
		if err := a.upload(ctx, deb); err != nil {
			return err
		}
	}
	firmwares, err := firmwareReleases(program(a.dir, "flash"))
	if err != nil {
		return err
	}
	// Last come those of releases, as they say.
	for _, r := range append(firmwares, releases()...) {
		// Uploads that come together are published together.
		var group errgroup.Group
		for _, s := range r.packages {
			group.Go(func() error {
				deb, err := s.build(ctx, program(a.dir, "builder"), out)
				if err != nil {
					return err
				}
				return a.upload(ctx, deb)
			})
		}
		if r.updater != "" {
			group.Go(func() error {
				deb, err := packUpdater(ctx, a.dir, filepath.Join(a.dir, "newer", r.updater), r.updater)
				if err != nil {
					return err
				}
				return a.upload(ctx, deb)
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		snapshot, err := a.site.API.CreateSnapshot(ctx, pipeline, protocol.NewSnapshot{Note: r.name})
		if err != nil {
			return err
		}
		a.releases[r.name] = snapshot
	}
	for _, p := range products() {
		p.Architecture = a.architecture
		if _, err := a.site.API.CreateProduct(ctx, pipeline, p); err != nil {
			return err
		}
	}
	return nil
}

func (a *archive) upload(ctx context.Context, deb string) error {
	file, err := os.Open(deb)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	_, err = a.site.API.Upload(ctx, pipeline, components[0], client.File{Name: filepath.Base(deb), Body: file, Size: info.Size(), AllowOlder: true})
	return err
}

// install makes the device that has release "1".
func (a *archive) install(ctx context.Context) (err error) {
	one := a.releases["1"]
	done := times.start("root file system from the pipeline (0 s if cached)")
	tar, err := device.Root{
		Base:         a.site.plain + "/" + pipeline + "/snapshots/" + one.ID,
		State:        one.State,
		Distribution: distribution, Components: components, Packages: []string{productOf("device").Packages[0]},
		Keyring: filepath.Join(a.site.Data, "public/archive-keyring.asc"),
	}.Tar(ctx)
	if err != nil {
		return err
	}
	done()
	done = times.start("install a device")
	a.base, err = device.Create(ctx, device.Config{Dir: filepath.Join(a.dir, "devices", "base"), Name: "device", Loader: program(a.dir, "loader")})
	if err != nil {
		return err
	}
	if err := a.base.Install(ctx, device.Setup{
		Tar: tar, MachineID: "5ea1ed5ea1ed5ea1ed5ea1ed5ea1ed00",
		Updater: program(a.dir, "device-updater"), State: one.State, Snapshot: one.ID,
	}); err != nil {
		return err
	}
	done()
	return nil
}

func (a *archive) close() error {
	var err error
	if a.base != nil {
		err = a.base.Close()
	}
	if a.site != nil {
		err = errors.Join(err, a.site.Stop())
	}
	return err
}
