package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"aptfleet/test/device/bootcontrol"
)

// Config describes a machine.
type Config struct {
	Dir    string // absolute; holds everything of the machine
	Name   string // host name; no two running machines of a host share it
	Loader string // the loader program
	// Bridge is the host's bridge that the machine's network card is plugged
	// into, anew at each boot; "": it has the host's network.
	Bridge string
	// Console additionally receives what the machine prints; nil: only the
	// file console.log does.
	Console io.Writer
	// Devices are what is connected to it: the name that a thing has in the
	// running system (/dev/mcu) → a device or a file of the host. Links are
	// followed when it boots; what does not exist then is not connected.
	Devices map[string]string
}

// diskSize is the size of a new machine's disk in bytes. The file is sparse.
const diskSize = 6 << 30

// Machine is one device. Its methods may be called from several goroutines.
type Machine struct {
	config Config
	disk   disk
	lock   *os.File

	mu      sync.Mutex
	power   *power // nil while off
	boots   []Boot
	changed chan struct{} // closed and replaced when boots or power change
	closed  bool
}

var machineName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,39}$`)

// Create makes a machine with an empty disk in config.Dir, which is made and
// must not hold a machine yet. It needs root.
func Create(ctx context.Context, config Config) (*Machine, error) {
	return open(ctx, config, func(m *Machine) error { return m.disk.create(ctx, diskSize) })
}

// Open attaches the machine in config.Dir. A directory whose last user was
// killed is swept first.
func Open(ctx context.Context, config Config) (*Machine, error) {
	return open(ctx, config, func(m *Machine) error { return sweepOne(ctx, config.Dir) })
}

// Clone makes a machine in config.Dir whose disk and boot control are copies
// of m's, which must be off. The disks share what the host's file system can
// share.
func (m *Machine) Clone(ctx context.Context, config Config) (*Machine, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.power != nil {
		return nil, fmt.Errorf("cannot clone %s: it is on", m.config.Name)
	}
	if err := run(ctx, "btrfs", "filesystem", "sync", m.Top()); err != nil {
		return nil, err
	}
	return open(ctx, config, func(clone *Machine) error {
		for _, name := range []string{bootcontrol.CommittedFile, bootcontrol.TrialFile} {
			b, err := os.ReadFile(filepath.Join(m.BootControl(), name))
			if err == nil {
				err = os.WriteFile(filepath.Join(clone.BootControl(), name), b, 0o644)
			}
			if err != nil {
				return fmt.Errorf("cannot clone boot control: %w", err)
			}
		}
		if err := copySparse(m.disk.image, clone.disk.image); err != nil {
			return err
		}
		// The kernel must not take both for one file system.
		return run(ctx, "btrfstune", "-m", clone.disk.image)
	})
}

// open locks the directory, lets prepare make the disk ready and attaches it.
func open(ctx context.Context, config Config, prepare func(*Machine) error) (_ *Machine, err error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("cannot run a device: mounting and booting need root")
	}
	if !filepath.IsAbs(config.Dir) || !machineName.MatchString(config.Name) {
		return nil, fmt.Errorf("cannot run a device: directory %q must be absolute and name %q of lower-case letters, digits and hyphens", config.Dir, config.Name)
	}
	m := &Machine{config: config, disk: diskIn(config.Dir), changed: make(chan struct{})}
	for _, dir := range []string{config.Dir, m.BootControl()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("cannot make device: %w", err)
		}
	}
	if m.lock, err = lockDir(config.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.disk.detach(context.WithoutCancel(ctx)), m.lock.Close())
		}
	}()
	if err := prepare(m); err != nil {
		return nil, err
	}
	if err := m.disk.attach(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

func diskIn(dir string) disk {
	return disk{image: filepath.Join(dir, "disk.img"), top: filepath.Join(dir, "top")}
}

// lockDir takes the lock of a machine directory. It is released by Close or
// with the process, never inherited.
func lockDir(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock device: %w", err)
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot lock device %s: another process runs it", dir), file.Close())
	}
	return file, nil
}

// Name returns the machine's host name.
func (m *Machine) Name() string { return m.config.Name }

// Top returns the directory where the top level of the disk is mounted: what
// the device sees as /sysroot. It may be read while the machine runs.
func (m *Machine) Top() string { return m.disk.top }

// BootControl returns the directory of committed.env and grubenv.
func (m *Machine) BootControl() string { return filepath.Join(m.config.Dir, "boot-control") }

// ConsoleLog returns the path of the console log.
func (m *Machine) ConsoleLog() string { return filepath.Join(m.config.Dir, "console.log") }

// Close cuts the power if the machine is on and lets go of everything the
// machine holds of the host. The directory stays. Closing twice is no error.
func (m *Machine) Close() error {
	// Letting go must happen however the caller's own context ended.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m.mu.Lock()
	closed := m.closed
	m.closed = true
	m.mu.Unlock()
	if closed {
		return nil
	}
	m.kill()
	return errors.Join(m.disk.detach(ctx), m.lock.Close())
}
