package mirror

import (
	"fmt"
	"os"
	"path/filepath"
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

// wholeTrixie is trixie with its updates and its security archive, as a device
// would have them in its sources.
func wholeTrixie(t *testing.T, wanted ...string) release.MirrorConfig {
	t.Helper()
	config := realConfig(t, "trixie", wanted...)
	updates := config.Suites[0]
	updates.Suite = "trixie-updates"
	url, path, err := debian.Security()
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config.Suites = append(config.Suites, updates, release.MirrorSuite{
		URL: url, Suite: "trixie-security", Components: []string{"main"}, Keyring: keyring,
	})
	return config
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

// What is mirrored of release, updates and security is, for each package, what
// apt would take of the three.
func TestReleaseUpdatesAndSecurityAreMirrored(t *testing.T) {
	config := wholeTrixie(t, "openssl", "openssh-server", "tzdata")
	architecture, err := debian.Architecture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := newRigFor(t, nil, architecture)
	plan, err := r.updater.plan(t.Context(), r.pipeline, "debian", config, true, &fakeProgress{})
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	for _, s := range plan.selected {
		counts[s.from.suite.Suite]++
	}
	t.Log(counts)
	if len(plan.releases) != 3 || counts["trixie"] < 60 {
		t.Errorf("%d releases, packages by suite: %v", len(plan.releases), counts)
	}
	candidates := aptCandidates(t, config, plan.selected)
	for _, s := range plan.selected {
		if want := candidates[s.Name]; s.Version != want {
			t.Errorf("%s %s is mirrored (of %s), apt would take %q", s.Name, s.Version, s.from.suite.Suite, want)
		}
	}
}

// aptCandidates asks apt, with the suites of a mirror as its sources and
// nothing installed, which version of each package it would take.
func aptCandidates(t *testing.T, config release.MirrorConfig, packages []selected) map[string]string {
	t.Helper()
	var sources strings.Builder
	for i, s := range config.Suites {
		keyring := filepath.Join(t.TempDir(), fmt.Sprintf("%d.gpg", i))
		if err := os.WriteFile(keyring, s.Keyring, 0o644); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&sources, "deb [signed-by=%s] %s %s %s\n", keyring, s.URL, s.Suite, strings.Join(s.Components, " "))
	}
	run := aptRoot(t, sources.String())
	if out, err := run("apt-get", "update"); err != nil {
		t.Fatalf("apt-get update: %v\n%s", err, out)
	}
	args := []string{"policy"}
	for _, s := range packages {
		args = append(args, s.Name)
	}
	out, err := run("apt-cache", args...)
	if err != nil {
		t.Fatalf("apt-cache policy: %v\n%s", err, out)
	}
	candidates := map[string]string{}
	name := ""
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, " ") {
			name, _, _ = strings.Cut(strings.TrimSpace(line), ":")
		}
		if version, ok := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); ok {
			candidates[name] = version
		}
	}
	return candidates
}
