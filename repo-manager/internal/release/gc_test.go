package release_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// startGC starts a gc and waits for its end.
func (w *world) startGC(dryRun bool) release.Change {
	w.t.Helper()
	c, err := w.CollectGarbage(w.t.Context(), ann, "test", dryRun)
	must(w.t, err)
	return w.ended(c.ID)
}

// ended waits for the end of a change.
func (w *world) ended(id int64) release.Change {
	w.t.Helper()
	for range 10000 {
		c, err := w.Change(w.t.Context(), id)
		must(w.t, err)
		if c.Status != release.Doing {
			return c
		}
		time.Sleep(time.Millisecond)
	}
	w.t.Fatalf("change %d does not end", id)
	return release.Change{}
}

// gc is a gc that succeeds, and what it found.
func (w *world) gc(dryRun bool) protocol.GC {
	w.t.Helper()
	c := w.startGC(dryRun)
	if c.Status != release.Done {
		w.t.Fatalf("the gc is %s: %s", c.Status, c.Error)
	}
	var result protocol.GC
	must(w.t, json.Unmarshal(c.Result, &result))
	return result
}

// retain sets the retention of the pipeline demo.
func (w *world) retain(states, days int) {
	w.t.Helper()
	_, err := w.SetRetention(w.t.Context(), ann, "demo", func(release.Retention) release.Retention {
		return release.Retention{States: states, Days: days}
	})
	must(w.t, err)
}

// diskUse is the bytes of all files, each once however many names it has.
func (w *world) diskUse() int64 {
	w.t.Helper()
	var sum int64
	seen := make(map[uint64]bool)
	must(w.t, filepath.WalkDir(w.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if inode := info.Sys().(*syscall.Stat_t).Ino; !seen[inode] {
			seen[inode] = true
			sum += info.Size()
		}
		return nil
	}))
	return sum
}

// there tells whether a path below the data directory exists.
func (w *world) there(path ...string) bool {
	_, err := os.Stat(filepath.Join(append([]string{w.dir}, path...)...))
	return err == nil
}

// offered tells whether a state can still be used and has its base.
func (w *world) offered(state snapshots.ID) bool {
	w.t.Helper()
	_, err := w.Resolve(w.t.Context(), "demo", state.String())
	published := w.there("public/demo/states", state.String(), "dists/trixie/InRelease")
	if (err == nil) != published {
		w.t.Errorf("state %s: resolved with %v, its base is there: %v", state, err, published)
	}
	return err == nil
}

// bulk is content that is worth removing.
func bulk(version string) string { return strings.Repeat(version+" is a long text. ", 20000) }

// hour lets more time pass than a gc keeps what was offered a moment ago.
func hour() { time.Sleep(time.Hour + time.Minute) }

func TestGCRemovesThePast(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(2, 0)
		var states []snapshots.ID
		var files []string
		for n := range 6 {
			version := fmt.Sprint(n)
			up, err := w.addSalted("app", version, "amd64", bulk(version), false)
			must(t, err)
			states, files = append(states, up.State), append(files, up.SHA256)
			time.Sleep(time.Second)
		}
		w.promote(states[1].String(), "canary")
		before := w.diskUse()
		if now := w.gc(false); now.Gone.States+now.Gone.Files+now.Gone.Chunks > 0 {
			t.Errorf("a gc removed what clients may be about to fetch: %+v", now.Gone)
		}
		hour()
		plan := w.gc(true)
		if use := w.diskUse(); use != before {
			t.Errorf("a dry run changed the disk use from %d to %d", before, use)
		}
		done := w.gc(false)
		// The states of the pipeline and the repository themselves go, too.
		if want := (protocol.Amount{States: 5, Chunks: 3, Indices: 3, Files: 3, Bytes: done.Gone.Bytes}); done.Gone != want || plan.Gone != want {
			t.Errorf("gone: %+v, planned %+v, want %+v", done.Gone, plan.Gone, want)
		}
		if freed := before - w.diskUse(); freed < done.Gone.Bytes || done.Gone.Bytes < 3*int64(len(bulk("0"))) {
			t.Errorf("%d bytes are free now, the gc says %d", freed, done.Gone.Bytes)
		}
		for n, state := range states {
			want := n == 1 || n >= 4
			if w.offered(state) != want {
				t.Errorf("state %d is offered: %v, want %v", n, !want, want)
			}
			if w.there("public/pool", files[n][:2], files[n]) != want {
				t.Errorf("the file of state %d is there: %v, want %v", n, !want, want)
			}
			if w.there("blobs", state.String()[:2], state.String()) != want {
				t.Errorf("the text of state %d is there: %v, want %v", n, !want, want)
			}
		}
		if again := w.gc(false); again.Gone != (protocol.Amount{}) {
			t.Errorf("a second gc removed %+v", again.Gone)
		}
		acts, err := w.Acts(t.Context(), "", 0)
		must(t, err)
		if acts[0].Verb != "gc" || acts[0].By != "ann" || !strings.Contains(acts[0].Detail, "removed 5 states") {
			t.Errorf("the audit trail says %+v", acts[0])
		}

		// What went may come back, with the same bytes only.
		_, err = w.addSalted("app", "2", "amd64", "other", true)
		wantCode(t, err, release.Conflict, "with other bytes", "uploaded by ann")
		up, err := w.addSalted("app", "2", "amd64", bulk("2"), true)
		must(t, err)
		if up.Already || up.State != states[2] || !w.there("public/pool", files[2][:2], files[2]) || !w.offered(states[2]) {
			t.Errorf("the upload of what went gave %+v", up)
		}
		w.mustBeClean()
		w.close()
		w.open()
	})
}

// duringGC runs a gc and calls act in its middle: after it has decided what
// may go, before the first row is dropped.
func (w *world) duringGC(act func()) release.Change {
	w.t.Helper()
	var calls atomic.Int32
	before := w.Config.Devices
	w.Config.Devices = func(context.Context) ([]release.Deployed, error) {
		if calls.Add(1) == 2 {
			act()
		}
		return nil, nil
	}
	defer func() { w.Config.Devices = before }()
	c := w.startGC(false)
	if calls.Load() < 2 {
		w.t.Fatal("the gc had nothing to do")
	}
	return c
}

// What somebody begins to need after the gc decided that it may go, stays.
func TestGCSeesWhatHappensMeanwhile(t *testing.T) {
	for what, act := range map[string]func(t *testing.T, w *world, doomed snapshots.ID, version string){
		"a promotion": func(t *testing.T, w *world, doomed snapshots.ID, _ string) { w.promote(doomed.String(), "canary") },
		"a name": func(t *testing.T, w *world, doomed snapshots.ID, _ string) {
			_, err := w.CreateSnapshot(t.Context(), ann, "demo", doomed.String(), "", nil)
			must(t, err)
		},
		"the same upload": func(t *testing.T, w *world, doomed snapshots.ID, version string) {
			up, err := w.addSalted("app", version, "amd64", bulk(version), true)
			must(t, err)
			if up.State != doomed {
				t.Errorf("the upload made another state")
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.retain(1, 0)
				var doomed snapshots.ID
				for _, version := range []string{"1", "2", "3"} {
					up, err := w.addSalted("app", version, "amd64", bulk(version), false)
					must(t, err)
					if version == "2" {
						doomed = up.State
					}
				}
				hour()
				c := w.duringGC(func() { act(t, w, doomed, "2") })
				if c.Status != release.Done {
					t.Fatalf("the gc is %s: %s", c.Status, c.Error)
				}
				if !w.offered(doomed) || !strings.Contains(w.list(doomed.String()), "app 2 amd64") {
					t.Error("it went")
				}
				w.mustBeClean()
			})
		})
	}
}

// A device that reports an old state after the gc decided keeps it.
func TestGCSeesDevicesThatReturn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(1, 0)
		one, two := w.version("1"), w.version("2")
		w.version("3")
		hour()
		var calls atomic.Int32
		w.Config.Devices = func(context.Context) ([]release.Deployed, error) {
			if calls.Add(1) < 3 {
				return nil, nil
			}
			return []release.Deployed{{Device: "bench", Pipeline: "demo", Role: "booted", State: one}}, nil
		}
		w.gc(false)
		if !w.offered(one) || w.offered(two) {
			t.Errorf("the device's state is offered: %v, another: %v", w.offered(one), w.offered(two))
		}
	})
}

// between is a publisher that calls a function when a gc has dropped rows and
// begins to remove files.
type between struct {
	release.Publisher
	act func()
}

func (b between) Dirs(pipeline string) ([]string, error) {
	if b.act != nil {
		b.act()
	}
	return b.Publisher.Dirs(pipeline)
}

// Rows are gone and files are not yet, when the same bytes come again.
func TestUploadBetweenRowsAndFiles(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(1, 0)
		up, err := w.addSalted("app", "1", "amd64", bulk("1"), false)
		must(t, err)
		w.version("2")
		hour()
		once := sync.OnceFunc(func() {
			if known, err := w.store.HasFile(t.Context(), raw(t, up.SHA256)); known || err != nil {
				t.Errorf("the row is still there (%v)", err)
			}
			again, err := w.addSalted("app", "1", "amd64", bulk("1"), true)
			if err != nil || again.State != up.State {
				t.Errorf("the upload gave %+v, %v", again, err)
			}
		})
		w.Config.Publisher = between{w.Config.Publisher, once}
		w.gc(false)
		if !w.offered(up.State) || !w.there("public/pool", up.SHA256[:2], up.SHA256) {
			t.Error("the package went")
		}
	})
}

// late is a store that calls a function after it listed files for the nth
// time.
type late struct {
	release.Store
	n   int
	act func()
}

func (l *late) Files(ctx context.Context) ([]release.File, error) {
	files, err := l.Store.Files(ctx)
	if l.n--; l.n == 0 {
		l.act()
	}
	return files, err
}

// A file is on the list of those that go, when the same bytes come again.
func TestUploadBeforeItsFileGoes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(1, 0)
		up, err := w.addSalted("app", "1", "amd64", bulk("1"), false)
		must(t, err)
		w.version("2")
		hour()
		store := &late{Store: w.Config.Store, n: 2, act: func() {
			if _, err := w.addSalted("app", "1", "amd64", bulk("1"), true); err != nil {
				t.Error(err)
			}
		}}
		w.Config.Store = store
		w.gc(false)
		if store.n > 0 || !w.there("public/pool", up.SHA256[:2], up.SHA256) {
			t.Error("the package went")
		}
	})
}

func raw(t *testing.T, digits string) [32]byte {
	t.Helper()
	id, err := snapshots.ParseID(digits)
	must(t, err)
	return id
}

func TestOneGCAtATime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(1, 0)
		w.version("1")
		w.version("2")
		hour()
		c := w.duringGC(func() {
			for _, dryRun := range []bool{false, true} {
				_, err := w.CollectGarbage(t.Context(), ann, "", dryRun)
				wantCode(t, err, release.Locked, "does the same")
			}
		})
		if c.Status != release.Done {
			t.Errorf("the first is %s: %s", c.Status, c.Error)
		}
	})
}

// A gc that is aborted, or stops with the server, leaves everything whole,
// and the next one finishes the work.
func TestAbortedGC(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(1, 0)
		one := w.version("1")
		w.version("2")
		hour()
		c := w.duringGC(func() {
			running, err := w.Changes(t.Context())
			must(t, err)
			_, err = w.AbortChange(t.Context(), running[0].ID)
			must(t, err)
		})
		if c.Status != release.Aborted || !w.offered(one) {
			t.Errorf("the gc is %s (%s), the state that may go is offered: %v", c.Status, c.Error, w.offered(one))
		}
		w.mustBeClean()
		var once sync.Once
		w.Config.Publisher = between{w.Config.Publisher, func() {
			once.Do(func() {
				running, err := w.Changes(t.Context())
				must(t, err)
				_, err = w.AbortChange(t.Context(), running[0].ID)
				must(t, err)
			})
		}}
		if c := w.startGC(false); c.Status != release.Aborted {
			t.Errorf("the second gc is %s: %s", c.Status, c.Error)
		}
		if !w.there("public/demo/states", one.String()) {
			t.Error("the test aborts too late: the base is gone")
		}
		acts, err := w.Acts(t.Context(), "", 1)
		must(t, err)
		if !strings.Contains(acts[0].Detail, "states") || acts[0].Verb != "gc" {
			t.Errorf("the audit trail does not know what went before the abort: %+v", acts[0])
		}
		w.close()
		w.open()
		w.gc(false)
		if w.there("public/demo/states", one.String()) {
			t.Error("after the next gc the base of a dropped state is offered")
		}
		w.mustBeClean()
	})
}

// What no row names would go, and with it all that a lost row could be made
// from again: a gc waits for the repair.
func TestGCOfADatabaseThatLostRows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(1, 0)
		w.version("1")
		w.version("2")
		named := w.promote("dev", "canary").To.Snapshot
		w.version("3")
		hour()
		w.close()
		w.store.Alter(func(b *release.Batch) {
			b.Bases = slices.DeleteFunc(b.Bases, func(b release.Base) bool { return b.Dir == "snapshots/"+named })
		})
		w.open()
		c := w.startGC(false)
		if c.Status != release.Failed || !strings.Contains(c.Error, "snapshots/"+named) || !w.there("public/demo/snapshots", named, "dists/trixie/InRelease") {
			t.Errorf("the gc is %s: %s", c.Status, c.Error)
		}
		_, err := w.Repair(t.Context(), ann, nil)
		must(t, err)
		if done := w.gc(false); done.Gone.States == 0 {
			t.Error("after the repair nothing goes")
		}
		w.mustBeClean()
	})
}

// A state that cannot be read may need anything: nothing goes.
func TestGCOfADamagedStore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(2, 0)
		one, two := w.version("1"), w.version("2")
		w.version("3")
		hour()
		path := filepath.Join(w.dir, "blobs", two.String()[:2], two.String())
		text, err := os.ReadFile(path)
		must(t, err)
		must(t, os.Remove(path))
		c := w.startGC(false)
		if c.Status != release.Failed || !strings.Contains(c.Error, two.String()) || !w.offered(one) {
			t.Errorf("the gc is %s: %s; the state that may go is offered: %v", c.Status, c.Error, w.offered(one))
		}
		must(t, os.WriteFile(path, text, 0o444))
		w.gc(false)
		if w.offered(one) {
			t.Error("a gc of the repaired store left what may go")
		}
	})
}

// A full disk stops a gc at its first row, or not at all.
func TestGCWithoutSpace(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(1, 0)
		one := w.version("1")
		w.version("2")
		hour()
		w.store.FailNext(syscall.ENOSPC)
		c := w.startGC(false)
		if c.Status != release.Failed || !strings.Contains(c.Error, "no space left") || !w.offered(one) {
			t.Errorf("the gc is %s: %s; the state that may go is offered: %v", c.Status, c.Error, w.offered(one))
		}
		w.mustBeClean()
		w.gc(false)
		if w.offered(one) {
			t.Error("a gc with room left what may go")
		}
	})
}

// A mirror whose update found a file in the pool that a gc then removed is
// told so.
func TestMirrorWhoseFileWent(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.retain(1, 0)
		_, err := w.CreateMirror(ctx, ann, "demo", "debian", release.MirrorConfig{Suites: []release.MirrorSuite{trixie()}, Packages: []string{"lib"}})
		must(t, err)
		lib, libFile := w.mirrored(w.receive("lib", "1", "amd64", "x"))
		other, otherFile := w.mirrored(w.receive("other", "1", "amd64", "y"))
		replace := func(packages []snapshots.Package, files ...release.File) error {
			_, err := w.ReplaceMirror(ctx, ann, "demo", "debian", packages, files)
			return err
		}
		must(t, replace([]snapshots.Package{lib}, libFile))
		must(t, replace([]snapshots.Package{lib})) // it is in the component
		must(t, replace([]snapshots.Package{other}, otherFile))
		must(t, replace([]snapshots.Package{lib, other})) // it is on record
		must(t, replace([]snapshots.Package{other}))
		hour()
		w.gc(false)
		third, thirdFile := w.mirrored(w.receive("third", "1", "amd64", "z"))
		err = replace([]snapshots.Package{lib, third}, thirdFile)
		wantCode(t, err, release.Conflict, "lib=1:amd64", "not in the pool")
		if _, err := os.Stat(thirdFile.Path); err != nil {
			t.Errorf("what was downloaded is lost: %v", err)
		}
		_, again := w.mirrored(w.receive("lib", "1", "amd64", "x"))
		must(t, replace([]snapshots.Package{lib, third}, thirdFile, again))
		w.mustBeClean()
	})
}

// Eight uploaders go on while one gc follows another.
func TestGCUnderUploads(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.retain(3, 0)
		const uploaders, each = 8, 12
		received := make([][]release.Incoming, uploaders)
		for u := range received {
			for n := range each {
				received[u] = append(received[u], w.receive(fmt.Sprintf("app%d", u), fmt.Sprint(n), "amd64", fmt.Sprint(u, n)))
			}
		}
		var group sync.WaitGroup
		var done atomic.Int32
		for u := range received {
			group.Go(func() {
				defer done.Add(1)
				for _, in := range received[u] {
					if _, err := w.Add(t.Context(), ann, "demo", "apps", in, false); err != nil {
						t.Errorf("uploader %d: %v", u, err)
					}
					time.Sleep(20 * time.Minute)
				}
			})
		}
		gone := 0
		for done.Load() < uploaders {
			gone += w.gc(false).Gone.States
			time.Sleep(7 * time.Minute)
		}
		group.Wait()
		if gone == 0 {
			t.Error("no gc removed anything")
		}
		for u := range uploaders {
			if want := fmt.Sprintf("app%d %d amd64", u, each-1); !strings.Contains(w.list("dev"), want) {
				t.Errorf("dev offers %s, without %s", w.list("dev"), want)
			}
		}
		synctest.Wait()
	})
}

// A file whose row was lost is not on record and needed all the same.
func TestGCSparesWhatIsNeeded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		up, err := w.add("app", "1", "amd64")
		must(t, err)
		must(t, w.store.Commit(t.Context(), release.Batch{Dropped: release.Dropped{Files: [][32]byte{raw(t, up.SHA256)}}}))
		w.gc(false)
		if !w.there("public/pool", up.SHA256[:2], up.SHA256) {
			t.Error("a package that dev offers went")
		}
		_, err = w.Repair(t.Context(), ann, nil) // of the row
		must(t, err)
	})
}

// Everything that files in the tree and the blobs belong to is a row, and all
// of it goes if it is not.
func TestGCSweepsWhatIsNotOnRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.version("1")
		before := w.diskUse()
		sum := strings.Repeat("ab", 32)
		var stray []string
		for _, dir := range []string{"public/pool/ab/" + sum, "public/.indices/ab/" + sum, "public/demo/states/" + sum + "/dists/trixie", "blobs/ab"} {
			must(t, os.MkdirAll(filepath.Join(w.dir, dir), 0o755))
		}
		for _, file := range []string{
			"public/pool/ab/" + sum + "/a_1_all.deb", "public/.indices/ab/" + sum + "/Packages.gz", "public/demo/states/" + sum + "/dists/trixie/InRelease",
			"blobs/ab/" + sum, "blobs/ab/" + sum + ".zst",
		} {
			must(t, os.WriteFile(filepath.Join(w.dir, file), []byte("left over"), 0o644))
			stray = append(stray, file)
		}
		foreign := filepath.Join(w.dir, "public/pool/README")
		must(t, os.WriteFile(foreign, []byte("not ours"), 0o644))
		w.gc(false)
		for _, file := range stray {
			if w.there(file) {
				t.Errorf("%s is still there", file)
			}
		}
		if !w.there("public/pool/README") {
			t.Error("a file that no pool would make was removed")
		}
		must(t, os.Remove(foreign))
		if after := w.diskUse(); after != before {
			t.Errorf("%d bytes are used, it were %d", after, before)
		}
	})
}
