package product

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const log = `app (1:2.0-1) trixie; urgency=medium

  * Speak to the new modem. Closes: #4711, #0815
  * More. (closes: bug#12, LP: #42, #43)
  * CVE-2026-1234 and CVE-2026-12345, CVE-2026-1234 again.

 -- A Maintainer <a@aptfleet.example>  Fri, 20 Nov 2026 12:00:00 +0000

app (1:1.5-1) trixie-security; urgency=high

  * Middle.

 -- A Maintainer <a@aptfleet.example>  Thu, 19 Nov 2026 12:00:00 +0000

app (1:1.0-1) trixie; urgency=medium

  * First version.

 -- A Maintainer <a@aptfleet.example>  Wed, 18 Nov 2026 12:00:00 +0000
`

func TestParseChangelog(t *testing.T) {
	entries := parseChangelog([]byte("upstream prattle\n" + log))
	var versions []string
	for _, e := range entries {
		versions = append(versions, e.Version)
	}
	if got := strings.Join(versions, " "); got != "1:2.0-1 1:1.5-1 1:1.0-1" {
		t.Fatalf("versions %s", got)
	}
	first := entries[0]
	if got := strings.Join(first.Bugs, " "); got != "#4711 #0815 #12 LP: #42 LP: #43" {
		t.Errorf("bugs %s", got)
	}
	if got := strings.Join(first.CVEs, " "); got != "CVE-2026-1234 CVE-2026-12345" {
		t.Errorf("vulnerabilities %s", got)
	}
	if !strings.HasPrefix(first.Text, "app (1:2.0-1)") || !strings.HasSuffix(first.Text, "+0000") || strings.Contains(first.Text, "Middle") {
		t.Errorf("text %q", first.Text)
	}
	for _, c := range []struct{ above, upTo, want string }{
		{"1:1.0-1", "1:2.0-1", "1:2.0-1 1:1.5-1"},
		{"1:1.5-1", "1:1.5-1", ""},
		{"0.9", "1:1.0-1", "1:1.0-1"},
		{"1:1.4", "1:1.9", "1:1.5-1"},
	} {
		var got []string
		for _, e := range between(entries, c.above, c.upTo) {
			got = append(got, e.Version)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("between %s and %s: %v, want %s", c.above, c.upTo, got, c.want)
		}
	}
}

// The words that close bugs are those that dpkg-parsechangelog knows.
func TestBugsAreThoseOfDpkg(t *testing.T) {
	file := filepath.Join(t.TempDir(), "changelog")
	if err := os.WriteFile(file, []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("dpkg-parsechangelog", "-l", file, "-S", "Closes").Output()
	if err != nil {
		t.Fatalf("dpkg-parsechangelog: %v (package dpkg-dev)", err)
	}
	var got []string
	for _, bug := range parseChangelog([]byte(log))[0].Bugs {
		if n, ok := strings.CutPrefix(bug, "#"); ok {
			got = append(got, strings.TrimLeft(n, "0"))
		}
	}
	want := strings.Fields(string(out))
	for i := range want {
		want[i] = strings.TrimLeft(want[i], "0")
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("bugs %v, dpkg finds %v", got, want)
	}
}

// makeDeb builds a package of files; a content "-> x" makes a link.
func makeDeb(t *testing.T, control string, files map[string]string) []byte {
	t.Helper()
	tree := t.TempDir()
	if err := os.Chmod(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(content, "-> "); ok {
			if err := os.Symlink(to, path); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if strings.HasSuffix(name, ".gz") {
			var packed bytes.Buffer
			z := gzip.NewWriter(&packed)
			if _, err := z.Write([]byte(content)); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			content = packed.String()
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(tree, "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "DEBIAN/control"), []byte(control), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, file).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestReadChangelog(t *testing.T) {
	const control = "Package: app\nVersion: 1:2.0-1\nArchitecture: all\nMaintainer: A <a@aptfleet.example>\nDescription: x\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"Debian's":           {map[string]string{"usr/share/doc/app/changelog.Debian.gz": log, "usr/share/doc/app/changelog.gz": "upstream"}, log},
		"of a native one":    {map[string]string{"usr/share/doc/app/changelog.gz": log}, log},
		"not compressed":     {map[string]string{"usr/share/doc/app/changelog.Debian": log}, log},
		"none":               {map[string]string{"usr/share/doc/app/copyright": "x"}, ""},
		"of another package": {map[string]string{"usr/share/doc/lib/changelog.Debian.gz": log}, ""},
		"shared by a link":   {map[string]string{"usr/share/doc/app": "-> lib"}, ""},
	} {
		got, err := readChangelog(t.Context(), bytes.NewReader(makeDeb(t, control, c.files)), "app")
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	bad := makeDeb(t, control, map[string]string{"usr/share/doc/app/changelog.Debian.gz": log})
	if _, err := readChangelog(t.Context(), bytes.NewReader(bad[:len(bad)/2]), "app"); err == nil {
		t.Error("half a package was read")
	}
}

// A changelog that was read is not read again, and old ones give way.
func TestChangelogsAreRemembered(t *testing.T) {
	var c changelogs
	c.remember([32]byte{1}, []Entry{{Version: "1"}}, maxCached/2)
	c.remember([32]byte{2}, nil, maxCached/2)
	if _, ok := c.known[[32]byte{1}]; ok {
		t.Error("the oldest one stayed")
	}
	if _, ok := c.known[[32]byte{2}]; !ok {
		t.Error("the newest one left")
	}
	if entries, err := c.of(t.Context(), [32]byte{2}, "app", "1", "all"); err != nil || entries != nil {
		t.Errorf("remembered: %v, %v", entries, err)
	}
}

func FuzzParseChangelog(f *testing.F) {
	f.Add([]byte(log))
	f.Add([]byte("a (1) x;\nb (2) x;"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, e := range parseChangelog(text) {
			if strings.ContainsAny(e.Version, " ()\n") {
				t.Errorf("version %q", e.Version)
			}
		}
	})
}
