package publish

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aptfleet/internal/sign"
	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// checked is a tree with a stage that moved once and a snapshot.
type checked struct {
	*fixture
	want        Expected
	tool        snapshots.Package
	state       snapshots.State
	stage, snap string // dists directories
}

func newChecked(t *testing.T) *checked {
	f := newFixture(t)
	c := &checked{fixture: f, tool: f.add("tool", "1", "amd64")}
	before := f.state(f.add("before", "1", "amd64"), c.tool)
	c.state = f.state(c.tool, f.add("data", "1:3", "all"))
	f.fix("states/"+before.ID().String(), before) // keeps "before" needed
	f.offer(before)
	f.offer(c.state)
	signed := f.fix("snapshots/20261120T101500Z", c.state)
	old := f.fix("states/"+before.ID().String(), before)
	write(t, filepath.Join(f.public, "archive-keyring.asc"), []byte("keyring"))
	c.want = Expected{
		Bases: []ExpectedBase{
			{Base: demo, Dir: "dev", State: c.state.ID(), Meta: Meta{Date: f.now}},
			{Base: demo, Dir: "snapshots/20261120T101500Z", State: c.state.ID(), Signed: &signed},
			{Base: demo, Dir: "states/" + before.ID().String(), State: before.ID(), Signed: &old},
		},
		Files: map[string][]byte{"archive-keyring.asc": []byte("keyring")},
	}
	c.stage = filepath.Join(f.public, "demo/dev/dists/trixie")
	c.snap = filepath.Join(f.public, "demo/snapshots/20261120T101500Z/dists/trixie")
	return c
}

func (c *checked) check() Report {
	c.t.Helper()
	report, err := c.Check(context.Background(), func(context.Context) (Expected, error) { return c.want, nil }, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return report
}

// chunk returns the chunk that holds tool.
func (c *checked) chunk() snapshots.ID {
	return c.state.Index(snapshots.Key{Component: "apps", Architecture: "amd64"}).Chunks[0].ID
}

func (c *checked) byHash() string {
	sums := c.sums[IndexKeyOf(c.state.Index(snapshots.Key{Component: "apps", Architecture: "amd64"}))]
	return filepath.Join(c.stage, "apps/binary-amd64/by-hash/SHA256", fmt.Sprintf("%x", sums[1].sum))
}

func TestCheckFindsNothingInAGoodTree(t *testing.T) {
	c := newChecked(t)
	var files, bytes int64
	report, err := c.Check(t.Context(), func(context.Context) (Expected, error) { return c.want, nil }, func(f, b int64) {
		if f < files || b < bytes {
			t.Errorf("progress went back to %d files, %d bytes", f, b)
		}
		files, bytes = f, b
	})
	if err != nil || len(report.Findings) > 0 {
		t.Fatalf("%v, findings: %q", err, report.Findings)
	}
	if report.Files != files || report.Bytes != bytes || files < 20 || bytes < 1000 {
		t.Errorf("report counts %d files, %d bytes; progress %d, %d", report.Files, report.Bytes, files, bytes)
	}
	c.reopen()
	if report := c.check(); len(report.Findings) > 0 {
		t.Errorf("after a restart: %q", report.Findings)
	}
}

// One row per damage: what is done, and which file the finding names. Damaged
// files are new ones: hard links elsewhere stay good.
func TestCheckNamesTheBadFile(t *testing.T) {
	rows := []struct {
		name   string
		damage func(t *testing.T, c *checked) (path string) // absolute
		reason string
	}{
		{"a pool file with other bytes", func(t *testing.T, c *checked) string {
			path := filepath.Join(c.public, c.tool.Filename)
			damage(t, path)
			return path
		}, "has the SHA-256"},
		{"a short pool file", func(t *testing.T, c *checked) string {
			path := filepath.Join(c.public, c.tool.Filename)
			replace(t, path, read(t, path)[:100])
			return path
		}, "has 100 bytes instead of"},
		{"a missing pool file", func(t *testing.T, c *checked) string {
			path := filepath.Join(c.public, c.tool.Filename)
			remove(t, path)
			return path
		}, "is missing; tool=1:amd64 needs it"},
		{"a pool file that is a link", func(t *testing.T, c *checked) string {
			path := filepath.Join(c.public, c.tool.Filename)
			remove(t, path)
			if err := os.Symlink("/etc/passwd", path); err != nil {
				t.Fatal(err)
			}
			return path
		}, "no plain file"},
		{"a pool file too many", func(t *testing.T, c *checked) string {
			path := filepath.Join(filepath.Dir(filepath.Join(c.public, c.tool.Filename)), "evil_1_amd64.deb")
			write(t, path, []byte("evil"))
			return path
		}, "nothing in the database needs it"},
		{"an InRelease with another word", func(t *testing.T, c *checked) string {
			edit(t, filepath.Join(c.stage, "InRelease"), "Label: demo", "Label: evil")
			return filepath.Join(c.stage, "InRelease")
		}, "no good signature"},
		{"an InRelease of another key", func(t *testing.T, c *checked) string {
			key, err := sign.Generate("Other", "other@example.org", start.Add(-1))
			if err != nil {
				t.Fatal(err)
			}
			forged, err := key.ClearSign(read(t, filepath.Join(c.stage, "Release")), c.now)
			if err != nil {
				t.Fatal(err)
			}
			replace(t, filepath.Join(c.stage, "InRelease"), forged)
			return filepath.Join(c.stage, "InRelease")
		}, "no good signature"},
		{"a missing InRelease", func(t *testing.T, c *checked) string {
			remove(t, filepath.Join(c.stage, "InRelease"))
			return filepath.Join(c.stage, "InRelease")
		}, "is missing"},
		{"a snapshot's InRelease signed anew", func(t *testing.T, c *checked) string {
			again, err := c.key.ClearSign(read(t, filepath.Join(c.snap, "Release")), c.now.Add(-30))
			if err != nil {
				t.Fatal(err)
			}
			replace(t, filepath.Join(c.snap, "InRelease"), again[:len(again)-1])
			return filepath.Join(c.snap, "InRelease")
		}, "other content than the database says"},
		{"a changed Release", func(t *testing.T, c *checked) string {
			edit(t, filepath.Join(c.stage, "Release"), "Label: demo", "Label: evil")
			return filepath.Join(c.stage, "Release")
		}, "another text than InRelease"},
		{"a Release.gpg of another text", func(t *testing.T, c *checked) string {
			gpg, err := c.key.Detach([]byte("other\n"), c.now)
			if err != nil {
				t.Fatal(err)
			}
			replace(t, filepath.Join(c.stage, "Release.gpg"), gpg)
			return filepath.Join(c.stage, "Release.gpg")
		}, "no good signature of Release"},
		{"a stage that offers something else", func(t *testing.T, c *checked) string {
			c.want.Bases[0].Meta.Date = c.now.Add(1e9)
			return filepath.Join(c.stage, "Release")
		}, "is not the text that the database describes"},
		{"an index with other bytes", func(t *testing.T, c *checked) string {
			damage(t, c.byHash())
			return c.byHash()
		}, "has the SHA-256"},
		{"a missing index", func(t *testing.T, c *checked) string {
			remove(t, c.byHash())
			return c.byHash()
		}, "is missing; demo/dev needs it"},
		{"an index without by-hash, of a snapshot", func(t *testing.T, c *checked) string {
			path := filepath.Join(c.snap, "apps/binary-amd64/Packages.zst")
			damage(t, path)
			return path
		}, "has the SHA-256"},
		{"a superseded index with other bytes", func(t *testing.T, c *checked) string {
			path := filepath.Join(filepath.Dir(c.byHash()), fmt.Sprintf("%x", sha256.Sum256([]byte("x"))))
			write(t, path, []byte("y"))
			return path
		}, "not the one it is called after"},
		{"an index too many in a snapshot", func(t *testing.T, c *checked) string {
			path := filepath.Join(c.snap, "apps/binary-amd64/by-hash/SHA256", fmt.Sprintf("%x", sha256.Sum256([]byte("x"))))
			write(t, path, []byte("x"))
			return path
		}, "nothing in the database needs it"},
		{"a stored index with other bytes", func(t *testing.T, c *checked) string {
			path := filepath.Join(c.public, IndexKeyOf(c.state.Index(demo.keys()[0])).dir(), "Packages.gz")
			damage(t, path)
			return path
		}, "has the SHA-256"},
		{"a symbolic link that leads elsewhere", func(t *testing.T, c *checked) string {
			path := filepath.Join(c.public, "demo/dev/pool")
			remove(t, path)
			if err := os.Symlink("/tmp", path); err != nil {
				t.Fatal(err)
			}
			return path
		}, `leads to "/tmp" instead of "../../pool"`},
		{"a missing symbolic link", func(t *testing.T, c *checked) string {
			remove(t, filepath.Join(c.public, "demo/dev/pool"))
			return filepath.Join(c.public, "demo/dev/pool")
		}, "is missing"},
		{"a base that the database does not know", func(t *testing.T, c *checked) string {
			path := filepath.Join(c.public, "demo/stranger/dists/trixie/InRelease")
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, path, []byte("x"))
			return path
		}, "nothing in the database needs it"},
		{"another file with other bytes", func(t *testing.T, c *checked) string {
			damage(t, filepath.Join(c.public, "archive-keyring.asc"))
			return filepath.Join(c.public, "archive-keyring.asc")
		}, "other content"},
		{"a missing other file", func(t *testing.T, c *checked) string {
			remove(t, filepath.Join(c.public, "archive-keyring.asc"))
			return filepath.Join(c.public, "archive-keyring.asc")
		}, "is missing"},
		{"a chunk with other bytes", func(t *testing.T, c *checked) string {
			damage(t, c.store.Path(c.chunk()))
			return c.store.Path(c.chunk())
		}, "the store is damaged"},
		{"a missing chunk", func(t *testing.T, c *checked) string {
			remove(t, c.store.Path(c.chunk()))
			return c.store.Path(c.chunk())
		}, "cannot find blob"},
		{"a frame with other bytes", func(t *testing.T, c *checked) string {
			damage(t, c.store.FramePath(c.chunk(), frame.Gzip))
			return c.store.FramePath(c.chunk(), frame.Gzip)
		}, "frame"},
		{"a short frame", func(t *testing.T, c *checked) string {
			path := c.store.FramePath(c.chunk(), frame.Zstd)
			replace(t, path, read(t, path)[:20])
			return path
		}, "frame"},
		{"a state with other bytes", func(t *testing.T, c *checked) string {
			damage(t, c.store.Path(c.state.ID()))
			return c.store.Path(c.state.ID())
		}, "cannot load state"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			c := newChecked(t)
			path, err := filepath.Rel(c.data, row.damage(t, c))
			if err != nil {
				t.Fatal(err)
			}
			report := c.check()
			at := slices.IndexFunc(report.Findings, func(f Finding) bool { return f.Path == path })
			if at < 0 || !strings.Contains(report.Findings[at].Reason, row.reason) {
				t.Fatalf("want %s: … %s …; found %q", path, row.reason, report.Findings)
			}
			// A bad chunk takes its pool files out of sight, nothing else
			// may bring further findings.
			if len(report.Findings) != 1 && !strings.HasPrefix(path, "blobs/") {
				t.Errorf("further findings: %q", report.Findings)
			}
		})
	}
}

// A stage without a good InRelease is held against the sums beside its indices.
func TestABadInReleaseHidesNothingElse(t *testing.T) {
	for name, bad := range map[string]func(path string){
		"changed": func(path string) { edit(t, path, "Label: demo", "Label: evil") },
		"missing": func(path string) { remove(t, path) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newChecked(t)
			bad(filepath.Join(c.stage, "InRelease"))
			remove(t, c.byHash())
			found := c.check().Findings
			for _, path := range []string{filepath.Join(c.stage, "InRelease"), c.byHash()} {
				if !slices.ContainsFunc(found, func(f Finding) bool { return f.Path == strings.TrimPrefix(path, c.data+"/") }) {
					t.Errorf("nothing is said of %s: %q", path, found)
				}
			}
			if len(found) != 2 {
				t.Errorf("further findings: %q", found)
			}
		})
	}
}

// A publication during a check is not taken for damage.
func TestCheckDoesNotJudgeWhatIsPublishedMeanwhile(t *testing.T) {
	c := newChecked(t)
	calls := 0
	report, err := c.Check(t.Context(), func(context.Context) (Expected, error) {
		if calls++; calls == 1 {
			next := c.fixture.state(c.tool, c.add("later", "1", "amd64"))
			c.fix("states/"+next.ID().String(), next)
			c.offer(next)
		}
		return c.want, nil
	}, nil)
	if err != nil || len(report.Findings) > 0 {
		t.Fatalf("%v, findings: %q", err, report.Findings)
	}
}

func remove(t testing.TB, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}
