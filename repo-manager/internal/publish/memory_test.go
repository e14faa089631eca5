package publish_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/sign"
	"aptfleet/repo-manager/internal/blobs"
	"aptfleet/repo-manager/internal/blobs/blobstest"
	"aptfleet/repo-manager/internal/frame"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// archive is a published tree over any store of blobs: a stage and a snapshot
// of one state.
type archive struct {
	*publish.Publisher
	t      *testing.T
	data   string
	store  publish.BlobStore
	state  snapshots.State
	want   publish.Expected
	chunks []snapshots.ID
}

var (
	began = time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	base  = publish.Base{Pipeline: "demo", Distribution: "trixie", Architectures: []string{"amd64"}, Components: []string{"apps", "none"}}
)

// newArchive publishes so many packages that there are several chunks.
func newArchive(t *testing.T, key *sign.Key, data string, store publish.BlobStore) *archive {
	t.Helper()
	ctx := t.Context()
	a := &archive{t: t, data: data, store: store}
	public := filepath.Join(data, "public")
	var err error
	a.Publisher, err = publish.New(publish.Config{Public: public, Blobs: store, Signer: key, Now: func() time.Time { return began }})
	must(t, err)

	content := []byte("the bytes of them all")
	sum := sha256.Sum256(content)
	filename := publish.PoolFilename(sum, "p_1_amd64.deb")
	must(t, os.MkdirAll(filepath.Dir(filepath.Join(public, filename)), 0o755))
	must(t, os.WriteFile(filepath.Join(public, filename), content, 0o444))
	var packages []snapshots.Package
	for i := range 1500 {
		p, err := snapshots.ParsePackage(fmt.Appendf(nil, "Package: p%04d\nVersion: 1\nArchitecture: amd64\nFilename: %s\nSize: %d\nSHA256: %x\n", i, filename, len(content), sum))
		must(t, err)
		packages = append(packages, p)
	}
	apps := snapshots.Key{Component: "apps", Architecture: "amd64"}
	a.state, err = snapshots.New(ctx, store, []snapshots.Key{apps, {Component: "none", Architecture: "amd64"}})
	must(t, err)
	a.state, err = snapshots.Apply(ctx, store, a.state, snapshots.Edit{Component: "apps", Put: packages})
	must(t, err)
	for _, ref := range a.state.Index(apps).Chunks {
		a.chunks = append(a.chunks, ref.ID)
	}

	text, err := a.ReleaseText(ctx, base, a.state, publish.Meta{Date: began, Snapshot: "20261120T101500Z"})
	must(t, err)
	signed, err := a.Sign(text)
	must(t, err)
	meta := publish.Meta{Date: began}
	must(t, a.Publish(ctx,
		publish.Update{Base: base, Dir: "snapshots/20261120T101500Z", State: a.state, Signed: &signed},
		publish.Update{Base: base, Dir: "dev", State: a.state, Meta: meta},
	))
	a.want = publish.Expected{Bases: []publish.ExpectedBase{
		{Base: base, Dir: "dev", State: a.state.ID(), Meta: meta},
		{Base: base, Dir: "snapshots/20261120T101500Z", State: a.state.ID(), Signed: &signed},
	}}
	return a
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (a *archive) expected(context.Context) (publish.Expected, error) { return a.want, nil }

func (a *archive) check() publish.Report {
	a.t.Helper()
	report, err := a.Check(a.t.Context(), a.expected, nil)
	must(a.t, err)
	return report
}

// indices returns the files that clients fetch, by their path, but for those
// with signatures: these hold the time.
func (a *archive) indices() map[string]string {
	found := make(map[string]string)
	for _, pattern := range []string{"demo/*/dists/trixie/Release", "demo/*/*/dists/trixie/Release", "demo/*/dists/trixie/*/*/*.*", "demo/*/*/dists/trixie/*/*/*.*", "demo/*/dists/trixie/*/*/by-hash/*/*"} {
		names, err := filepath.Glob(filepath.Join(a.data, "public", pattern))
		must(a.t, err)
		for _, name := range names {
			content, err := os.ReadFile(name)
			must(a.t, err)
			found[strings.TrimPrefix(name, a.data)] = string(content)
		}
	}
	return found
}

func inMemory(t *testing.T) *blobstest.Memory {
	t.Helper()
	m, err := blobstest.NewMemory()
	must(t, err)
	return m
}

func newKey(t *testing.T) *sign.Key {
	t.Helper()
	key, err := sign.Generate("Aptfleet test", "archive@example.org", began.Add(-time.Hour))
	must(t, err)
	return key
}

// What is published depends on the texts, not on where they are kept; and
// where they are in memory, no file of them is left.
func TestAnyStoreOfBlobsWillDo(t *testing.T) {
	key := newKey(t)
	data := t.TempDir()
	files, err := blobs.Open(filepath.Join(data, "blobs"))
	must(t, err)
	onDisk := newArchive(t, key, data, files)
	a := newArchive(t, key, t.TempDir(), inMemory(t))
	if len(a.chunks) < 2 {
		t.Fatalf("%d chunks are too few for a test", len(a.chunks))
	}
	if got, want := a.indices(), onDisk.indices(); len(want) < 10 || !maps.Equal(got, want) {
		t.Errorf("published are %q; want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
	if entries, err := os.ReadDir(a.data); err != nil || len(entries) != 1 || entries[0].Name() != "public" {
		t.Errorf("beside the tree there are %v, %v", entries, err)
	}
	got, want := a.check(), onDisk.check()
	if len(got.Findings)+len(want.Findings) > 0 {
		t.Errorf("findings: %q, on disk %q", got.Findings, want.Findings)
	}
	if got.Usage != want.Usage || got.Usage.Frames == 0 || got.Files != want.Files || got.Bytes != want.Bytes {
		t.Errorf("the check has read %d files, %d bytes of %+v; on disk %d, %d, %+v", got.Files, got.Bytes, got.Usage, want.Files, want.Bytes, want.Usage)
	}
}

// A check finds, and a repair mends, what is damaged where there are no files.
func TestRepairOfBlobsInMemory(t *testing.T) {
	store := inMemory(t)
	a := newArchive(t, newKey(t), t.TempDir(), store)
	published := a.indices()
	for _, row := range []struct {
		name string
		id   snapshots.ID
		as   frame.Encoding
		did  string
	}{
		{"a state", a.state.ID(), "", "made again from the index files of demo/"},
		{"a chunk", a.chunks[1], "", "made again from its frame .gz"},
		{"a gz frame", a.chunks[1], frame.Gzip, "with the bytes that the Release of demo/snapshots/"},
		{"a zst frame", a.chunks[0], frame.Zstd, "with the bytes that the Release of demo/snapshots/"},
	} {
		good, err := store.Stored(row.id, row.as)
		must(t, err)
		for how, bad := range map[string][]byte{"lost": nil, "altered": []byte("evil")} {
			t.Run(row.name+" "+how, func(t *testing.T) {
				store.Damage(row.id, row.as, bad)
				name := store.Name(row.id, row.as)
				is := func(f publish.Finding) bool { return f.Path == name }
				if found := a.check().Findings; !slices.ContainsFunc(found, is) {
					t.Fatalf("want %s, found %q", name, found)
				}
				report, err := a.Repair(t.Context(), publish.Repairs{
					Expected: a.expected,
					Alone:    func(ctx context.Context, _ *publish.ExpectedBase, f func(context.Context) error) error { return f(ctx) },
					Restage: func(ctx context.Context, at publish.ExpectedBase) error {
						return a.Publish(ctx, publish.Update{Base: at.Base, Dir: at.Dir, State: a.state, Meta: at.Meta})
					},
					Aside: filepath.Join(a.data, "damaged"),
				})
				must(t, err)
				if at := slices.IndexFunc(report.Findings, is); at < 0 || !strings.Contains(report.Findings[at].Repaired, row.did) {
					t.Errorf("want %q for %s: %+v", row.did, name, report.Findings)
				}
				if got, err := store.Stored(row.id, row.as); err != nil || !bytes.Equal(got, good) {
					t.Errorf("it has %d other bytes than before, %v", len(got), err)
				}
				if found := a.check().Findings; len(found) > 0 {
					t.Errorf("left: %q", found)
				}
				if !maps.Equal(a.indices(), published) {
					t.Error("what is published has changed")
				}
			})
		}
	}
	t.Run("a state for which nothing else is asked", func(t *testing.T) {
		store.Damage(a.state.ID(), "", nil)
		must(t, a.RestoreState(t.Context(), a.want.Bases, a.state.ID()))
		if found := a.check().Findings; len(found) > 0 {
			t.Errorf("left: %q", found)
		}
	})
}
