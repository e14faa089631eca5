package backup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
)

func TestBackupComesBack(t *testing.T) {
	w := newWorld(t)
	w.add("one", "two")
	w.add("three")
	made := w.make()
	if len(made.Lost) > 0 || !made.Keys || made.By != "ann" || made.ID != "20261120T120000Z" {
		t.Errorf("made %+v", made)
	}
	if bad := w.verify(); len(bad) > 0 {
		t.Errorf("verify: %v", bad)
	}
	data, err := w.restore("")
	must(t, err)
	want, got := tree(t, w.data), tree(t, data)
	delete(want, "mirrors/demo/debian/packages/part")
	delete(got, "lock")
	database := got[databaseName]
	delete(got, databaseName)
	if !strings.HasSuffix(database, string(w.pages)) {
		t.Error("the database has other bytes")
	}
	if !maps.Equal(want, got) {
		for name, text := range want {
			if got[name] != text {
				t.Errorf("%s: got %q, want %q", name, got[name], text)
			}
			delete(got, name)
		}
		t.Errorf("too many: %v", got)
	}
	for name, mode := range map[string]os.FileMode{"keys": 0o700, "blobs": 0o700, "public/pool": 0o755, "public/demo/dev": 0o755} {
		if info, err := os.Stat(filepath.Join(data, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want mode %o", name, info.Mode(), err, mode)
		}
	}
}

func TestASecondBackupCopiesWhatIsNew(t *testing.T) {
	w := newWorld(t)
	w.add("one", "two")
	first := w.make()
	objects := len(first.objects())
	if first.NewObjects != objects {
		t.Errorf("the first has %d new objects of %d", first.NewObjects, objects)
	}
	for _, c := range []struct {
		what   string
		change func()
		want   int
	}{
		{"nothing", func() {}, 0},
		{"a page of the database", func() { w.pages[pieceSize+7] = 99 }, 1},
		{"a longer database", func() { w.pages = append(w.pages, 1, 2, 3) }, 1},
		{"a signature", func() { w.write("public/demo/dev/dists/trixie/InRelease", "signed anew") }, 1},
		{"a package: itself, the state, the chunk, two frames", func() { w.add("three") }, 5},
		{"a frame that was made again", func() {
			frames, err := filepath.Glob(w.path("blobs/*/*.gz"))
			must(t, err)
			must(t, os.Remove(frames[0]))
			must(t, os.WriteFile(frames[0], []byte("others"), 0o444))
		}, 1},
	} {
		c.change()
		made := w.make()
		if made.NewObjects != c.want || made.NewObjects > 0 == (made.NewBytes == 0) {
			t.Errorf("%s: %d new objects, %d bytes; want %d", c.what, made.NewObjects, made.NewBytes, c.want)
		}
	}
	w.reading(func(d *Dir) {
		all, err := d.List()
		must(t, err)
		if len(all) != 7 || all[0].ID != "20261120T120006Z" || all[6].ID != "20261120T120000Z" {
			t.Errorf("%d backups: %+v", len(all), all)
		}
	})
	if bad := w.verify(); len(bad) > 0 {
		t.Errorf("verify: %v", bad)
	}
}

func TestWithoutKeys(t *testing.T) {
	w := newWorld(t)
	_, err := Make(t.Context(), w.source(), Request{Dir: w.dir, WithoutKeys: true}, new(tape))
	must(t, err)
	for name, text := range tree(t, w.dir) {
		if strings.Contains(text, "private") {
			t.Errorf("%s holds the private key", name)
		}
	}
	data, err := w.restore("")
	must(t, err)
	if _, err := os.Stat(filepath.Join(data, "keys/archive.asc")); err != nil {
		t.Error(err)
	}
}

// object is the path of the object that holds a file of the newest backup.
func (w *world) object(name string) (path string) {
	w.t.Helper()
	w.reading(func(d *Dir) {
		m, err := d.Find("")
		must(w.t, err)
		for _, f := range m.Files {
			if f.Path == name {
				path = d.objectPath(f.Parts[0].SHA256)
			}
		}
	})
	if path == "" {
		w.t.Fatalf("%s is in no backup", name)
	}
	return path
}

// pooled is the path of the first package, relative to the data directory.
func (w *world) pooled() string {
	return filepath.Join("public", publish.PoolFilename(w.files[0].SHA256, w.files[0].Name))
}

func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)/2] ^= 1
	must(t, os.Chmod(path, 0o600))
	must(t, os.WriteFile(path, data, 0o600))
}

// Damage to a backup directory is found, named and never restored. The next
// backup heals what it can see without reading everything.
func TestDamage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, w *world)
		found  string // by verify
		says   string // restore
		heals  bool   // by the next backup
	}{
		"a flipped byte": {func(t *testing.T, w *world) { flip(t, w.object(w.pooled())) }, "SHA-256", "is damaged", false},
		"a cut object": {func(t *testing.T, w *world) { must(t, os.Truncate(w.object(w.pooled()), 3)) },
			"has 3 bytes", "missing or cut short: public/pool/", true},
		"a missing object":   {func(t *testing.T, w *world) { must(t, os.Remove(w.object(w.pooled()))) }, "is missing", "missing or cut short", true},
		"a missing key":      {func(t *testing.T, w *world) { must(t, os.Remove(w.object("keys/archive.key"))) }, "is missing", "keys/archive.key", true},
		"a missing page":     {func(t *testing.T, w *world) { must(t, os.Remove(w.object(databaseName))) }, "is missing", databaseName, true},
		"a flipped manifest": {func(t *testing.T, w *world) { flip(t, w.dir+"/backups/20261120T120000Z.manifest") }, "checksum", "checksum", true},
		"a cut manifest":     {func(t *testing.T, w *world) { must(t, os.Truncate(w.dir+"/backups/20261120T120000Z.manifest", 200)) }, "checksum", "checksum", true},
		"a renamed manifest": {func(t *testing.T, w *world) {
			must(t, os.Rename(w.dir+"/backups/20261120T120000Z.manifest", w.dir+"/backups/20261120T110000Z.manifest"))
		}, "that of backup", "that of backup", true},
		"no objects at all": {func(t *testing.T, w *world) { must(t, os.RemoveAll(w.dir+"/objects")) }, "", "objects", true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.add("one", "two")
			w.make()
			c.damage(t, w)
			if c.found != "" {
				if bad := w.verify(); len(bad) != 1 || !strings.Contains(bad[0].Reason, c.found) {
					t.Errorf("verify: %v, want one %q", bad, c.found)
				}
			}
			data, err := w.restore("")
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("restore: %v, want %q", err, c.says)
			}
			if _, err := os.Stat(data); err == nil {
				if _, err := os.Stat(filepath.Join(data, Unfinished)); err != nil {
					t.Errorf("what was restored by half is not marked: %v", err)
				}
			}
			w.make()
			_, err = w.restore("")
			if c.heals != (err == nil) {
				t.Errorf("after another backup: %v", err)
			}
		})
	}
}

// What a server has lost is told, and does not keep the rest from being saved.
// What an earlier backup has is not lost.
func TestASourceWithDamage(t *testing.T) {
	damages := map[string]func(t *testing.T, path string){
		"gone":    func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"flipped": flip,
		"cut":     func(t *testing.T, path string) { must(t, os.Truncate(path, 1)) },
	}
	for name, damage := range damages {
		for _, earlier := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, earlier %v", name, earlier), func(t *testing.T) {
				w := newWorld(t)
				w.add("one", "two")
				if earlier {
					w.make()
				}
				id := w.head.ID().String()
				frames, err := filepath.Glob(w.path("blobs/*/*.zst"))
				must(t, err)
				damage(t, w.path(w.pooled()))
				damage(t, w.path("blobs/"+id[:2]+"/"+id))
				if name == "gone" {
					must(t, os.Remove(frames[0]))
				}
				made := w.make()
				want := 2
				if earlier {
					want = 0
				}
				if len(made.Lost) != want || (made.Complete() == nil) != earlier {
					t.Errorf("lost: %v, want %d; %v", made.Lost, want, made.Complete())
				}
				if bad := w.verify(); len(bad) > 0 {
					t.Errorf("verify: %v", bad)
				}
				if _, err := w.restore(""); err != nil {
					t.Errorf("what is there cannot be restored: %v", err)
				}
			})
		}
	}
}

// stopper is a progress that ends a context after some bytes.
type stopper struct {
	tape
	left atomic.Int64
	stop context.CancelFunc
}

func (s *stopper) Add(n int64) {
	s.tape.Add(n)
	if s.left.Add(-n) < 0 {
		s.stop()
	}
}

func TestAnInterruptedBackupIsGoneOnWith(t *testing.T) {
	w := newWorld(t)
	w.add("one")
	w.make()
	before := tree(t, w.dir)
	var names []string
	for i := range 50 {
		names = append(names, fmt.Sprintf("package%d", i))
	}
	w.add(names...)
	ctx, cancel := context.WithCancel(t.Context())
	p := &stopper{stop: cancel}
	p.left.Store(600)
	if _, err := Make(ctx, w.source(), Request{Dir: w.dir}, p); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	after := tree(t, w.dir)
	for name, text := range before {
		if after[name] != text {
			t.Errorf("%s is not as it was", name)
		}
	}
	kept := len(after) - len(before)
	if kept == 0 {
		t.Error("nothing of it was kept")
	}
	// A power cut may leave what was never synced with other bytes.
	for name := range after {
		if _, old := before[name]; !old && strings.HasPrefix(name, "objects/") {
			flip(t, filepath.Join(w.dir, name))
			break
		}
	}
	w.make()
	if bad := w.verify(); len(bad) > 0 {
		t.Errorf("verify: %v", bad)
	}
	if _, err := w.restore(""); err != nil {
		t.Error(err)
	}
}

func TestPrune(t *testing.T) {
	w := newWorld(t)
	w.add("one")
	w.make()
	w.write("public/demo/dev/dists/trixie/InRelease", "second")
	w.make()
	w.add("two")
	w.make()
	must(t, os.MkdirAll(filepath.Join(w.dir, "objects/00"), 0o700))
	must(t, os.WriteFile(filepath.Join(w.dir, "objects/00/"+strings.Repeat("0", 64)), []byte("left by a crash"), 0o600))
	before := tree(t, w.dir)
	would, err := Prune(t.Context(), w.dir, 1, true)
	must(t, err)
	if !maps.Equal(before, tree(t, w.dir)) {
		t.Error("a dry run changed something")
	}
	did, err := Prune(t.Context(), w.dir, 1, false)
	must(t, err)
	// Two signatures lead to no backup any more: "signed InRelease" is gone,
	// "second" is what stands.
	if fmt.Sprint(would) != fmt.Sprint(did) || len(did.IDs) != 2 || did.Objects != 2 {
		t.Errorf("would remove %+v, removed %+v", would, did)
	}
	if bad := w.verify(); len(bad) > 0 {
		t.Errorf("verify: %v", bad)
	}
	_, err = w.restore("")
	must(t, err)
	if _, err := Prune(t.Context(), w.dir, 0, false); err == nil {
		t.Error("all backups were removed")
	}
	w.make()
	flip(t, filepath.Join(w.dir, "backups", "20261120T120002Z.manifest"))
	before = tree(t, w.dir)
	if _, err := Prune(t.Context(), w.dir, 2, false); err == nil || !maps.Equal(before, tree(t, w.dir)) {
		t.Errorf("beside a damaged manifest something was removed: %v", err)
	}
}

func TestOneAtATime(t *testing.T) {
	w := newWorld(t)
	w.make()
	d, err := Open(w.dir)
	must(t, err)
	if second, err := Open(w.dir); err != nil {
		t.Errorf("two cannot read: %v", err)
	} else {
		must(t, second.Close())
	}
	if _, err := Make(t.Context(), w.source(), Request{Dir: w.dir}, new(tape)); release.CodeOf(err) != release.Locked {
		t.Errorf("a backup beside a reader: %v", err)
	}
	if _, err := Prune(t.Context(), w.dir, 1, false); release.CodeOf(err) != release.Locked {
		t.Errorf("a prune beside a reader: %v", err)
	}
	must(t, d.Close())
	w.make()
}

func TestForeignDirectories(t *testing.T) {
	w := newWorld(t)
	must(t, os.MkdirAll(w.dir, 0o755))
	must(t, os.WriteFile(filepath.Join(w.dir, "holiday.jpg"), nil, 0o644))
	if _, err := Make(t.Context(), w.source(), Request{Dir: w.dir}, new(tape)); release.CodeOf(err) != release.Refused {
		t.Errorf("a backup among other files: %v", err)
	}
	if entries, err := os.ReadDir(w.dir); err != nil || len(entries) != 1 {
		t.Errorf("%d entries, %v", len(entries), err)
	}
	if _, err := Open(w.dir); release.CodeOf(err) != release.NotFound {
		t.Errorf("it was opened: %v", err)
	}
	must(t, os.Remove(filepath.Join(w.dir, "holiday.jpg")))
	w.make()
	if info, err := os.Stat(w.dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v, %v", info.Mode(), err)
	}
	must(t, os.WriteFile(filepath.Join(w.dir, markerFile), []byte("aptfleet backup directory 2\n"), 0o600))
	if _, err := Open(w.dir); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Errorf("a directory of a later version was opened: %v", err)
	}
}

// small mounts a small file system.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("cannot mount a small file system (`make test` runs as root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A full disk is refused with its reason wherever it fills up, earlier backups
// are as they were, and it goes on when there is room.
func TestAFullDisk(t *testing.T) {
	w := newWorld(t)
	w.add("one")
	w.dir = small(t, "800k")
	w.make()
	before := tree(t, w.dir)
	for i := range w.pages {
		w.pages[i]++
	}
	for name, room := range map[string]int{"before the copy of the database": 100 << 10, "before the objects": 370 << 10} {
		ballast := filepath.Join(w.dir, "lost+found")
		var stat syscall.Statfs_t
		must(t, syscall.Statfs(w.dir, &stat))
		must(t, os.WriteFile(ballast, make([]byte, int(stat.Bavail)*int(stat.Bsize)-room), 0o600))
		_, err := Make(t.Context(), w.source(), Request{Dir: w.dir}, new(tape))
		if release.CodeOf(err) != release.NoSpace || !strings.Contains(err.Error(), "disk of the backup directory") {
			t.Errorf("%s: %v", name, err)
		}
		must(t, os.Remove(ballast))
		if !maps.Equal(before, tree(t, w.dir)) {
			t.Errorf("%s: something changed", name)
		}
	}
	must(t, syscall.Mount("", w.dir, "", syscall.MS_REMOUNT, "size=4m"))
	w.make()
	if bad := w.verify(); len(bad) > 0 {
		t.Errorf("verify: %v", bad)
	}
}

func TestRestoreToAFullDisk(t *testing.T) {
	w := newWorld(t)
	w.add("one")
	w.make()
	data := small(t, "100k")
	w.reading(func(d *Dir) {
		m, err := d.Find("")
		must(t, err)
		finished := Restore{Data: data, Finish: func(context.Context) error { return nil }}
		if err := d.Restore(t.Context(), m, databaseName, finished, new(tape)); release.CodeOf(err) != release.NoSpace {
			t.Errorf("error %v", err)
		}
		must(t, syscall.Mount("", data, "", syscall.MS_REMOUNT, "size=4m"))
		must(t, d.Restore(t.Context(), m, databaseName, finished, new(tape)))
		if _, err := os.Stat(filepath.Join(data, Unfinished)); err == nil {
			t.Error("it is still marked")
		}
		if err := d.Restore(t.Context(), m, databaseName, finished, new(tape)); release.CodeOf(err) != release.Refused {
			t.Errorf("a second time: %v", err)
		}
	})
}

// Two restores into one directory: the second does not disturb the first, nor
// what the first has ended with meanwhile.
func TestTwoRestores(t *testing.T) {
	w := newWorld(t)
	w.make()
	data := filepath.Join(t.TempDir(), "data")
	w.reading(func(d *Dir) {
		m, err := d.Find("")
		must(t, err)
		second := Restore{Data: data, Finish: func(context.Context) error { return errors.New("the second was let in") }}
		first := Restore{Data: data, Finish: func(context.Context) error {
			if err := d.Restore(t.Context(), m, databaseName, second, new(tape)); release.CodeOf(err) != release.Locked {
				t.Errorf("during the first: %v", err)
			}
			return nil
		}}
		must(t, d.Restore(t.Context(), m, databaseName, first, new(tape)))
		before := tree(t, data)
		if _, err := begin(data); release.CodeOf(err) != release.Refused || !maps.Equal(before, tree(t, data)) {
			t.Errorf("after the first: %v", err)
		}
		if err := clear(data); release.CodeOf(err) != release.Refused || !maps.Equal(before, tree(t, data)) {
			t.Errorf("after the first, and the second waited for its lock: %v", err)
		}
	})
}

// A manifest may come from anywhere: it cannot make a restore write elsewhere.
func TestRestoreStaysInside(t *testing.T) {
	w := newWorld(t)
	w.make()
	w.reading(func(d *Dir) {
		whole, err := d.Find("")
		must(t, err)
		for _, path := range []string{"lock", "run/repo-manager.sock", "etc/passwd", Unfinished, "keys", "repo-manager.db-wal"} {
			m := whole
			m.Files = append([]File{{Path: path}}, whole.Files...)
			data := filepath.Join(t.TempDir(), "data")
			err := d.Restore(t.Context(), m, databaseName, Restore{Data: data}, new(tape))
			if err == nil || !strings.Contains(err.Error(), "no file of a data directory") {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
}
