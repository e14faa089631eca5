package publish

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/snapshots"
)

// The texts of a stage and of a snapshot, word by word.
func TestReleaseText(t *testing.T) {
	f := newFixture(t)
	state := f.state(described(t, "tool", "1", "amd64"), described(t, "data", "1", "all"))
	at := time.Date(2026, 11, 2, 3, 4, 5, 6, time.FixedZone("elsewhere", 3600))
	lines := func(key snapshots.Key) string {
		s := f.sums[IndexKeyOf(state.Index(key))]
		var b strings.Builder
		for i, name := range []string{"Packages", "Packages.gz", "Packages.zst"} {
			fmt.Fprintf(&b, " %x %d %s/binary-%s/%s\n", s[i].sum, s[i].size, key.Component, key.Architecture, name)
		}
		return b.String()
	}
	rows := []struct {
		name, want string
		meta       Meta
	}{
		{"a stage", "Origin: Aptfleet\nLabel: demo\nSuite: canary\nCodename: trixie\nDate: Mon, 02 Nov 2026 02:04:05 UTC\nValid-Until: Mon, 09 Nov 2026 02:04:05 UTC\n" +
			"Acquire-By-Hash: yes\nArchitectures: amd64 arm64\nComponents: apps base\nAptfleet-State: STATE\nAptfleet-Snapshot: 20261101T000000Z\n" +
			"Snapshots: https://archive.example/demo/snapshots/@SNAPSHOTID@/\nSHA256:\n",
			Meta{Suite: "canary", Snapshot: "20261101T000000Z", Date: at, ValidUntil: at.AddDate(0, 0, 7), Snapshots: "https://archive.example/demo/snapshots/@SNAPSHOTID@/"}},
		{"a snapshot", "Origin: Aptfleet\nLabel: demo\nCodename: trixie\nDate: Mon, 02 Nov 2026 02:04:05 UTC\n" +
			"Acquire-By-Hash: yes\nArchitectures: amd64 arm64\nComponents: apps base\nAptfleet-State: STATE\nAptfleet-Snapshot: 20261101T000000Z\nSHA256:\n",
			Meta{Snapshot: "20261101T000000Z", Date: at}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			base := demo
			base.Components = []string{"base", "apps"}
			got, err := f.ReleaseText(t.Context(), base, state, row.meta)
			if err != nil {
				t.Fatal(err)
			}
			want := strings.ReplaceAll(row.want, "STATE", state.ID().String())
			for _, key := range demo.keys() {
				want += lines(key)
			}
			if string(got) != want {
				t.Errorf("text is\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// Nothing of foreign make gets into a Release text or a path.
func TestNamesThatAreRefused(t *testing.T) {
	f := newFixture(t)
	state := f.state(described(t, "tool", "1", "amd64"))
	rows := []struct {
		name string
		call func() error
		want string
	}{
		{"a stage called states", func() error { return f.Stage(t.Context(), demo, "states", state, Meta{Date: start}) }, "name of a stage"},
		{"a stage above the pipeline", func() error { return f.Stage(t.Context(), demo, "../evil", state, Meta{Date: start}) }, "name of a stage"},
		{"a pipeline called pool", func() error {
			base := demo
			base.Pipeline = "pool"
			return f.Stage(t.Context(), base, "dev", state, Meta{Date: start})
		}, "name of a pipeline"},
		{"a distribution with a slash", func() error {
			base := demo
			base.Distribution = "a/b"
			return f.Stage(t.Context(), base, "dev", state, Meta{Date: start})
		}, "name of a distribution"},
		{"an architecture all", func() error {
			base := demo
			base.Architectures = []string{"all"}
			return f.Stage(t.Context(), base, "dev", state, Meta{Date: start})
		}, "index for all"},
		{"a field in a URL", func() error {
			return f.Stage(t.Context(), demo, "dev", state, Meta{Date: start, Snapshots: "https://x/\nLabel: evil"})
		}, "white space"},
		{"a component that is not declared", func() error {
			base := demo
			base.Components = []string{"base"}
			return f.Stage(t.Context(), base, "dev", state, Meta{Date: start})
		}, "does not declare"},
		{"a fixed base elsewhere", func() error { return f.Fixed(t.Context(), demo, "dev", state, Signed{}) }, "want snapshots/<id>"},
		{"a fixed base above", func() error { return f.Fixed(t.Context(), demo, "states/..", state, Signed{}) }, "want snapshots/<id>"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if err := row.call(); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want one about %q", err, row.want)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(f.public, "demo")); err == nil {
		t.Error("something was published")
	}
}

// gpgv judges both signatures.
func TestGpgvAcceptsTheSignatures(t *testing.T) {
	f := newFixture(t)
	f.offer(f.state(described(t, "tool", "1", "amd64")))
	keyring := filepath.Join(t.TempDir(), "archive.pgp")
	binary, err := f.key.CertificateBinary()
	if err != nil {
		t.Fatal(err)
	}
	write(t, keyring, binary)
	dists := filepath.Join(f.public, "demo/dev/dists/trixie")
	for _, args := range [][]string{
		{filepath.Join(dists, "InRelease")},
		{filepath.Join(dists, "Release.gpg"), filepath.Join(dists, "Release")},
	} {
		out, err := exec.Command("gpgv", append([]string{"--keyring", keyring}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("gpgv %q: %v\n%s", args, err, out)
		}
	}
}

// A restart publishes again what is there: the same files stay, unsigned anew.
func TestAStageThatOffersTheSameStaysAsItIs(t *testing.T) {
	f := newFixture(t)
	state := f.state(described(t, "tool", "1", "amd64"))
	f.offer(state)
	inRelease := filepath.Join(f.public, "demo/dev/dists/trixie/InRelease")
	before, err := os.Stat(inRelease)
	if err != nil {
		t.Fatal(err)
	}
	if !before.ModTime().Equal(f.now) {
		t.Errorf("InRelease is of %v, its Date of %v", before.ModTime(), f.now)
	}
	meta := Meta{Date: f.now}
	f.reopen()
	f.now = f.now.Add(time.Hour)
	if err := f.Stage(t.Context(), demo, "dev", state, meta); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(inRelease); err != nil || !os.SameFile(before, after) {
		t.Errorf("InRelease was written again: %v", err)
	}
	edit(t, inRelease, "Label: demo", "Label: evil")
	if err := f.Stage(t.Context(), demo, "dev", state, meta); err != nil {
		t.Fatal(err)
	}
	f.consistent("demo/dev")
}
