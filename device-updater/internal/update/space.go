package update

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"aptfleet/device-updater/internal/apt"
)

// reserve is what must stay free on the file system, in bytes.
const reserve = 256 << 20

// crowded is how many free bytes are so few that an installation may have
// failed for want of more.
const crowded = 32 << 20

// unpacked is how many times the size of its .deb a package is taken to need
// that does not say.
const unpacked = 5

// need is how many bytes an update takes of the file system until it is
// committed. What it replaces gives nothing back: the deployment that it was
// cloned from has it still.
type need struct {
	download int64 // of packages that are not here yet
	install  int64 // what they unpack to, with the initrds that are made anew
}

func (n need) total() int64 { return n.download + n.install + reserve }

// needs adds up what a plan takes, for a clone of root.
func needs(plan apt.Plan, root string) need {
	n := need{download: plan.FetchSize() - plan.Here}
	for _, f := range plan.Fetch {
		size, known := plan.Installed[f.String()]
		if !known {
			size = unpacked * f.Size
		}
		n.install += size
	}
	if plan.Empty() {
		return n
	}
	// Any package may have its initrd made anew; each new kernel brings one.
	var largest int64
	initrds, err := filepath.Glob(filepath.Join(root, "boot/initrd.img-*"))
	if err != nil {
		return n
	}
	for _, path := range initrds {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			n.install += info.Size()
			largest = max(largest, info.Size())
		}
	}
	for _, f := range plan.Fetch {
		if strings.HasPrefix(f.Name, "linux-image-") {
			n.install += largest
		}
	}
	return n
}

// room refuses an update that may fill the disk, with what it needs, what is
// free, and what a person could give back.
func (m *Machine) room(plan apt.Plan) error {
	free, err := m.Roots.Free()
	if err != nil {
		return err
	}
	current, d, err := m.boots()
	if err != nil {
		return err
	}
	n := needs(plan, m.Roots.Path(deployment(current)))
	if free >= n.total() {
		return nil
	}
	err = fmt.Errorf("cannot update: %d MB are free and %d MB are needed (%d to download, %d to install, %d to spare)",
		free>>20, megabytes(n.total()), megabytes(n.download), megabytes(n.install), megabytes(reserve))
	if spare := m.spare(m.indispensable(current, d)); spare != "" {
		err = fmt.Errorf("%w; `device-updater unpin` and a lower `keep` would give back %s", err, spare)
	}
	return fmt.Errorf("%w: %w", err, syscall.ENOSPC)
}

// megabytes rounds up: what is needed must not look smaller than what is free.
func megabytes(n int64) int64 { return (n + 1<<20 - 1) >> 20 }
