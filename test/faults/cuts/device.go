package cuts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"aptfleet/internal/grub"
	"aptfleet/test/device/bootcontrol"
	"aptfleet/test/lossydisk"
)

// The disk: boot control and the deployments, as builder lays them out.
var (
	controlPart = lossydisk.Part{Offset: 2 << 20, Size: 8 << 20}
	systemPart  = lossydisk.Part{Offset: 10 << 20, Size: 1 << 30}
)

const diskSize = 10<<20 + 1<<30

// tear is what the disk writes whole: a sector, and what btrfs asks for, whose
// superblocks are overwritten in place.
func tear(offset int64) int {
	if offset < systemPart.Offset {
		return lossydisk.SectorSize
	}
	return 4096
}

// How builder makes the file systems (builder/internal/image).
var (
	makeSystem = []string{"mkfs.btrfs", "--quiet", "--nodiscard", "--label", grub.SystemLabel}
)

// device is a disk that is attached to this machine.
type device struct {
	disk *lossydisk.Device
	dir  string
}

// attach attaches a disk; dir is its own.
func attach(ctx context.Context, disk *lossydisk.Disk, dir string) (*device, error) {
	d := &device{dir: dir}
	for _, path := range []string{d.control(), d.top()} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
	}
	var err error
	d.disk, err = lossydisk.Expose(ctx, disk, dir)
	return d, err
}

func (d *device) control() string { return filepath.Join(d.dir, "control") }
func (d *device) top() string     { return filepath.Join(d.dir, "top") }

func (d *device) close() error { return d.disk.Close() }

// mountControl mounts boot control.
func (d *device) mountControl(ctx context.Context) error {
	return d.disk.MountPart(ctx, controlPart, d.control(), "ext4", unix.MS_NOATIME, "")
}

// mountTop mounts the deployments, which replays btrfs's log.
func (d *device) mountTop(ctx context.Context) error {
	return d.disk.MountPart(ctx, systemPart, d.top(), "btrfs", unix.MS_NOATIME, "")
}

// decide plays the loader on what it sees: it replays no log. Boot control must
// be mounted and the deployments must not.
func (d *device) decide(ctx context.Context) (_ bootcontrol.Decision, err error) {
	if err := d.disk.MountPart(ctx, systemPart, d.top(), "btrfs", unix.MS_RDONLY|unix.MS_NOATIME, "rescue=nologreplay"); err != nil {
		return bootcontrol.Decision{}, err
	}
	defer func() { err = errors.Join(err, d.disk.UnmountPart(systemPart)) }()
	return bootcontrol.Decide(bootcontrol.Files{BootControl: d.control(), Top: d.top()})
}

// on does what the firmware, the loader and the kernel do: it returns what is
// to be booted, with everything mounted.
func (d *device) on(ctx context.Context) (bootcontrol.Decision, error) {
	if err := d.mountControl(ctx); err != nil {
		return bootcontrol.Decision{}, err
	}
	decision, err := d.decide(ctx)
	if err == nil {
		err = d.mountTop(ctx)
	}
	return decision, err
}

// off shuts an orderly stopped device down.
func (d *device) off() error {
	return errors.Join(d.disk.UnmountPart(controlPart), d.disk.UnmountPart(systemPart))
}

// block returns a boot-control file.
func (d *device) block(name string) (map[string]string, error) {
	content, err := os.ReadFile(filepath.Join(d.control(), name))
	if err != nil {
		return nil, err
	}
	vars, err := bootcontrol.Variables(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return vars, nil
}
