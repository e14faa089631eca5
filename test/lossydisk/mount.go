package lossydisk

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FileSystem is one that a disk can hold.
type FileSystem struct {
	Name    string
	Size    int64    // of a disk that is large enough for small tests, in bytes
	Tear    int      // bytes that it expects a disk to write whole
	make    []string // command that makes it on the device that follows
	options string   // of mount(8)
}

// The file systems. btrfs writes its superblocks in place and needs 4 KiB
// written whole; ext4 has a journal for everything it overwrites.
var (
	Ext4  = FileSystem{Name: "ext4", Size: 192 << 20, Tear: SectorSize, make: []string{"mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"}}
	Btrfs = FileSystem{Name: "btrfs", Size: 256 << 20, Tear: blockSize, make: []string{"mkfs.btrfs", "--quiet", "--nodiscard", "--metadata", "single"}, options: "nodiscard"}
)

// patience is how long a step of attaching may take.
const patience = 20 * time.Second

// Device is a disk that is attached to this machine.
type Device struct {
	disk    *Disk
	node    string // nbdfuse's file
	loop    string // the loop device, "" once it is mounted
	mounted string // mount point, "" if it is not mounted
	parts   map[Part]*part
	fuse    *exec.Cmd
	ended   chan struct{} // closed when nbdfuse has ended
	served  chan error    // what Serve returned
}

// Attach makes the disk a block device. It needs root, /dev/fuse and loop
// devices; dir must not be shared with another device. Close detaches it; it
// dies with this process.
func Attach(ctx context.Context, disk *Disk, dir string) (v *Device, err error) {
	if v, err = Expose(ctx, disk, dir); err != nil {
		return nil, err
	}
	out, err := output(ctx, "losetup", "--find", "--show", "--direct-io=on", v.node)
	if err != nil {
		return nil, errors.Join(err, v.Close())
	}
	v.loop = strings.TrimSpace(out)
	return v, nil
}

// Expose is Attach without a block device of the whole disk: its parts get
// theirs when they are used.
func Expose(ctx context.Context, disk *Disk, dir string) (_ *Device, err error) {
	v := &Device{disk: disk, node: filepath.Join(dir, "disk"), ended: make(chan struct{}), served: make(chan error, 1)}
	if err := os.WriteFile(v.node, nil, 0o600); err != nil {
		return nil, fmt.Errorf("cannot attach disk: %w", err)
	}
	if err := v.start(); err != nil {
		return nil, fmt.Errorf("cannot attach disk: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Close())
		}
	}()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if info, err := os.Stat(v.node); err == nil && info.Size() == disk.size {
			break
		}
		select {
		case <-v.ended:
			return nil, fmt.Errorf("cannot attach disk: nbdfuse ended: %v: %s", v.fuse.ProcessState, v.fuse.Stderr)
		default:
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return nil, fmt.Errorf("cannot attach disk: nbdfuse does not get ready: %s", v.fuse.Stderr)
		}
	}
	return v, nil
}

// start runs the server and nbdfuse, connected by a pair of sockets.
func (v *Device) start() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "nbd"), os.NewFile(uintptr(pair[1]), "nbd")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err := errors.Join(err, ours.Close()); err != nil {
		return err
	}
	v.fuse = exec.Command("nbdfuse", v.node, "--fd", "3")
	v.fuse.ExtraFiles = []*os.File{theirs}
	v.fuse.Stderr = new(strings.Builder)
	v.fuse.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := v.fuse.Start(); err != nil {
		return errors.Join(fmt.Errorf("%w (package libnbd-bin)", err), conn.Close())
	}
	go func() {
		err := v.disk.Serve(conn)
		v.served <- errors.Join(err, conn.Close())
	}()
	go func() {
		// The state of the process says all that its error would.
		_ = v.fuse.Wait()
		close(v.ended)
	}()
	return nil
}

// Format makes a file system on the device, durably.
func (v *Device) Format(ctx context.Context, fs FileSystem) error {
	_, err := output(ctx, fs.make[0], append(fs.make[1:], v.loop)...)
	v.disk.mu.Lock()
	defer v.disk.mu.Unlock()
	v.disk.settle()
	return err
}

// Mount mounts the device's file system at dir, which repairs it as after any
// power cut.
func (v *Device) Mount(fs FileSystem, dir string) error {
	if err := unix.Mount(v.loop, dir, fs.Name, unix.MS_NOATIME, fs.options); err != nil {
		return fmt.Errorf("cannot mount %s: %w", fs.Name, err)
	}
	v.mounted = dir
	// A loop device in use is detached by the kernel once it is not: it never
	// outlives its mount, however this program ends.
	_, err := output(context.Background(), "losetup", "--detach", v.loop)
	v.loop = ""
	return err
}

// Close unmounts and detaches the device. What still runs on it must have
// ended; whatever fails, the rest is done.
func (v *Device) Close() error {
	errs := []error{v.closeParts()}
	if v.mounted != "" {
		errs = append(errs, unmount(v.mounted))
		v.mounted = ""
	}
	if v.loop != "" {
		_, err := output(context.Background(), "losetup", "--detach", v.loop)
		errs = append(errs, err)
		v.loop = ""
	}
	// Busy until the kernel has let the loop device go; lazily it goes all the same.
	if err := unix.Unmount(v.node, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
		errs = append(errs, fmt.Errorf("cannot unmount %s: %w", v.node, err))
	}
	select {
	case <-v.ended:
	case <-time.After(patience):
		errs = append(errs, errors.New("cannot detach disk: nbdfuse does not end"), v.fuse.Process.Kill())
		<-v.ended
	}
	errs = append(errs, <-v.served)
	return errors.Join(errs...)
}

// unmount waits for those who die. What cannot be unmounted is let go of.
func unmount(dir string) error {
	err := unix.Unmount(dir, 0)
	for deadline := time.Now().Add(patience); errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); err = unix.Unmount(dir, 0) {
		time.Sleep(5 * time.Millisecond) // the kernel closes a killed process's files a moment later
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot unmount %s: %w", dir, err), unix.Unmount(dir, unix.MNT_DETACH))
	}
	return nil
}

func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, problem strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("cannot run %s: %w: %s", name, err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}
