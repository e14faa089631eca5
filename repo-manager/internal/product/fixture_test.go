package product_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
	"aptfleet/snapshots"
)

var (
	noon  = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	actor = release.Actor{Name: "ann", Via: "socket"}
	demo  = release.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"amd64", "arm64"}, Stages: []string{"dev"}, Created: noon}
)

// world is a service with real apt, its stores in memory and its files in a
// directory.
type world struct {
	*product.Service
	t      testing.TB
	store  *storetest.Memory
	chunks *chunks
	data   string
	kept   []snapshots.ID // states of the pipeline
	inUse  int
	limit  time.Duration
	looked atomic.Int64        // at the clock
	files  map[[32]byte][]byte // the pool

	mu     sync.Mutex
	events []product.Event
	stop   func()
}

// chunks can lose everything, as after a gc.
type chunks struct {
	snapshots.Memory
	gone bool
}

func (c *chunks) Get(ctx context.Context, id snapshots.ID) ([]byte, error) {
	if c.gone {
		return nil, snapshots.NotFound(id)
	}
	return c.Memory.Get(ctx, id)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, store: new(storetest.Memory), chunks: new(chunks), data: t.TempDir(), files: make(map[[32]byte][]byte)}
	must(t, w.store.Commit(t.Context(), release.Batch{Pipelines: []release.Pipeline{demo}}))
	must(t, os.MkdirAll(filepath.Join(w.data, "public", "demo"), 0o755))
	w.open()
	return w
}

// open is a start of the server; questions wait until run.
func (w *world) open() {
	w.t.Helper()
	service, err := product.Open(w.t.Context(), product.Config{
		Store: w.store, Chunks: w.chunks, Dir: filepath.Join(w.data, "solve"), Public: filepath.Join(w.data, "public"), Timeout: w.limit,
		Pipeline: func(_ context.Context, name string) (release.Pipeline, error) {
			if name != demo.Name {
				return release.Pipeline{}, &release.Error{Code: release.NotFound, Text: "cannot find pipeline " + name}
			}
			return demo, nil
		},
		States: func(context.Context, string) ([]snapshots.ID, error) { return w.kept, nil },
		Package: func(sum [32]byte, _ string) (io.ReadCloser, error) {
			if content, ok := w.files[sum]; ok {
				return io.NopCloser(bytes.NewReader(content)), nil
			}
			return nil, fs.ErrNotExist
		},
		InUse:    func(string, string) int { return w.inUse },
		Announce: func(string, string, string) {},
		Clock: func() time.Time {
			w.looked.Add(1)
			return time.Now()
		},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	must(w.t, err)
	service.OnAnswer(func(e product.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, e)
	})
	w.Service = service
}

// run answers questions until halt or the end of the test.
func (w *world) run() *world {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(w.stop)
	return w
}

// told returns what was told so far.
func (w *world) told() []product.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]product.Event(nil), w.events...)
}

// until waits for a condition that comes true by itself.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

// pkg is a package of a state: "name version [arch]" and more control fields.
type pkg struct{ ref, fields string }

// stanza is the package's paragraph in Packages.
func (p pkg) stanza() string {
	words := strings.Fields(p.ref + " amd64")
	sum := sha256.Sum256([]byte(p.ref + p.fields))
	return fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Ann Other <ann@aptfleet.example>\nInstalled-Size: 10\nDescription: x\n%sFilename: pool/%x/%x/%s\nSize: 1000\nSHA256: %x\n",
		words[0], words[1], words[2], p.fields, sum[:1], sum, deb.FileName(words[0], words[1], words[2]), sum)
}

// state makes a state whose component apps has these packages.
func (w *world) state(packages ...pkg) snapshots.ID {
	w.t.Helper()
	var put []snapshots.Package
	for _, p := range packages {
		one, err := snapshots.ParsePackage([]byte(p.stanza()))
		must(w.t, err)
		put = append(put, one)
	}
	return w.stateOf(put)
}

func (w *world) stateOf(packages []snapshots.Package) snapshots.ID {
	w.t.Helper()
	ctx := w.t.Context()
	var keys []snapshots.Key
	for _, c := range []string{"apps", "debian"} {
		for _, a := range demo.Architectures {
			keys = append(keys, snapshots.Key{Component: c, Architecture: a})
		}
	}
	s, err := snapshots.New(ctx, w.chunks, keys)
	must(w.t, err)
	s, err = snapshots.Apply(ctx, w.chunks, s, snapshots.Edit{Component: "apps", Put: packages})
	must(w.t, err)
	w.kept = append(w.kept, s.ID())
	return s.ID()
}

// create defines a product.
func (w *world) create(p product.Product) product.Product {
	w.t.Helper()
	p.Pipeline = "demo"
	if p.Architecture == "" {
		p.Architecture = "amd64"
	}
	made, err := w.Create(w.t.Context(), actor, p)
	must(w.t, err)
	return made
}

func (w *world) bom(name string, state snapshots.ID, modules ...string) product.Bill {
	w.t.Helper()
	b, err := w.BOM(w.t.Context(), "demo", name, modules, state)
	must(w.t, err)
	return b
}

// lines are the packages of a bill with their reasons.
func lines(b product.Bill) string {
	var all []string
	for i, p := range b.Packages {
		all = append(all, p.String()+" "+b.Details[i].Reason.String())
	}
	return strings.Join(all, "\n")
}

// bill is where a bill is published.
func (w *world) bill(sha256 string) string { return filepath.Join(w.data, "public/demo/boms", sha256) }

// wrap puts a program called apt-get in front of the real one, which it finds as
// $REAL, and returns a directory that it may use as $DIR.
func (w *world) wrap(script string) string {
	w.t.Helper()
	real, err := exec.LookPath("apt-get")
	must(w.t, err)
	dir := w.t.TempDir()
	text := "#!/bin/sh\nREAL=" + real + "\nDIR=" + dir + "\n" + script + "\nexec $REAL \"$@\"\n"
	must(w.t, os.WriteFile(filepath.Join(dir, "apt-get"), []byte(text), 0o755))
	if t, ok := w.t.(*testing.T); ok {
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	}
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
