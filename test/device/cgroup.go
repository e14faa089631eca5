package device

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// newCgroup makes a control group of version 2 below the caller's own. Every
// container needs one: nspawn puts its payload into a group "payload" beside
// itself, and two systemds that share one would stop each other's services.
func newCgroup(name string) (dir string, err error) {
	mount, err := cgroup2Mount()
	if err != nil {
		return "", err
	}
	own, err := ownCgroup()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(mount, own, "aptfleet-"+name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("cannot make control group: %w", err)
	}
	return dir, nil
}

// cgroup2Mount returns where the version 2 hierarchy is mounted.
func cgroup2Mount() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("cannot read mounts: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		before, after, _ := strings.Cut(line, " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "cgroup2 ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.New("cannot run a device: no cgroup2 file system is mounted")
}

// ownCgroup returns the caller's path in the version 2 hierarchy.
func ownCgroup() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("cannot read the own control group: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", errors.New("cannot run a device: the process is in no cgroup2 group")
}

// removeCgroup kills what still runs in a group and removes it with those below
// it. Killed processes take a moment to leave; it waits up to half a minute.
func removeCgroup(dir string) error {
	// Kernels before 5.14 have no such file; there the end of the container's
	// PID 1 must do.
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("cannot kill control group: %w", err)
	}
	var groups []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && d.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot list control groups: %w", err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for i := len(groups) - 1; i >= 0; i-- {
		for {
			err := os.Remove(groups[i])
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("cannot remove control group: %w", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}
