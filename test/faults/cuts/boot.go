package cuts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Argument is what this program is called with to become PID 1 of a device;
// main must call Main then.
const Argument = "internal-boot-device"

// lent is where a device sees the directory that the rig lends it, with
// settings, a service manager that says yes, and the trace.
const lent = "/run/rig"

// boot is one start of a device.
type boot struct {
	Root     string   // of the deployment
	Top      string   // mounted top level of btrfs
	Control  string   // mounted boot control
	Lend     string   // directory that it sees as lent
	Updater  string   // program that it sees as its updater
	Commands []string // shell lines, one after the other until one fails
	Env      []string // besides PATH
}

// systemctl stands for the service manager: all is well and stays so, and a
// reboot is asked for by a file.
const systemctl = `#!/bin/sh
case "$*" in
reboot*) : >` + lent + `/reboot ;;
get-default) echo multi-user.target ;;
is-*) echo active ;;
*UserspaceTimestampMonotonic*) read -r up rest </proc/uptime; echo "${up%.*}000000" ;;
show*) printf '%s\n' Id=multi-user.target LoadState=loaded ActiveState=active SubState=active Result=success NRestarts=0 ActiveEnterTimestampMonotonic=1000000 ;;
esac
`

// rebooted is the exit status of PID 1 of a device that is to start again.
const rebooted = 133

// start boots the device and waits until its commands have ended. It returns
// what they printed, and whether the device reboots. An error is that of a
// command that failed.
func (b boot) start(ctx context.Context, random *rand.Rand) (reboots bool, out string, err error) {
	// A boot has an id that no other has.
	id := fmt.Sprintf("%08x-0000-4000-8000-%012x\n", random.Uint32(), random.Uint64()>>16)
	if err := os.WriteFile(filepath.Join(b.Lend, "boot_id"), []byte(id), 0o444); err != nil {
		return false, "", err
	}
	if err := os.Remove(filepath.Join(b.Lend, "reboot")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, "", err
	}
	spec, err := json.Marshal(b)
	if err != nil {
		return false, "", err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", Argument)
	var text bytes.Buffer
	cmd.Env = []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(spec), &text, &text
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL, Setsid: true,
	}
	// The death signal is sent when the thread that started the child ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == rebooted {
		return true, text.String(), nil
	}
	if err != nil {
		err = fmt.Errorf("cannot run device: %w: %s", err, bytes.TrimSpace(text.Bytes()))
	}
	return false, text.String(), err
}

// Main is PID 1 of a device; it returns the exit status.
func Main() int {
	status, err := inside()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

func inside() (int, error) {
	var b boot
	if err := json.NewDecoder(os.Stdin).Decode(&b); err != nil {
		return 0, err
	}
	if err := b.mount(); err != nil {
		return 0, fmt.Errorf("cannot mount device: %w", err)
	}
	for _, line := range b.Commands {
		cmd := exec.Command("/bin/sh", "-c", line)
		cmd.Env = append([]string{"PATH=" + lent + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}, b.Env...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		err := cmd.Run()
		// Whatever it says then, PID 1 would have ended it.
		if _, asked := os.Stat(lent + "/reboot"); asked == nil {
			return rebooted, nil
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", line, err)
		}
	}
	return 0, nil
}

// mount makes the deployment the root, as the kernel and PID 1 do.
func (b boot) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(b.Root, b.Root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"/dev", "/dev", "", unix.MS_BIND | unix.MS_REC},
		{"proc", "/proc", "proc", 0},
		{"sysfs", "/sys", "sysfs", unix.MS_RDONLY},
		{"tmpfs", "/run", "tmpfs", 0},
		{"tmpfs", "/tmp", "tmpfs", 0},
		{b.Top, "/sysroot", "", unix.MS_BIND},
		{b.Control, "/boot-control", "", unix.MS_BIND},
		{b.Lend, lent, "", unix.MS_BIND},
		{b.Updater, "/usr/bin/device-updater", "", unix.MS_BIND},
		{filepath.Join(b.Lend, "boot_id"), "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND},
	} {
		if m.target == lent {
			if err := os.Mkdir(b.Root+lent, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.source, b.Root+m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("%s on %s: %w", m.source, m.target, err)
		}
	}
	if err := os.Chdir(b.Root); err != nil {
		return err
	}
	// pivot_root(2), "pivot_root(".", ".")".
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	return errors.Join(unix.Unmount(".", unix.MNT_DETACH), os.Chdir("/"))
}

// deploymentRoot is where deployment n of a mounted device lies.
func deploymentRoot(top string, n int) string {
	return filepath.Join(top, "deployments", strconv.Itoa(n))
}
