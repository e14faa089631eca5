package lossydisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Part is a stretch of a disk with a file system of its own, as a partition is.
// A flush of one part flushes the disk.
type Part struct{ Offset, Size int64 } // bytes

// part is the block device of a Part, while its disk is attached.
type part struct {
	loop    string
	hold    *os.File // keeps the device attached, and no longer than this process lives
	mounted string   // mount point, "" if it is not mounted
}

// part returns the block device of p.
func (v *Device) part(ctx context.Context, p Part) (*part, error) {
	if known := v.parts[p]; known != nil {
		return known, nil
	}
	out, err := output(ctx, "losetup", "--find", "--show", "--direct-io=on",
		"--offset", strconv.FormatInt(p.Offset, 10), "--sizelimit", strconv.FormatInt(p.Size, 10), v.node)
	if err != nil {
		return nil, err
	}
	loop := strings.TrimSpace(out)
	hold, err := os.Open(loop)
	// In use it is only marked, and goes when it is not any more.
	_, detach := output(context.WithoutCancel(ctx), "losetup", "--detach", loop)
	if err := errors.Join(err, detach); err != nil {
		return nil, err
	}
	if v.parts == nil {
		v.parts = make(map[Part]*part)
	}
	v.parts[p] = &part{loop: loop, hold: hold}
	return v.parts[p], nil
}

// FormatPart runs a command that makes a file system, whose last argument is the
// device, and makes that durable.
func (v *Device) FormatPart(ctx context.Context, p Part, mkfs ...string) error {
	d, err := v.part(ctx, p)
	if err != nil {
		return err
	}
	_, err = output(ctx, mkfs[0], append(mkfs[1:], d.loop)...)
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	v.disk.settle()
	return err
}

// MountPart mounts the file system of a part at dir, with flags and options of
// mount(2).
func (v *Device) MountPart(ctx context.Context, p Part, dir, kind string, flags uintptr, options string) error {
	d, err := v.part(ctx, p)
	if err != nil {
		return err
	}
	if err := unix.Mount(d.loop, dir, kind, flags, options); err != nil {
		return fmt.Errorf("cannot mount %s: %w", kind, err)
	}
	d.mounted = dir
	return nil
}

// UnmountPart unmounts a part, if it is mounted, and returns when nobody has it
// any more: namespaces of processes that ended hold their mounts a moment longer.
func (v *Device) UnmountPart(p Part) error {
	d := v.parts[p]
	if d == nil || d.mounted == "" {
		return nil
	}
	dir := d.mounted
	d.mounted = ""
	if err := unmount(dir); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		alone, err := os.OpenFile(d.loop, os.O_RDONLY|unix.O_EXCL, 0)
		if err == nil {
			return alone.Close()
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("cannot unmount %s: %w", dir, err)
		}
	}
}

// closeParts unmounts all parts and lets go of their devices.
func (v *Device) closeParts() error {
	var errs []error
	for p, d := range v.parts {
		errs = append(errs, v.UnmountPart(p), d.hold.Close())
	}
	v.parts = nil
	return errors.Join(errs...)
}
