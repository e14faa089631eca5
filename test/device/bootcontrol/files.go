package bootcontrol

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// Files is the Disk of an nspawn device.
type Files struct {
	BootControl string // directory of committed.env and grubenv
	Top         string // top level of the btrfs file system: holds deployments/
}

// Read returns at most BlockSize bytes of a boot-control file.
func (f Files) Read(name string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(f.BootControl, name))
	if err != nil {
		return nil, fmt.Errorf("cannot read boot control: %w", err)
	}
	return b[:min(len(b), BlockSize)], nil
}

// Overwrite writes block over the start of the file and syncs it. It neither
// creates nor truncates.
func (f Files) Overwrite(name string, block []byte) (err error) {
	file, err := os.OpenFile(filepath.Join(f.BootControl, name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot write boot control: %w", err)
	}
	defer func() {
		if e := file.Close(); err == nil && e != nil {
			err = fmt.Errorf("cannot write boot control: %w", e)
		}
	}()
	if _, err := file.WriteAt(block, 0); err != nil {
		return fmt.Errorf("cannot write boot control: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("cannot sync boot control: %w", err)
	}
	return nil
}

// Deployments lists the directories of deployments/ whose names are numbers.
func (f Files) Deployments() ([]int, error) {
	entries, err := os.ReadDir(filepath.Join(f.Top, "deployments"))
	if err != nil {
		return nil, fmt.Errorf("cannot list deployments: %w", err)
	}
	var all []int
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err == nil && strconv.Itoa(n) == e.Name() && n >= 0 && e.IsDir() {
			all = append(all, n)
		}
	}
	return all, nil
}

// HasInit reports whether deployment n has a regular /usr/lib/systemd/systemd.
func (f Files) HasInit(n int) bool { return f.has(n, "usr/lib/systemd/systemd") }

// HasRelease reports whether deployment n has a regular /usr/lib/os-release.
func (f Files) HasRelease(n int) bool { return f.has(n, "usr/lib/os-release") }

// has does not follow a symlink in the last element: it would be resolved
// against the machine that runs the loader, not against the deployment.
func (f Files) has(n int, path string) bool {
	info, err := os.Lstat(filepath.Join(f.Top, "deployments", strconv.Itoa(n), path))
	return err == nil && info.Mode().IsRegular() && info.Size() > 0
}
