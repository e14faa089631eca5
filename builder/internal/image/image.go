// Package image makes the disk of a new device: a loader that cannot be
// updated away, boot control, and a btrfs file system with deployment 1,
// installed by apt from one snapshot of the archive and from nothing else.
//
// The layout of the disk (GPT):
//
//	1  BIOS boot       1 MiB   GRUB's core image, with grub.cfg in it
//	2  aptfleet-boot   8 MiB   ext4 without a journal: committed.env, grubenv
//	3  aptfleet        rest    btrfs: deployments/1, pristine/1, state, identity, updater
//	4  efi            64 MiB   at the end, where it is asked for: FAT, with the same loader for UEFI
//
// The deployment's own device-updater records and commits it, with the code
// that later updates the device.
package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/internal/grub"
)

// Plan says what becomes an image.
type Plan struct {
	Base         string   // URL of the snapshot's base, e.g. https://apt.example/demo/snapshots/20261120T101500Z
	Distribution string   // e.g. trixie
	Components   []string // of the pipeline
	Keyring      string   // file with the archive key's certificate, absolute
	CA           string   // file with the only authority of the archive's certificate, absolute; "": the system's
	Architecture string   // of the packages; that of this machine
	Packages     []string // what is wanted beyond Essential, Priority: required and apt; a kernel and device-updater among them
	BOM          []byte   // the bill of materials that the packages are, as devices get it; nil: apt computes them

	State    string // id of the snapshot's state
	Snapshot string // its name

	Hostname string
	Settings []byte // /etc/aptfleet/device.yaml; nil: none
	Size     int64  // of the disk, in bytes; the file is sparse
	Loader   string // lines of GRUB script before the loader's own, e.g. for a serial console
	EFI      bool   // machines with UEFI boot it, too, as long as they check no signature
}

// MinSize is the smallest disk, in bytes: a system, its successor, and state.
const MinSize = 2 << 30

// Where the partitions lie, in sectors of 512 bytes.
const (
	sector       = 512
	loaderStart  = 2048
	loaderSize   = 2048
	controlStart = loaderStart + loaderSize
	controlSize  = 16384
	systemStart  = controlStart + controlSize
	efiSize      = 131072 // FAT32 has at least 65525 clusters
	gptEnd       = 2048   // for the second partition table, generously
)

// systemEnd is the sector behind the partition with the deployments.
func (p Plan) systemEnd() int64 {
	end := p.Size/sector - gptEnd
	if p.EFI {
		end -= efiSize
	}
	return end
}

var (
	hostPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	idPattern   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func (p Plan) check() error {
	switch {
	case p.Size < MinSize || p.Size%(1<<20) != 0:
		return fmt.Errorf("a disk of %d bytes is below %d or no whole number of MiB", p.Size, MinSize)
	case !hostPattern.MatchString(p.Hostname):
		return fmt.Errorf("%q is no host name", p.Hostname)
	case !idPattern.MatchString(p.State):
		return fmt.Errorf("%q is not the id of a state", p.State)
	case len(p.Packages) == 0 || len(p.Components) == 0:
		return errors.New("it is not said which packages, or from which components")
	}
	return nil
}

// Build makes the image in the file output, which must not exist, and prints
// what apt says to log. It needs root, mmdebstrap, sfdisk, mke2fs, btrfs-progs
// and GRUB's tools. If it fails, ends early or is killed, there is no file of
// that name, and nothing stays mounted: the mounts are in a namespace of one
// thread, and loop devices end with their mount.
func Build(ctx context.Context, p Plan, output string, log io.Writer) error {
	if err := p.check(); err != nil {
		return fmt.Errorf("cannot make image: %w", err)
	}
	if _, err := os.Lstat(output); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot make image: %s is there already", output)
	}
	dir, err := os.MkdirTemp(filepath.Dir(output), ".image-")
	if err != nil {
		return fmt.Errorf("cannot make image: %w", err)
	}
	b := builder{Plan: p, dir: dir, disk: filepath.Join(dir, "disk"), log: log}
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, and its
		// namespace with it.
		runtime.LockOSThread()
		done <- b.build(ctx)
	}()
	err = <-done
	if err == nil {
		err = os.Rename(b.disk, output)
	}
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		return fmt.Errorf("cannot make image: %w", err)
	}
	return nil
}

type builder struct {
	Plan
	dir  string // for all that is made on the way
	disk string // file
	log  io.Writer
}

func (b *builder) build(ctx context.Context) error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	loader, err := grub.Make(ctx, grub.BIOS, b.Loader)
	if err != nil {
		return err
	}
	if b.BOM != nil {
		if err := b.vouched(ctx); err != nil {
			return err
		}
	}
	if err := b.partition(ctx); err != nil {
		return err
	}
	control, top := filepath.Join(b.dir, "control"), filepath.Join(b.dir, "top")
	systemSize := b.systemEnd() - systemStart
	// btrfs first: its mkfs refuses a file of which another part is mounted.
	unmountTop, err := b.format(ctx, top, systemStart, systemSize, "btrfs", "mkfs.btrfs", "--quiet", "--label", grub.SystemLabel)
	if err != nil {
		return err
	}
	unmountControl, err := b.format(ctx, control, controlStart, controlSize, "ext4", grub.MakeControl()...)
	if err != nil {
		return err
	}
	if err := b.install(ctx, top, control); err != nil {
		return err
	}
	if err := errors.Join(unmountTop(), unmountControl()); err != nil {
		return err
	}
	if b.EFI {
		if err := b.installEFI(ctx); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(b.disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(loader.Install(file, loaderStart, loaderSize*sector), file.Sync(), file.Close())
}

// partition makes the file and its partition table (types: UEFI specification,
// and BIOS boot as GRUB's manual has it).
func (b *builder) partition(ctx context.Context) error {
	file, err := os.OpenFile(b.disk, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(file.Truncate(b.Size), file.Close()); err != nil {
		return err
	}
	efi := ""
	if b.EFI {
		efi = fmt.Sprintf("4: start=%d, size=%d, type=uefi, name=efi\n", b.systemEnd(), efiSize)
	}
	table := fmt.Sprintf("label: gpt\nunit: sectors\n"+
		"1: start=%d, size=%d, type=21686148-6449-6E6F-744E-656564454649, name=loader\n"+
		"2: start=%d, size=%d, type=linux, name=%s\n3: start=%d, size=%d, type=linux, name=%s\n"+efi,
		loaderStart, loaderSize, controlStart, controlSize, grub.ControlLabel, systemStart, b.systemEnd()-systemStart, grub.SystemLabel)
	return b.run(ctx, strings.NewReader(table), "sfdisk", "--quiet", b.disk)
}

// format makes a file system in a part of the disk, with the command mkfs, and
// mounts it at dir. It is unmounted by the function it returns, or with the
// thread.
func (b *builder) format(ctx context.Context, dir string, start, size int64, kind string, mkfs ...string) (unmount func() error, err error) {
	out, err := exec.CommandContext(ctx, "losetup", "--find", "--show", fmt.Sprintf("--offset=%d", start*sector), fmt.Sprintf("--sizelimit=%d", size*sector), b.disk).Output()
	if err != nil {
		return nil, failed("losetup", err)
	}
	loop := strings.TrimSpace(string(out))
	detach := func() error { return b.run(context.WithoutCancel(ctx), nil, "losetup", "--detach", loop) }
	if err := b.run(ctx, nil, mkfs[0], append(mkfs[1:], loop)...); err != nil {
		return nil, errors.Join(err, detach())
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, errors.Join(err, detach())
	}
	if err := unix.Mount(loop, dir, kind, unix.MS_NOATIME, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("mount: %w", err), detach())
	}
	// In use it is only marked, and goes with the mount.
	return func() error { return unix.Unmount(dir, 0) }, detach()
}

// fstab mounts what the loader does not. The disk is there, for the root is on
// it: a machine that is slow to say so must not end in emergency mode.
const fstab = `# / is chosen by the boot loader; state is mounted by the updater's own units.
LABEL=` + grub.SystemLabel + `      /sysroot      btrfs  subvolid=5,noatime,x-systemd.device-timeout=15min  0 0
LABEL=` + grub.ControlLabel + ` /boot-control ext4   noatime,x-systemd.device-timeout=15min              0 0
`

// install fills deployment 1 and lets its own updater commit it.
func (b *builder) install(ctx context.Context, top, control string) error {
	root := filepath.Join(top, "deployments/1")
	for _, dir := range []string{"deployments", "pristine"} {
		if err := os.Mkdir(filepath.Join(top, dir), 0o755); err != nil {
			return err
		}
	}
	if err := b.run(ctx, nil, "btrfs", "--quiet", "subvolume", "create", root); err != nil {
		return err
	}
	if err := b.bootstrap(ctx, root); err != nil {
		return err
	}
	files := []struct {
		name, text string
		mode       os.FileMode
	}{
		{"etc/hostname", b.Hostname + "\n", 0o644},
		{"etc/hosts", "127.0.0.1 localhost\n127.0.1.1 " + b.Hostname + "\n::1 localhost\n", 0o644},
		{"etc/fstab", fstab, 0o644},
		{"etc/machine-id", "", 0o444}, // each device makes its own when it first boots
		{"etc/aptfleet/device.yaml", string(b.Settings), 0o600},
	}
	inside, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, dir := range []string{"sysroot", "boot-control"} {
		if err := inside.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	for _, f := range files {
		if f.name == "etc/aptfleet/device.yaml" && b.Settings == nil {
			continue
		}
		if err := inside.MkdirAll(filepath.Dir(f.name), 0o755); err != nil {
			return err
		}
		if err := inside.RemoveAll(f.name); err != nil {
			return err
		}
		if err := inside.WriteFile(f.name, []byte(f.text), f.mode); err != nil {
			return err
		}
	}
	// The program of the image, not one of this machine; it is static.
	updater := filepath.Join(root, "usr/bin/device-updater")
	args := []string{"init", "--sysroot", top, "--boot-control", control, "--deployment", "1", "--state", b.State}
	if b.Snapshot != "" {
		args = append(args, "--snapshot", b.Snapshot)
	}
	if b.BOM != nil {
		bill := filepath.Join(b.dir, "bom")
		if err := os.WriteFile(bill, b.BOM, 0o600); err != nil {
			return err
		}
		args = append(args, "--bom", bill)
	}
	if err := b.run(ctx, nil, updater, args...); err != nil {
		return err
	}
	if err := b.run(ctx, nil, "btrfs", "--quiet", "subvolume", "snapshot", "-r", root, filepath.Join(top, "pristine/1")); err != nil {
		return err
	}
	return b.run(ctx, nil, "btrfs", "filesystem", "sync", top)
}

// bootstrap installs the packages with mmdebstrap, whose variant minbase is
// Essential, Priority: required and apt, as the updater solves too. The
// archive is the only source.
func (b *builder) bootstrap(ctx context.Context, root string) error {
	source := fmt.Sprintf("deb [signed-by=%s] %s %s %s\n", b.Keyring, b.Base, b.Distribution, strings.Join(b.Components, " "))
	args := []string{
		"--mode=root", "--format=directory", "--variant=minbase", "--architectures=" + b.Architecture, "--include=" + strings.Join(b.Packages, ","),
		`--aptopt=Acquire::Languages "none"`,
		`--aptopt=APT::Sandbox::User "root"`, // the keyring may lie where only root can read
		"--dpkgopt=force-unsafe-io",
		`--customize-hook=cd "$1/etc" && rm -f apt/sources.list apt/apt.conf.d/99mmdebstrap dpkg/dpkg.cfg.d/99mmdebstrap resolv.conf hostname`,
	}
	if b.CA != "" {
		args = append(args, fmt.Sprintf("--aptopt=Acquire::https::CAInfo %q", b.CA))
	}
	return b.run(ctx, strings.NewReader(source), "mmdebstrap", append(args, b.Distribution, root, "-")...)
}

// run runs a program; its words go to the log, the last ones also into the
// error.
func (b *builder) run(ctx context.Context, in io.Reader, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = in
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	var last tail
	cmd.Stdout = io.MultiWriter(b.log, &last)
	cmd.Stderr = cmd.Stdout
	// mmdebstrap unmounts and removes what it made when it is asked to end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w: %s", filepath.Base(name), err, last.text())
	}
	return nil
}

func failed(name string, err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(exit.Stderr))
	}
	return fmt.Errorf("%s: %w", name, err)
}

// tail keeps the end of what is written to it.
type tail struct{ kept []byte }

const tailSize = 2000 // bytes

func (t *tail) Write(b []byte) (int, error) {
	t.kept = append(t.kept, b...)
	t.kept = t.kept[max(0, len(t.kept)-tailSize):]
	return len(b), nil
}

func (t *tail) text() string { return string(bytes.TrimSpace(t.kept)) }

// LookPath finds a program, also where only root's PATH leads.
func LookPath(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path, nil
			}
		}
	}
	return path, err
}
