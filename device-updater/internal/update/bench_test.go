package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/apttest"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/internal/protocol"
	"aptfleet/test/device/bootcontrol"
)

// bench is a device whose disk, apt, dpkg and merge are real; of the machine
// only boot control and reboots are not.
type bench struct {
	t       *testing.T
	fleet   *fleet
	top     string
	disk    string // the loop device
	roots   *rootfs.Btrfs
	source  *Source
	machine *Machine
	shipped int // number of the newest release

	blocks    map[string][]byte
	current   int
	boots     int
	rebooting bool
	bad       string // why its trial fails
	onTrial   func() // what happens during a trial; nil: nothing
}

// newBench makes a device with a disk of so many bytes, which runs release 1.
func newBench(t *testing.T, size int64) *bench {
	t.Helper()
	f := newFleet(t)
	b := &bench{
		t: t, fleet: f, current: 1, blocks: map[string][]byte{
			"committed.env": bootcontrol.NewBlock("committed=1", "previous="), "grubenv": bootcontrol.NewBlock("trial=", "tries="),
		},
	}
	dir := memoryDir(t)
	image := filepath.Join(dir, "disk")
	b.top = filepath.Join(dir, "top")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, size), os.Mkdir(b.top, 0o755)); err != nil {
		t.Fatal(err)
	}
	b.run("mkfs.btrfs", "-q", image)
	b.run("mount", "-o", "loop", image, b.top)
	t.Cleanup(func() {
		if out, err := exec.Command("umount", b.top).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	b.disk = strings.TrimSpace(b.run("findmnt", "-n", "-o", "SOURCE", b.top))
	if err := os.Mkdir(filepath.Join(b.top, "deployments"), 0o755); err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(b.top, "deployments/1")
	b.run("btrfs", "-q", "subvolume", "create", root)
	b.run("cp", "-a", f.factory+"/.", root)
	b.ship(app("echo installed"))
	d := f.device(root)
	d.source.TopLevel = benchTop
	if _, err := d.source.Offer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.source.open(t.Context(), Offer{State: benchState(1)}); err != nil {
		t.Fatal(err)
	}
	list, err := d.source.private.Solve(t.Context(), benchTop)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := d.source.Plan(t.Context(), Offer{State: benchState(1)}, root, d.record)
	if err == nil {
		err = d.source.Download(t.Context(), Offer{State: benchState(1)}, plan, root, func(Progress) {})
	}
	var log bytes.Buffer
	if err == nil {
		err = d.source.Install(t.Context(), Offer{State: benchState(1)}, plan, root, &log)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	if b.roots, err = rootfs.Open(b.top); err != nil {
		t.Fatal(err)
	}
	records, err := OpenRecords(filepath.Join(b.top, "updater"))
	if err != nil {
		t.Fatal(err)
	}
	if err := records.PutDeployment(Deployment{ID: 1, State: benchState(1), TopLevel: benchTop, Packages: list}); err != nil {
		t.Fatal(err)
	}
	manifest, err := os.Create(records.Manifest(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rootfs.WriteManifest(t.Context(), manifest, root, nil), manifest.Close()); err != nil {
		t.Fatal(err)
	}
	b.source = d.source
	b.source.Records, b.source.Dir, b.source.private = records, filepath.Join(b.top, "updater/apt"), nil
	b.start()
	return b
}

// start begins with the machine as a daemon does after a boot.
func (b *bench) start() {
	b.t.Helper()
	if b.machine != nil {
		if err := b.machine.Journal.Close(); err != nil {
			b.t.Fatal(err)
		}
	}
	log, err := journal.Open(filepath.Join(b.top, "updater/journal"), time.Now)
	if err != nil {
		b.t.Fatal(err)
	}
	b.machine = &Machine{
		Settings: Settings{Follow: "dev", TopLevel: benchTop, Tries: 2, TrialTimeout: time.Minute, InstallTimeout: 5 * time.Minute},
		Releases: b.source, Roots: b.roots, States: rootfs.Units{Sysroot: b.top}, Boot: b, System: b, Merge: merge.Trees, Journal: log, Records: b.source.Records, Clock: time.Now,
	}
	b.t.Cleanup(func() { _ = b.machine.Journal.Close() }) // again, or after a failure
	if err := b.machine.Recover(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) run(argv ...string) string {
	b.t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%v (`make test` installs what is missing): %v\n%s", argv, err, out)
	}
	return string(out)
}

// benchTop is what a bench installs.
var benchTop = []string{"app", "apt", "device-updater"}

func benchState(n int) string { return fmt.Sprintf("%064x", n) }

// app is the application of a bench, with a script that configures it.
func app(postinst string) apttest.Package {
	return apttest.Package{Name: "app", Files: map[string]string{"etc/app.conf": "of the release\n", "etc/app.d/a": "a\n"}, Scripts: map[string]string{"postinst": postinst}}
}

// ship publishes the next release. The application's version is its number.
func (b *bench) ship(application apttest.Package, more ...apttest.Package) {
	b.t.Helper()
	b.shipped++
	application.Version = strconv.Itoa(b.shipped)
	files := maps.Clone(application.Files)
	files["usr/share/app/version"] = application.Version + "\n"
	application.Files = files
	if len(more) == 0 {
		more = []apttest.Package{updater()}
	}
	b.fleet.archive.Release(benchState(b.shipped), b.fleet.base, append(more, application), "dev")
}

// failed returns why the newest release failed here, "" if it did not.
func (b *bench) failed() string {
	b.t.Helper()
	all, err := b.machine.Records.Failed()
	if err != nil {
		b.t.Fatal(err)
	}
	for _, f := range all {
		if f.State == benchState(b.shipped) {
			return f.Reason
		}
	}
	return ""
}

// staged is a path in the root that is staged.
func (b *bench) staged(path string) string {
	b.t.Helper()
	tx := b.machine.Journal.Last()
	if tx.Phase != journal.Staged {
		b.t.Fatalf("nothing is staged: %+v", tx)
	}
	return filepath.Join(b.top, pristine(tx.Deployment), path)
}

// booted is a path in the running root.
func (b *bench) booted(path string) string {
	return filepath.Join(b.top, deployment(b.current), path)
}

// reboot lets the loader decide, and starts the updater again.
func (b *bench) reboot() {
	b.t.Helper()
	d, err := bootcontrol.Decide(b)
	if err != nil {
		b.t.Fatal(err)
	}
	b.current, b.rebooting = d.Deployment, false
	b.boots++
	b.start()
}

// Boot.

func (b *bench) ReadBlock(name string) ([]byte, error) {
	block, ok := b.blocks[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(block), nil
}

func (b *bench) WriteBlock(name string, block []byte) error {
	b.blocks[name] = bytes.Clone(block)
	return nil
}

func (b *bench) Current() (int, error)          { return b.current, nil }
func (b *bench) Default() (boot.Default, error) { return boot.New(b).Default() }
func (b *bench) Trial() (boot.Trial, bool)      { return boot.New(b).Trial() }
func (b *bench) SetTry(n, tries int) error      { return boot.New(b).SetTry(n, tries) }
func (b *bench) Commit(n int) error             { return boot.New(b).Commit(n) }
func (b *bench) MarkBad(n int) error            { return boot.New(b).MarkBad(n) }

// What the loader sees.

func (b *bench) Read(name string) ([]byte, error)          { return b.ReadBlock(name) }
func (b *bench) Overwrite(name string, block []byte) error { return b.WriteBlock(name, block) }
func (b *bench) HasInit(n int) bool                        { return b.roots.Exists(deployment(n)) }
func (b *bench) HasRelease(n int) bool                     { return b.HasInit(n) }
func (b *bench) Deployments() (all []int, err error) {
	names, err := b.roots.List("deployments")
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	}
	return all, err
}

// System.

func (b *bench) BootID() (string, error)                                         { return "boot-" + strconv.Itoa(b.boots), nil }
func (b *bench) Reboot(context.Context) error                                    { b.rebooting = true; return nil }
func (b *bench) ArmTrial(string, time.Duration) error                            { return nil }
func (b *bench) DisarmTrial(context.Context) error                               { return nil }
func (b *bench) Uptime(context.Context) (time.Duration, error)                   { return time.Second, nil }
func (b *bench) LastWords(context.Context, time.Time, string) []protocol.Excerpt { return nil }

func (b *bench) Baseline(context.Context) (health.Baseline, error) { return health.Baseline{}, nil }
func (b *bench) Watch(context.Context, health.Baseline, time.Duration, func(string)) ([]string, error) {
	if b.onTrial != nil {
		b.onTrial()
	}
	if b.bad != "" {
		return nil, &health.Bad{Reason: b.bad}
	}
	return nil, nil
}

// fill leaves so many bytes free on the disk, and returns what frees it again.
func (b *bench) fill(leave int64) (empty func()) {
	b.t.Helper()
	b.run("btrfs", "-q", "subvolume", "sync", b.top) // what was deleted gives its room
	path := filepath.Join(b.top, "filler")
	f, err := os.Create(path)
	if err != nil {
		b.t.Fatal(err)
	}
	var size int64
	for range 2 {
		for chunk := int64(64 << 20); chunk >= 4<<10; chunk /= 4 {
			for unix.Fallocate(int(f.Fd()), 0, size, chunk) == nil {
				size += chunk
			}
		}
		if err := b.roots.Sync(); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(max(0, size-leave)), f.Close(), b.roots.Sync()); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		if err := errors.Join(os.Remove(path), b.roots.Sync()); err != nil {
			b.t.Error(err)
		}
	}
}

// put writes a file of the running root.
func (b *bench) put(path, content string) {
	b.t.Helper()
	if err := os.WriteFile(b.booted(path), []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) read(path string) string {
	b.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		b.t.Error(err)
	}
	return string(content)
}
