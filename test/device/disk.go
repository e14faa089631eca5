package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// disk is a sparse image file with a btrfs file system, attached to a loop
// device and mounted. The zero value is none.
type disk struct {
	image string // file
	top   string // mount point of the top level
}

// create makes an empty file system of size bytes. The image must not exist.
func (d disk) create(ctx context.Context, size int64) (err error) {
	file, err := os.OpenFile(d.image, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot create disk: %w", err)
	}
	if err := errors.Join(file.Truncate(size), file.Close()); err != nil {
		return fmt.Errorf("cannot create disk %s: %w", d.image, err)
	}
	return run(ctx, "mkfs.btrfs", "--quiet", "--metadata", "single", d.image)
}

// attach connects the image to a loop device and mounts it. Direct I/O keeps
// the host's page cache out, so that the image file holds exactly what the
// file system has written.
func (d disk) attach(ctx context.Context) error {
	if err := os.MkdirAll(d.top, 0o700); err != nil {
		return fmt.Errorf("cannot make mount point: %w", err)
	}
	out, err := output(ctx, "losetup", "--find", "--show", "--direct-io=on", d.image)
	if err != nil {
		return fmt.Errorf("cannot attach disk: %w", err)
	}
	loop := strings.TrimSpace(out)
	if err := unix.Mount(loop, d.top, "btrfs", unix.MS_NOATIME, "user_subvol_rm_allowed"); err != nil {
		return errors.Join(fmt.Errorf("cannot mount %s on %s: %w", loop, d.top, err), run(ctx, "losetup", "--detach", loop))
	}
	// A loop device in use is detached by the kernel once it is not: it never
	// outlives its mount, however this program ends.
	return run(ctx, "losetup", "--detach", loop)
}

// detach undoes attach, as often as that happened. Doing it again is no error.
func (d disk) detach(ctx context.Context) error {
	for {
		mounted, err := isMountPoint(d.top)
		if err != nil {
			return err
		}
		if !mounted {
			break
		}
		if err := unix.Unmount(d.top, 0); err != nil {
			return fmt.Errorf("cannot unmount %s: %w", d.top, err)
		}
	}
	// The kernel detaches a moment later, or much later if another mount
	// namespace was copied from this one meanwhile and holds the mount, too.
	// Such a device is marked to go with its last use, so it is no leak.
	for attempt := 0; ; attempt++ {
		out, err := output(ctx, "losetup", "--noheadings", "--output", "NAME,AUTOCLEAR", "--associated", d.image)
		if err != nil {
			return fmt.Errorf("cannot list loop devices: %w", err)
		}
		lines, unmarked := strings.Split(strings.TrimSpace(out), "\n"), 0
		for _, line := range lines {
			fields := strings.Fields(line)
			if len(fields) != 2 {
				return nil
			}
			if fields[1] == "1" {
				continue
			}
			unmarked++
			if err := run(ctx, "losetup", "--detach", fields[0]); err != nil && attempt == 100 {
				return err
			}
		}
		if attempt >= 100 && unmarked == 0 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// lose replaces the disk by what a power cut at this moment leaves of it: the
// bytes in the image file, without anything the file system has not written
// yet. No process may use the file system any more.
//
// The copy runs from low to high addresses while the kernel may still write
// back. That is what a disk does too: the superblock is read first, and what
// it points at is not overwritten before two further commits.
func (d disk) lose(ctx context.Context) error {
	crashed := d.image + ".crash"
	if err := copySparse(d.image, crashed); err != nil {
		return err
	}
	if err := d.detach(ctx); err != nil {
		return err
	}
	if err := os.Rename(crashed, d.image); err != nil {
		return fmt.Errorf("cannot replace disk: %w", err)
	}
	return d.attach(ctx)
}

// isMountPoint reports whether something is mounted at path, an absolute path
// without symlinks.
func isMountPoint(path string) (bool, error) {
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false, fmt.Errorf("cannot read mounts: %w", err)
	}
	// proc(5): the mount point is the fifth field; space and backslash in it
	// are written as octal escapes.
	want := strings.NewReplacer(`\`, `\134`, " ", `\040`, "\t", `\011`, "\n", `\012`).Replace(path)
	for line := range bytes.Lines(info) {
		if fields := strings.Fields(string(line)); len(fields) > 4 && fields[4] == want {
			return true, nil
		}
	}
	return false, nil
}

// copySparse copies a file with its holes. The target must not be in use; it
// is overwritten.
func copySparse(from, to string) (err error) {
	source, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("cannot copy disk: %w", err)
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return fmt.Errorf("cannot copy disk: %w", err)
	}
	target, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot copy disk: %w", err)
	}
	defer func() {
		if e := target.Close(); err == nil && e != nil {
			err = fmt.Errorf("cannot copy disk: %w", e)
		}
	}()
	if unix.IoctlFileClone(int(target.Fd()), int(source.Fd())) == nil {
		return nil
	}
	if err := target.Truncate(info.Size()); err != nil {
		return fmt.Errorf("cannot copy disk: %w", err)
	}
	for end := int64(0); ; {
		start, err := source.Seek(end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cannot copy disk: %w", err)
		}
		if end, err = source.Seek(start, unix.SEEK_HOLE); err != nil {
			return fmt.Errorf("cannot copy disk: %w", err)
		}
		if _, err := source.Seek(start, io.SeekStart); err != nil {
			return fmt.Errorf("cannot copy disk: %w", err)
		}
		if _, err := target.Seek(start, io.SeekStart); err != nil {
			return fmt.Errorf("cannot copy disk: %w", err)
		}
		if _, err := io.CopyN(target, source, end-start); err != nil {
			return fmt.Errorf("cannot copy disk: %w", err)
		}
	}
}

// subvolume makes a subvolume, with the directories above it.
func subvolume(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot make subvolume: %w", err)
	}
	return run(ctx, "btrfs", "subvolume", "create", path)
}

// run runs a program; what it prints becomes part of the error.
func run(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

// output runs a program and returns its standard output.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("cannot run %s: it is not installed; `make test` installs it", name)
	case err != nil:
		return "", fmt.Errorf("cannot run %s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.String(), nil
}
