// Package inhibit holds the locks with which an application keeps its device
// from being rebooted for a while: files below /run, each locked with flock(2)
// by whoever holds it. The kernel takes a lock from a process that ends,
// however it ends.
package inhibit

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Dir is where the locks lie. It is not the daemon's own directory, which
// systemd removes when the daemon is restarted.
const Dir = "/run/aptfleet-inhibit"

// Lock is who keeps the device from being rebooted, and why.
type Lock struct {
	Who   string    `json:"who"`
	Why   string    `json:"why"`
	Since time.Time `json:"since,omitzero"`
	PID   int       `json:"pid,omitempty"`
}

// Held is a lock that this process has.
type Held struct {
	file *os.File
	path string
}

// Prepare makes dir, where everybody may take locks, as in /tmp.
func Prepare(dir string) error {
	err := os.Mkdir(dir, 0o755)
	if err == nil {
		err = os.Chmod(dir, 0o777|fs.ModeSticky)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("cannot prepare locks: %w", err)
	}
	return nil
}

// Take takes a lock. It lasts until Release, or until this process and all that
// inherited the lock have ended.
func Take(dir string, l Lock) (_ *Held, err error) {
	if err := Prepare(dir); err != nil {
		return nil, err
	}
	// A file without the lock is one whose holder is gone. So it gets its name
	// only when it is locked; the lock belongs to the file, whatever its name.
	file, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return nil, fmt.Errorf("cannot take a lock: %w", err)
	}
	h := &Held{file: file, path: filepath.Join(dir, "lock-"+strings.TrimPrefix(filepath.Base(file.Name()), ".new-"))}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("cannot take a lock: %w", err), os.Remove(file.Name()), file.Close())
		}
	}()
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, err
	}
	// Whoever lists may be somebody else.
	if err := file.Chmod(0o644); err != nil {
		return nil, err
	}
	if _, err := file.Write(append(text, '\n')); err != nil {
		return nil, err
	}
	if err := os.Rename(file.Name(), h.path); err != nil {
		return nil, err
	}
	return h, nil
}

// Inherit makes programs that this process becomes or starts hold the lock too.
func (h *Held) Inherit() error {
	if _, err := unix.FcntlInt(h.file.Fd(), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("cannot pass the lock on: %w", err)
	}
	return nil
}

// Release gives the lock up.
func (h *Held) Release() error { return errors.Join(os.Remove(h.path), h.file.Close()) }

const (
	maxLocks = 1000    // looked at
	maxText  = 4 << 10 // bytes of one
)

// List returns the locks that somebody holds, oldest first, and removes what
// is left of others as far as it may. What is no lock is passed over: anybody
// may put files there.
func List(dir string) ([]Lock, error) {
	d, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look for locks: %w", err)
	}
	defer d.Close()
	entries, err := d.ReadDir(maxLocks)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("cannot look for locks: %w", err)
	}
	var all []Lock
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "lock-") {
			if l, held := look(filepath.Join(dir, e.Name())); held {
				all = append(all, l)
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Lock) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.PID, b.PID)) })
	return all, nil
}

// look reads one lock, or removes it if nobody holds it.
func look(path string) (l Lock, held bool) {
	// A link or a pipe of somebody who wishes the updater ill leads nowhere.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return l, false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return l, false
	}
	// Shared, so that two that look do not take each other for holders.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		// Its name is never used again. Whoever may not remove it leaves it to
		// the updater.
		_ = os.Remove(path)
		return l, false
	}
	text, err := io.ReadAll(io.LimitReader(f, maxText))
	if err != nil || json.Unmarshal(text, &l) != nil {
		l = Lock{Who: "somebody", Why: "without saying why"}
	}
	return l, true
}
