package publish

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// repair runs Repair as the one who publishes would.
func (c *checked) repair() Report {
	c.t.Helper()
	report, err := c.tryRepair()
	if err != nil {
		c.t.Fatal(err)
	}
	return report
}

func (c *checked) tryRepair() (Report, error) {
	return c.Repair(context.Background(), Repairs{
		Expected: func(context.Context) (Expected, error) { return c.want, nil },
		Alone:    func(ctx context.Context, _ *ExpectedBase, f func(context.Context) error) error { return f(ctx) },
		Restage: func(ctx context.Context, base ExpectedBase) error {
			c.now = c.now.Add(time.Second)
			state, err := snapshots.Load(ctx, c.store, base.State)
			if err != nil {
				return err
			}
			c.want.Bases[0].Meta.Date = c.now
			return c.Stage(ctx, base.Base, base.Dir, state, c.want.Bases[0].Meta)
		},
		Aside: filepath.Join(c.data, "damaged"),
	})
}

// fixed returns every file of the fixed bases.
func (c *checked) fixed() map[string]string {
	all := make(map[string]string)
	for _, dir := range []string{"snapshots", "states"} {
		for name, content := range files(c.t, filepath.Join(c.public, "demo", dir)) {
			all[dir+"/"+name] = content
		}
	}
	return all
}

// flip flips a bit of a file in place: every name of the file sees it.
func flip(t testing.TB, path string) {
	t.Helper()
	data := read(t, path)
	data[len(data)/2] ^= 1
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
}

// The ways in which one file goes bad.
var ways = []struct {
	name   string
	damage func(t testing.TB, path string)
}{
	{"a flipped bit", damage},
	{"missing", func(t testing.TB, path string) { remove(t, path) }},
	{"cut", func(t testing.TB, path string) { replace(t, path, read(t, path)[:len(read(t, path))/2]) }},
	{"a flipped bit in a shared file", flip},
	{"a directory in its place", func(t testing.TB, path string) {
		remove(t, path)
		if err := os.MkdirAll(filepath.Join(path, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}},
}

func (c *checked) stored(suffix string) string {
	return filepath.Join(c.public, IndexKeyOf(c.state.Index(demo.keys()[0])).dir(), "Packages"+suffix)
}

// The files that are derived, and what a repair says that it did.
var derived = []struct {
	name string
	path func(c *checked) string
	did  string
}{
	{"chunk text", func(c *checked) string { return c.store.Path(c.chunk()) }, "made again from its frame"},
	{"gz frame", func(c *checked) string { return c.store.FramePath(c.chunk(), frame.Gzip) }, "with the bytes that the Release of demo/"},
	{"zst frame", func(c *checked) string { return c.store.FramePath(c.chunk(), frame.Zstd) }, "with the bytes that the Release of demo/"},
	{"state text", func(c *checked) string { return c.store.Path(c.state.ID()) }, "from the index files of demo/"},
	{"stored index", func(c *checked) string { return c.stored(".gz") }, "from the frames of its chunks"},
	{"stored index, zst", func(c *checked) string { return c.stored(".zst") }, "from the frames of its chunks"},
	{"by-hash name of a stage", func(c *checked) string { return c.byHash() }, "written again"},
	{"plain name of a stage", func(c *checked) string { return filepath.Join(c.stage, "apps/binary-amd64/Packages.zst") }, "written again"},
	{"index of a snapshot", func(c *checked) string { return filepath.Join(c.snap, "apps/binary-amd64/Packages.gz") }, "written again"},
	{"empty index of a snapshot", func(c *checked) string { return filepath.Join(c.snap, "base/binary-arm64/Packages.zst") }, "written again"},
	{"Release of a snapshot", func(c *checked) string { return filepath.Join(c.snap, "Release") }, "written again"},
	{"InRelease of a snapshot", func(c *checked) string { return filepath.Join(c.snap, "InRelease") }, "written again"},
	{"Release.gpg of a snapshot", func(c *checked) string { return filepath.Join(c.snap, "Release.gpg") }, "written again"},
	{"pool link of a snapshot", func(c *checked) string { return filepath.Join(c.snap, "../../pool") }, "written again"},
	{"Release of a stage", func(c *checked) string { return filepath.Join(c.stage, "Release") }, "signed anew"},
	{"InRelease of a stage", func(c *checked) string { return filepath.Join(c.stage, "InRelease") }, "signed anew"},
	{"Release.gpg of a stage", func(c *checked) string { return filepath.Join(c.stage, "Release.gpg") }, "signed anew"},
	{"pool link of a stage", func(c *checked) string { return filepath.Join(c.stage, "../../pool") }, "written again"},
	{"keyring", func(c *checked) string { return filepath.Join(c.public, "archive-keyring.asc") }, "written again"},
}

// Every derived file × every damage: the check names it, the repair mends it
// and says how, and afterwards all is as it was.
func TestWhatIsDerivedIsRepaired(t *testing.T) {
	for _, kind := range derived {
		for _, way := range ways {
			if strings.HasPrefix(kind.name, "pool link") && way.name != "missing" && !strings.Contains(way.name, "directory") {
				continue // a link has no bytes of its own
			}
			if strings.HasSuffix(way.name, "shared file") && !strings.Contains(kind.name, "index") && !strings.Contains(kind.name, "name of") {
				continue // it has one name: the row "a flipped bit"
			}
			t.Run(kind.name+"/"+way.name, func(t *testing.T) {
				t.Parallel() // they wait for the disk
				c := newChecked(t)
				path := kind.path(c)
				before := c.fixed()
				way.damage(t, path)
				name, err := filepath.Rel(c.data, path)
				if err != nil {
					t.Fatal(err)
				}
				if report := c.check(); !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Path == name }) {
					t.Fatalf("the check does not name %s: %q", name, report.Findings)
				}
				report := c.repair()
				at := slices.IndexFunc(report.Findings, func(f Finding) bool { return f.Path == name })
				if at < 0 || !strings.Contains(report.Findings[at].Repaired, kind.did) {
					t.Errorf("want %s repaired: …%s…; found %+v", name, kind.did, report.Findings)
				}
				for _, f := range report.Findings {
					if f.Repaired == "" || f.Restore != "" {
						t.Errorf("not repaired: %+v", f)
					}
				}
				c.mustBeAsBefore(before)
				if again := c.repair(); len(again.Findings) > 0 {
					t.Errorf("the second repair finds %q", again.Findings)
				}
			})
		}
	}
}

// mustBeAsBefore fails unless a check finds nothing, also after a restart, and
// the fixed bases are the same byte by byte.
func (c *checked) mustBeAsBefore(fixed map[string]string) {
	c.t.Helper()
	for range 2 {
		if report := c.check(); len(report.Findings) > 0 {
			c.t.Errorf("after the repair: %q", report.Findings)
		}
		c.reopen()
	}
	after := c.fixed()
	for name, content := range fixed {
		if after[name] != content {
			c.t.Errorf("%s is another file than before", name)
		}
	}
	if len(after) != len(fixed) {
		c.t.Errorf("the fixed bases have %d files, before %d", len(after), len(fixed))
	}
	c.noTemporaryFiles()
}

// What is lost together, and what is left to make it from.
func TestWhatIsLostTogetherIsRepaired(t *testing.T) {
	all := func(t testing.TB, c *checked, patterns ...string) {
		for _, pattern := range patterns {
			found, err := filepath.Glob(filepath.Join(c.data, pattern))
			if err != nil || len(found) == 0 {
				t.Fatalf("%s: %v, %v", pattern, found, err)
			}
			for _, path := range found {
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	rows := []struct {
		name   string
		damage func(t testing.TB, c *checked)
	}{
		{"all frames", func(t testing.TB, c *checked) { all(t, c, "blobs/??/*.gz", "blobs/??/*.zst") }},
		{"all blobs", func(t testing.TB, c *checked) { all(t, c, "blobs/??") }},
		{"all blobs and all files in .zst", func(t testing.TB, c *checked) {
			all(t, c, "blobs/??")
			for name := range files(t, c.public) {
				if strings.HasSuffix(name, ".zst") {
					remove(t, filepath.Join(c.public, name))
				}
			}
		}},
		{"all stored index files", func(t testing.TB, c *checked) { all(t, c, "public/.indices/*/*/Packages.*") }},
		{"all stored indices, in place", func(t testing.TB, c *checked) {
			for name := range files(t, filepath.Join(c.public, ".indices")) {
				if strings.Contains(name, "/Packages.") {
					flip(t, filepath.Join(c.public, ".indices", name))
				}
			}
		}},
		{"the whole tree but the pool", func(t testing.TB, c *checked) {
			all(t, c, "public/demo", "public/.indices/*", "public/archive-keyring.asc")
		}},
		{"all frames and the whole tree but the pool", func(t testing.TB, c *checked) {
			all(t, c, "public/demo", "public/.indices/*", "blobs/??/*.gz", "blobs/??/*.zst")
		}},
		{"the texts and frames of all chunks, and every index but a snapshot's", func(t testing.TB, c *checked) {
			for name := range files(t, filepath.Join(c.data, "blobs")) {
				if id, err := snapshots.ParseID(filepath.Base(name)); err != nil || id != c.state.ID() && id != c.want.Bases[2].State {
					remove(t, filepath.Join(c.data, "blobs", name))
				}
			}
			all(t, c, "public/demo/dev/dists/*/apps", "public/.indices/*")
		}},
		{"links to the pool that lead elsewhere", func(t testing.TB, c *checked) {
			for _, base := range []string{c.stage, c.snap} {
				link := filepath.Join(base, "../../pool")
				remove(t, link)
				if err := os.Symlink("/tmp", link); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"all signed files of the stage", func(t testing.TB, c *checked) { all(t, c, "public/demo/dev/dists/trixie/*Release*") }},
		{"the state's text and all signed files of the stage", func(t testing.TB, c *checked) {
			remove(t, c.store.Path(c.state.ID()))
			all(t, c, "public/demo/dev/dists/trixie/*Release*")
		}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newChecked(t)
			before := c.fixed()
			row.damage(t, c)
			if report := c.check(); len(report.Findings) == 0 {
				t.Fatal("the check finds nothing")
			}
			for _, f := range c.repair().Findings {
				if f.Repaired == "" {
					t.Errorf("not repaired: %+v", f)
				}
			}
			c.mustBeAsBefore(before)
		})
	}
}

// Rows of what a repair cannot make, or may not remove: what it says, and that
// nothing else remains.
func TestWhatMustBeRestoredIsSaid(t *testing.T) {
	other := func(t testing.TB, c *checked) []byte { // another frame of the same chunk
		text, err := c.store.Get(t.Context(), c.chunk())
		if err != nil {
			t.Fatal(err)
		}
		var made bytes.Buffer
		w, err := gzip.NewWriterLevel(&made, gzip.NoCompression)
		if err == nil {
			_, err = w.Write(text)
		}
		if err := errors.Join(err, w.Close()); err != nil {
			t.Fatal(err)
		}
		return made.Bytes()
	}
	rows := []struct {
		name    string
		damage  func(t testing.TB, c *checked) (path string)
		restore string // "" if it is repaired
		aside   bool
	}{
		{"a damaged pool file", func(t testing.TB, c *checked) string {
			flip(t, filepath.Join(c.public, c.tool.Filename))
			return filepath.Join(c.public, c.tool.Filename)
		}, "repo-manager package restore FILE, where FILE is tool_1_amd64.deb of ", true},
		{"a missing pool file", func(t testing.TB, c *checked) string {
			remove(t, filepath.Join(c.public, c.tool.Filename))
			return filepath.Join(c.public, c.tool.Filename)
		}, "repo-manager package restore FILE", false},
		{"a short pool file", func(t testing.TB, c *checked) string {
			replace(t, filepath.Join(c.public, c.tool.Filename), []byte("!<arch>"))
			return filepath.Join(c.public, c.tool.Filename)
		}, "repo-manager package restore FILE", true},
		{"a link instead of a pool file", func(t testing.TB, c *checked) string {
			path := filepath.Join(c.public, c.tool.Filename)
			remove(t, path)
			if err := os.Symlink("/etc/hostname", path); err != nil {
				t.Fatal(err)
			}
			return path
		}, "repo-manager package restore FILE", true},
		{"a file in the pool that is not what its directory says", func(t testing.TB, c *checked) string {
			path := filepath.Join(c.public, filepath.Dir(c.tool.Filename), "evil_1_amd64.deb")
			write(t, path, []byte("evil"))
			return path
		}, "", true},
		{"a whole package that nothing needs", func(t testing.TB, c *checked) string {
			return filepath.Join(c.public, c.add("stranger", "1", "amd64").Filename)
		}, "nothing needs it", false},
		{"a file in a snapshot", func(t testing.TB, c *checked) string {
			path := filepath.Join(c.snap, "apps/binary-amd64/by-hash/SHA256", strings.Repeat("0", 64))
			write(t, path, []byte("x"))
			return path
		}, "", true},
		{"a file in a stage", func(t testing.TB, c *checked) string {
			path := filepath.Join(c.stage, "apps/binary-amd64/Packages.xz")
			write(t, path, []byte("x"))
			return path
		}, "", true},
		{"a superseded index with other bytes", func(t testing.TB, c *checked) string {
			path := filepath.Join(filepath.Dir(c.byHash()), strings.Repeat("0", 64))
			write(t, path, []byte("x"))
			return path
		}, "", true},
		{"a file of a stranger", func(t testing.TB, c *checked) string {
			path := filepath.Join(c.public, "robots.txt")
			write(t, path, []byte("x"))
			return path
		}, "nothing of the archive needs it", false},
		{"no blob", func(t testing.TB, c *checked) string {
			path := filepath.Join(c.data, "blobs/notes.txt")
			write(t, path, []byte("x"))
			return path
		}, "nothing of the archive needs it", false},
		{"a chunk without frames and index files", func(t testing.TB, c *checked) string {
			for _, path := range []string{c.store.Path(c.chunk()), c.store.FramePath(c.chunk(), frame.Gzip), c.store.FramePath(c.chunk(), frame.Zstd)} {
				remove(t, path)
			}
			for name := range files(t, c.public) {
				if isIndex(name) {
					flip(t, filepath.Join(c.public, name))
				}
			}
			return c.store.Path(c.chunk())
		}, "restore this file, or one of the same name with .gz or .zst, from a backup", false},
		{"a frame that comes back with other bytes", func(t testing.TB, c *checked) string {
			c.foreign(other(t, c))
			path := c.store.FramePath(c.chunk(), frame.Gzip)
			remove(t, path)
			for name := range files(t, c.public) {
				if isIndex(name) && strings.HasSuffix(name, "Packages.gz") || strings.Contains(name, "by-hash") {
					remove(t, filepath.Join(c.public, name))
				}
			}
			return path
		}, "compressed again it has other bytes than the Release of demo/", false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := newChecked(t)
			path, err := filepath.Rel(c.data, row.damage(t, c))
			if err != nil {
				t.Fatal(err)
			}
			content, _ := os.ReadFile(filepath.Join(c.data, path))
			if report := c.check(); !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Path == path }) {
				t.Fatalf("the check does not name %s: %q", path, report.Findings)
			}
			report := c.repair()
			at := slices.IndexFunc(report.Findings, func(f Finding) bool { return f.Path == path })
			if at < 0 {
				t.Fatalf("%s: found %+v", path, report.Findings)
			}
			f := report.Findings[at]
			if (f.Repaired != "") != (row.restore == "") || !strings.Contains(f.Restore, row.restore) {
				t.Errorf("want restore %q, got %+v", row.restore, f)
			}
			if (f.Aside != "") != row.aside {
				t.Errorf("aside is %q", f.Aside)
			} else if row.aside && !bytes.Equal(read(t, filepath.Join(c.data, f.Aside)), content) {
				t.Errorf("%s has other bytes than what was moved there", f.Aside)
			}
			if strings.Contains(f.Restore, "package restore") {
				want := []string{"demo/dev", "demo/snapshots/20261120T101500Z"}
				if len(f.NeededBy) != 3 || !slices.Equal(f.NeededBy[:2], want) || f.SHA256 != fmt.Sprintf("%x", c.tool.SHA256) {
					t.Errorf("needed by %q, SHA-256 %s", f.NeededBy, f.SHA256)
				}
			}
			// What remains is what was said to remain.
			left := c.check()
			for _, f := range left.Findings {
				if !slices.ContainsFunc(report.Findings, func(g Finding) bool { return g.Path == f.Path && g.Repaired == "" && g.Restore != "" }) {
					t.Errorf("after the repair: %q, which it did not say", f)
				}
			}
			if row.restore == "" && len(left.Findings) > 0 {
				t.Errorf("after the repair: %q", left.Findings)
			}
		})
	}
}

// foreign makes the archive one whose compressor gave other bytes for the
// chunk of tool: everything was published with data.
func (c *checked) foreign(data []byte) {
	c.t.Helper()
	if err := c.store.RestoreFrame(c.chunk(), frame.Gzip, data); err != nil {
		c.t.Fatal(err)
	}
	if err := os.RemoveAll(c.public + "/.indices"); err != nil {
		c.t.Fatal(err)
	}
	if err := os.RemoveAll(c.public + "/demo"); err != nil {
		c.t.Fatal(err)
	}
	c.reopen()
	for i, base := range c.want.Bases {
		state, err := snapshots.Load(c.t.Context(), c.store, base.State)
		if err != nil {
			c.t.Fatal(err)
		}
		if base.Signed == nil {
			continue
		}
		signed := c.fix(base.Dir, state)
		c.want.Bases[i].Signed = &signed
	}
	c.offer(c.state)
	c.want.Bases[0].Meta.Date = c.now
	if report := c.check(); len(report.Findings) > 0 {
		c.t.Fatalf("an archive of another compressor: %q", report.Findings)
	}
}

// A frame that no compressor at hand can make again is cut out of an index.
func TestALostFrameIsCutOutOfAnIndex(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			c := newChecked(t)
			text, err := c.store.Get(t.Context(), c.chunk())
			if err != nil {
				t.Fatal(err)
			}
			var made bytes.Buffer
			w, err := gzip.NewWriterLevel(&made, gzip.HuffmanOnly)
			if err == nil {
				_, err = w.Write(text)
			}
			if err := errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			c.foreign(made.Bytes())
			before := c.fixed()
			path := c.store.FramePath(c.chunk(), frame.Gzip)
			way.damage(t, path)
			if report := c.repair(); len(report.Findings) != 1 || report.Findings[0].Repaired == "" {
				t.Fatalf("found %+v", report.Findings)
			}
			if got := read(t, path); !bytes.Equal(got, made.Bytes()) {
				t.Error("the frame has other bytes than before")
			}
			c.mustBeAsBefore(before)
		})
	}
}

// A stage that is signed anew gets a later Date: clients and caches may have
// seen what was there.
func TestAStageIsSignedWithALaterDate(t *testing.T) {
	c := newChecked(t)
	before, err := dateOf(read(t, filepath.Join(c.stage, "Release")))
	if err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join(c.stage, "InRelease"), "Label: demo", "Label: evil")
	c.repair()
	after, err := dateOf(read(t, filepath.Join(c.stage, "Release")))
	if err != nil || !after.After(before) {
		t.Errorf("Date was %s and is %s, %v", before, after, err)
	}
	c.consistent("demo/dev")
}

// Wherever a repair ends, every file is as it was or as it should be, and the
// next repair finishes the work.
func TestARepairThatIsCutShort(t *testing.T) {
	rows := map[string]func(c *checked){
		"blobs": func(c *checked) {
			for name := range files(t, filepath.Join(c.data, "blobs")) {
				remove(t, filepath.Join(c.data, "blobs", name))
			}
		},
		"tree": func(c *checked) {
			for name := range files(t, c.public) {
				if isIndex(name) {
					flip(t, filepath.Join(c.public, name))
				}
			}
			edit(t, filepath.Join(c.stage, "InRelease"), "Label: demo", "Label: evil")
			remove(t, filepath.Join(c.snap, "InRelease"))
			remove(t, filepath.Join(c.public, "demo/dev/pool"))
			write(t, filepath.Join(c.snap, "stranger"), []byte("x"))
		},
	}
	for name, damage := range rows {
		t.Run(name, func(t *testing.T) {
			cuts := 0
			for n := 0; ; n++ {
				c := newChecked(t)
				before := c.fixed()
				damage(c)
				reached := c.cutAt(n)
				_, err := c.tryRepair()
				if !*reached {
					if err != nil {
						t.Fatal(err)
					}
					c.mustBeAsBefore(before)
					break
				}
				cuts++
				c.reopen()
				for _, f := range c.repair().Findings {
					if f.Repaired == "" {
						t.Fatalf("cut %d, then again: %+v", n, f)
					}
				}
				c.mustBeAsBefore(before)
				if t.Failed() {
					t.Fatalf("at cut %d", n)
				}
			}
			if cuts < 5 {
				t.Errorf("only %d cuts: the test does not see the changes", cuts)
			}
		})
	}
}

// What the data directory is full of.
func TestUsage(t *testing.T) {
	c := newChecked(t)
	usage := c.check().Usage
	if usage.Pool == 0 || usage.Indices == 0 || usage.Superseded != 0 || usage.States == 0 || usage.Chunks == 0 || usage.Frames == 0 {
		t.Errorf("usage is %+v", usage)
	}
	next := c.fixture.state(c.tool)
	c.offer(next)
	c.offer(c.state)
	c.want.Bases[0].Meta.Date = c.now
	if after := c.check().Usage; after.Superseded == 0 || after.Indices != usage.Indices {
		t.Errorf("with a superseded index usage is %+v, before %+v", after, usage)
	}
}
