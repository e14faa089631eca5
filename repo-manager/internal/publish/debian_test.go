package publish

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"aptfleet/internal/deb"
	"aptfleet/snapshots"
	"aptfleet/test/debian"
)

// All of a Debian release goes in and comes out, in chunks of a useful size,
// and apt reads what is published of it.
func TestAllOfDebian(t *testing.T) {
	if os.Getenv("APTFLEET_LONG") == "" {
		t.Skip("long: make test-long runs it")
	}
	mirror, _, err := debian.Mirror()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "Packages.gz")
	if out, err := exec.Command("/usr/lib/apt/apt-helper", "download-file", mirror+"/dists/trixie/main/binary-amd64/Packages.gz", file).CombinedOutput(); err != nil {
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
