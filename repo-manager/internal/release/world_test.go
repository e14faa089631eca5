package release_test

import (
	"bytes"
	"context"
	encoding "encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
	"aptfleet/internal/sign"
	"aptfleet/repo-manager/internal/blobs"
	"aptfleet/repo-manager/internal/incoming"
	"aptfleet/repo-manager/internal/pool"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
	"aptfleet/snapshots"
)

var ann = release.Actor{Name: "ann", Via: "socket"}

// world is an engine on a real tree, with a store in memory. It lives in a
// synctest bubble: waiting takes no time.
type world struct {
	*release.Engine
	t         *testing.T
	dir       string
	store     *storetest.Memory
	key       *sign.Key
	config    release.Config
	publisher *moody
	receiver  *incoming.Receiver
	offset    atomic.Int64 // of the engine's clock, in nanoseconds
	syncs     atomic.Int64 // that were asked for and did not fail
	syncFails atomic.Bool  // the next one does
	closed    bool
	skipClean bool // the test leaves damage
}

// moody is a publisher that can be told to fail.
type moody struct {
	release.Publisher
	fails atomic.Bool
}

func (m *moody) Publish(ctx context.Context, updates ...publish.Update) error {
	if m.fails.Load() {
		return fmt.Errorf("the publisher is in a bad mood")
	}
	return m.Publisher.Publish(ctx, updates...)
}

// inWorld runs a test with a fresh world that has the pipeline demo (amd64,
// arm64) with the repository apps.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: dir, store: new(storetest.Memory)}
		key, err := sign.Generate("test", "", time.Now())
		must(t, err)
		w.key = key
		w.open()
		defer w.close()
		_, err = w.CreatePipeline(t.Context(), ann, release.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"arm64", "amd64"}})
		must(t, err)
		_, err = w.CreateRepository(t.Context(), ann, "demo", "apps", 1)
		must(t, err)
		f(t, w)
		if !w.skipClean {
			w.mustBeClean()
		}
	})
}

// open opens the engine; after close it is a restart.
func (w *world) open() {
	w.t.Helper()
	store, err := blobs.Open(filepath.Join(w.dir, "blobs"))
	must(w.t, err)
	files, err := pool.New(filepath.Join(w.dir, "public"))
	must(w.t, err)
	publisher, err := publish.New(publish.Config{Public: filepath.Join(w.dir, "public"), Blobs: store, Signer: w.key, Now: time.Now})
	must(w.t, err)
	w.publisher = &moody{Publisher: publisher}
	w.receiver, err = incoming.Open(filepath.Join(w.dir, "incoming"), 0, 1)
	must(w.t, err)
	w.config = release.Config{
		Store: w.store, Chunks: store, Blobs: store, Pool: files, Publisher: w.publisher,
		Sync: func() error {
			if w.syncFails.Swap(false) {
				return syscall.EIO
			}
			w.syncs.Add(1)
			return atomicfile.SyncFS(w.dir)
		},
		Intents: filepath.Join(w.dir, "intents"), Aside: filepath.Join(w.dir, "damaged"), Archive: "http://archive.example",
		Clock: func() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) },
		Log:   slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	w.Engine, err = release.Open(w.t.Context(), w.config)
	must(w.t, err)
	w.closed = false
}

func (w *world) close() {
	w.t.Helper()
	if !w.closed {
		w.closed = true
		must(w.t, w.Close())
	}
}

// receive makes a package and takes it in. salt makes its bytes differ.
func (w *world) receive(name, version, architecture, salt string) release.Incoming {
	w.t.Helper()
	control, err := deb.ParseStanza([]byte(fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: T <t@example.com>\nDescription: test\n", name, version, architecture)))
	must(w.t, err)
	var file bytes.Buffer
	must(w.t, debwriter.Write(&file, debwriter.Spec{
		Control: control, ModTime: time.Unix(0, 0), Compression: debwriter.None, TempDir: w.dir,
		Entries: []debwriter.Entry{{Path: "/usr/share/" + name + "/salt", Mode: 0o644, Size: int64(len(salt)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(salt)), nil
		}}},
	}))
	in, err := w.receiver.Receive(context.Background(), &file, name+".deb")
	must(w.t, err)
	return in
}

// add uploads a package whose bytes follow from its name.
func (w *world) add(name, version, architecture string) (release.Upload, error) {
	w.t.Helper()
	return w.addSalted(name, version, architecture, "", false)
}

func (w *world) addSalted(name, version, architecture, salt string, older bool) (release.Upload, error) {
	w.t.Helper()
	in := w.receive(name, version, architecture, salt)
	defer func() { must(w.t, in.Discard()) }()
	return w.Add(w.t.Context(), ann, "demo", "apps", in, older)
}

// list is what a ref holds, as "name version architecture" words.
func (w *world) list(ref string) string {
	w.t.Helper()
	packages, err := w.Packages(w.t.Context(), "demo", ref, release.Filter{})
	must(w.t, err)
	var list []string
	for _, p := range packages {
		list = append(list, p.Name+" "+p.Version+" "+p.Architecture)
	}
	return strings.Join(list, ", ")
}

func (w *world) stage(name string) release.Stage {
	w.t.Helper()
	stages, err := w.Stages(w.t.Context(), "demo")
	must(w.t, err)
	for _, s := range stages {
		if s.Name == name {
			return s
		}
	}
	w.t.Fatalf("no stage %s", name)
	return release.Stage{}
}

// inRelease is the verified text of what a stage's base says, and its date.
func (w *world) inRelease(base string) (text string, date time.Time) {
	w.t.Helper()
	signed, err := os.ReadFile(filepath.Join(w.dir, "public/demo", base, "dists/trixie/InRelease"))
	must(w.t, err)
	certificate, err := w.key.Certificate()
	must(w.t, err)
	raw, _, err := sign.Verify(signed, certificate, time.Now())
	must(w.t, err)
	date, err = time.Parse(time.RFC1123, field(string(raw), "Date"))
	must(w.t, err)
	return string(raw), date
}

// modified is when a stage's InRelease says it was modified.
func (w *world) modified(stage string) time.Time {
	w.t.Helper()
	info, err := os.Stat(filepath.Join(w.dir, "public/demo", stage, "dists/trixie/InRelease"))
	must(w.t, err)
	return info.ModTime()
}

func field(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// mustBeClean fails if the tree is not what the store says, or if a file is
// left where none should be.
func (w *world) mustBeClean() {
	w.t.Helper()
	report, err := w.Check(w.t.Context(), nil)
	must(w.t, err)
	for _, f := range report.Findings {
		w.t.Errorf("check: %s: %s", f.Path, f.Reason)
	}
	left, err := os.ReadDir(filepath.Join(w.dir, "incoming"))
	must(w.t, err)
	if len(left) > 0 {
		w.t.Errorf("%d uploads were left behind", len(left))
	}
	if _, err := os.Stat(w.config.Intents); !os.IsNotExist(err) {
		w.t.Errorf("the intents were left behind (%v)", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantCode fails unless err is for people, has the code and holds each text.
func wantCode(t *testing.T, err error, code release.Code, texts ...string) {
	t.Helper()
	if release.CodeOf(err) != code {
		t.Errorf("error %v, want code %s", err, code)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

// sorted puts the entries of a list in one order.
func sorted(list string) string {
	entries := strings.Split(list, ", ")
	slices.Sort(entries)
	return strings.Join(entries, ", ")
}

func hex(sum [32]byte) string { return encoding.EncodeToString(sum[:]) }

// mirrored is a received package as an updater of mirrors hands it over: in a
// directory with others.
func (w *world) mirrored(in release.Incoming) (snapshots.Package, release.File) {
	w.t.Helper()
	path := filepath.Join(w.dir, hex(in.Package.SHA256))
	must(w.t, os.WriteFile(path, in.Content, 0o600))
	must(w.t, in.Discard())
	f := release.File{
		Path: path, SHA256: in.Package.SHA256, Size: in.Package.Size,
		Name: deb.FileName(in.Package.Name, in.Package.Version, in.Package.Architecture),
	}
	p, err := snapshots.ParsePackage(deb.Index(in.Package, publish.PoolFilename(f.SHA256, f.Name)))
	must(w.t, err)
	return p, f
}
