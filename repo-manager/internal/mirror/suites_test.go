package mirror

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"aptfleet/internal/deb"
	"aptfleet/internal/sign"
	"aptfleet/repo-manager/internal/release"
)

// security is a second archive, with a key of its own.
func security(t *testing.T, stanzas string) *archive {
	t.Helper()
	a := newArchive(t)
	a.suite = "trixie-security"
	a.debs["amd64"] = stanzas
	a.publish()
	return a
}

// versions of the packages that the engine was given.
func (r *rig) versions() string {
	var versions []string
	for _, p := range r.engine.packages {
		versions = append(versions, p.Name+"="+p.Version)
	}
	return strings.Join(versions, " ")
}

// Which suite has a package: the highest priority, then the highest version.
func TestPrecedence(t *testing.T) {
	for _, c := range []struct {
		name       string
		first      string // version of hello in one archive, maybe with further fields
		second     string
		priorities [2]int
		filter     string
		want       string // version of hello, or
		err        string
	}{
		{name: "the highest version", first: "1", second: "2", want: "2"},
		{name: "the highest version, in the first", first: "2", second: "2~rc1", want: "2"},
		{name: "the priority before the version", first: "1", second: "2", priorities: [2]int{1, 0}, want: "1"},
		{name: "backports only where nobody else has it", first: "1", second: "2", priorities: [2]int{0, -1}, want: "1"},
		{name: "only in one", second: "2", priorities: [2]int{0, -1}, want: "2"},
		{name: "the same bytes", first: "1", second: "1", want: "1"},
		{name: "other bytes under one version", first: "1", second: "1\nContent: bye", err: "different files of that version"},
		{name: "other bytes under one version, written otherwise", first: "0:1", second: "1\nContent: bye", err: "different files of that version"},
		{name: "other bytes, and a priority", first: "1", second: "1\nContent: bye", priorities: [2]int{0, 1}, want: "1"},
		{name: "other bytes, and a higher version", first: "1\nArchitecture: amd64\n\nPackage: hello\nVersion: 2", second: "1\nContent: bye", want: "2"},
		{name: "a version that the filter describes", first: "1", second: "2", filter: "hello (<< 2)", want: "1"},
		{name: "what the filter describes and another not", first: "1", second: "1\nContent: bye\nSection: net", filter: "Section (net)", want: "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			stanza := func(version string) string {
				if version == "" {
					return "Package: other\nVersion: 1\nArchitecture: amd64\n"
				}
				return fmt.Sprintf("Package: hello\nVersion: %s\nArchitecture: amd64\n", version)
			}
			a, b := security(t, stanza(c.first)), security(t, stanza(c.second))
			r := newRig(t, a)
			config := both(a, b, "hello")
			config.Suites[0].Priority, config.Suites[1].Priority = c.priorities[0], c.priorities[1]
			if c.filter != "" {
				config.Packages, config.Filter = nil, c.filter
			}
			err := r.update(t.Context(), config, &fakeProgress{})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || r.engine.replaced != 0 {
					t.Fatalf("error %v, want %q; %d replacements", err, c.err, r.engine.replaced)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := r.versions(); got != "hello="+c.want {
				t.Errorf("the mirror has %s, want hello=%s", got, c.want)
			}
		})
	}
}

// Release and security together: each package comes from the archive that has
// the version that counts, and dependencies cross suites.
func TestSuitesAreOneUniverse(t *testing.T) {
	a := newArchive(t)
	b := security(t, "Package: hello\nVersion: 2.10-3+deb13u1\nArchitecture: amd64\nDepends: libc, libnew\nContent: fixed\n\n"+
		"Package: libnew\nVersion: 1\nArchitecture: amd64\n\nPackage: unwanted\nVersion: 1\nArchitecture: amd64\n")
	r := newRig(t, a)
	if err := r.update(t.Context(), both(a, b, "hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	want := "apt=3.0 base-files=13 hello=2.10-3+deb13u1 libc=2.41-1 libnew=1 mawk=1.3"
	if got := r.versions(); got != want {
		t.Errorf("the mirror has %s, want %s", got, want)
	}
	for _, seen := range []struct {
		archive *archive
		has     string
		hasNot  string
	}{{a, "libc_2.41-1.deb", "hello"}, {b, "hello_2.10-3+deb13u1.deb", "libc_"}} {
		debs := strings.Join(slices.DeleteFunc(seen.archive.seen(), func(r string) bool { return !strings.HasSuffix(r, ".deb") }), " ")
		if !strings.Contains(debs, seen.has) || strings.Contains(debs, seen.hasNot) {
			t.Errorf("%s was asked for %s", seen.archive.suite, debs)
		}
	}
	kept := filesBelow(t, r.dir)
	for _, name := range []string{r.accepted(a), r.accepted(b)} {
		if !strings.Contains(kept, name) {
			t.Errorf("%s is not kept: %s", name, kept)
		}
	}
}

// Whatever is wrong with one of several suites, nothing changes, neither the
// mirror nor what the others are held to.
func TestOneBadSuiteChangesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(b *archive)
		says  string
	}{
		"replayed":    {func(b *archive) { b.date = b.date.Add(-time.Minute); b.publish() }, "older than"},
		"expired":     {func(b *archive) { b.head = "Valid-Until: Fri, 20 Nov 2026 11:00:00 UTC\n"; b.date = now; b.publish() }, "expired"},
		"other suite": {func(b *archive) { b.spoil("InRelease", func([]byte) []byte { return b.sign("Codename: sid\n") }) }, "not of trixie-security"},
		"other key": {func(b *archive) {
			honest := b.key
			b.key, _ = sign.Generate("Mallory", "m@archive.example", now.Add(-time.Hour))
			b.publish()
			b.key = honest
		}, "trixie-security/InRelease"},
		"gone": {func(b *archive) { b.files = nil }, "404"},
		"bad index": {func(b *archive) {
			b.debs["amd64"] += "\nPackage: more\nVersion: 1\nArchitecture: amd64\n"
			b.publish()
			b.spoil(b.index(".xz"), func(p []byte) []byte { p[len(p)/2] ^= 1; return p })
		}, "cannot read index"},
		"bad package": {func(b *archive) {
			b.debs["amd64"] = strings.Replace(b.debs["amd64"], "Version: 3", "Version: 4\nContent: fresh", 1)
			b.publish()
			b.spoil("hello_4.deb", func(p []byte) []byte { p[7] ^= 1; return p })
		}, "hello_4.deb"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := newArchive(t), security(t, "Package: hello\nVersion: 3\nArchitecture: amd64\nDepends: libc\n")
			r := newRig(t, a)
			if err := r.update(t.Context(), both(a, b, "hello"), &fakeProgress{}); err != nil {
				t.Fatal(err)
			}
			floor, err := os.ReadFile(filepath.Join(r.dir, r.accepted(a)))
			if err != nil {
				t.Fatal(err)
			}
			a.date = a.date.Add(time.Second)
			a.publish()
			c.spoil(b)
			err = r.update(t.Context(), both(a, b, "hello"), &fakeProgress{})
			if err == nil || !strings.Contains(err.Error(), c.says) || r.engine.replaced != 1 {
				t.Fatalf("error %v, want one that says %q; %d replacements", err, c.says, r.engine.replaced)
			}
			if after, err := os.ReadFile(filepath.Join(r.dir, r.accepted(a))); err != nil || string(after) != string(floor) {
				t.Errorf("the other suite's accepted release moved (%v)", err)
			}
		})
	}
}

// What was accepted while mirrors had one suite still holds.
func TestTheReleaseAcceptedByAnOlderProgramHolds(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	if err := os.MkdirAll(filepath.Join(r.dir, "demo/debian"), 0o755); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(r.dir, "demo/debian/InRelease")
	if err := os.WriteFile(old, a.files["dists/trixie/InRelease"], 0o644); err != nil {
		t.Fatal(err)
	}
	a.date = a.date.Add(-time.Second)
	a.publish()
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err == nil || !strings.Contains(err.Error(), "older than") {
		t.Fatalf("error %v", err)
	}
	a.date = a.date.Add(2 * time.Second)
	a.publish()
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if kept := filesBelow(t, r.dir); strings.Contains(kept, "debian/InRelease ") || !strings.Contains(kept, r.accepted(a)) {
		t.Errorf("kept: %s", kept)
	}
}

// Upstream rebuilds a package under its old version: refused before anything is
// downloaded, unless it was allowed.
func TestRebuiltUpstream(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	a.debs["amd64"] = strings.Replace(base, "Package: hello\n", "Package: hello\nContent: rebuilt\n", 1)
	a.date = a.date.Add(time.Second)
	a.publish()
	before := len(a.seen())
	err := r.update(t.Context(), a.config("hello"), &fakeProgress{})
	var shown *release.Error
	if !errors.As(err, &shown) || shown.Code != release.Refused || r.engine.replaced != 1 {
		t.Fatalf("error %v after %d replacements", err, r.engine.replaced)
	}
	for _, says := range []string{"hello=2.10-3:amd64", fmt.Sprintf("sha256 %x", sha(content("rebuilt"))), fmt.Sprintf("was %x", sha(content("hello"))), "--allow-rebuilt"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("the error does not say %q: %v", says, err)
		}
	}
	if asked := strings.Join(a.seen()[before:], " "); strings.Contains(asked, ".deb") {
		t.Errorf("asked for %s", asked)
	}
	if err := r.updateWith(t.Context(), a.config("hello"), Options{AllowRebuilt: true}, &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if len(r.engine.files) != 1 || r.engine.files[0].SHA256 != sha(content("rebuilt")) {
		t.Errorf("it brought %v", r.engine.files)
	}
	// Another entry for the same file is no rebuild.
	a.debs["amd64"] = strings.Replace(a.debs["amd64"], "Recommends: gawk", "Recommends: gawk\nSection: games", 1)
	a.date = a.date.Add(time.Second)
	a.publish()
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if r.engine.replaced != 3 || len(r.engine.files) != 0 {
		t.Errorf("%d replacements, files %v", r.engine.replaced, r.engine.files)
	}
}

// In whatever order candidates come, the same one counts, and it has a rival in
// the same cases.
func TestTheWinnerDependsOnNoOrder(t *testing.T) {
	suites := []*upstream{
		{position: 0}, {position: 1}, {position: 2, suite: release.MirrorSuite{Priority: 1}}, {position: 3, suite: release.MirrorSuite{Priority: 1}},
	}
	rapid.Check(t, func(t *rapid.T) {
		type entry struct {
			from   *upstream
			stanza deb.Stanza
		}
		var entries []entry
		used := map[string]bool{} // an index has a version once
		for range rapid.IntRange(1, 6).Draw(t, "entries") {
			from := rapid.IntRange(0, len(suites)-1).Draw(t, "suite")
			version := rapid.SampledFrom([]string{"1", "0:1", "1~rc1", "2"}).Draw(t, "version")
			content := rapid.IntRange(0, 1).Draw(t, "content")
			if key := fmt.Sprint(from, strings.TrimPrefix(version, "0:")); used[key] {
				continue
			} else {
				used[key] = true
			}
			stanza, err := deb.ParseStanza(fmt.Appendf(nil, "Package: aa\nVersion: %s\nArchitecture: amd64\nSHA256: %064d\n", version, content))
			if err != nil {
				t.Fatal(err)
			}
			entries = append(entries, entry{suites[from], stanza})
		}
		onlyNew := func(s deb.Stanza) bool { return s.Get("Version") != "2" }
		if rapid.Bool().Draw(t, "unfiltered") {
			onlyNew = nil
		}
		winner := func() (*candidate, string) {
			u, err := newUniverse("amd64", onlyNew)
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			for _, e := range entries {
				if err := u.add(e.from, e.stanza); err != nil {
					t.Fatal(err)
				}
			}
			c := u.names["aa"]
			return c, fmt.Sprint(c.version, c.sha256, c.from.position, c.rival != nil)
		}
		_, first := winner()
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)).Shuffle(len(entries), func(i, j int) { entries[i], entries[j] = entries[j], entries[i] })
		if c, again := winner(); again != first {
			t.Fatalf("in another order %s counts, not %s", again, first)
		} else if rival := slices.ContainsFunc(entries, func(e entry) bool {
			o := &candidate{version: e.stanza.Get("Version"), from: e.from, matches: onlyNew != nil && onlyNew(e.stanza)}
			return c.matches == o.matches && c.from.suite.Priority == e.from.suite.Priority && deb.Compare(c.version, o.version) == 0 && e.stanza.Get("SHA256") != c.sha256.String()
		}); rival != (c.rival != nil) {
			t.Fatalf("a rival is there: %v, and known: %v", rival, c.rival != nil)
		}
	})
}
