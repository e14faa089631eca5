package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
	"aptfleet/internal/sign"
	"aptfleet/repo-manager/internal/blobs"
	"aptfleet/repo-manager/internal/pool"
	"aptfleet/snapshots"
)

// start is the time at which every test begins, a little in the past: apt
// holds Date against the real clock.
var start = time.Now().Add(-time.Hour).UTC().Truncate(time.Second)

// fixture is a published tree with its clock.
type fixture struct {
	t      testing.TB
	data   string // DATA
	public string
	store  *blobs.Store
	pool   *pool.Pool
	key    *sign.Key
	now    time.Time
	*Publisher
}

var demo = Base{Pipeline: "demo", Distribution: "trixie", Architectures: []string{"amd64", "arm64"}, Components: []string{"apps", "base"}}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	key, err := sign.Generate("Aptfleet test", "archive@example.org", start.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	f := &fixture{t: t, data: data, public: filepath.Join(data, "public"), key: key, now: start}
	f.reopen()
	return f
}

// reopen is a restart of the server.
func (f *fixture) reopen() {
	f.t.Helper()
	var err error
	if f.store, err = blobs.Open(filepath.Join(f.data, "blobs")); err != nil {
		f.t.Fatal(err)
	}
	if f.pool, err = pool.New(f.public); err != nil {
		f.t.Fatal(err)
	}
	f.Publisher, err = New(Config{Public: f.public, Blobs: f.store, Signer: f.key, Now: func() time.Time { return f.now }})
	if err != nil {
		f.t.Fatal(err)
	}
}

// debFile makes a small .deb with real content.
func debFile(t testing.TB, name, version, arch string, extra ...string) []byte {
	t.Helper()
	control, err := deb.ParseStanza(fmt.Appendf(nil, "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Tests <tests@example.org>\nDescription: made for a test\n%s",
		name, version, arch, strings.Join(extra, "")))
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	if err := debwriter.Write(&file, debwriter.Spec{Control: control, ModTime: start}); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// add puts a .deb into the pool and returns its package.
func (f *fixture) add(name, version, arch string, extra ...string) snapshots.Package {
	f.t.Helper()
	content := debFile(f.t, name, version, arch, extra...)
	read, err := deb.Read(bytes.NewReader(content), deb.Limits{})
	if err != nil {
		f.t.Fatal(err)
	}
	tmp := filepath.Join(f.t.TempDir(), "upload")
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		f.t.Fatal(err)
	}
	file := deb.FileName(name, version, arch)
	if _, err := f.pool.Put(tmp, read.SHA256, file); err != nil {
		f.t.Fatal(err)
	}
	p, err := snapshots.ParsePackage(deb.Index(read, PoolFilename(read.SHA256, file)))
	if err != nil {
		f.t.Fatal(err)
	}
	return p
}

// described makes the entry of a package without a file in the pool.
func described(t testing.TB, name, version, arch string) snapshots.Package {
	t.Helper()
	sum := sha256.Sum256([]byte(name + version + arch))
	p, err := snapshots.ParsePackage(fmt.Appendf(nil, "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Tests <tests@example.org>\nInstalled-Size: 100\nDepends: libc6 (>= 2.36)\nDescription: made for a test, number %x\nFilename: %s\nSize: 1000\nSHA256: %x\n",
		name, version, arch, sum, PoolFilename(sum, deb.FileName(name, version, arch)), sum))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// state returns the state with these packages of the component apps.
func (f *fixture) state(packages ...snapshots.Package) snapshots.State {
	f.t.Helper()
	ctx := context.Background()
	s, err := snapshots.New(ctx, f.store, demo.keys())
	if err == nil {
		s, err = snapshots.Apply(ctx, f.store, s, snapshots.Edit{Component: "apps", Put: packages})
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

// many returns n described packages: enough make several chunks.
func many(t testing.TB, n int) []snapshots.Package {
	packages := make([]snapshots.Package, n)
	for i := range packages {
		packages[i] = described(t, fmt.Sprintf("filler%05d", i), "1.0-1", "amd64")
	}
	return packages
}

// Stage publishes a stage.
func (f *fixture) Stage(ctx context.Context, base Base, stage string, state snapshots.State, meta Meta) error {
	return f.Publish(ctx, Update{Base: base, Dir: stage, State: state, Meta: meta})
}

// Fixed publishes a fixed base.
func (f *fixture) Fixed(ctx context.Context, base Base, dir string, state snapshots.State, signed Signed) error {
	return f.Publish(ctx, Update{Base: base, Dir: dir, State: state, Signed: &signed})
}

// offer publishes state as stage dev, one second after the last time.
func (f *fixture) offer(state snapshots.State) {
	f.t.Helper()
	f.now = f.now.Add(time.Second)
	if err := f.Stage(context.Background(), demo, "dev", state, Meta{Date: f.now}); err != nil {
		f.t.Fatal(err)
	}
}

// fix publishes state as dir and returns what it signed.
func (f *fixture) fix(dir string, state snapshots.State) Signed {
	f.t.Helper()
	ctx := context.Background()
	text, err := f.ReleaseText(ctx, demo, state, Meta{Date: start, Snapshot: strings.TrimPrefix(dir, "snapshots/")})
	if err != nil {
		f.t.Fatal(err)
	}
	signed, err := f.Sign(text)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := f.Fixed(ctx, demo, dir, state, signed); err != nil {
		f.t.Fatal(err)
	}
	return signed
}

const time10s = 10 * time.Second

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// replace puts a new file of these bytes in the place of path: other names of
// the old file keep theirs.
func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// damage flips a bit in the middle of a file.
func damage(t testing.TB, path string) {
	t.Helper()
	data := read(t, path)
	data[len(data)/2] ^= 1
	replace(t, path, data)
}

// edit replaces a word in a file that has it.
func edit(t testing.TB, path, from, to string) {
	t.Helper()
	data := read(t, path)
	if !bytes.Contains(data, []byte(from)) {
		t.Fatalf("%s does not hold %q", path, from)
	}
	replace(t, path, bytes.Replace(data, []byte(from), []byte(to), 1))
}
