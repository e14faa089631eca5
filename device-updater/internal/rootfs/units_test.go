package rootfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"aptfleet/device-updater/internal/rootfs"
	"aptfleet/device-updater/internal/rootfs/rootfstest"
	"aptfleet/test/order"
)

// device is a device's top level in a plain directory, with deployments that
// declare epochs of one unit.
type device struct {
	t     testing.TB
	top   string
	clock time.Time
	cutAt int // Settle ends between two acts: the number of the place; 0: never
	cuts  int // places that were passed
}

type powerCut struct{}

func newDevice(t testing.TB) *device {
	return deviceIn(t, memory(t))
}

func deviceIn(t testing.TB, dir string) *device {
	return &device{t: t, top: dir, clock: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
}

// memory is a directory that is synced at once, where there is one.
func memory(t testing.TB) string {
	dir := t.TempDir()
	if shm, err := os.MkdirTemp("/dev/shm", "aptfleet-units"); err == nil {
		dir = shm
		t.Cleanup(func() { os.RemoveAll(shm) })
	}
	return dir
}

// deploy makes deployment n, with the lines of its declarations.
func (d *device) deploy(n int, lines ...string) {
	put(d.t.(*testing.T), filepath.Join(d.top, fmt.Sprintf("deployments/%d", n), conf), strings.Join(lines, "\n")+"\n")
}

func (d *device) units() rootfs.Units {
	u := rootfs.Units{Sysroot: d.top, Clock: func() time.Time { d.clock = d.clock.Add(time.Minute); return d.clock }}
	d.cuts = 0
	return u.WithCut(func() {
		if d.cuts++; d.cuts == d.cutAt {
			panic(powerCut{})
		}
	})
}

// boot settles the state as a boot of deployment n does, and reports whether
// the power failed meanwhile.
func (d *device) boot(n int) (wasCut bool, troubles []error) {
	d.t.Helper()
	declared, err := rootfs.ReadDeclared(filepath.Join(d.top, fmt.Sprintf("deployments/%d", n)))
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(powerCut); !ok {
				panic(r)
			}
			wasCut = true
		}
	}()
	_, troubles = d.units().Settle(n, declared)
	return false, troubles
}

func (d *device) up(n int) {
	d.t.Helper()
	if wasCut, troubles := d.boot(n); wasCut || len(troubles) > 0 {
		d.t.Fatalf("boot of %d: cut %v, %v", n, wasCut, troubles)
	}
}

const db = "state/var-lib/app/db"

func (d *device) write(content string) {
	d.t.Helper()
	path := filepath.Join(d.top, db)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) reads(want string) {
	d.t.Helper()
	got, err := os.ReadFile(filepath.Join(d.top, db))
	if errors.Is(err, fs.ErrNotExist) {
		got, err = []byte("nothing"), nil
	}
	if err != nil || string(got) != want {
		d.t.Errorf("it reads %q (%v), want %q", got, err, want)
	}
}

func (d *device) kept() string {
	d.t.Helper()
	kept, err := rootfs.Units{Sysroot: d.top}.Kept()
	if err != nil {
		d.t.Error(err)
	}
	var all []string
	for _, c := range kept {
		all = append(all, fmt.Sprintf("%s of %d by %d", c.Name, c.Epoch, c.Deployment))
	}
	return strings.Join(all, ", ")
}

// TestATrialOfAnotherEpochThatGoesBack is what units are for.
func TestATrialOfAnotherEpochThatGoesBack(t *testing.T) {
	d := newDevice(t)
	d.deploy(1, "unit app 1 /var/lib/app")
	d.deploy(2, "unit app 2 /var/lib/app")
	d.up(1)
	d.write("old")
	d.up(1)
	d.reads("old")
	d.up(2)
	d.reads("old") // it brings that to its epoch
	d.write("new")
	d.up(2) // its second try
	d.reads("new")
	if got := d.kept(); got != "app of 1 by 1" {
		t.Errorf("kept: %s", got)
	}
	d.up(1)
	d.reads("old")
	if got := d.kept(); got != "app of 2 by 2" {
		t.Errorf("kept: %s", got)
	}
	d.write("older") // it goes on
	if err := (rootfs.Units{Sysroot: d.top}).Drop(2); err != nil || d.kept() != "" {
		t.Errorf("%v, kept: %s", err, d.kept())
	}
	d.deploy(3, "unit app 2 /var/lib/app")
	d.up(3)
	d.reads("older")
	live, err := rootfs.Units{Sysroot: d.top}.Live()
	if err != nil || len(live) != 1 || live[0].Epoch != 2 || live[0].Deployment != 3 || !live[0].Since.Equal(d.clock) && live[0].Since.Before(d.clock.Add(-time.Hour)) {
		t.Errorf("%+v, %v", live, err)
	}
}

// TestBackAndForth: a person goes back across an epoch, and forth again.
func TestBackAndForth(t *testing.T) {
	d := newDevice(t)
	d.deploy(1, "unit app 1 /var/lib/app")
	d.deploy(2, "unit app 2 /var/lib/app")
	d.up(1)
	d.write("one")
	d.up(2)
	d.write("two")
	for range 2 {
		d.up(1)
		d.reads("one")
		d.up(2)
		d.reads("two")
	}
}

// TestAUnitThatAReleaseDeclaresFirst: what was there before it was declared is
// put back for the release that knows of no unit.
func TestAUnitThatAReleaseDeclaresFirst(t *testing.T) {
	d := newDevice(t)
	d.deploy(1)
	d.deploy(2, "unit app 1 /var/lib/app")
	d.up(1)
	d.write("undeclared")
	d.up(2)
	d.write("declared")
	d.up(1)
	d.reads("undeclared")
	d.up(2)
	d.reads("declared")
	// A release that does not have the application leaves its data alone.
	d.deploy(3)
	d.up(3)
	d.reads("declared")
	if got := d.kept(); got != "app of 0 by 1" {
		t.Errorf("kept: %s", got)
	}
}

// TestTheSameEpoch: nothing is kept, whoever boots.
func TestTheSameEpoch(t *testing.T) {
	d := newDevice(t)
	for n := range 3 {
		d.deploy(n, "unit app 7 /var/lib/app")
	}
	d.up(0)
	d.write("a")
	d.up(1)
	d.write("b")
	d.up(0)
	d.reads("b")
	d.up(2)
	d.reads("b")
	if got := d.kept(); got != "" {
		t.Errorf("kept: %s", got)
	}
}

// TestSeveralPaths go together, with what was not there.
func TestSeveralPaths(t *testing.T) {
	d := newDevice(t)
	d.deploy(1, "path /opt/v", "unit app 1 /var/lib/app /opt/v/file", "unit other 1 /var/lib/other")
	d.deploy(2, "path /opt/v", "unit app 2 /var/lib/app /opt/v/file /opt/v/new", "unit other 1 /var/lib/other")
	at := func(rel string) string { return filepath.Join(d.top, "state", rel) }
	d.up(1)
	put(t, at("opt-v/file"), "1")
	put(t, at("var-lib/other/x"), "1")
	d.up(2)
	d.write("2")
	put(t, at("opt-v/file"), "2")
	put(t, at("opt-v/new/x"), "2")
	put(t, at("var-lib/other/x"), "2")
	d.up(1)
	d.reads("nothing")
	if got := read(t, at("opt-v/file")) + read(t, at("var-lib/other/x")); got != "12" {
		t.Errorf("file and other: %s, want 12", got)
	}
	if _, err := os.Lstat(at("opt-v/new")); !os.IsNotExist(err) {
		t.Errorf("what only release 2 has is there: %v", err)
	}
	d.up(2)
	d.reads("2")
	if got := read(t, at("opt-v/file")) + read(t, at("opt-v/new/x")); got != "22" {
		t.Errorf("file and new: %s", got)
	}
}

// TestPowerCutsAnywhere cuts each boot of a story at each place, boots the same
// deployment or the other one, and the data are always those of who boots.
func TestPowerCutsAnywhere(t *testing.T) {
	powerCuts(t, func() string { return memory(t) }, 1)
}

// TestPowerCutsAnywhereOnBtrfs is the same where directories become subvolumes;
// every fourth place will do, unless there is time.
func TestPowerCutsAnywhereOnBtrfs(t *testing.T) {
	top, _ := diskIn(t, memory(t))
	step := 4
	if order.Long() {
		step = 1
	}
	n := 0
	powerCuts(t, func() string {
		n++
		dir := filepath.Join(top, strconv.Itoa(n))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		return dir
	}, step)
	if got := run(t, "btrfs", "subvolume", "list", top); !strings.Contains(got, "/state/var-lib/app") || !strings.Contains(got, "kept/") {
		t.Errorf("no subvolume was made:\n%s", got)
	}
}

func powerCuts(t *testing.T, dir func() string, step int) {
	for _, then := range []int{1, 2} {
		for _, during := range []string{"the trial", "the way back"} {
			for at := 1; ; at += step {
				d := deviceIn(t, dir())
				d.deploy(1, "unit app 1 /var/lib/app /var/lib/more", "unit b 1 /var/lib/b")
				d.deploy(2, "unit app 2 /var/lib/app /var/lib/more", "unit b 2 /var/lib/b")
				more := filepath.Join(d.top, "state/var-lib/more")
				d.up(1)
				d.write("one")
				put(t, filepath.Join(d.top, "state/var-lib/b"), "b of one")
				newest := map[int]string{1: "one", 2: "one"} // what each should find
				cut := 2
				if during == "the way back" {
					d.up(2)
					d.write("two")
					put(t, more, "of two")
					newest[2], cut = "two", 1
				}
				d.cutAt = at
				wasCut, troubles := d.boot(cut)
				if len(troubles) > 0 {
					t.Fatal(troubles)
				}
				if !wasCut {
					if at < 5 {
						t.Fatalf("%s has only %d places", during, at)
					}
					break
				}
				d.cutAt = 0
				name := fmt.Sprintf("cut at %d in %s, then %d boots", at, during, then)
				for _, n := range []int{then, then, 3 - then, then} {
					d.up(n)
					got, err := os.ReadFile(filepath.Join(d.top, db))
					if err != nil || string(got) != newest[n] {
						t.Fatalf("%s: deployment %d reads %q (%v), want %q", name, n, got, err, newest[n])
					}
					if _, err := os.Lstat(more); (err == nil) != (newest[n] == "two") {
						t.Errorf("%s: deployment %d: the other path: %v", name, n, err)
					}
				}
				if left, err := filepath.Glob(filepath.Join(d.top, "kept/*/*.*")); err != nil || len(left) > 0 {
					t.Errorf("%s: left behind: %v", name, left)
				}
			}
		}
	}
}

// TestUnitsLoseNothing plays boots of any deployments with power cuts anywhere:
// whoever boots reads what it wrote last itself, or what was there if it never
// ran with its epoch.
func TestUnitsLoseNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := newDevice(t)
		epochs := []int{1, rapid.IntRange(1, 3).Draw(r, "epoch"), 3}
		for n, epoch := range epochs {
			d.deploy(n, fmt.Sprintf("unit app %d /var/lib/app", epoch))
		}
		holder, content := 0, map[int]string{} // by deployment: what it left, if another epoch took its place
		now := ""
		d.up(0)
		now = "0:0"
		d.write(now)
		for i := range rapid.IntRange(1, 8).Draw(r, "boots") {
			n := rapid.IntRange(0, len(epochs)-1).Draw(r, "deployment")
			d.cutAt = rapid.IntRange(0, 12).Draw(r, "cut at")
			wasCut, troubles := d.boot(n)
			if len(troubles) > 0 {
				r.Fatal(troubles)
			}
			d.cutAt = 0
			if wasCut {
				n = rapid.IntRange(0, len(epochs)-1).Draw(r, "deployment after the cut")
				// Whether the cut boot got as far as giving n's data a new
				// holder is not told; only go on where it does not matter.
				d.up(n)
				live, err := rootfs.Units{Sysroot: d.top}.Live()
				if err != nil || live[0].Epoch != epochs[n] {
					r.Fatalf("after a cut: %+v, %v", live, err)
				}
				return
			}
			switch {
			case epochs[n] == epochs[holder]:
			default:
				content[holder] = now
				if left, ok := content[n]; ok {
					now = left
					delete(content, n)
				}
			}
			if epochs[n] == epochs[holder] && n != holder {
				delete(content, n)
				delete(content, holder)
			}
			holder = n
			if got, err := os.ReadFile(filepath.Join(d.top, db)); err != nil || string(got) != now {
				r.Fatalf("deployment %d reads %q (%v), want %q", n, got, err, now)
			}
			now = fmt.Sprintf("%d:%d", n, i+1)
			d.write(now)
		}
	})
}

// TestCopiesAreSnapshots once a directory is a subvolume, but for one that has
// others in it.
func TestCopiesAreSnapshots(t *testing.T) {
	top, _ := disk(t)
	d := deviceIn(t, top)
	d.deploy(1, "unit app 1 /var/lib/app")
	app := filepath.Join(top, "state/var-lib/app")
	d.up(1)
	rootfstest.Furnish(t, app)
	want := rootfstest.Inventory(t, app)
	subvolumes := func() int { return strings.Count(run(t, "btrfs", "subvolume", "list", top), "\n") }
	for n := 2; n < 5; n++ {
		d.deploy(n, fmt.Sprintf("unit app %d /var/lib/app", n))
		if n == 4 {
			run(t, "btrfs", "subvolume", "create", filepath.Join(app, "nested"))
			put(t, filepath.Join(app, "nested/x"), "deep")
			want = rootfstest.Inventory(t, app)
		}
		d.up(n)
		kept := filepath.Join(top, "kept", strconv.Itoa(n-1), "app", "state/var-lib/app")
		for _, dir := range []string{app, kept} {
			got := rootfstest.Inventory(t, dir)
			if n == 4 { // a subvolume comes out as a directory, which a manifest enters
				got = read(t, filepath.Join(dir, "nested/x"))
				want = "deep"
			}
			if got != want {
				t.Errorf("%s is\n%s\nwant\n%s", dir, got, want)
			}
		}
		if n == 3 && subvolumes() != 2 {
			t.Errorf("%d subvolumes, want the live one and a copy", subvolumes())
		}
	}
	d.up(3)
	if got := read(t, filepath.Join(app, "nested/x")); got != "deep" {
		t.Errorf("put back: %q", got)
	}
	if err := (rootfs.Units{Sysroot: top}).Prune(func(n int) bool { return n == 1 }); err != nil || d.kept() != "app of 1 by 1" {
		t.Errorf("%v, kept: %s", err, d.kept())
	}
	put(t, filepath.Join(top, "kept/7/app.copying/x"), "half")
	if err := (rootfs.Units{Sysroot: top}).Prune(func(int) bool { return false }); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(top, "kept")); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
	if got := d.kept(); got != "" {
		t.Errorf("kept: %s", got)
	}
}

// TestALinkOnTheWay leads nobody's data into another directory.
func TestALinkOnTheWay(t *testing.T) {
	d := newDevice(t)
	d.deploy(1, "unit app 1 /var/lib/app/data/db")
	d.deploy(2, "unit app 2 /var/lib/app/data/db")
	identity, data := filepath.Join(d.top, "identity"), filepath.Join(d.top, "state/var-lib/app/data")
	put(t, filepath.Join(identity, "db"), "the device's")
	d.up(1)
	put(t, filepath.Join(data, "db"), "one")
	d.up(2)
	remove(t, data)
	if err := os.Symlink("../../../identity", data); err != nil {
		t.Fatal(err)
	}
	if _, troubles := d.boot(1); len(troubles) != 1 || !strings.Contains(troubles[0].Error(), "is a symbolic link") {
		t.Errorf("%v", troubles)
	}
	if got := read(t, filepath.Join(identity, "db")); got != "the device's" {
		t.Errorf("the identity is %q", got)
	}
	remove(t, data)
	d.up(1)
	if got := read(t, filepath.Join(data, "db")); got != "one" {
		t.Errorf("it reads %q", got)
	}
}

// TestAnUnfinishedLedger: what a power cut left of writing it goes, and nothing
// else.
func TestAnUnfinishedLedger(t *testing.T) {
	d := newDevice(t)
	d.deploy(1, "unit app 1 /var/lib/app")
	d.up(1)
	d.write("one")
	left, others := filepath.Join(d.top, "kept/.units.json.42.tmp"), filepath.Join(d.top, "kept/.other.json.42.tmp")
	put(t, left, "half")
	put(t, others, "x")
	d.up(1)
	d.reads("one")
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	if _, err := os.Lstat(others); err != nil {
		t.Errorf("what is of somebody else: %v", err)
	}
}

// TestADamagedLedger keeps nothing from booting.
func TestADamagedLedger(t *testing.T) {
	for _, text := range []string{"", "{", `{"units":null}`, "\x00\x00"} {
		d := newDevice(t)
		d.deploy(1, "unit app 1 /var/lib/app")
		d.up(1)
		d.write("one")
		put(t, filepath.Join(d.top, "kept/units.json"), text)
		if _, err := (rootfs.Units{Sysroot: d.top}).Live(); err == nil {
			t.Errorf("%q is read", text)
		}
		if _, troubles := d.boot(1); len(troubles) != 1 {
			t.Errorf("%q: %v", text, troubles)
		}
		d.reads("one")
		d.up(1)
	}
}

// TestAUnitThatCannotBeKept is left alone, and closed off.
func TestAUnitThatCannotBeKept(t *testing.T) {
	d := newDevice(t)
	d.deploy(1, "unit app 1 /var/lib/app")
	d.deploy(2, "unit app 2 /var/lib/app", "unit b 1 /var/lib/b")
	d.up(1)
	d.write("one")
	put(t, filepath.Join(d.top, "kept/1"), "in the way")
	declared, err := rootfs.ReadDeclared(filepath.Join(d.top, "deployments/2"))
	if err != nil {
		t.Fatal(err)
	}
	closed, troubles := d.units().Settle(2, declared)
	if !slices.Contains(closed, "/var/lib/app") || len(troubles) != 2 { // both want a place there
		t.Errorf("closed %v, %v", closed, troubles)
	}
	d.reads("one")
	live, err := rootfs.Units{Sysroot: d.top}.Live()
	if err != nil || len(live) != 1 || live[0].Deployment != 1 {
		t.Errorf("%+v, %v", live, err)
	}
	d.up(1)
	d.reads("one")
}
