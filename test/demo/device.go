package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/device"
	"aptfleet/test/device/bootcontrol"
)

// virtual is the demo's device: a Debian system of its own in a container,
// with its own disk, boot control and boot loader.
type virtual struct {
	machine *device.Machine
	on      time.Time // when it was switched on
	told    string    // what was said last of what it runs
}

// install makes the device from the snapshot of version 1, or opens the one
// that a former run made.
func (d *demo) install(ctx context.Context) (*virtual, error) {
	dir := filepath.Join(d.dir, "device")
	installed := filepath.Join(dir, "installed")
	console, err := os.OpenFile(filepath.Join(d.dir, "log", "device.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot write the device's log: %w", err)
	}
	config := device.Config{Dir: dir, Name: deviceName, Loader: filepath.Join(d.dir, "bin", "loader"), Console: console}
	yaml := d.deviceConfig()
	if _, err := os.Stat(installed); err == nil {
		d.say.note("switching the device on")
		machine, err := device.Open(ctx, config)
		if err != nil {
			return nil, err
		}
		v := &virtual{machine: machine, on: time.Now()}
		if err := errors.Join(d.moved(machine), allTries(machine.BootControl())); err != nil {
			return nil, errors.Join(err, v.close())
		}
		if err := machine.Reconfigure(ctx, yaml); err != nil {
			return nil, errors.Join(err, v.close())
		}
		return v, nil
	}

	d.say.note("installing the device from its snapshot, with nothing but the pipeline as source")
	if err := device.Sweep(ctx, dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("cannot remove a half-made device: %w", err)
	}
	machine, err := device.Create(ctx, config)
	if err != nil {
		return nil, err
	}
	v := &virtual{machine: machine}
	err = d.provision(ctx, machine, yaml)
	if err == nil {
		err = os.WriteFile(installed, nil, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	d.say.note("switching the device on")
	v.on = time.Now()
	return v, nil
}

// provision writes the first deployment.
func (d *demo) provision(ctx context.Context, machine *device.Machine, yaml []byte) error {
	snapshots, err := d.server.Snapshots(ctx, pipelineName)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(snapshots, func(s protocol.Snapshot) bool { return slices.Contains(s.Labels, "demo-app-1.0") })
	if at < 0 {
		return errors.New("cannot install the device: the snapshot of demo-app 1.0 is gone; make run FRESH=1 starts over")
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return fmt.Errorf("cannot make up a machine id: %w", err)
	}
	key, err := d.server.Key(ctx)
	if err != nil {
		return err
	}
	keyring := filepath.Join(d.dir, "archive-keyring.asc")
	if err := os.WriteFile(keyring, []byte(key.Certificate), 0o644); err != nil {
		return fmt.Errorf("cannot write the archive's certificate: %w", err)
	}
	snapshot := snapshots[at]
	tar, err := device.Root{
		Base:         d.server.Public + "/" + pipelineName + "/snapshots/" + snapshot.ID,
		State:        snapshot.State,
		Distribution: distribution,
		Components:   []string{repository, mirrorName},
		Packages:     topLevel,
		Keyring:      keyring,
		Progress:     lineWriter(d.say.progress),
	}.Tar(ctx)
	if err != nil {
		return err
	}
	return machine.Install(ctx, device.Setup{
		Tar:       tar,
		MachineID: hex.EncodeToString(id[:]),
		Files:     map[string][]byte{"/etc/aptfleet/device.yaml": yaml},
		Updater:   filepath.Join(d.dir, "bin", "device-updater"),
		State:     snapshot.State,
		Snapshot:  snapshot.ID,
	})
}

// buildUpdater builds what runs on the device and its boot loader, while the
// page is already up.
func (d *demo) buildUpdater(ctx context.Context) error {
	d.say.note("building the device's programs")
	build := exec.CommandContext(ctx, "go", "build", "-tags", "nomsgpack", "-ldflags", "-s -w",
		"-o", filepath.Join(d.dir, "bin")+"/", "./device-updater", "./test/device/loader")
	build.Dir = d.source
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot build the device's programs: %w\n%s", err, out)
	}
	// They are in the updater's package.
	bin := filepath.Join(d.dir, "bin")
	man := exec.CommandContext(ctx, filepath.Join(bin, "device-updater"), "man", filepath.Join(bin, "man8"))
	if out, err := man.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot write the updater's manual pages: %w\n%s", err, out)
	}
	return nil
}

// deviceConfig is the device's /etc/aptfleet/device.yaml. Everything else the
// server tells it. The network between them is this machine, which is why plain
// HTTP will do.
func (d *demo) deviceConfig() []byte {
	return fmt.Appendf(nil, `server: %s
insecure: true
serial: %s
poll: 2s
reboot: auto
trial: {tries: %d, timeout: 3m, observe: 15s}
`, d.server.Public, deviceSerial, trialTries)
}

// trialTries is how often the device boots a release on trial.
const trialTries = 3

// allTries gives a release on trial all its tries again, on a device that is
// off: what took them was the visitor's Ctrl-C, and the device would remember
// the release as a bad one.
func allTries(bootControl string) error {
	path := filepath.Join(bootControl, bootcontrol.TrialFile)
	block, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot tell what the device has on trial: %w", err)
	}
	vars, err := bootcontrol.Variables(block)
	if err != nil || vars["trial"] == "" {
		return nil // nothing, or nothing that a loader would boot
	}
	block = bootcontrol.NewBlock("trial="+vars["trial"], fmt.Sprintf("tries=%d", trialTries))
	if err := os.WriteFile(path, block, 0o600); err != nil {
		return fmt.Errorf("cannot give the device's trial its tries again: %w", err)
	}
	return nil
}

// moved makes a device that is off enrol once more if the server has another
// address than it was enrolled at. It keeps its keys, so it stays the device
// that it is.
func (d *demo) moved(machine *device.Machine) error {
	path := filepath.Join(machine.Top(), "identity", "enrolment.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var enrolled struct {
		Server string `json:"server"`
	}
	if err == nil {
		err = json.Unmarshal(text, &enrolled)
	}
	if err != nil {
		return fmt.Errorf("cannot tell where the device is enrolled: %w", err)
	}
	if enrolled.Server == d.server.Public {
		return nil
	}
	d.say.note("the server's address is another one now: the device enrols there with the key that it has")
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("cannot make the device enrol again: %w", err)
	}
	return nil
}

// run keeps the device on until the context ends, then shuts it down. It
// returns early if the device switches itself off.
func (v *virtual) run(ctx context.Context) error {
	if err := v.machine.PowerOn(); err != nil {
		return err
	}
	err := v.machine.AwaitOff(ctx)
	if ctx.Err() == nil {
		return err
	}
	// A clean shutdown while there is patience for it; close pulls the plug.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return v.machine.PowerOff(last)
}

// close lets go of everything the device holds of the host.
func (v *virtual) close() error { return v.machine.Close() }

// lineWriter hands the last line of every write to a function, without the mark
// of mmdebstrap's own, and without the commands that it is given.
type lineWriter func(string)

func (w lineWriter) Write(p []byte) (int, error) {
	last := ""
	for line := range strings.Lines(string(p)) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "I: ")
		if line != "" && !strings.HasPrefix(line, "running --") {
			last = line
		}
	}
	if last != "" {
		w(last)
	}
	return len(p), nil
}
