package update

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/firmware"
	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/rootfs"
)

// calls counts all that machines ask of what is outside of them, in whichever
// process and boot, also where they only look; before or after a chosen call the
// machine is cut off.
type calls struct {
	names  []string
	at     int // number of the call at which it happens, from 1; 0: never
	before bool
	torn   bool // a record that is not written leaves its first half
	did    bool
}

// again begins to count anew.
func (c *calls) again(at int, before bool) { *c = calls{at: at, before: before, torn: c.torn} }

func (c *calls) begin(name string) (number int) {
	c.names = append(c.names, name)
	c.cut(len(c.names), true)
	return len(c.names)
}

// cut cuts the machine off if it is to be here.
func (c *calls) cut(number int, before bool) {
	if c.at == number && c.before == before && !c.did {
		c.did = true
		panic(cut{c.names[number-1]})
	}
}

func (c *calls) around(name string, act func()) {
	number := c.begin(name)
	act()
	c.cut(number, false)
}

// wrap puts itself between a machine and its world.
func (c *calls) wrap(w *world) func(*Machine) {
	return func(m *Machine) {
		m.Releases, m.Roots, m.System, m.Hooks = callReleases{m.Releases, c}, callRoots{m.Roots, c}, callSystem{m.System, c}, callHooks{w, c}
		m.Boot = callBoot{control{boot.New(callBlocks{blocks{w}, c}), w}, c}
		m.States = callStates{m.States, c}
		if m.Firmware != nil {
			m.Firmware = callFirmware{m.Firmware, c}
		}
		m.Settings.Tries = 3 // so that two cuts do not use them up
		m.Journal = callJournal{m.Journal, c, filepath.Join(w.dir, "journal")}
		inner := m.Merge
		m.Merge = func(base, running, target string) (r merge.Result, err error) {
			c.around("Merge", func() { r, err = inner(base, running, target) })
			return r, err
		}
		record := 0
		m.Records.step = func(act string) {
			name, before := strings.CutPrefix(act, "before ")
			if before {
				record = c.begin("Records " + name)
			} else {
				c.cut(record, false)
			}
		}
	}
}

type callJournal struct {
	Journal
	c    *calls
	path string
}

func (x callJournal) Append(r journal.Record) (_ journal.Record, err error) {
	defer func() {
		if x.c.torn && x.c.did && x.c.before && len(x.c.names) == x.c.at {
			f, err := os.OpenFile(x.path, os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString(`{"seq":77,"at":"2026-11-20T12:00:00Z","tx":1,"phase":"COMM`)
				f.Close()
			}
			if err != nil {
				panic(err)
			}
		}
	}()
	x.c.around("Journal.Append "+string(r.Phase), func() { r, err = x.Journal.Append(r) })
	return r, err
}

type callReleases struct {
	Releases
	c *calls
}

func (x callReleases) Offer(ctx context.Context) (o Offer, err error) {
	x.c.around("Releases.Offer", func() { o, err = x.Releases.Offer(ctx) })
	return o, err
}

func (x callReleases) Held() (why string) {
	x.c.around("Releases.Held", func() { why = x.Releases.Held() })
	return why
}

func (x callReleases) Plan(ctx context.Context, o Offer, root string, d Deployment) (plan apt.Plan, err error) {
	x.c.around("Releases.Plan", func() { plan, err = x.Releases.Plan(ctx, o, root, d) })
	return plan, err
}

func (x callReleases) Download(ctx context.Context, o Offer, plan apt.Plan, root string, progress func(Progress)) (err error) {
	x.c.around("Releases.Download", func() { err = x.Releases.Download(ctx, o, plan, root, progress) })
	return err
}

func (x callReleases) Install(ctx context.Context, o Offer, plan apt.Plan, root string, log io.Writer) (err error) {
	x.c.around("Releases.Install", func() { err = x.Releases.Install(ctx, o, plan, root, log) })
	return err
}

func (x callReleases) Verify(ctx context.Context, plan apt.Plan, root string, manifest io.Writer) (err error) {
	x.c.around("Releases.Verify", func() { err = x.Releases.Verify(ctx, plan, root, manifest) })
	return err
}

func (x callReleases) Reachable(ctx context.Context) (err error) {
	x.c.around("Releases.Reachable", func() { err = x.Releases.Reachable(ctx) })
	return err
}

func (x callReleases) Clean() (err error) {
	x.c.around("Releases.Clean", func() { err = x.Releases.Clean() })
	return err
}

type callRoots struct {
	Roots
	c *calls
}

func (x callRoots) Snapshot(src, dst string, readOnly bool) (err error) {
	x.c.around("Roots.Snapshot "+dst, func() { err = x.Roots.Snapshot(src, dst, readOnly) })
	return err
}

func (x callRoots) Delete(ctx context.Context, rel string) (err error) {
	x.c.around("Roots.Delete "+rel, func() { err = x.Roots.Delete(ctx, rel) })
	return err
}

func (x callRoots) Rename(src, dst string) (err error) {
	x.c.around("Roots.Rename "+dst, func() { err = x.Roots.Rename(src, dst) })
	return err
}

func (x callRoots) Exists(rel string) (ok bool) {
	x.c.around("Roots.Exists "+rel, func() { ok = x.Roots.Exists(rel) })
	return ok
}

func (x callRoots) Nested(ctx context.Context, rel string) (names []string, err error) {
	x.c.around("Roots.Nested "+rel, func() { names, err = x.Roots.Nested(ctx, rel) })
	return names, err
}

func (x callRoots) List(dir string) (names []string, err error) {
	x.c.around("Roots.List "+dir, func() { names, err = x.Roots.List(dir) })
	return names, err
}

func (x callRoots) Sync() (err error) {
	x.c.around("Roots.Sync", func() { err = x.Roots.Sync() })
	return err
}

func (x callRoots) Free() (n int64, err error) {
	x.c.around("Roots.Free", func() { n, err = x.Roots.Free() })
	return n, err
}

type callBoot struct {
	Boot
	c *calls
}

func (x callBoot) Current() (n int, err error) {
	x.c.around("Boot.Current", func() { n, err = x.Boot.Current() })
	return n, err
}

func (x callBoot) Default() (d boot.Default, err error) {
	x.c.around("Boot.Default", func() { d, err = x.Boot.Default() })
	return d, err
}

func (x callBoot) Trial() (t boot.Trial, ok bool) {
	x.c.around("Boot.Trial", func() { t, ok = x.Boot.Trial() })
	return t, ok
}

func (x callBoot) SetTry(n, tries int) (err error) {
	x.c.around("Boot.SetTry", func() { err = x.Boot.SetTry(n, tries) })
	return err
}

func (x callBoot) Commit(n int) (err error) {
	x.c.around("Boot.Commit", func() { err = x.Boot.Commit(n) })
	return err
}

func (x callBoot) MarkBad(n int) (err error) {
	x.c.around("Boot.MarkBad", func() { err = x.Boot.MarkBad(n) })
	return err
}

// callBlocks makes what a verb of the boot control writes calls of their own.
type callBlocks struct {
	boot.Blocks
	c *calls
}

func (x callBlocks) WriteBlock(name string, block []byte) (err error) {
	x.c.around("Blocks.WriteBlock "+name, func() { err = x.Blocks.WriteBlock(name, block) })
	return err
}

type callSystem struct {
	System
	c *calls
}

func (x callSystem) BootID() (id string, err error) {
	x.c.around("System.BootID", func() { id, err = x.System.BootID() })
	return id, err
}

func (x callSystem) Reboot(ctx context.Context) (err error) {
	x.c.around("System.Reboot", func() { err = x.System.Reboot(ctx) })
	return err
}

func (x callSystem) ArmTrial(root string, timeout time.Duration) (err error) {
	x.c.around("System.ArmTrial", func() { err = x.System.ArmTrial(root, timeout) })
	return err
}

func (x callSystem) DisarmTrial(ctx context.Context) (err error) {
	x.c.around("System.DisarmTrial", func() { err = x.System.DisarmTrial(ctx) })
	return err
}

func (x callSystem) Uptime(ctx context.Context) (d time.Duration, err error) {
	x.c.around("System.Uptime", func() { d, err = x.System.Uptime(ctx) })
	return d, err
}

func (x callSystem) Baseline(ctx context.Context) (b health.Baseline, err error) {
	x.c.around("System.Baseline", func() { b, err = x.System.Baseline(ctx) })
	return b, err
}

func (x callSystem) Watch(ctx context.Context, b health.Baseline, observe time.Duration, progress func(string)) (warnings []string, err error) {
	x.c.around("System.Watch", func() { warnings, err = x.System.Watch(ctx, b, observe, progress) })
	return warnings, err
}

type callHooks struct {
	Hooks
	c *calls
}

func (x callHooks) Any(p hook.Point) (any bool) {
	x.c.around("Hooks.Any "+string(p), func() { any = x.Hooks.Any(p) })
	return any
}

func (x callHooks) Run(ctx context.Context, p hook.Point, env []string) (err error) {
	x.c.around("Hooks.Run "+string(p), func() { err = x.Hooks.Run(ctx, p, env) })
	return err
}

type callStates struct {
	States
	c *calls
}

func (x callStates) Declared(root string) (units []rootfs.Unit, err error) {
	x.c.around("States.Declared", func() { units, err = x.States.Declared(root) })
	return units, err
}

func (x callStates) Live() (all []rootfs.Live, err error) {
	x.c.around("States.Live", func() { all, err = x.States.Live() })
	return all, err
}

func (x callStates) Kept() (all []rootfs.Copy, err error) {
	x.c.around("States.Kept", func() { all, err = x.States.Kept() })
	return all, err
}

func (x callStates) Drop(deployment int) (err error) {
	x.c.around("States.Drop", func() { err = x.States.Drop(deployment) })
	return err
}

func (x callStates) Prune(keep func(deployment int) bool) (err error) {
	x.c.around("States.Prune", func() { err = x.States.Prune(keep) })
	return err
}

func (x callStates) SettleSeeds(deployment int) (err error) {
	x.c.around("States.SettleSeeds", func() { err = x.States.SettleSeeds(deployment) })
	return err
}

type callFirmware struct {
	Firmware
	c *calls
}

func (x callFirmware) Converge(ctx context.Context, s firmware.Situation) (changes []firmware.Change, err error) {
	x.c.around("Firmware.Converge", func() { changes, err = x.Firmware.Converge(ctx, s) })
	return changes, err
}
