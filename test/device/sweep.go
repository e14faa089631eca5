package device

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// record is machine.json: the container that runs, so that whoever comes
// after a killed program can end it and nothing else.
type record struct {
	Name   string `json:"name"`
	PID    int    `json:"pid"`     // of systemd-nspawn
	Start  string `json:"start"`   // its start time, field 22 of proc(5)'s stat
	Cgroup string `json:"cgroup"`  // directory of its control group
	BootID string `json:"boot_id"` // of the host
}

// Sweep ends and lets go of every machine in dir and in the directories right
// below it that no living process holds. It relies on the machines' own
// records and image paths only, so that it never touches what is not Aptfleet's.
func Sweep(ctx context.Context, dir string) error {
	dirs := []string{dir}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot sweep devices: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(dir, e.Name()))
		}
	}
	var all error
	for _, d := range dirs {
		if _, err := os.Stat(diskIn(d).image); err != nil {
			continue
		}
		lock, err := lockDir(d)
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		all = errors.Join(all, sweepOne(ctx, d), lock.Close())
	}
	return all
}

// sweepOne cleans up after the machine in dir, whose lock the caller holds.
func sweepOne(ctx context.Context, dir string) error {
	path := filepath.Join(dir, "machine.json")
	b, err := os.ReadFile(path)
	if err == nil {
		var r record
		if err := json.Unmarshal(b, &r); err != nil {
			return fmt.Errorf("cannot read %s: %w", path, err)
		}
		if err := r.end(); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("cannot forget what ran: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot read what ran: %w", err)
	}
	return diskIn(dir).detach(ctx)
}

// end kills the recorded container if it is the one that was recorded.
func (r record) end() error {
	if id, err := bootID(); err != nil || id != r.BootID {
		return err
	}
	if start, err := startTime(r.PID); err == nil && start == r.Start {
		if err := killContainer(r.PID); err != nil {
			return err
		}
	}
	return removeCgroup(r.Cgroup)
}

// killContainer kills PID 1 of the container that nspawn process pid runs,
// and with it every process inside, then nspawn itself.
func killContainer(pid int) error {
	for _, child := range children(pid) {
		if err := syscall.Kill(child, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("cannot kill container: %w", err)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot kill nspawn: %w", err)
	}
	return nil
}

// children returns the processes that pid's main thread has started.
func children(pid int) []int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil
	}
	var all []int
	for word := range strings.FieldsSeq(string(b)) {
		if n, err := strconv.Atoi(word); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// startTime returns when a process started, in the kernel's own words. It
// tells a process from a later one with the same number.
func startTime(pid int) (string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("cannot look at process: %w", err)
	}
	// The second field is the name in parentheses and may hold spaces.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("cannot look at process %d: its stat is short", pid)
	}
	return fields[19], nil
}

func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("cannot read the host's boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
