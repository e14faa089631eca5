package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// cpu is the fastest to emulate. It has no cmpxchg16b: QEMU 7.2.22 leaves
// garbage in the flags behind that instruction, and kernels die of it at random.
const cpu = "Nehalem-v1,-cx16"

// Device is a PC with one disk and a network card that reaches the host's
// loopback as 10.0.2.2. Its first serial port is the console, its second one
// carries what programs in it tell the test; both go into files that grow.
type Device struct {
	EFI   bool   // its firmware is UEFI, else a BIOS; set while it is off
	Clock string // what its hardware clock says when it is switched on, as 2036-11-26T12:00:00; "": the time

	dir string

	mu  sync.Mutex
	cmd *exec.Cmd // nil while it is off
}

// NewDevice makes a device whose disk is a copy of an image, in an empty
// directory. It is off.
func NewDevice(ctx context.Context, dir, image string) (*Device, error) {
	d := &Device{dir: dir}
	if out, err := exec.CommandContext(ctx, "cp", "--sparse=always", "--reflink=auto", image, d.path("disk")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot make device: %w: %s", err, out)
	}
	return d, nil
}

func (d *Device) path(name string) string { return filepath.Join(d.dir, name) }

// On switches the device on. It resets itself as often as it wants.
func (d *Device) On() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		return errors.New("cannot switch device on: it is on")
	}
	// What the guest flushed is in this machine's memory, which outlives a device
	// that is cut: nothing is won by waiting for this machine's own disk.
	args := []string{
		"-accel", "tcg,thread=multi", "-cpu", cpu, "-m", "640", "-nodefaults", "-display", "none", "-monitor", "none",
		"-drive", "file=" + d.path("disk") + ",format=raw,if=none,id=disk,cache=unsafe", "-device", "virtio-blk-pci,drive=disk,bootindex=0",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci",
	}
	if d.EFI {
		args = append(args, "-bios", ovmf)
	}
	if d.Clock != "" {
		args = append(args, "-rtc", "base="+d.Clock)
	}
	for _, port := range []string{"console", "told"} {
		args = append(args, "-chardev", "file,append=on,id="+port+",path="+d.path(port), "-device", "isa-serial,chardev="+port)
	}
	cmd := exec.Command("qemu-system-x86_64", args...)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("cannot switch device on: %w", err)
	}
	d.cmd = cmd
	return nil
}

// Cut takes the power away at once: what the guest has not written is lost.
// It returns nil also if the device is off.
func (d *Device) Cut() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return nil
	}
	cmd := d.cmd
	d.cmd = nil
	killed := cmd.Process.Kill()
	var ended *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &ended) {
		return errors.Join(killed, err)
	}
	if killed != nil {
		return fmt.Errorf("the device was off already: %w: %s", killed, cmd.Stderr)
	}
	return nil
}

// Console returns all that was printed on the console since the device was
// made.
func (d *Device) Console() string { return d.said("console") }

// Told returns the lines that programs in it have told.
func (d *Device) Told() []string {
	return strings.Split(strings.TrimSpace(d.said("told")), "\n")
}

func (d *Device) said(port string) string {
	text, err := os.ReadFile(d.path(port))
	if err != nil {
		return "" // nothing yet
	}
	return strings.ReplaceAll(string(text), "\r", "")
}

// Until waits until is returns true; what says what that means.
func (d *Device) Until(ctx context.Context, what string, is func() bool) error {
	for !is() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// Where the image has its file systems, in bytes (builder/internal/image).
const (
	controlOffset = 4096 * 512
	controlSize   = 16384 * 512
	systemOffset  = 20480 * 512
)

// Open gives work the boot-control directory and the top level of the disk of
// a device that is off.
func (d *Device) Open(ctx context.Context, work func(control, top string) error) (err error) {
	d.mu.Lock()
	on := d.cmd != nil
	d.mu.Unlock()
	if on {
		return errors.New("cannot open the disk: the device is on")
	}
	for _, part := range []struct {
		name, kind   string
		offset, size int64
	}{{"control", "ext4", controlOffset, controlSize}, {"top", "btrfs", systemOffset, 0}} {
		dir := d.path(part.name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		args := []string{"--find", "--show", fmt.Sprintf("--offset=%d", part.offset)}
		if part.size > 0 {
			args = append(args, fmt.Sprintf("--sizelimit=%d", part.size))
		}
		out, err := exec.CommandContext(ctx, "losetup", append(args, d.path("disk"))...).Output()
		if err != nil {
			return fmt.Errorf("cannot open the disk: losetup: %w", err)
		}
		loop := strings.TrimSpace(string(out))
		mountErr := unix.Mount(loop, dir, part.kind, unix.MS_NOATIME, "")
		// In use it is only marked, and goes with the mount.
		detachErr := exec.CommandContext(context.WithoutCancel(ctx), "losetup", "--detach", loop).Run()
		if mountErr == nil {
			defer func() { err = errors.Join(err, unmount(dir)) }()
		}
		if err := errors.Join(mountErr, detachErr); err != nil {
			return fmt.Errorf("cannot open the disk: %w", err)
		}
	}
	return work(d.path("control"), d.path("top"))
}

// unmount waits for those who look into every new mount.
func unmount(dir string) error {
	for attempt := 0; ; attempt++ {
		err := unix.Unmount(dir, 0)
		if !errors.Is(err, unix.EBUSY) || attempt == 100 {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}
