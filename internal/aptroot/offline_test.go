package aptroot_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/aptroot"
)

// stanza is a package of arm64 with more fields.
func stanza(name, version, fields string) string {
	return fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: arm64\nMaintainer: A <a@aptfleet.example>\nDescription: x\n%sFilename: pool/%s.deb\nSize: 5\nSHA256: %064d\n\n",
		name, version, fields, name, len(name)+len(version))
}

var lists = map[string]string{
	"apps": stanza("app", "1:1.0", "Depends: lib, virtual\nRecommends: extra\n") + stanza("lib", "1", "") + stanza("base", "1", "Essential: yes\n"),
	"debian": stanza("lib", "2", "") + stanza("extra", "1", "") + stanza("provider", "1", "Provides: virtual\n") + stanza("bad", "1", "Depends: nothing\n") +
		stanza("worse", "1", "Depends: nothing, lib (>= 9), no (= 1)\n"),
}

func offline(t *testing.T) *aptroot.Root {
	t.Helper()
	r, err := aptroot.NewOffline(filepath.Join(t.TempDir(), "a root"), "arm64", []string{"apps", "empty", "debian"}, func(component string, w io.Writer) error {
		_, err := io.WriteString(w, lists[component])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Lists that the caller makes are all that counts: not the system's, and of the
// architecture that was asked for.
func TestOffline(t *testing.T) {
	r := offline(t)
	for _, c := range []struct {
		options []string
		want    string
	}{
		{nil, "app:arm64=1:1.0 base:arm64=1 lib:arm64=2 provider:arm64=1"},
		{[]string{"--install-recommends"}, "app:arm64=1:1.0 base:arm64=1 extra:arm64=1 lib:arm64=2 provider:arm64=1"},
		{nil, "app:arm64=1:1.0 base:arm64=1 lib:arm64=2 provider:arm64=1"},
	} {
		list, err := r.Solve(t.Context(), []string{"app"}, c.options...)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range list {
			got = append(got, p.String())
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%v: got %s, want %s", c.options, s, c.want)
		}
	}
	// What apt made of the lists is there for the next one.
	if info, err := os.Stat(r.Path("pkgcache.bin")); err != nil || info.Size() == 0 {
		t.Errorf("no cache of the lists: %v", err)
	}
	files, err := r.Lists()
	if err != nil || len(files) != 3 {
		t.Errorf("lists %v, %v", files, err)
	}
	if info, err := os.Stat(r.Path(".")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others may enter: %v, %v", info.Mode(), err)
	}
}

// A verdict is told apart from trouble.
func TestVerdictOrTrouble(t *testing.T) {
	r := offline(t)
	for wanted, says := range map[string]string{
		"bad":     "bad : Depends: nothing but it is not installable",
		"worse":   "worse : Depends: nothing but it is not installable",
		"nowhere": "Unable to locate package nowhere",
		"virtual": "apt left virtual out",
		"app-":    "apt left app- out",
	} {
		summary := says
		if wanted == "worse" {
			summary += ", and 2 more"
		}
		_, err := r.Solve(t.Context(), []string{wanted})
		var verdict *aptroot.UnsolvableError
		if !errors.As(err, &verdict) || !strings.Contains(verdict.Said, says) || verdict.Summary != summary {
			t.Errorf("%s: %v", wanted, err)
		}
		if verdict != nil && (strings.Contains(verdict.Said, "Reading package lists") || strings.Contains(verdict.Summary, "\n")) {
			t.Errorf("%s: progress is no explanation: %q %q", wanted, verdict.Summary, verdict.Said)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var verdict *aptroot.UnsolvableError
	if _, err := r.Solve(ctx, []string{"app"}); !errors.Is(err, context.Canceled) || errors.As(err, &verdict) {
		t.Errorf("after its end: %v", err)
	}
	if err := os.WriteFile(r.Path("solve.conf"), []byte("what is this {"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Solve(t.Context(), []string{"app"}); err == nil || errors.As(err, &verdict) {
		t.Errorf("settings that cannot be read: %v", err)
	}
	if _, err := aptroot.NewOffline(t.TempDir(), "arm64", []string{"apps"}, func(string, io.Writer) error { return io.ErrShortWrite }); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a list that cannot be written: %v", err)
	}
}

// A release without components has no packages, which is a verdict.
func TestOfflineWithoutComponents(t *testing.T) {
	r, err := aptroot.NewOffline(filepath.Join(t.TempDir(), "root"), "amd64", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var verdict *aptroot.UnsolvableError
	if _, err := r.Solve(t.Context(), []string{"app"}); !errors.As(err, &verdict) || verdict.Summary != "Unable to locate package app" {
		t.Errorf("%v", err)
	}
}
