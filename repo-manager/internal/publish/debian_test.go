package publish

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/snapshots"
	"aptfleet/test/debian"
	"aptfleet/test/order"
)

// All of a Debian release goes in and comes out, in chunks of a useful size,
// and apt reads what is published of it.
func TestAllOfDebian(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; other tests let apt read a few packages, and TestChunkSizes has many")
	}
	packages := debianPackages(t, "trixie")
	f := newFixture(t)
	state := f.state(packages...)
	index := state.Index(snapshots.Key{Component: "apps", Architecture: "amd64"})
	if index.Count() != len(packages) {
		t.Errorf("the state has %d packages of %d", index.Count(), len(packages))
	}
	average, largest, bytes := index.Count()/len(index.Chunks), 0, int64(0)
	for _, chunk := range index.Chunks {
		largest, bytes = max(largest, chunk.Count), max(bytes, chunk.Size)
	}
	t.Logf("%d packages, %d chunks of %d on average, at most %d packages or %d bytes", index.Count(), len(index.Chunks), average, largest, bytes)
	if average < 300 || average > 900 || bytes > 4<<20 {
		t.Error("chunks are too small or too large")
	}
	f.offer(state)
	a := newAPT(t, f, "demo/dev")
	a.update()
	names := make(map[string]bool)
	for _, p := range packages {
		names[p.Name] = true
	}
	if got := len(a.names()); got < len(names)-1 {
		t.Errorf("apt knows %d packages of %d", got, len(names))
	}
}

// debianPackages returns what a Debian release has in main for amd64.
func debianPackages(t *testing.T, suite string) []snapshots.Package {
	t.Helper()
	mirror, _, err := debian.Mirror()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "Packages.gz")
	if out, err := exec.Command("/usr/lib/apt/apt-helper", "download-file", mirror+"/dists/"+suite+"/main/binary-amd64/Packages.gz", file).CombinedOutput(); err != nil {
		t.Fatalf("cannot fetch Debian's index: %v\n%s", err, out)
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	var packages []snapshots.Package
	stanzas := deb.NewStanzaReader(unpacked, deb.MaxStanza)
	for {
		stanza, err := stanzas.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p, err := snapshots.ParsePackage(stanza.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", stanza.Get("Package"), err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 50000 {
		t.Fatalf("Debian has %d packages", len(packages))
	}
	return packages
}

// What Debian's packages make of states: a merge of two releases, a pick that
// apt can install from, and a query that apt-cache answers too.
func TestTheAlgebraOnDebian(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; package snapshots tries the algebra on packages that it makes up")
	}
	ctx, f := context.Background(), newFixture(t)
	old, now := f.state(debianPackages(t, "bookworm")...), f.state(debianPackages(t, "trixie")...)
	key := snapshots.Key{Component: "apps", Architecture: "amd64"}
	took := func(what string, begin time.Time) { t.Logf("%s: %d ms", what, time.Since(begin).Milliseconds()) }

	begin := time.Now()
	merged, conflicts, err := snapshots.Merge(ctx, f.store, snapshots.Latest, old, now)
	if err != nil {
		t.Fatal(err)
	}
	took("merge of two releases", begin)
	names := make(map[string]string) // the higher version of each name
	for _, state := range []snapshots.State{old, now} {
		for p, err := range snapshots.All(ctx, f.store, state, key) {
			if err != nil {
				t.Fatal(err)
			}
			if deb.Compare(p.Version, names[p.Name]) > 0 || names[p.Name] == "" {
				names[p.Name] = p.Version
			}
		}
	}
	seen := 0
	for p, err := range snapshots.All(ctx, f.store, merged, key) {
		if err != nil {
			t.Fatal(err)
		}
		if p.Version == names[p.Name] {
			seen++
		}
	}
	t.Logf("%d names, %d conflicts", len(names), len(conflicts))
	if seen != len(names) || len(conflicts) < 10000 {
		t.Errorf("the merge has the higher version of %d names of %d", seen, len(names))
	}
	begin = time.Now()
	one, err := snapshots.Apply(ctx, f.store, now, snapshots.Edit{Component: "apps", Put: []snapshots.Package{described(t, "aptfleet-new", "1", "amd64")}})
	if err != nil {
		t.Fatal(err)
	}
	again, conflicts, err := snapshots.Merge(ctx, f.store, snapshots.Refuse, now, one)
	if err != nil || again.ID() != one.ID() || len(conflicts) > 0 {
		t.Errorf("a merge with one more package: %v", err)
	}
	took("one more package, and a merge with it", begin)

	begin = time.Now()
	wanted := []string{"nginx", "openssh-server", "python3-requests", "postfix", "mailutils"}
	picked, err := snapshots.Pick(ctx, f.store, f.state(), now, wanted, true)
	if err != nil {
		t.Fatal(err)
	}
	took(fmt.Sprintf("pick of %d packages and their dependencies: %d", len(wanted), len(picked.Names)), begin)
	for _, u := range picked.Unmet {
		if u.Architecture == "amd64" { // for arm64 there is nothing but what is for all
			t.Errorf("missing: %v", u)
		}
	}
	f.offer(picked.State)
	a := newAPT(t, f, "demo/dev")
	a.update()
	for _, name := range wanted {
		if out, err := a.run("apt-get", "install", "-s", "--no-install-recommends", name); err != nil {
			t.Errorf("apt cannot install %s from what was picked: %v\n%s", name, err, out)
		}
	}

	f.offer(now)
	a.update()
	for query, search := range map[string][]string{
		// apt-cache looks at what is provided too.
		"Name (~ ^golang-github-.*-dev$) | Provides (~ '(^|, )golang-github-[^, ]*-dev( |,|$)')": {"^golang-github-.*-dev$"},
		"Name (% python3-django-*)": {"^python3-django-"},
	} {
		q, err := snapshots.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		var got []string
		for p, err := range snapshots.Select(ctx, f.store, now, key, q) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p.Name)
		}
		took(query, begin)
		out, err := a.run("apt-cache", append([]string{"search", "--names-only"}, search...)...)
		if err != nil {
			t.Fatalf("apt-cache: %v\n%s", err, out)
		}
		var want []string
		for line := range strings.Lines(out) {
			name, _, _ := strings.Cut(line, " ")
			want = append(want, name)
		}
		slices.Sort(want)
		if got = slices.Compact(got); !slices.Equal(got, want) || len(got) < 50 {
			t.Errorf("%s finds %d packages, apt-cache %d", query, len(got), len(want))
			for _, name := range want {
				if !slices.Contains(got, name) {
					t.Errorf("only apt-cache finds %s", name)
				}
			}
		}
	}
}
