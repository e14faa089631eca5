package mirror

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/test/debian"
)

// realConfig is a mirror of the Debian archive that this machine uses.
func realConfig(t *testing.T, suite string, wanted ...string) release.MirrorConfig {
	t.Helper()
	url, path, err := debian.Mirror()
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	proxies, err := debian.ProxyEnvironment(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, proxy := range proxies {
		name, value, _ := strings.Cut(proxy, "=")
		t.Setenv(name, value)
	}
	return release.MirrorConfig{
		Suites:   []release.MirrorSuite{{URL: url, Suite: suite, Components: []string{"main"}, Keyring: keyring}},
		Packages: wanted,
	}
}

// Debian's own InRelease files carry several signatures, each by a subkey,
// and Debian's keyring has many keys.
func TestDebiansReleasesAreAccepted(t *testing.T) {
	for _, suite := range []string{"bookworm", "trixie"} {
		up, err := New(Config{}).upstream(realConfig(t, suite).Suites[0], 0)
		if err != nil {
			t.Fatal(err)
		}
		rel, err := up.release(t.Context(), time.Now())
		if err != nil {
			t.Errorf("%s: %v", suite, err)
			continue
		}
		if len(rel.files) < 100 || !rel.byHash || rel.date.IsZero() || rel.signer == "" {
			t.Errorf("%s: %d files, by hash %v, date %v, signer %q", suite, len(rel.files), rel.byHash, rel.date, rel.signer)
		}
	}
}

func TestDebianIsMirrored(t *testing.T) {
	config := realConfig(t, "trixie", "hello")
	architecture, err := debian.Architecture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := newRigFor(t, nil, architecture)
	progress := &fakeProgress{}
	if err := r.update(t.Context(), config, progress); err != nil {
		t.Fatal(err)
	}
	t.Log(strings.Join(progress.log, "\n"))
	names := strings.Fields(r.names())
	for _, name := range []string{"hello", "apt", "bash", "base-files", "dpkg", "libc6", "debian-archive-keyring", "mawk", "passwd"} {
		if !slices.Contains(names, name) {
			t.Errorf("%s is missing", name)
		}
	}
	if len(names) < 60 || len(names) > 200 || slices.Contains(names, "gawk") {
		t.Errorf("the closure has %d packages: %s", len(names), r.names())
	}
	if progress.done != progress.total {
		t.Errorf("%d of %d bytes", progress.done, progress.total)
	}
}
