package device

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Boot is one start of the system.
type Boot struct {
	Deployment int
	Trial      bool
	Why        string // the loader's reason
	Started    time.Time
	Ended      time.Time // zero while it runs
	End        End       // "" while it runs
}

// End says how a boot ended.
type End string

// The ends of a boot.
const (
	Rebooted   End = "reboot"
	PoweredOff End = "power off"
	PowerLost  End = "power cut"
	Crashed    End = "crash" // PID 1 failed or could not be started; the machine starts again, as with panic=5
)

// nspawn's exit codes for an orderly end of the container, with --keep-unit
// (systemd-nspawn(1), "Exit status"; 133 is its request for a restart).
const (
	exitPoweredOff = 0
	exitRebooted   = 133
)

// crashLimit is how many boots in a row may crash before the machine gives up.
const crashLimit = 20

// sigPowerOff makes systemd shut down and power off (systemd(1), SIGRTMIN+4;
// the C library's SIGRTMIN is 34).
const sigPowerOff = syscall.Signal(34 + 4)

// power is the time between switching on and being off again.
type power struct {
	cut  context.CancelFunc // kills what runs
	done chan struct{}      // closed when nothing runs any more
	err  error              // why it went off by itself; read after done
	pid  int                // of the running nspawn, 0 between boots; guarded by Machine.mu
}

// PowerOn switches the machine on. It returns at once; the machine then boots
// and reboots by itself until it powers off or its power is cut. It is no
// error if it is on already.
func (m *Machine) PowerOn() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("cannot switch %s on: it is closed", m.config.Name)
	}
	if m.power != nil {
		return nil
	}
	console, err := os.OpenFile(m.ConsoleLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot switch %s on: %w", m.config.Name, err)
	}
	group, err := newCgroup(m.id())
	if err != nil {
		return errors.Join(err, console.Close())
	}
	ctx, cut := context.WithCancel(context.Background())
	p := &power{cut: cut, done: make(chan struct{})}
	m.power = p
	go func() {
		// The container must die with this program. The kernel ties that to
		// the thread that started it, so the thread has to stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := m.cycle(ctx, p, group, console)
		err = errors.Join(err, m.forget(group), console.Close())
		cut()
		m.mu.Lock()
		defer m.mu.Unlock()
		p.err = err
		m.power = nil
		m.notify()
		close(p.done)
	}()
	return nil
}

// cycle boots until the machine is off.
func (m *Machine) cycle(ctx context.Context, p *power, group string, console *os.File) error {
	out := io.Writer(console)
	if m.config.Console != nil {
		out = io.MultiWriter(console, m.config.Console)
	}
	for crashes := 0; crashes < crashLimit; {
		boot, err := m.load(ctx, out)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		m.begin(boot)
		end, err := m.container(ctx, p, boot, group, out)
		m.end(end)
		if err != nil {
			return err
		}
		switch end {
		case PoweredOff, PowerLost:
			return nil
		case Crashed:
			crashes++
		case Rebooted:
			crashes = 0
		}
	}
	return fmt.Errorf("cannot boot %s: %d boots in a row crashed, see %s", m.config.Name, crashLimit, m.ConsoleLog())
}

// load runs the loader and returns the boot it wants.
func (m *Machine) load(ctx context.Context, console io.Writer) (Boot, error) {
	cmd := exec.CommandContext(ctx, m.config.Loader, m.BootControl(), m.Top())
	var why strings.Builder
	cmd.Stderr = io.MultiWriter(console, &why)
	out, err := cmd.Output()
	if err != nil {
		return Boot{}, fmt.Errorf("cannot boot %s: loader: %w: %s", m.config.Name, err, strings.TrimSpace(why.String()))
	}
	words := strings.Fields(string(out))
	if len(words) < 2 || words[0] != "boot" {
		return Boot{}, fmt.Errorf("cannot boot %s: the loader said %q", m.config.Name, out)
	}
	n, err := strconv.Atoi(words[1])
	if err != nil {
		return Boot{}, fmt.Errorf("cannot boot %s: the loader said %q", m.config.Name, out)
	}
	return Boot{Deployment: n, Trial: slices.Contains(words[2:], "trial"), Why: strings.TrimSpace(why.String()), Started: time.Now()}, nil
}

// container boots one deployment and returns how that ended.
func (m *Machine) container(ctx context.Context, p *power, boot Boot, group string, console io.Writer) (End, error) {
	groupDir, err := os.Open(group)
	if err != nil {
		return Crashed, fmt.Errorf("cannot open control group: %w", err)
	}
	defer groupDir.Close()
	if err := m.dropExport(); err != nil {
		return Crashed, err
	}
	if err := os.WriteFile(m.number(), []byte(m.uuid()+"\n"), 0o444); err != nil {
		return Crashed, fmt.Errorf("cannot number %s: %w", m.config.Name, err)
	}
	cmd := exec.CommandContext(ctx, "systemd-nspawn", m.nspawnArgs(boot)...)
	cmd.Env = append(os.Environ(), "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "SYSTEMD_NSPAWN_LOCK=0")
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, UseCgroupFD: true, CgroupFD: int(groupDir.Fd())}
	cmd.Cancel = func() error { return killContainer(cmd.Process.Pid) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return Crashed, fmt.Errorf("cannot start systemd-nspawn (package systemd-container): %w", err)
	}
	if err := m.remember(p, cmd.Process.Pid, group); err != nil {
		return Crashed, errors.Join(err, killContainer(cmd.Process.Pid), cmd.Wait())
	}
	err = cmd.Wait()
	m.mu.Lock()
	p.pid = 0
	m.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return PowerLost, nil
	case cmd.ProcessState.ExitCode() == exitPoweredOff:
		return PoweredOff, nil
	case cmd.ProcessState.ExitCode() == exitRebooted:
		return Rebooted, nil
	}
	if _, e := fmt.Fprintf(console, "container: %v\n", err); e != nil {
		return Crashed, fmt.Errorf("cannot write console log: %w", e)
	}
	return Crashed, nil
}

// nspawnArgs are the hardware: the root the loader chose, the disk's top
// level, boot control, a serial console, and the host's network namespace or a
// card on a bridge.
// nspawn must not write into the deployment by itself (resolv.conf, time zone,
// journal links).
func (m *Machine) nspawnArgs(boot Boot) []string {
	args := []string{
		"--quiet", "--register=no", "--keep-unit", "--boot", "--console=read-only",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no",
		"--machine=" + m.id(), "--hostname=" + m.config.Name,
		"--directory=" + filepath.Join(m.Top(), "deployments", strconv.Itoa(boot.Deployment)),
		"--bind=" + m.Top() + ":/sysroot:norbind",
		"--bind=" + m.BootControl() + ":/boot-control",
		// By itself nspawn would take the id on the disk for the machine's.
		"--bind-ro=" + m.number() + ":/run/host/container-uuid",
		"--setenv=TERM=dumb",
	}
	for name, host := range m.config.Devices {
		if real, err := filepath.EvalSymlinks(host); err == nil {
			args = append(args, "--bind="+real+":"+name)
		}
	}
	args = append(args,
		// What follows is PID 1's "kernel command line".
		"systemd.journald.forward_to_console=1", "systemd.show_status=0", "systemd.log_color=0",
	)
	if m.config.Bridge != "" {
		args = slices.Insert(args, 0, "--network-bridge="+m.config.Bridge)
	}
	if boot.Trial {
		args = append(args, "aptfleet.trial=1")
	}
	return args
}

// id names the machine's container and control group on this host.
func (m *Machine) id() string {
	sum := sha256.Sum256([]byte(m.config.Dir))
	return fmt.Sprintf("%s-%x", m.config.Name, sum[:4])
}

// uuid is the number of the hardware: another machine has another, whatever
// disk is in it.
func (m *Machine) uuid() string {
	sum := sha256.Sum256([]byte(m.config.Dir))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// number is the file with the uuid.
func (m *Machine) number() string { return filepath.Join(m.config.Dir, "hardware-uuid") }

// remember writes the record of a started container.
func (m *Machine) remember(p *power, pid int, group string) error {
	start, err := startTime(pid)
	if err != nil {
		return err
	}
	id, err := bootID()
	if err != nil {
		return err
	}
	b, err := json.Marshal(record{Name: m.config.Name, PID: pid, Start: start, Cgroup: group, BootID: id})
	if err != nil {
		return fmt.Errorf("cannot record container: %w", err)
	}
	if err := os.WriteFile(filepath.Join(m.config.Dir, "machine.json"), b, 0o600); err != nil {
		return fmt.Errorf("cannot record container: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	p.pid = pid
	return nil
}

// dropExport removes the mount point for the machine's exported sockets. A
// systemd-nspawn that is killed leaves it (since version 256), and the next
// one would refuse to start.
func (m *Machine) dropExport() error {
	path := filepath.Join("/run/systemd/nspawn/unix-export", m.id())
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("cannot clean up after container: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot clean up after container: %w", err)
	}
	return nil
}

// forget removes what a machine that is off has left on the host.
func (m *Machine) forget(group string) error {
	err := errors.Join(removeCgroup(group), m.dropExport())
	for _, path := range []string{
		filepath.Join(m.config.Dir, "machine.json"),
		filepath.Join("/run/systemd/nspawn/propagate", m.id()),
	} {
		if e := os.Remove(path); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("cannot clean up after container: %w", e))
		}
	}
	return err
}

func (m *Machine) begin(boot Boot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.boots = append(m.boots, boot)
	m.notify()
}

func (m *Machine) end(end End) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := &m.boots[len(m.boots)-1]
	last.End, last.Ended = end, time.Now()
	m.notify()
}

// notify wakes whoever waits for a change. The caller holds mu.
func (m *Machine) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// PowerOff shuts the machine down in an orderly way and returns when it is
// off. When ctx ends first the machine stays as it is.
func (m *Machine) PowerOff(ctx context.Context) error {
	for {
		m.mu.Lock()
		p := m.power
		m.mu.Unlock()
		if p == nil {
			return nil
		}
		// Early in its start PID 1 does not listen yet; so it is told again.
		if leader, err := m.leader(); err == nil {
			if err := syscall.Kill(leader, sigPowerOff); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("cannot power off %s: %w", m.config.Name, err)
			}
		}
		select {
		case <-p.done:
			return p.err
		case <-ctx.Done():
			return fmt.Errorf("cannot power off %s: %w", m.config.Name, ctx.Err())
		case <-time.After(2 * time.Second):
		}
	}
}

// PowerCut pulls the plug: every process of the device dies at once, and the
// disk keeps what had been written to it. The machine is off afterwards.
func (m *Machine) PowerCut(ctx context.Context) error {
	m.kill()
	return m.disk.lose(ctx)
}

// kill ends everything that runs and waits until it is gone.
func (m *Machine) kill() {
	m.mu.Lock()
	p := m.power
	m.mu.Unlock()
	if p != nil {
		p.cut()
		<-p.done
	}
}
