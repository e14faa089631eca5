package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// refuse is what policy-rc.d answers: 101, action forbidden.
const refuse = "#!/bin/sh\nexit 101\n"

// buildRoot makes c.Root the root of this mount namespace, with what a program
// needs around it.
func buildRoot(c Command) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("cannot make mounts private: %w", err)
	}
	if err := unix.Mount(c.Root, c.Root, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot mount root %s: %w", c.Root, err)
	}
	// What a package makes with mknod stays a name.
	if err := unix.Mount("", c.Root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("cannot keep devices out of %s: %w", c.Root, err)
	}
	steps := []struct {
		kind, target, options string
		flags                 uintptr
	}{
		{"tmpfs", "/run", "mode=755,size=64m", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
		{"tmpfs", "/dev", "mode=755,size=1m", unix.MS_NOSUID | unix.MS_NODEV},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RDONLY},
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	}
	for _, s := range steps {
		if err := plainDirectory(c.Root + s.target); err != nil {
			return err
		}
		if err := unix.Mount(s.kind, c.Root+s.target, s.kind, s.flags, s.options); err != nil {
			return fmt.Errorf("cannot mount %s on %s: %w", s.kind, s.target, err)
		}
	}
	if err := devices(c.Root + "/dev"); err != nil {
		return err
	}
	for _, name := range machineWide {
		if err := readOnly(c.Root + "/proc/" + name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot make /proc/%s read-only: %w", name, err)
		}
	}
	for _, f := range append(c.Files, File{Path: "/run/policy-rc.d", Content: refuse, Mode: 0o755}) {
		if err := writeFile(c.Root, f); err != nil {
			return err
		}
	}
	for _, b := range c.Binds {
		if err := bind(c.Root, b); err != nil {
			return err
		}
	}
	for _, l := range c.Links {
		if err := below(l.Path); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(c.Root+l.Path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(l.To, c.Root+l.Path); err != nil {
			return err
		}
	}
	if err := os.Chdir(c.Root); err != nil {
		return err
	}
	// pivot_root(2), "pivot_root(".", ".")": the old root is stacked on the
	// new one and taken off again.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("cannot change root to %s: %w", c.Root, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("cannot leave the old root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Mount("/run/policy-rc.d", policyPath, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot keep services from starting: %w", err)
	}
	return nil
}

// machineWide are the parts of /proc that are of the machine and not of the
// processes in it: settings of the kernel, and what reboots it.
var machineWide = []string{"sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi"}

// readOnly shows path as it is, and lets nobody write there.
func readOnly(path string) error {
	if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NOEXEC, "")
}

// plainDirectory refuses a symbolic link: mounting on it would leave the root.
func plainDirectory(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return os.Mkdir(path, 0o755)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", path)
	}
	return nil
}

func devices(dev string) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		f, err := os.OpenFile(filepath.Join(dev, name), os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, filepath.Join(dev, name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cannot make /dev/%s: %w", name, err)
		}
		// It is the machine's own: it can be written to, and its mode stays.
		if err := unix.Mount("", filepath.Join(dev, name), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("cannot keep the mode of /dev/%s: %w", name, err)
		}
	}
	for _, dir := range []string{"pts", "shm"} {
		if err := os.Mkdir(filepath.Join(dev, dir), 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", filepath.Join(dev, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"); err != nil {
		return fmt.Errorf("cannot make /dev/pts: %w", err)
	}
	if err := unix.Mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("cannot make /dev/shm: %w", err)
	}
	for name, to := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(to, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

func below(path string) error {
	if path != filepath.Clean(path) || !strings.HasPrefix(path, "/run/") {
		return fmt.Errorf("%s is not below /run", path)
	}
	return nil
}

func writeFile(root string, f File) error {
	if err := below(f.Path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(root+f.Path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(root+f.Path, []byte(f.Content), f.Mode); err != nil {
		return err
	}
	return os.Chmod(root+f.Path, f.Mode)
}

func bind(root string, b Bind) error {
	if err := below(b.Target); err != nil {
		return err
	}
	target := root + b.Target
	info, err := os.Stat(b.Source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else {
		err = writeFile(root, File{Path: b.Target, Mode: 0o600})
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(b.Source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cannot show %s as %s: %w", b.Source, b.Target, err)
	}
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("cannot make %s read-only: %w", b.Target, err)
	}
	return nil
}
