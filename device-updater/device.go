package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/archive"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/config"
	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/firmware"
	"aptfleet/device-updater/internal/hardware"
	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/inhibit"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/device-updater/internal/settings"
	"aptfleet/device-updater/internal/update"
	"aptfleet/device-updater/internal/window"
	"aptfleet/internal/term"
)

// installTimeout is how long packages may take to install.
const installTimeout = 30 * time.Minute

// device is the state machine of this device with its real back ends. It holds
// the lock that only one process can have.
type device struct {
	config  config.Config
	machine *update.Machine
	server  *server
	boot    *boot.Control
	records update.Records
	lock    *os.File
	held    mounts
}

func (p *program) updaterDir() string     { return filepath.Join(p.sysroot, "updater") }
func (p *program) journalPath() string    { return filepath.Join(p.updaterDir(), "journal") }
func (p *program) control() *boot.Control { return boot.New(boot.Dir(p.bootControl)) }

// open takes the lock and puts the machine together.
func (p *program) open() (_ *device, err error) {
	c, err := p.load()
	if err != nil {
		return nil, err
	}
	if c.Distribution == "" && c.Follow != config.FollowAssignment {
		if c.Distribution, err = config.CodeName("/usr/lib/os-release"); err != nil {
			return nil, err
		}
	}
	roots, err := rootfs.Open(p.sysroot)
	if err != nil {
		return nil, err
	}
	held, err := holdMounts(p.sysroot, p.bootControl)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, held.close())
		}
	}()
	records, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		return nil, err
	}
	lock, err := p.takeLock()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := records.Sweep(); err != nil {
		p.io.Note("%v", err) // that costs room, not updates
	}
	log, err := journal.Open(p.journalPath(), time.Now)
	if err != nil {
		return nil, err
	}
	d := &device{config: c, boot: p.control(), records: records, lock: lock, held: held}
	if d.server, err = p.openServer(c, records); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	source := &update.Source{
		Client: &archive.Client{HTTP: &http.Client{Timeout: time.Minute}, URL: c.Archive, Distribution: c.Distribution, Keyring: c.Keyring, Clock: time.Now},
		Base:   c.Base(), StateBase: c.StateBase, Components: c.Components, TopLevel: c.Packages, Architecture: architecture(),
		Dir: filepath.Join(p.updaterDir(), "apt"), Records: records, BuildTime: buildTime(), SetClock: setClock, Run: sandbox.Run,
	}
	if c.Follow == config.FollowAssignment {
		source.Assignments, source.TopLevel = d.server.assignments, nil
	}
	d.server.lend(source, c)
	times, err := window.Parse(c.Window)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	d.machine = &update.Machine{
		Settings: update.Settings{
			Follow: c.Follow, TopLevel: source.TopLevel, RebootAuto: c.Reboot == config.RebootAuto, Tries: c.Trial.Tries,
			TrialTimeout: c.Trial.Timeout, Observe: c.Trial.Observe, InstallTimeout: installTimeout,
			Window: times, InhibitMax: c.Inhibit.Max, Keep: c.Keep,
			HookRetries: c.Hooks.Retries, HookWait: c.Hooks.Wait,
		},
		Releases: source, Roots: roots, Boot: d.boot, System: update.Systemd{Run: "/run", Root: "/", Watchdog: watchdog(c.Watchdog), Reachable: source.Reachable, Identity: rootfs.State{Root: "/", Sysroot: p.sysroot}.CheckIdentity, Clock: time.Now},
		Firmware: &firmware.Converger{Root: "/", Dir: p.updaterDir(), Revision: p.board(c).Revision, Clock: time.Now},
		States:   rootfs.Units{Sysroot: p.sysroot},
		Hooks:    hook.Hooks{Dir: hook.Dir, Limit: c.Hooks.Timeout},
		Merge:    merge.Trees, Journal: log, Records: records, Clock: time.Now, Secrets: p.secrets, Locks: locks,
	}
	d.server.begin(d)
	return d, nil
}

// watchdog is what the configuration says of the hardware watchdog.
func watchdog(c config.Watchdog) update.Watchdog {
	if c.When == config.WatchdogNever {
		return update.Watchdog{}
	}
	return update.Watchdog{Timeout: c.Timeout, Keep: c.When == config.WatchdogAlways}
}

// secrets are the values of the configuration that nobody may be shown.
func (p *program) secrets() []string {
	v, err := settings.Read(p.settingsDir())
	if err != nil {
		return nil // then no program has been given any
	}
	var all []string
	for _, key := range v.Secrets {
		all = append(all, settings.Text(v.Values[key]))
	}
	return all
}

// board is the hardware of this device.
func (p *program) board(c config.Config) *hardware.Board {
	return &hardware.Board{Root: "/", Factory: p.identity().FactoryRevision, Configured: c.Revision}
}

// close gives the device up.
func (d *device) close() error {
	return errors.Join(d.machine.Journal.Close(), d.lock.Close(), d.held.close())
}

// load reads the configuration and decides what is followed.
func (p *program) load() (config.Config, error) {
	c, err := config.Load(p.configPath)
	if err != nil {
		return config.Config{}, err
	}
	_, enrolled, err := p.identity().Enrolment()
	if c, err = c.Resolve(enrolled || err != nil); err != nil {
		return config.Config{}, term.WithHint(fmt.Errorf("%w: %s", err, p.configPath), "add `follow` for a stage of an archive; or device-updater enrol --server URL")
	}
	return c, nil
}

// takeLock makes this process the only one that works on the device. The lock
// ends with the process.
func (p *program) takeLock() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(p.updaterDir(), "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot lock the updater: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(&lockedError{}, f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot lock the updater: %w", err), f.Close())
	}
	return f, nil
}

// lockedError says that another process works on the device.
type lockedError struct{}

func (*lockedError) Error() string {
	return "cannot lock the updater: another process works on this device"
}
func (*lockedError) ExitCode() int    { return term.ExitLocked }
func (*lockedError) NextStep() string { return "device-updater status shows what it does" }

// tell says that something about the device has changed.
func (d *device) tell() {
	if d.server.agent != nil {
		d.server.agent.Changed()
	}
}

// do carries a request out in this process.
func (d *device) do(ctx context.Context, r daemon.Request, follow func(update.Status)) ([]apt.Change, error) {
	d.machine.Notify = func(s update.Status) {
		follow(s)
		d.tell()
	}
	running, stop := context.WithCancel(ctx)
	finished := make(chan struct{})
	go func() { d.server.run(running); close(finished) }()
	defer func() { stop(); <-finished }()
	if err := d.machine.Recover(ctx); err != nil {
		return nil, err
	}
	if d.machine.Rebooting() {
		return nil, &update.Refused{Reason: "the device is about to reboot"}
	}
	defer d.tell()
	if ask := d.server.ask(); ask != nil && r.AsksServer() {
		if err := ask(ctx); err != nil {
			return nil, err
		}
	}
	return daemon.Do(ctx, d.machine, r)
}

// locks are all that an application may hold against a reboot. One that cannot
// be read keeps nothing: a device must not stay as it is for that.
func locks(ctx context.Context) []inhibit.Lock {
	own, _ := inhibit.List(inhibit.Dir)
	return append(own, inhibit.Logind(ctx)...)
}

// buildTime is the time of the commit that this program was built from: a
// clock that stands before it is wrong.
func buildTime() time.Time {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return time.Time{}
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			if t, err := time.Parse(time.RFC3339, s.Value); err == nil {
				return t
			}
		}
	}
	return time.Time{}
}

func setClock(now time.Time) error {
	ts := unix.NsecToTimespec(now.UnixNano())
	return unix.ClockSettime(unix.CLOCK_REALTIME, &ts)
}
