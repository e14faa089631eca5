package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/merge"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
	"aptfleet/test/device/bootcontrol"
)

// tree is a subvolume in memory: which release it holds, whole or in parts.
type tree struct {
	release  string // state id
	partial  bool   // an installation was begun and not ended
	readOnly bool
}

// cut is thrown when the power fails or the process is killed.
type cut struct{ where string }

// world is a device in memory: disk, boot control, machine and server. Every
// act that reaches one of them is a step; at a chosen step the power fails or
// the updater is killed.
type world struct {
	t     *testing.T
	dir   string // journal and records, on a real disk
	trees map[string]tree
	disk  map[string]tree // what is durable of trees
	boot  map[string][]byte
	// lose makes a power cut lose what was not synced; some, a part of it: what
	// was done last.
	lose  bool
	some  *rand.Rand
	since []map[string]tree // how trees were since the last sync

	wrap     func(*Machine)       // puts something between each machine and the world
	asked    func(*Machine) error // what a person asks the next session for
	tune     func(*Machine)       // changes each session's machine; nil: nothing
	offered  string
	bad      map[string]string  // release → why its trial fails
	evidence []protocol.Excerpt // of that
	secrets  []string           // of the configuration
	install  map[string]error   // release → why it does not install
	conflict error              // of the /etc merge
	offerErr error
	against  string   // why nothing may be begun
	list     *bom.BOM // of what is offered
	// atDownload is what happens while it downloads; nil: nothing.
	atDownload func()
	planErr    error
	plan       map[string]error // release → why it cannot be planned
	held       string           // why an operator lets nothing begin
	same       bool             // the plan is empty
	compares   bool             // it is, where the root holds the release already
	nested     []string
	stray      map[string]bool // in place of a subvolume, and cannot be deleted
	noSave     bool            // the loader cannot count tries
	noReboot   error           // the service manager refuses
	deaf       bool            // the service manager says yes, and no reboot comes
	frozen     bool            // boot control says that it was written, and is as it was
	oneBoot    bool            // all boots have the same id
	dead       map[string]bool // releases whose updater does not start
	newer      map[string]bool // releases whose updater writes a newer format
	hooks      map[hook.Point]error
	asks       []hook.Point // that hooks were run for
	armed      []string     // roots whose trial was limited
	free       int64
	firmware   Firmware         // nil: there is none
	time       func() time.Time // of the journal; nil: it stands still
	current    int
	trialBoot  bool
	boots      int
	rebooting  bool
	disarmed   int
	declared   map[string]string // release → its declarations of state; nil: there is no state
	found      string            // what the application that runs found when it started

	steps  []string
	cutAt  int // number of the step at which it happens, from 1; 0: never
	before bool
	cutDid bool
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, dir: memoryDir(t), bad: map[string]string{}, install: map[string]error{}, plan: map[string]error{}, offered: "old", free: 100 << 30,
		trees: map[string]tree{"deployments/1": {release: "old"}},
		boot: map[string][]byte{
			"committed.env": bootcontrol.NewBlock("committed=1", "previous="),
			"grubenv":       bootcontrol.NewBlock("trial=", "tries="),
		},
	}
	w.disk = maps.Clone(w.trees)
	if err := w.records().PutDeployment(Deployment{ID: 1, State: "old", TopLevel: []string{"app"}}); err != nil {
		t.Fatal(err)
	}
	return w
}

// records are those on the disk.
func (w *world) records() Records {
	w.t.Helper()
	records, err := OpenRecords(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	return records
}

// memoryDir is a directory that is synced at once, where there is one: the
// records of many hundred devices go there.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "aptfleet-update")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// step counts an act and carries it out, unless this is where it is cut.
func (w *world) step(name string, act func()) {
	w.steps = append(w.steps, name)
	here := w.cutAt == len(w.steps)
	if here && w.before {
		w.cutDid = true
		panic(cut{"before " + name})
	}
	act()
	if w.some != nil {
		w.since = append(w.since, maps.Clone(w.trees))
	}
	if here {
		w.cutDid = true
		panic(cut{"after " + name})
	}
}

// Roots.

func (w *world) Path(rel string) string { return filepath.Join("/mem", rel) }

func (w *world) Snapshot(src, dst string, readOnly bool) (err error) {
	w.step("snapshot "+dst, func() {
		from, ok := w.trees[src]
		if _, there := w.trees[dst]; !ok || there {
			err = fmt.Errorf("cannot snapshot %s as %s: source %v, target %v", src, dst, ok, there)
			return
		}
		from.readOnly = readOnly
		w.trees[dst] = from
	})
	return err
}

func (w *world) Delete(_ context.Context, rel string) error {
	if w.stray[rel] {
		return errors.New(rel + " is not a subvolume")
	}
	if _, ok := w.trees[rel]; !ok {
		return nil
	}
	if rel == deployment(w.current) {
		w.t.Errorf("the booted deployment was deleted")
	}
	w.step("delete "+rel, func() { delete(w.trees, rel) })
	return nil
}

func (w *world) Rename(src, dst string) (err error) {
	w.step("rename "+dst, func() {
		from, ok := w.trees[src]
		if _, there := w.trees[dst]; !ok || there {
			err = fmt.Errorf("cannot rename %s to %s", src, dst)
			return
		}
		w.trees[dst] = from
		delete(w.trees, src)
	})
	return err
}

func (w *world) Exists(rel string) bool { _, ok := w.trees[rel]; return ok }

func (w *world) Nested(context.Context, string) ([]string, error) { return w.nested, nil }

func (w *world) List(dir string) ([]string, error) {
	var names []string
	for _, rel := range slices.Concat(slices.Collect(maps.Keys(w.trees)), slices.Collect(maps.Keys(w.stray))) {
		if filepath.Dir(rel) == dir {
			names = append(names, filepath.Base(rel))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (w *world) Sync() error {
	w.step("sync", func() { w.disk, w.since = maps.Clone(w.trees), nil })
	return nil
}

func (w *world) Free() (int64, error) { return w.free, nil }

// Releases.

func (w *world) Offer(context.Context) (Offer, error) {
	if w.offerErr != nil {
		return Offer{}, w.offerErr
	}
	return Offer{State: w.offered, Against: w.against, BOM: w.list}, nil
}

func (w *world) Held() string { return w.held }

// released names what a tree holds: the state, and what is on top.
func released(o Offer) string {
	return strings.Join(append([]string{o.State}, o.Overlay.Names()...), "+")
}

func (w *world) Plan(_ context.Context, o Offer, root string, _ Deployment) (apt.Plan, error) {
	if w.planErr != nil {
		return apt.Plan{}, w.planErr
	}
	if err := w.plan[released(o)]; err != nil {
		return apt.Plan{}, err
	}
	list := []apt.Package{{Name: "app", Version: o.State, Architecture: "all", Size: 1 << 20}}
	if w.same || w.compares && w.trees[strings.TrimPrefix(root, "/mem/")].release == released(o) {
		return apt.Plan{List: list}, nil
	}
	return apt.Plan{List: list, Fetch: list}, nil
}

func (w *world) Download(ctx context.Context, _ Offer, _ apt.Plan, _ string, progress func(Progress)) error {
	w.step("download", func() { progress(Progress{Text: "1 of 1 packages", Done: 1 << 20, Total: 1 << 20, Unit: "bytes"}) })
	if w.atDownload != nil {
		w.atDownload()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

func (w *world) Install(_ context.Context, o Offer, _ apt.Plan, root string, log io.Writer) error {
	rel := strings.TrimPrefix(root, "/mem/")
	w.step("install begins", func() { w.trees[rel] = tree{release: released(o), partial: true} })
	if err := w.install[released(o)]; err != nil {
		fmt.Fprintln(log, "dpkg: error processing package app (--configure):")
		return err
	}
	w.step("install ends", func() { w.trees[rel] = tree{release: released(o)} })
	return nil
}

func (w *world) Verify(_ context.Context, _ apt.Plan, root string, manifest io.Writer) error {
	w.step("verify", func() {})
	if w.trees[strings.TrimPrefix(root, "/mem/")].partial {
		return errors.New("half installed")
	}
	_, err := io.WriteString(manifest, "f 0644 0:0 - - \"/x\"\n")
	return err
}

func (w *world) Reachable(context.Context) error { return nil }
func (w *world) Clean() error                    { w.step("clean", func() {}); return nil }

// System.

func (w *world) BootID() (string, error) {
	if w.oneBoot {
		return "boot", nil
	}
	return "boot-" + strconv.Itoa(w.boots), nil
}

func (w *world) Reboot(context.Context) error {
	if w.noReboot != nil {
		return w.noReboot
	}
	w.step("reboot", func() { w.rebooting = !w.deaf })
	return nil
}

func (w *world) ArmTrial(root string, _ time.Duration) error {
	w.step("arm trial", func() { w.armed = append(w.armed, strings.TrimPrefix(root, "/mem/")) })
	if _, ok := w.trees[strings.TrimPrefix(root, "/mem/")]; !ok {
		return fs.ErrNotExist
	}
	return nil
}

func (w *world) DisarmTrial(context.Context) error {
	w.step("disarm trial", func() { w.disarmed++ })
	return nil
}

func (w *world) Baseline(context.Context) (health.Baseline, error) { return health.Baseline{}, nil }

func (w *world) Uptime(context.Context) (time.Duration, error) { return time.Second, nil }

func (w *world) Watch(context.Context, health.Baseline, time.Duration, func(string)) ([]string, error) {
	w.step("watch", func() {})
	if why := w.bad[w.trees[deployment(w.current)].release]; why != "" {
		return nil, &health.Bad{Reason: why, Evidence: w.evidence}
	}
	return nil, nil
}

// Hooks.

func (w *world) Any(hook.Point) bool { return w.hooks != nil }

func (w *world) Run(_ context.Context, p hook.Point, _ []string) (err error) {
	w.step("hooks "+string(p), func() {
		w.asks = append(w.asks, p)
		err = w.hooks[p]
	})
	return err
}

// blocks is the boot control of a world.
type blocks struct{ w *world }

func (b blocks) ReadBlock(name string) ([]byte, error) {
	if block, ok := b.w.boot[name]; ok {
		return bytes.Clone(block), nil
	}
	return nil, fs.ErrNotExist
}

func (b blocks) WriteBlock(name string, block []byte) error {
	b.w.step("write "+name, func() {
		if !b.w.frozen {
			b.w.boot[name] = bytes.Clone(block)
		}
	})
	return nil
}

// control is the real boot control on the world's blocks.
type control struct {
	*boot.Control
	w *world
}

func (c control) Current() (int, error) { return c.w.current, nil }

// loaderDisk is what the loader sees of the world.
type loaderDisk struct{ w *world }

func (l loaderDisk) Read(name string) ([]byte, error) { return blocks{l.w}.ReadBlock(name) }
func (l loaderDisk) Overwrite(name string, block []byte) error {
	if l.w.noSave {
		return fs.ErrPermission
	}
	if !l.w.frozen {
		l.w.boot[name] = bytes.Clone(block)
	}
	return nil
}
func (l loaderDisk) Deployments() ([]int, error) {
	var all []int
	for rel := range l.w.trees {
		if n, err := strconv.Atoi(strings.TrimPrefix(rel, "deployments/")); err == nil {
			all = append(all, n)
		}
	}
	return all, nil
}
func (l loaderDisk) HasInit(n int) bool    { _, ok := l.w.trees[deployment(n)]; return ok }
func (l loaderDisk) HasRelease(n int) bool { return l.HasInit(n) }

// powerOn lets the loader decide and checks what it boots.
func (w *world) powerOn() {
	w.t.Helper()
	d, err := bootcontrol.Decide(loaderDisk{w})
	if err != nil {
		w.t.Fatalf("the device does not boot: %v", err)
	}
	w.current, w.trialBoot, w.rebooting = d.Deployment, d.Trial, false
	w.boots++
	booted := w.trees[deployment(w.current)]
	if booted.partial || booted.readOnly {
		w.t.Fatalf("boot %d: deployment %d is booted and is %+v", w.boots, w.current, booted)
	}
	w.bootState()
}

// powerCut loses what is not durable.
func (w *world) powerCut() {
	switch {
	case w.lose:
		w.trees = maps.Clone(w.disk)
	case w.some != nil && len(w.since) > 0:
		w.trees = maps.Clone(append(w.since, w.disk)[w.some.IntN(len(w.since)+1)])
		fallthrough
	default:
		w.disk = maps.Clone(w.trees)
	}
	w.since = nil
}

// session starts the updater on the running device and lets it do its work
// once. It reports whether it was cut.
func (w *world) session(update bool) (wasCut bool, err error) {
	w.t.Helper()
	m, done := w.machine()
	defer done()
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(cut); !ok {
				panic(r)
			}
			wasCut = true
		}
	}()
	if err := m.Recover(w.t.Context()); err != nil {
		return false, err
	}
	if !update || m.Rebooting() {
		return false, nil
	}
	if asked := w.asked; asked != nil {
		w.asked = nil
		return false, asked(m)
	}
	return false, m.Update(w.t.Context(), Options{})
}

func (w *world) clock() time.Time { return time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC) }

func (w *world) machine() (*Machine, func()) {
	w.t.Helper()
	opened, err := journal.Open(filepath.Join(w.dir, "journal"), func() time.Time {
		now := w.clock()
		if w.time != nil {
			now = w.time()
		}
		w.step("journal", func() {})
		return now
	})
	if err != nil {
		w.t.Fatal(err)
	}
	var log Journal = opened
	if w.newer[w.trees[deployment(w.current)].release] {
		log = &newerJournal{opened, w}
	}
	m := &Machine{
		Settings: Settings{Follow: "production", TopLevel: []string{"app"}, RebootAuto: true, Tries: 2, TrialTimeout: time.Minute, InstallTimeout: time.Minute, HookRetries: 3, HookWait: time.Hour},
		Releases: w, Roots: w, States: w.states(), Boot: control{boot.New(blocks{w}), w}, System: w, Firmware: w.firmware, Journal: log, Records: w.records(),
		Merge: func(_, _, target string) (merge.Result, error) {
			w.step("merge", func() {})
			return merge.Result{}, w.conflict
		},
		Clock:   w.clock,
		Secrets: func() []string { return w.secrets },
	}
	if w.tune != nil {
		w.tune(m)
	}
	if w.wrap != nil {
		w.wrap(m)
	}
	return m, func() {
		if err := log.Close(); err != nil {
			w.t.Error(err)
		}
	}
}

// settle runs sessions and reboots until nothing happens any more, and returns
// the error of the last session.
func (w *world) settle() error {
	w.t.Helper()
	for range 20 {
		wasCut, err := w.session(true)
		if wasCut {
			w.powerCut()
			w.powerOn()
			continue
		}
		if !w.rebooting {
			return err
		}
		w.powerCut() // an orderly reboot loses nothing
		w.powerOn()
	}
	w.t.Fatalf("the device does not come to rest; its steps: %v", w.steps)
	return nil
}

// release is what runs, and whether it is committed.
func (w *world) release() (state string, committed bool) {
	w.t.Helper()
	d, err := boot.New(blocks{w}).Default()
	if err != nil {
		w.t.Fatal(err)
	}
	return w.trees[deployment(w.current)].release, d.Committed == w.current
}

// leftOvers names subvolumes that nobody needs.
func (w *world) leftOvers() []string {
	d, err := boot.New(blocks{w}).Default()
	if err != nil {
		w.t.Fatal(err)
	}
	var left []string
	for rel := range w.trees {
		n, err := strconv.Atoi(filepath.Base(rel))
		if err != nil || n != d.Committed && !(d.HasPrevious && n == d.Previous) {
			left = append(left, rel)
		}
	}
	slices.Sort(left)
	return left
}
