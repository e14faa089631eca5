package device

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"aptfleet/test/debian"
	"aptfleet/test/device/bootcontrol"
)

// Setup is what a factory writes into a device beside the packages.
type Setup struct {
	Tar       string            // root file system, as Root.Tar and debian.Root return it
	MachineID string            // 32 hexadecimal digits
	Files     map[string][]byte // absolute paths within deployment 1, mode 0644; the updater's settings 0600

	// Updater is the device-updater program of this machine's architecture,
	// which records the first deployment with its own code; "": nothing is
	// recorded, and boot control is written here.
	Updater  string
	State    string // id of the state the packages came from
	Snapshot string // its name, if it has one
}

// Install makes the disk of a new machine bootable: deployment 1 with its
// pristine twin, an empty state, and boot control that has committed it.
func (m *Machine) Install(ctx context.Context, s Setup) error {
	top := m.Top()
	root := filepath.Join(top, "deployments", "1")
	if err := subvolume(ctx, root); err != nil {
		return err
	}
	if err := debian.Unpack(ctx, s.Tar, root); err != nil {
		return err
	}
	files := map[string][]byte{
		"/etc/hostname":   []byte(m.config.Name + "\n"),
		"/etc/machine-id": []byte(s.MachineID + "\n"),
		"/etc/hosts":      []byte("127.0.0.1 localhost " + m.config.Name + "\n::1 localhost\n"),
		"/etc/fstab":      []byte("# / is chosen by the boot loader; state is mounted by the updater's own units.\n"),
	}
	for path, b := range s.Files {
		files[path] = b
	}
	for _, dir := range []string{"sysroot", "boot-control"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o700); err != nil {
			return fmt.Errorf("cannot install device: %w", err)
		}
	}
	for path, b := range files {
		mode := os.FileMode(0o644)
		if path == settings {
			mode = 0o600 // the token is in it
		}
		if err := write(filepath.Join(root, path), b, mode); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(top, "pristine"), 0o755); err != nil {
		return fmt.Errorf("cannot install device: %w", err)
	}
	if err := run(ctx, "btrfs", "subvolume", "snapshot", "-r", root, filepath.Join(top, "pristine", "1")); err != nil {
		return err
	}
	if err := run(ctx, "btrfs", "filesystem", "sync", top); err != nil {
		return err
	}
	if s.Updater != "" {
		args := []string{"init", "--sysroot", top, "--boot-control", m.BootControl(), "--deployment", "1", "--state", s.State}
		if s.Snapshot != "" {
			args = append(args, "--snapshot", s.Snapshot)
		}
		return run(ctx, s.Updater, args...)
	}
	for name, block := range map[string][]byte{
		bootcontrol.CommittedFile: bootcontrol.NewBlock("committed=1", "previous="),
		bootcontrol.TrialFile:     bootcontrol.NewBlock("trial=", "tries="),
	} {
		if err := write(filepath.Join(m.BootControl(), name), block, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func write(path string, b []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot install device: %w", err)
	}
	if err := os.WriteFile(path, b, mode); err != nil {
		return fmt.Errorf("cannot install device: %w", err)
	}
	return nil
}

// settings is the updater's configuration file.
const settings = "/etc/aptfleet/device.yaml"

// Reconfigure replaces /etc/aptfleet/device.yaml in every deployment of a
// machine that is off, as a technician with the disk in hand would.
func (m *Machine) Reconfigure(ctx context.Context, config []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.power != nil {
		return fmt.Errorf("cannot reconfigure %s: it is on", m.config.Name)
	}
	all, err := bootcontrol.Files{Top: m.Top()}.Deployments()
	if err != nil {
		return err
	}
	for _, n := range all {
		path := filepath.Join(m.Top(), "deployments", strconv.Itoa(n), settings)
		if err := write(path, config, 0o600); err != nil {
			return err
		}
	}
	return run(ctx, "btrfs", "filesystem", "sync", m.Top())
}
