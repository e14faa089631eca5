package mirror

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

	"aptfleet/internal/sign"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// now is when all tests happen that have no reason to ask the clock.
var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// archive is a small upstream with one suite. Its files are made when publish
// is called and can be spoiled afterwards.
type archive struct {
	t     *testing.T
	suite string
	key   *sign.Key
	date  time.Time
	head  string                 // further lines of Release
	leave func(file string) bool // nil: the archive has every file
	debs  map[string]string      // stanzas without Filename, Size and SHA256, by architecture: "amd64" → …

	mu       sync.Mutex
	files    map[string][]byte
	requests []string                                          // "GET path" or "GET path from N"
	serve    func(w http.ResponseWriter, r *http.Request) bool // handles a request, or not
	server   *httptest.Server
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	key, err := sign.Generate("Upstream", "upstream@archive.example", now.Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{t: t, suite: "trixie", key: key, date: now.Add(-time.Minute), debs: map[string]string{"amd64": base}}
	a.server = httptest.NewServer(a)
	t.Cleanup(a.server.Close)
	a.publish()
	return a
}

// base is what every device has, and a little more.
const base = `Package: libc
Version: 2.41-1
Architecture: amd64
Priority: optional

Package: base-files
Version: 13
Architecture: amd64
Essential: yes
Priority: required
Depends: awk
Description: Debian base system
Description-md5: 0123456789abcdef0123456789abcdef

Package: gawk
Version: 1:5
Architecture: amd64
Provides: awk
Depends: libc (>= 2.41)

Package: mawk
Version: 1.3
Architecture: amd64
Priority: required
Provides: awk
Pre-Depends: libc:any

Package: apt
Version: 3.0
Architecture: amd64
Depends: libc

Package: hello
Version: 2.10-3
Architecture: amd64
Depends: libc, hello-data (= 2.10-3)
Recommends: gawk

Package: hello-data
Version: 2.10-3
Architecture: all

Package: unrelated
Version: 1
Architecture: amd64
`

// content makes up the bytes of a .deb.
func content(name string) []byte {
	return bytes.Repeat([]byte(name+" "), 40_000)
}

// publish writes all files anew, the Release last.
func (a *archive) publish() {
	a.t.Helper()
	files := map[string][]byte{}
	var listing strings.Builder
	for architecture, stanzas := range a.debs {
		var packages strings.Builder
		for _, stanza := range strings.Split(strings.TrimSpace(stanzas), "\n\n") {
			fields := map[string]string{}
			for line := range strings.Lines(stanza) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				fields[name] = value
			}
			body := content(cmp.Or(fields["Content"], fields["Package"]))
			file := "pool/main/" + fields["Package"] + "_" + fields["Version"] + ".deb"
			if elsewhere := fields["At"]; elsewhere != "" {
				file = elsewhere
			}
			if foreign := fields["Architecture"]; foreign == "arm64" {
				body, file = append(body, foreign...), "pool/arm64/"+fields["Package"]+".deb"
			}
			files[file] = body
			fmt.Fprintf(&packages, "%s\nFilename: %s\nSize: %d\nMD5sum: %s\nSHA1: %s\nSHA256: %x\n\n",
				strings.TrimSpace(stanza), file, len(body), strings.Repeat("0", 32), strings.Repeat("0", 40), sha256.Sum256(body))
		}
		dir := "main/binary-" + architecture + "/"
		for ending, body := range map[string][]byte{
			"": []byte(packages.String()), ".gz": gz(a.t, packages.String()), ".xz": toXZ(a.t, packages.String()),
		} {
			if a.leave != nil && !a.leave(dir+"Packages"+ending) {
				continue
			}
			fmt.Fprintf(&listing, " %x %8d %sPackages%s\n", sha256.Sum256(body), len(body), dir, ending)
			files["dists/"+a.suite+"/"+dir+"Packages"+ending] = body
			if name := fmt.Sprintf("dists/%s/%sby-hash/SHA256/%x", a.suite, dir, sha256.Sum256(body)); a.leave == nil || a.leave(name) {
				files[name] = body
			}
		}
	}
	text := "Origin: Upstream\nSuite: stable\nCodename: " + a.suite + "\n" +
		"Date: " + a.date.Format("Mon, 02 Jan 2006 15:04:05") + " UTC\n" +
		"Acquire-By-Hash: yes\n" + a.head + "SHA256:\n" + listing.String()
	a.mu.Lock()
	defer a.mu.Unlock()
	files["dists/"+a.suite+"/InRelease"] = a.sign(text)
	a.files = files
}

func (a *archive) sign(text string) []byte {
	a.t.Helper()
	signed, err := a.key.ClearSign([]byte(text), now.Add(-time.Minute))
	if err != nil {
		a.t.Fatal(err)
	}
	return signed
}

// spoil replaces the content of every file whose path ends in suffix.
func (a *archive) spoil(suffix string, with func([]byte) []byte) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for name, body := range a.files {
		if strings.HasSuffix(name, suffix) {
			a.files[name] = with(slices.Clone(body))
			n++
		}
	}
	if n == 0 {
		a.t.Fatalf("there is no %s to spoil", suffix)
	}
}

// index returns the by-hash path of the index that an update reads.
func (a *archive) index(ending string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return fmt.Sprintf("by-hash/SHA256/%x", sha256.Sum256(a.files["dists/"+a.suite+"/main/binary-amd64/Packages"+ending]))
}

func (a *archive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/debian/")
	a.mu.Lock()
	entry := name
	if from := r.Header.Get("Range"); from != "" {
		entry += " from " + strings.Trim(from, "bytes=-")
	}
	a.requests = append(a.requests, entry)
	body, ok := a.files[name]
	serve := a.serve
	a.mu.Unlock()
	switch {
	case serve != nil && serve(w, r):
	case !ok:
		http.NotFound(w, r)
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	}
}

func (a *archive) seen() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

func (a *archive) config(wanted ...string) release.MirrorConfig {
	a.t.Helper()
	keyring, err := a.key.CertificateBinary()
	if err != nil {
		a.t.Fatal(err)
	}
	return release.MirrorConfig{
		Suites:   []release.MirrorSuite{{URL: a.server.URL + "/debian", Suite: a.suite, Components: []string{"main"}, Keyring: keyring}},
		Packages: wanted,
	}
}

// both is a mirror of the suites of two archives.
func both(a, b *archive, wanted ...string) release.MirrorConfig {
	config := a.config(wanted...)
	config.Suites = append(config.Suites, b.config().Suites...)
	return config
}

func gz(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func toXZ(t *testing.T, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// fakeEngine takes what an update hands over: it has the states of one pipeline
// with the mirror "debian", and is the pool.
type fakeEngine struct {
	Engine
	t        *testing.T
	chunks   snapshots.Memory
	head     snapshots.State
	replaced int
	packages []snapshots.Package
	files    []release.File
	pool     map[[32]byte]bool
	fails    error                  // what the next replacement does
	vanish   func(try int) [32]byte // if set, what a gc took meanwhile; the zero hash: nothing
}

func (e *fakeEngine) ReplaceMirror(ctx context.Context, _ release.Actor, _, component string, packages []snapshots.Package, files []release.File) (snapshots.ID, error) {
	if err := e.fails; err != nil {
		e.fails = nil
		return snapshots.ID{}, err
	}
	e.replaced++
	if e.vanish != nil {
		if sum := e.vanish(e.replaced); sum != [32]byte{} {
			delete(e.pool, sum)
			return snapshots.ID{}, &release.Error{Code: release.Conflict, Text: "cannot replace mirror debian", Err: release.ErrVanished}
		}
	}
	edit := snapshots.Edit{Component: component, Put: packages}
	for _, p := range e.packages {
		edit.Remove = append(edit.Remove, p.Ref())
	}
	var err error
	if e.head, err = snapshots.Apply(ctx, &e.chunks, e.head, edit); err != nil {
		e.t.Error(err)
	}
	e.packages, e.files = packages, files
	for _, f := range files {
		e.pool[f.SHA256] = true
	}
	return e.head.ID(), nil
}

func (e *fakeEngine) Head(context.Context, string) (snapshots.State, error) { return e.head, nil }

func (e *fakeEngine) Has(sum [32]byte, _ string) bool { return e.pool[sum] }

// fakeProgress counts.
type fakeProgress struct {
	mu          sync.Mutex
	total, done int64
	unit        string
	log         []string
	added       func(done int64) // called on each step, if set
}

func (p *fakeProgress) Total(n int64, unit string) { p.total, p.unit = n, unit }

func (p *fakeProgress) Add(n int64) {
	p.mu.Lock()
	p.done += n
	done := p.done
	p.mu.Unlock()
	if p.added != nil {
		p.added(done)
	}
}

func (p *fakeProgress) Logf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = append(p.log, fmt.Sprintf(format, args...))
}

// rig is an updater for one archive.
type rig struct {
	archive  *archive
	engine   *fakeEngine
	updater  *Updater
	pipeline release.Pipeline
	dir      string
}

func newRig(t *testing.T, a *archive) *rig {
	t.Helper()
	return newRigFor(t, a, "amd64")
}

func newRigFor(t *testing.T, a *archive, architectures ...string) *rig {
	t.Helper()
	r := &rig{
		archive:  a,
		engine:   &fakeEngine{t: t, pool: map[[32]byte]bool{}},
		pipeline: release.Pipeline{Name: "demo", Distribution: "trixie", Architectures: architectures},
		dir:      t.TempDir(),
	}
	var keys []snapshots.Key
	for _, architecture := range architectures {
		keys = append(keys, snapshots.Key{Component: "debian", Architecture: architecture})
	}
	var err error
	if r.engine.head, err = snapshots.New(t.Context(), &r.engine.chunks, keys); err != nil {
		t.Fatal(err)
	}
	config := Config{Engine: r.engine, Chunks: &r.engine.chunks, Pool: r.engine, Dir: r.dir}
	if a != nil {
		config.Client, config.Pause = a.server.Client(), time.Millisecond
		config.Clock = func() time.Time { return now }
	}
	r.updater = New(config)
	return r
}

func (r *rig) update(ctx context.Context, config release.MirrorConfig, progress Progress) error {
	return r.updateWith(ctx, config, Options{}, progress)
}

func (r *rig) updateWith(ctx context.Context, config release.MirrorConfig, options Options, progress Progress) error {
	return r.updater.run(ctx, release.Actor{Name: "alice"}, r.pipeline, "debian", config, options, progress)
}

// accepted is where the InRelease of an archive is kept, below dir.
func (r *rig) accepted(a *archive) string {
	path, err := filepath.Rel(r.dir, r.updater.memory("demo", "debian").accepted(a.config().Suites[0]))
	if err != nil {
		a.t.Fatal(err)
	}
	return path
}

// names of the packages that the engine was given.
func (r *rig) names() string {
	var names []string
	for _, p := range r.engine.packages {
		names = append(names, p.Name)
	}
	return strings.Join(names, " ")
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }
