package apt

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What was changed on the server's disk is refused by apt, whether it has
// older lists or none, and named by `repo-manager check`. After `check --repair`,
// and the restoration of what it asks for, apt goes on.
func TestTamperedFilesAreRefusedAndNamed(t *testing.T) {
	badHash := regexp.MustCompile(`Hash Sum mismatch`)
	badSize := regexp.MustCompile(`(?i)unexpected size|hash sum mismatch`)
	badSignature := regexp.MustCompile(`(?i)BADSIG|signature|not signed`)
	flip := func(b []byte) []byte { b[len(b)-len(b)/3] ^= 0x20; return b }
	for _, c := range []struct {
		name    string
		files   []string // patterns below public/
		spoil   func([]byte) []byte
		update  *regexp.Regexp // how `apt-get update` fails, nil: it does not
		install *regexp.Regexp
		named   string // by check
	}{
		{name: "package", files: []string{"pool/*/*/demo-app_2.0_all.deb"}, spoil: flip, install: badHash, named: "demo-app_2.0_all.deb"},
		{name: "truncated package", files: []string{"pool/*/*/demo-app_2.0_all.deb"},
			spoil: func(b []byte) []byte { return b[:len(b)-100] }, install: badSize, named: "demo-app_2.0_all.deb"},
		{name: "index", files: []string{"demo/dev/dists/trixie/apps/binary-*/Packages.*"}, spoil: flip, update: badHash, named: "Packages"},
		{name: "truncated index", files: []string{"demo/dev/dists/trixie/apps/binary-*/Packages.*"},
			spoil: func(b []byte) []byte { return b[:len(b)-10] }, update: badSize, named: "Packages"},
		{name: "InRelease", files: []string{"demo/dev/dists/trixie/InRelease"}, update: badSignature, named: "demo/dev/dists/trixie/InRelease",
			spoil: func(b []byte) []byte { return bytes.Replace(b, []byte("\nDate: "), []byte("\nDate:  "), 1) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.upload("demo-app", "1.0")
			var fresh, holding []*machine
			for _, suite := range suites {
				m := newMachine(t, suite, s, "demo/dev")
				m.update()
				m.apt("install", "demo-app")
				holding = append(holding, m)
				fresh = append(fresh, newMachine(t, suite, s, "demo/dev"))
			}
			s.upload("demo-app", "2.0")
			if out, code := s.tool("check"); code != 0 {
				t.Fatalf("check exits %d before anything happened:\n%s", code, out)
			}
			kept := filepath.Join(t.TempDir(), "demo-app_2.0_all.deb")
			for _, pattern := range c.files {
				for _, path := range s.files(pattern) {
					if strings.HasSuffix(path, ".deb") {
						keep(t, path, kept)
					}
					spoil(t, path, c.spoil)
				}
			}
			for _, m := range append(fresh, holding...) {
				if c.update != nil {
					m.refuses(c.update, "apt-get", "update")
				} else {
					m.update()
					m.refuses(c.install, "apt-get", "--yes", "install", "demo-app=2.0")
				}
			}
			for _, m := range fresh {
				m.wantInstalled("demo-app", "")
			}
			for _, m := range holding {
				m.wantInstalled("demo-app", "1.0")
			}
			out, code := s.tool("check")
			if code != 1 || !strings.Contains(out, c.named) {
				t.Errorf("check exits %d and does not name %s:\n%s", code, c.named, out)
			}
			out, code = s.tool("check", "--repair")
			if c.install != nil {
				if code != 1 || !strings.Contains(out, "repo-manager package restore FILE") {
					t.Errorf("check --repair exits %d:\n%s", code, out)
				}
				out, code = s.tool("package", "restore", kept)
			}
			if code != 0 {
				t.Errorf("the repair exits %d:\n%s", code, out)
			}
			for _, m := range append(fresh, holding...) {
				m.update()
				m.apt("install", "demo-app")
				m.wantInstalled("demo-app", "2.0")
			}
		})
	}
}

// keep copies a file.
func keep(t *testing.T, path, to string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(to, content, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// An archive whose server no longer signs is stale: apt refuses it after
// Valid-Until. The published tree is plain files, so anything can serve it.
func TestAnExpiredStageIsRefused(t *testing.T) {
	s := newServer(t, "valid_for: 3s")
	s.upload("demo-app", "1.0")
	snapshot := s.snapshot()
	s.promote(snapshot, "canary")
	s.stop()

	files := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(s.Data, "public"))))
	t.Cleanup(files.Close)
	s.public = files.URL
	awaitExpiry(t, string(s.download("demo/canary/dists/trixie/InRelease")))
	onEach(t, func(t *testing.T, suite string) {
		m := newMachine(t, suite, s, "demo/canary")
		m.refuses(regexp.MustCompile(`is expired \(invalid since|is not valid anymore|Release file .* is expired`), "apt-get", "update")
		// A snapshot is for ever.
		m.follow(s, "demo/snapshots/"+snapshot)
		m.update()
		m.apt("install", "demo-app")
		m.wantInstalled("demo-app", "1.0")
	})
}

// awaitExpiry waits until the Valid-Until of a Release text has passed.
func awaitExpiry(t *testing.T, text string) {
	t.Helper()
	for line := range strings.Lines(text) {
		value, found := strings.CutPrefix(line, "Valid-Until: ")
		if !found {
			continue
		}
		until, err := time.Parse("Mon, _2 Jan 2006 15:04:05 UTC", strings.TrimSpace(value))
		if err != nil {
			t.Fatal(err)
		}
		if wait := time.Until(until); wait > 30*time.Second {
			t.Fatalf("it expires in %s only:\n%s", wait, text)
		}
		time.Sleep(time.Until(until.Add(time.Second)))
		return
	}
	t.Fatalf("it has no Valid-Until:\n%s", text)
}

// spoil changes a file in place, so that all its hard links change, and hides
// that by keeping its time.
func spoil(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	after := change(bytes.Clone(before))
	if bytes.Equal(before, after) {
		t.Fatalf("%s is not changed", path)
	}
	if err := os.WriteFile(path, after, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}
