package mirror

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// since returns what an archive was asked for after the first n requests.
func (a *archive) since(n int) string { return strings.Join(a.seen()[n:], " ") }

// Where nothing changed, an update asks for the InRelease and makes no state;
// a new InRelease over the same indices only raises what the suite is held to.
func TestWhatIsUnchangedCostsNothing(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	update := func(config release.MirrorConfig) (asked, log string) {
		t.Helper()
		before := len(a.seen())
		progress := &fakeProgress{}
		if err := r.update(t.Context(), config, progress); err != nil {
			t.Fatal(err)
		}
		return a.since(before), strings.Join(progress.log, "\n")
	}
	const inRelease = "dists/trixie/InRelease"
	update(a.config("hello"))
	if asked, log := update(a.config("hello")); asked != inRelease || !strings.Contains(log, "nothing changed") || r.engine.replaced != 1 {
		t.Errorf("the second update asked for %q, said %q, and there are %d replacements", asked, log, r.engine.replaced)
	}
	a.date = a.date.Add(time.Second)
	a.publish()
	if asked, log := update(a.config("hello")); asked != inRelease || !strings.Contains(log, "nothing changed") || r.engine.replaced != 1 {
		t.Errorf("after a new signature it asked for %q, said %q, and there are %d replacements", asked, log, r.engine.replaced)
	}
	a.date = a.date.Add(-time.Second)
	a.publish()
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err == nil || !strings.Contains(err.Error(), "older than") {
		t.Errorf("the release before is accepted again: %v", err)
	}
	a.date = a.date.Add(2 * time.Second)
	a.publish()

	// Other wishes need no index again, only what they want.
	if asked, _ := update(a.config("hello", "unrelated")); asked != inRelease+" pool/main/unrelated_1.deb" || r.engine.replaced != 2 {
		t.Errorf("with other wishes it asked for %q, and there are %d replacements", asked, r.engine.replaced)
	}
	// Wishes that select the same change nothing.
	if asked, log := update(a.config("hello", "unrelated", "libc")); asked != inRelease || !strings.Contains(log, "nothing changed") || r.engine.replaced != 2 {
		t.Errorf("with the same in other words it asked for %q, said %q, and there are %d replacements", asked, log, r.engine.replaced)
	}
	// A changed index that changes nothing that is wanted.
	a.debs["amd64"] = base + "\nPackage: more\nVersion: 1\nArchitecture: amd64\n"
	a.date = a.date.Add(time.Second)
	a.publish()
	if asked, log := update(a.config("hello", "unrelated")); !strings.Contains(asked, "by-hash") || !strings.Contains(log, "nothing changed") || r.engine.replaced != 2 {
		t.Errorf("with a package more upstream it asked for %q, said %q, and there are %d replacements", asked, log, r.engine.replaced)
	}
	if asked, log := update(a.config("hello", "unrelated")); asked != inRelease || !strings.Contains(log, "nothing changed") {
		t.Errorf("and then %q, %q", asked, log)
	}
}

// What the mirror holds is looked at, not remembered: after a restore of an
// older database the same upstream is taken again.
func TestARestoredMirrorIsUpdated(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	empty := r.engine.head
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	r.engine.head, r.engine.packages = empty, nil
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if r.engine.replaced != 2 || r.names() != "apt base-files hello hello-data libc mawk" {
		t.Errorf("%d replacements, %s", r.engine.replaced, r.names())
	}
}

// A file that the pool lost is brought back, though nothing changed upstream.
func TestALostFileIsBroughtBack(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	head := r.engine.head.ID()
	delete(r.engine.pool, sha(content("libc")))
	before := len(a.seen())
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if asked := a.since(before); asked != "dists/trixie/InRelease pool/main/libc_2.41-1.deb" || !r.engine.pool[sha(content("libc"))] || r.engine.head.ID() != head {
		t.Errorf("asked for %s; the file is there: %v", asked, r.engine.pool[sha(content("libc"))])
	}
}

// An update that fails at its very end, or whose server is killed there, is
// repeated in full; no file is downloaded twice.
func TestAnUpdateThatFailsLateIsRepeated(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	r.engine.fails = errors.New("no space left on device")
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err == nil {
		t.Fatal("the update succeeded")
	}
	before := len(a.seen())
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if asked := a.since(before); asked != "dists/trixie/InRelease" || r.engine.replaced != 1 || len(r.engine.files) != 6 {
		t.Errorf("asked for %s; %d replacements with %d files", asked, r.engine.replaced, len(r.engine.files))
	}
}

// Only the indices that changed are downloaded, and only those of the last look
// are kept; one that was damaged on disk is downloaded again.
func TestIndicesAreKept(t *testing.T) {
	a := newArchive(t)
	a.debs["arm64"] = strings.ReplaceAll(base, "Architecture: amd64", "Architecture: arm64")
	a.publish()
	r := newRigFor(t, a, "amd64", "arm64")
	index := func(architecture string) string {
		return fmt.Sprintf("%x", sha(a.files["dists/trixie/main/binary-"+architecture+"/Packages.xz"]))
	}
	update := func() string {
		t.Helper()
		before := len(a.seen())
		if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
			t.Fatal(err)
		}
		return a.since(before)
	}
	kept := func() string {
		t.Helper()
		return filesBelow(t, filepath.Join(r.dir, "demo/debian/indices"))
	}
	update()
	for i := range 5 {
		a.debs["arm64"] += fmt.Sprintf("\nPackage: new%d\nVersion: 1\nArchitecture: arm64\n", i)
		a.date = a.date.Add(time.Second)
		a.publish()
		if asked := update(); strings.Contains(asked, index("amd64")) || !strings.Contains(asked, index("arm64")) {
			t.Errorf("asked for %s", asked)
		}
		if names := strings.Fields(kept()); len(names) != 2 || !strings.Contains(kept(), index("amd64")) || !strings.Contains(kept(), index("arm64")) {
			t.Errorf("kept: %s", kept())
		}
	}
	for _, damage := range []func(b []byte) []byte{
		func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		func(b []byte) []byte { return b[:len(b)/2] },
		func(b []byte) []byte { return append(b, 0) },
		func(b []byte) []byte { return nil },
	} {
		path := filepath.Join(r.dir, "demo/debian/indices", index("amd64"))
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, damage(raw), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(r.dir, "demo/debian/selection")); err != nil {
			t.Fatal(err)
		}
		update()
		if got, err := os.ReadFile(path); err != nil || fmt.Sprintf("%x", sha(got)) != index("amd64") {
			t.Errorf("the damaged index is used or stays (%v)", err)
		}
	}
}

// A diff says what an update would change and changes nothing.
func TestDiff(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	config := a.config("hello")
	r.engine.Engine = pipelineOf{pipeline: release.Pipeline{
		Name: "demo", Architectures: []string{"amd64"}, Components: []release.Component{{Name: "debian", Kind: release.Mirror, Mirror: &config}},
	}}
	diff := func() Preview {
		t.Helper()
		before := len(a.seen())
		held := filesBelow(t, r.dir)
		preview, err := r.updater.Diff(t.Context(), "demo", "debian", &fakeProgress{})
		if err != nil {
			t.Fatal(err)
		}
		if asked := a.since(before); strings.Contains(asked, ".deb") {
			t.Errorf("asked for %s", asked)
		}
		now := strings.Fields(filesBelow(t, r.dir))
		for _, name := range now {
			if !strings.Contains(held, name) && !strings.Contains(name, "/indices/") {
				t.Errorf("%s was made", name)
			}
		}
		return preview
	}
	said := func(p Preview) string {
		var lines []string
		for _, d := range p.Differences {
			version := func(p *snapshots.Package) string {
				if p == nil {
					return "-"
				}
				return p.Version
			}
			lines = append(lines, fmt.Sprintf("%s %s→%s", d.Name, version(d.Old), version(d.New)))
		}
		return strings.Join(lines, ", ")
	}
	first := diff()
	if want := "apt -→3.0, base-files -→13, hello -→2.10-3, hello-data -→2.10-3, libc -→2.41-1, mawk -→1.3"; said(first) != want || r.engine.replaced != 0 {
		t.Errorf("%s, want %s", said(first), want)
	}
	if first.Packages != 6 || first.Download != 40_000*int64(len("apt base-files hello hello-data libc mawk ")) {
		t.Errorf("%d packages, %d bytes", first.Packages, first.Download)
	}
	if len(first.Releases) != 1 || !first.Releases[0].Date.Equal(a.date) || first.Releases[0].Signer != a.key.Fingerprint() || !strings.HasSuffix(first.Releases[0].URL, "dists/trixie/InRelease") {
		t.Errorf("releases %+v", first.Releases)
	}
	before := len(a.seen())
	if err := r.update(t.Context(), config, &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if asked := a.since(before); strings.Contains(asked, "Packages") || strings.Contains(asked, "by-hash") {
		t.Errorf("the update asked for indices that the diff had: %s", asked)
	}
	if again := diff(); said(again) != "" || again.Download != 0 {
		t.Errorf("after the update: %s", said(again))
	}
	a.debs["amd64"] = strings.NewReplacer("Version: 3.0", "Version: 3.1", "Package: mawk\nVersion: 1.3", "Package: mawk\nVersion: 1.2",
		"Package: libc\n", "Package: libc\nContent: rebuilt\n", ", hello-data (= 2.10-3)", "").Replace(base)
	a.date = a.date.Add(time.Second)
	a.publish()
	if got, want := said(diff()), "apt 3.0→3.1, hello 2.10-3→2.10-3, hello-data 2.10-3→-, libc 2.41-1→2.41-1, mawk 1.3→1.2"; got != want || r.engine.replaced != 1 {
		t.Errorf("%s, want %s", got, want)
	}
	a.files = nil
	_, err := r.updater.Diff(t.Context(), "demo", "debian", &fakeProgress{})
	if release.CodeOf(err) != release.Upstream || !strings.Contains(err.Error(), "404") {
		t.Errorf("error %v", err)
	}
}

// pipelineOf is the part of an engine that knows one pipeline.
type pipelineOf struct {
	Engine
	pipeline release.Pipeline
}

func (p pipelineOf) Pipeline(context.Context, string) (release.Pipeline, error) {
	return p.pipeline, nil
}
