package backup

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/blobs"
	"aptfleet/repo-manager/internal/frame"
	"aptfleet/repo-manager/internal/pool"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

const databaseName = "repo-manager.db"

// world is a data directory with a database that only looks like one.
type world struct {
	t      testing.TB
	data   string
	dir    string // for backups
	blobs  *blobs.Store
	pool   *pool.Pool
	clock  time.Time
	pages  []byte // of the database
	files  []release.File
	states []snapshots.ID
	head   snapshots.State
	stages []Stage
	still  bool
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, data: filepath.Join(t.TempDir(), "data"), dir: filepath.Join(t.TempDir(), "backup"), clock: noon}
	var err error
	w.blobs, err = blobs.Open(filepath.Join(w.data, "blobs"))
	must(t, err)
	w.pool, err = pool.New(filepath.Join(w.data, "public"))
	must(t, err)
	w.head, err = snapshots.New(t.Context(), w.blobs, []snapshots.Key{{Component: "apps", Architecture: "amd64"}})
	must(t, err)
	w.states = append(w.states, w.head.ID())
	w.pages = make([]byte, 5*pieceSize+100)
	for i := range w.pages {
		w.pages[i] = byte(i / pieceSize)
	}
	w.write("keys/archive.key", "private")
	w.write("keys/archive.asc", "public")
	w.write("mirrors/demo/debian/InRelease-trixie-0123456789abcdef", "accepted")
	w.write("mirrors/demo/debian/InRelease-trixie-updates-0123456789abcdef", "accepted, too")
	w.write("mirrors/demo/old/InRelease", "accepted while mirrors had one suite")
	w.write("mirrors/demo/debian/packages/part", "a download")
	w.stages = []Stage{{"demo", "trixie", "dev"}, {"demo", "trixie", "canary"}}
	for _, name := range []string{"Release", "InRelease", "Release.gpg"} {
		w.write("public/demo/dev/dists/trixie/"+name, "signed "+name)
	}
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) path(name string) string { return filepath.Join(w.data, name) }

func (w *world) write(name, text string) {
	w.t.Helper()
	must(w.t, os.MkdirAll(filepath.Dir(w.path(name)), 0o755))
	must(w.t, os.WriteFile(w.path(name), []byte(text), 0o600))
}

// add puts packages into the pool and makes a state of all so far.
func (w *world) add(names ...string) {
	w.t.Helper()
	edit := snapshots.Edit{Component: "apps"}
	for _, name := range names {
		body := []byte("the bytes of " + name)
		sum := sha256.Sum256(body)
		file := release.File{SHA256: sum, Name: deb.FileName(name, "1.0", "amd64"), Size: int64(len(body))}
		tmp := filepath.Join(w.data, "incoming")
		must(w.t, os.WriteFile(tmp, body, 0o600))
		_, err := w.pool.Put(tmp, sum, file.Name)
		must(w.t, err)
		w.files = append(w.files, file)
		p, err := snapshots.ParsePackage(fmt.Appendf(nil, "Package: %s\nVersion: 1.0\nArchitecture: amd64\nFilename: %s\nSize: %d\nSHA256: %x\n",
			name, publish.PoolFilename(sum, file.Name), file.Size, sum))
		must(w.t, err)
		edit.Put = append(edit.Put, p)
	}
	head, err := snapshots.Apply(w.t.Context(), w.blobs, w.head, edit)
	must(w.t, err)
	w.head = head
	w.states = append(w.states, head.ID())
	for _, key := range head.Keys() {
		for _, chunk := range head.Index(key).Chunks {
			for _, as := range frame.Encodings {
				_, err := w.blobs.AppendFrame(w.t.Context(), nil, chunk.ID, as)
				must(w.t, err)
			}
		}
	}
}

func (w *world) source() Source {
	return Source{
		Data: w.data, File: databaseName, Database: w, Chunks: w.blobs, Key: "F00D", Program: "test",
		Clock: func() time.Time { return w.clock },
		Still: func(ctx context.Context, f func(context.Context) error) error {
			w.still = true
			defer func() { w.still = false }()
			return f(ctx)
		},
	}
}

// Snapshot implements Database.
func (w *world) Snapshot(context.Context) (Snapshot, error) {
	if !w.still {
		return nil, errors.New("the database is read while acts go on")
	}
	return w, nil
}
func (w *world) CopyTo(_ context.Context, path string) error {
	return os.WriteFile(path, w.pages, 0o600)
}
func (w *world) Files(context.Context) ([]release.File, error)  { return w.files, nil }
func (w *world) States(context.Context) ([]snapshots.ID, error) { return w.states, nil }
func (w *world) Stages(context.Context) ([]Stage, error)        { return w.stages, nil }
func (w *world) Close() error                                   { return nil }

// tape is a progress that remembers.
type tape struct {
	mu    sync.Mutex
	total int64
	done  int64
	lines []string
}

func (p *tape) Total(n int64, _ string) { p.total = n }
func (p *tape) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
}
func (p *tape) Logf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, fmt.Sprintf(format, args...))
}

func (w *world) make() Made {
	w.t.Helper()
	p := new(tape)
	made, err := Make(w.t.Context(), w.source(), Request{Dir: w.dir, By: "ann", Change: 7}, p)
	must(w.t, err)
	if p.done != p.total && len(made.Lost) == 0 {
		w.t.Errorf("progress ended at %d of %d", p.done, p.total)
	}
	if left, err := fs.Glob(os.DirFS(w.dir), ".tmp/*"); err != nil || len(left) > 0 {
		w.t.Errorf("left: %v, %v", left, err)
	}
	return made
}

// reading calls f with the backup directory.
func (w *world) reading(f func(d *Dir)) {
	w.t.Helper()
	d, err := Open(w.dir)
	must(w.t, err)
	f(d)
	must(w.t, d.Close())
}

// verify returns what is bad in the backup directory.
func (w *world) verify() []Finding {
	w.t.Helper()
	var report Report
	w.reading(func(d *Dir) {
		var err error
		report, err = d.Verify(w.t.Context(), "", new(tape))
		must(w.t, err)
	})
	return report.Findings
}

// restore brings a backup back and returns its directory.
func (w *world) restore(id string) (data string, err error) {
	w.t.Helper()
	data = filepath.Join(w.t.TempDir(), "restored")
	w.reading(func(d *Dir) {
		var m Manifest
		if m, err = d.Find(id); err != nil {
			return
		}
		err = d.Restore(w.t.Context(), m, databaseName, Restore{Data: data, Finish: func(context.Context) error { return nil }}, new(tape))
	})
	return data, err
}

// tree reads all files below a directory, with mode and time.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	must(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		all[name] = fmt.Sprintf("%s %d %s", info.Mode(), info.ModTime().UnixNano(), data)
		return err
	}))
	return all
}
