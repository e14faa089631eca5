package publish

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"aptfleet/internal/sign"
	"aptfleet/snapshots"
)

// consistent fails unless the base offers something whole: an InRelease with a
// good signature, and below by-hash every index that it names, with its hash.
// It returns the state that the InRelease announces.
func (f *fixture) consistent(base string) string {
	f.t.Helper()
	dists := filepath.Join(f.public, base, "dists/trixie")
	inRelease, err := os.ReadFile(filepath.Join(dists, "InRelease"))
	if errors.Is(err, os.ErrNotExist) {
		return ""
	}
	if err != nil {
		f.t.Fatal(err)
	}
	certificate, err := f.key.Certificate()
	if err != nil {
		f.t.Fatal(err)
	}
	text, _, err := sign.Verify(inRelease, certificate, f.now)
	if err != nil {
		f.t.Fatalf("%s: %v", base, err)
	}
	names := byHashNames(text)
	if len(names) == 0 {
		f.t.Fatalf("%s: InRelease names no index:\n%s", base, text)
	}
	for name := range names {
		data, err := os.ReadFile(filepath.Join(dists, name))
		if err != nil {
			f.t.Fatalf("%s: %v", base, err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(data)); got != path.Base(name) {
			f.t.Fatalf("%s: %s has the SHA-256 %s", base, name, got)
		}
	}
	if target, err := os.Readlink(filepath.Join(f.public, base, "pool")); err != nil || !strings.HasSuffix(target, "/pool") {
		f.t.Fatalf("%s: pool leads to %q: %v", base, target, err)
	}
	for line := range strings.Lines(string(text)) {
		if state, ok := strings.CutPrefix(line, "Aptfleet-State: "); ok {
			return strings.TrimSpace(state)
		}
	}
	return ""
}

// noTemporaryFiles fails if anything is left in the directories for files
// under way.
func (f *fixture) noTemporaryFiles() {
	f.t.Helper()
	for _, dir := range []string{"public/.tmp", "blobs/.tmp"} {
		left, err := os.ReadDir(filepath.Join(f.data, dir))
		if err != nil || len(left) > 0 {
			f.t.Fatalf("left in %s: %v, %v", dir, left, err)
		}
	}
}

var errCut = errors.New("the power fails here")

// cutAt lets the nth change of the tree fail, and all that follow, as when the
// process dies there.
func (f *fixture) cutAt(n int) (reached *bool) {
	reached = new(bool)
	f.tree.before = func(op, path string) error {
		if n--; n < 0 {
			*reached = true
			return fmt.Errorf("%s %s: %w", op, path, errCut)
		}
		return nil
	}
	return reached
}

// Wherever a publication ends, the base offers the old or the new state, whole;
// and after a restart the same call publishes the new one.
func TestAPublicationThatIsCutShort(t *testing.T) {
	ctx := context.Background()
	for _, kind := range []string{"stage", "fixed"} {
		t.Run(kind, func(t *testing.T) {
			cuts := 0
			for n := 0; ; n++ {
				f := newFixture(t)
				before := f.state(described(t, "tool", "1", "amd64"), described(t, "data", "1", "all"))
				after := f.state(described(t, "tool", "2", "amd64"), described(t, "data", "1", "all"))
				f.offer(before)
				// An index that was superseded long ago is removed on the way.
				f.offer(f.state(described(t, "tool", "0", "amd64")))
				f.offer(before)
				f.now = f.now.Add(2 * DefaultKeep)

				meta := Meta{Date: f.now}
				base := "demo/dev"
				publish := func() error { return f.Stage(ctx, demo, "dev", after, meta) }
				if kind == "fixed" {
					base = "demo/snapshots/20261120T101500Z"
					meta = Meta{Date: start, Snapshot: "20261120T101500Z"}
					text, err := f.ReleaseText(ctx, demo, after, meta)
					if err != nil {
						t.Fatal(err)
					}
					signed, err := f.Sign(text)
					if err != nil {
						t.Fatal(err)
					}
					publish = func() error { return f.Fixed(ctx, demo, "snapshots/20261120T101500Z", after, signed) }
				}
				reached := f.cutAt(n)
				err := publish()
				if !*reached {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				cuts++
				if !errors.Is(err, errCut) {
					t.Fatalf("cut %d: %v", n, err)
				}
				f.noTemporaryFiles()
				if got := f.consistent("demo/dev"); got != before.ID().String() && (kind == "fixed" || got != after.ID().String()) {
					t.Fatalf("cut %d: the stage offers %s", n, got)
				}
				if got := f.consistent(base); got != after.ID().String() && got != before.ID().String() && (kind == "stage" || got != "") {
					t.Fatalf("cut %d: %s offers %q", n, base, got)
				}
				f.tear(after, before)
				f.reopen()
				if err := publish(); err != nil {
					t.Fatalf("cut %d, then again: %v", n, err)
				}
				if got := f.consistent(base); got != after.ID().String() {
					t.Fatalf("cut %d, then again: %s offers %s", n, base, got)
				}
				if kind == "stage" {
					f.checkStage(after, meta)
				}
			}
			if cuts < 10 {
				t.Errorf("only %d cuts: the test does not see the changes", cuts)
			}
		})
	}
}

// tear does to files what a power failure may do to those that no sync had
// reached: they keep their size and lose their content. These are the indices
// without a sums file; if there are such, also the frames that after has and
// before has not.
func (f *fixture) tear(after, before snapshots.State) {
	f.t.Helper()
	torn, err := filepath.Glob(filepath.Join(f.public, ".indices/*/*/Packages.*"))
	if err != nil {
		f.t.Fatal(err)
	}
	torn = slices.DeleteFunc(torn, func(name string) bool {
		_, err := os.Stat(filepath.Join(filepath.Dir(name), "sums"))
		return err == nil
	})
	if len(torn) > 0 {
		for _, key := range after.Keys() {
			for _, chunk := range after.Index(key).Chunks {
				if !slices.Contains(before.Index(key).Chunks, chunk) {
					torn = append(torn, f.store.FramePath(chunk.ID, ".gz"), f.store.FramePath(chunk.ID, ".zst"))
				}
			}
		}
	}
	for _, name := range torn {
		info, err := os.Stat(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(name, make([]byte, info.Size()), 0o444)
		}
		if err != nil {
			f.t.Fatal(err)
		}
	}
}

// The order of a publication: index files and their names, one sync, and only
// then the signed files, InRelease last.
func TestInReleaseIsRenamedLast(t *testing.T) {
	f := newFixture(t)
	f.offer(f.state(described(t, "tool", "1", "amd64")))
	var steps []string
	f.tree.before = func(op, name string) error {
		steps = append(steps, op+" "+path.Base(name))
		return nil
	}
	f.offer(f.state(described(t, "tool", "2", "amd64")))
	sync := slices.Index(steps, "sync .")
	want := []string{"sync .", "write sums", "write Release.gpg", "write Release", "write InRelease", "syncdir trixie"}
	if sync < 0 || !slices.Equal(steps[sync:], want) {
		t.Errorf("steps are %q, want %q at the end", steps, want)
	}
	links := slices.DeleteFunc(slices.Clone(steps[:max(sync, 0)]), func(step string) bool { return !strings.HasPrefix(step, "link ") })
	if len(links) != 4 { // gz and zst, by hash and by name; the other indices stay
		t.Errorf("before the sync: %q", steps[:max(sync, 0)])
	}
}

// checkStage runs Check on the one stage; pool files there are none.
func (f *fixture) checkStage(state snapshots.State, meta Meta) {
	f.t.Helper()
	report, err := f.Check(context.Background(), func(context.Context) (Expected, error) {
		return Expected{Bases: []ExpectedBase{{Base: demo, Dir: "dev", State: state.ID(), Meta: meta}}}, nil
	}, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, finding := range report.Findings {
		if !strings.HasPrefix(finding.Path, "public/pool/") {
			f.t.Fatalf("after the repair: %s %s", finding.Path, finding.Reason)
		}
	}
}

// Without a full disk at hand: every write that fails leaves the stage as it
// was and no temporary file, and says what failed.
func TestAFullDiskLeavesTheStageAsItWas(t *testing.T) {
	f := newFixture(t)
	before := f.state(described(t, "tool", "1", "amd64"))
	f.offer(before)
	after := f.state(described(t, "tool", "2", "amd64"))
	f.tree.before = func(op, _ string) error {
		if op == "create" {
			return syscall.ENOSPC
		}
		return nil
	}
	err := f.Stage(t.Context(), demo, "dev", after, Meta{Date: f.now.Add(time.Second)})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "cannot write index") {
		t.Fatalf("error is %v", err)
	}
	f.noTemporaryFiles()
	if got := f.consistent("demo/dev"); got != before.ID().String() {
		t.Fatalf("the stage offers %s", got)
	}
}

// Where a file has as many names as the file system allows, further names are
// of a copy.
func TestAnIndexMayHaveMoreNamesThanAFile(t *testing.T) {
	f := newFixture(t)
	state := f.state(described(t, "tool", "1", "amd64"))
	f.offer(state)
	full := true
	f.tree.before = func(op, _ string) error {
		if op == "renew" {
			full = false
		}
		if op == "link" && full {
			return syscall.EMLINK
		}
		return nil
	}
	f.fix("snapshots/20261120T101500Z", state)
	if full {
		t.Fatal("no link was made")
	}
	f.consistent("demo/dev")
	f.consistent("demo/snapshots/20261120T101500Z")
	f.noTemporaryFiles()
}

// A superseded index stays until its time has come, over restarts; what is
// named, or comes back, stays.
func TestSupersededIndicesLiveOnByAge(t *testing.T) {
	f := newFixture(t)
	one, two := f.state(described(t, "tool", "1", "amd64")), f.state(described(t, "tool", "2", "amd64"))
	key := snapshots.Key{Component: "apps", Architecture: "amd64"}
	named := func(s snapshots.State) string {
		return filepath.Join(f.public, "demo/dev/dists/trixie/apps/binary-amd64/by-hash/SHA256", fmt.Sprintf("%x", f.sums[IndexKeyOf(s.Index(key))][2].sum))
	}
	exists := func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	}
	f.offer(one)
	of1 := named(one)
	f.now = f.now.Add(3 * DefaultKeep) // age before it was superseded does not count
	f.offer(two)
	of2 := named(two)
	if !exists(of1) || !exists(of2) {
		t.Fatal("an index went away with the InRelease that named it")
	}
	f.now = f.now.Add(DefaultKeep - 10*time.Second)
	f.reopen()
	f.offer(two)
	if !exists(of1) {
		t.Fatal("an index went away before its time")
	}
	f.now = f.now.Add(10 * time.Second)
	f.offer(two)
	if exists(of1) || !exists(of2) {
		t.Fatal("after its time an index is still there, or the named one is gone")
	}
	f.offer(one)
	f.now = f.now.Add(2 * DefaultKeep)
	f.offer(two) // two comes back, one is superseded anew
	if !exists(of1) || !exists(of2) {
		t.Fatal("an index that was named a moment ago is gone")
	}
	remove(t, filepath.Join(f.public, "demo/dev/.superseded"))
	f.reopen()
	f.now = f.now.Add(2 * DefaultKeep)
	f.offer(two)
	if !exists(of1) {
		t.Fatal("an index of unknown age is gone")
	}
	f.now = f.now.Add(2 * DefaultKeep)
	f.offer(two)
	if exists(of1) {
		t.Fatal("an index of unknown age does not age")
	}
	f.consistent("demo/dev")
}

// However many publications fall into an hour, the superseded indices of a
// stage need no more than the budget: the oldest go before their time.
func TestSupersededIndicesKeepToTheirBudget(t *testing.T) {
	f := newFixture(t)
	f.offer(f.state(many(t, 50)...))
	f.reopen()
	generation, err := f.agingOf(baseAt(demo, "dev"), nil, f.now)
	if err != nil {
		t.Fatal(err)
	}
	var size int64
	for _, o := range generation {
		size += o.size
	}
	f.budget = 3 * size
	for n := range 12 {
		if n == 6 {
			f.reopen()
			f.budget = 3 * size
		}
		f.offer(f.state(append(many(t, 50), described(t, "tool", fmt.Sprint(n), "amd64"))...))
		var total, count int64
		for name, o := range f.aging["demo/dev"] {
			info, err := os.Stat(filepath.Join(f.public, "demo/dev/dists/trixie", name))
			if err != nil || info.Size() != o.size {
				t.Fatalf("publication %d: %s of %d bytes is not what is remembered: %v", n, name, o.size, err)
			}
			total += o.size
			count++
		}
		if total > f.budget+size || count == 0 {
			t.Errorf("publication %d: %d superseded indices have %d bytes, the budget is %d", n, count, total, f.budget)
		}
		f.consistent("demo/dev")
	}
}

// A stage that goes back to before a component was created keeps nothing of it
// but what clients may still ask for by its hash.
func TestAComponentThatLeavesAStage(t *testing.T) {
	f := newFixture(t)
	small := demo
	small.Components = []string{"apps"}
	before := f.state(f.add("tool", "1", "amd64"))
	offer := func(base Base) {
		f.now = f.now.Add(time.Second)
		if err := f.Stage(t.Context(), base, "dev", before, Meta{Date: f.now}); err != nil {
			t.Fatal(err)
		}
	}
	offer(demo)
	offer(small)
	report, err := f.Check(t.Context(), func(context.Context) (Expected, error) {
		return Expected{Bases: []ExpectedBase{{Base: small, Dir: "dev", State: before.ID(), Meta: Meta{Date: f.now}}}}, nil
	}, nil)
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("%v, findings: %q", err, report.Findings)
	}
	byHash, err := filepath.Glob(filepath.Join(f.public, "demo/dev/dists/trixie/base/binary-*/by-hash/SHA256/*"))
	if err != nil || len(byHash) == 0 {
		t.Errorf("%v: the indices of the component are gone with the InRelease that named them", err)
	}
}

// A publication that was cut short had noted that an index is superseded; it
// stayed in use, and ages from when it really is.
func TestAnIndexAgesFromItsLastPublication(t *testing.T) {
	f := newFixture(t)
	one, two := f.state(described(t, "tool", "1", "amd64")), f.state(described(t, "tool", "2", "amd64"))
	f.offer(one)
	named := byHashNames(read(t, filepath.Join(f.public, "demo/dev/dists/trixie/Release")))
	f.tree.before = func(op, name string) error {
		if op == "sync" {
			return errCut
		}
		return nil
	}
	if err := f.Stage(t.Context(), demo, "dev", two, Meta{Date: f.now.Add(time.Second)}); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	f.reopen()
	f.now = f.now.Add(2 * DefaultKeep)
	f.offer(two)
	f.offer(two)
	for name := range named {
		if _, err := os.Stat(filepath.Join(f.public, "demo/dev/dists/trixie", name)); err != nil {
			t.Errorf("superseded a second ago: %v", err)
		}
	}
}

// What a publication that was cut short has put below by-hash, and no InRelease
// ever named, goes in its time, without a restart too.
func TestIndicesThatWereNeverNamedAge(t *testing.T) {
	f := newFixture(t)
	state := func(version string) snapshots.State { return f.state(described(t, "tool", version, "amd64")) }
	f.offer(state("1"))
	for _, op := range []string{"sync", "write"} { // before and while the signed files get their names
		f.tree.before = func(did, name string) error {
			if did == op && !strings.HasSuffix(name, supersededFile) && !strings.HasSuffix(name, sumsFile) {
				return errCut
			}
			return nil
		}
		if err := f.Stage(t.Context(), demo, "dev", state("2."+op), Meta{Date: f.now.Add(time.Second)}); !errors.Is(err, errCut) {
			t.Fatal(err)
		}
	}
	f.tree.before = nil
	f.offer(state("3"))
	for range 2 {
		f.now = f.now.Add(2 * DefaultKeep)
		f.offer(state("3"))
	}
	left, err := f.byHashFiles(baseAt(demo, "dev"))
	if err != nil {
		t.Fatal(err)
	}
	named := byHashNames(read(t, filepath.Join(f.public, "demo/dev/dists/trixie/Release")))
	for _, name := range left {
		if _, ok := named[name]; !ok {
			t.Errorf("%s is still there", name)
		}
	}
}

// Index files that were lost or cut are written again, in every base that is
// published.
func TestALostIndexIsWrittenAgain(t *testing.T) {
	f := newFixture(t)
	state := f.state(described(t, "tool", "1", "amd64"))
	f.offer(state)
	dir := filepath.Join(f.public, IndexKeyOf(state.Index(demo.keys()[0])).dir())
	for name, lose := range map[string]func(file string){
		"lost": func(file string) { remove(t, file) },
		"cut":  func(file string) { replace(t, file, read(t, file)[:10]) },
	} {
		for _, suffix := range suffixes[1:] {
			lose(filepath.Join(dir, "Packages"+suffix))
			f.reopen()
			f.fix("snapshots/"+name+strings.TrimPrefix(suffix, "."), state)
			f.consistent("demo/snapshots/" + name + strings.TrimPrefix(suffix, "."))
		}
	}
	f.consistent("demo/dev")
}

// A fixed base that was lost comes back byte by byte, even if compressors
// changed meanwhile: frames are kept, not made again.
func TestAFixedBaseIsRebuiltByteByByte(t *testing.T) {
	f := newFixture(t)
	state := f.state(many(t, 600)...)
	signed := f.fix("snapshots/20261120T101500Z", state)
	before := files(t, filepath.Join(f.public, "demo"))
	if err := os.RemoveAll(f.public); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	f.now = f.now.Add(100 * time.Hour)
	if err := f.Fixed(t.Context(), demo, "snapshots/20261120T101500Z", state, signed); err != nil {
		t.Fatal(err)
	}
	after := files(t, filepath.Join(f.public, "demo"))
	if len(before) < 20 || len(before) != len(after) {
		t.Fatalf("%d files before, %d after", len(before), len(after))
	}
	for name, content := range before {
		if after[name] != content {
			t.Errorf("%s is another file", name)
		}
	}
}

// If a frame is lost and comes back with other bytes, a fixed base is refused
// rather than published with an index that its Release does not describe.
func TestAFixedBaseWithALostFrameIsRefused(t *testing.T) {
	f := newFixture(t)
	state := f.state(many(t, 10)...)
	signed := f.fix("snapshots/20261120T101500Z", state)
	chunk := state.Index(snapshots.Key{Component: "apps", Architecture: "amd64"}).Chunks[0].ID
	text, err := f.store.Get(t.Context(), chunk)
	if err != nil {
		t.Fatal(err)
	}
	var other bytes.Buffer
	w, err := gzip.NewWriterLevel(&other, gzip.NoCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	replace(t, f.store.FramePath(chunk, ".gz"), other.Bytes())
	if err := os.RemoveAll(f.public); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	err = f.Fixed(t.Context(), demo, "snapshots/20261120T101500Z", state, signed)
	if err == nil || !strings.Contains(err.Error(), "other index files") {
		t.Fatalf("error is %v", err)
	}
	if _, err := os.Stat(filepath.Join(f.public, "demo/snapshots/20261120T101500Z/dists/trixie/InRelease")); err == nil {
		t.Fatal("it was published")
	}
}

// files reads all files and links below dir.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.Type()&os.ModeSymlink != 0 {
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		}
		data, err := os.ReadFile(path)
		found[name] = info.Mode().String() + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
