package drift

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/rootfs"
)

// tree is a root with a dpkg database that a test writes itself.
type tree struct {
	t    *testing.T
	root string
}

func newTree(t *testing.T) tree {
	t.Helper()
	r := tree{t, t.TempDir()}
	for _, dir := range []string{"usr/bin", "usr/lib", "etc", "var/lib/dpkg/info"} {
		r.mkdir(dir)
	}
	if err := os.Symlink("usr/bin", filepath.Join(r.root, "bin")); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r tree) mkdir(dir string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Join(r.root, dir), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

func (r tree) write(name, content string) {
	r.t.Helper()
	r.mkdir(filepath.Dir(name))
	if err := os.WriteFile(filepath.Join(r.root, name), []byte(content), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r tree) link(target, name string) {
	r.t.Helper()
	if err := os.Symlink(target, filepath.Join(r.root, name)); err != nil {
		r.t.Fatal(err)
	}
}

// manifest is what is there now.
func (r tree) manifest() []byte {
	r.t.Helper()
	var out bytes.Buffer
	if err := rootfs.WriteManifest(r.t.Context(), &out, r.root, nil); err != nil {
		r.t.Fatal(err)
	}
	return out.Bytes()
}

func (r tree) check(manifest []byte) Report {
	r.t.Helper()
	var recorded map[string]rootfs.Entry
	if manifest != nil {
		recorded = r.read(manifest)
	}
	report, err := Check(r.t.Context(), r.root, recorded)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

func sum(content string) string { return fmt.Sprintf("%x", md5.Sum([]byte(content))) }

func told(r Report) string {
	var all []string
	for _, d := range r.Damage {
		all = append(all, d.Path+" "+string(d.Kind))
	}
	return strings.Join(append(all, r.Unowned...), ", ")
}

// TestPathsOfPackages: packages may name a directory that is a link, two may
// have one file, and a diverted one lies elsewhere.
func TestPathsOfPackages(t *testing.T) {
	r := newTree(t)
	r.write("usr/bin/tool", "tool")
	r.write("usr/bin/tool.distrib", "of one")
	r.write("usr/lib/shared", "same")
	r.write("var/lib/dpkg/status", "Package: one\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n\n"+
		"Package: two\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\nMulti-Arch: same\n\n"+
		"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n")
	r.write("var/lib/dpkg/info/one.list", "/.\n/bin\n/bin/tool\n/usr/lib/shared\n")
	r.write("var/lib/dpkg/info/one.md5sums", sum("of one")+"  bin/tool\n"+sum("same")+"  usr/lib/shared\n")
	r.write("var/lib/dpkg/info/two:amd64.list", "/.\n/usr/bin/tool\n/usr/lib/shared\n")
	r.write("var/lib/dpkg/info/two:amd64.md5sums", sum("tool")+"  usr/bin/tool\n"+sum("same")+"  usr/lib/shared\n")
	r.write("var/lib/dpkg/info/gone.list", "/usr/bin/gone\n")
	r.write("var/lib/dpkg/diversions", "/bin/tool\n/bin/tool.distrib\ntwo\n")
	manifest := r.manifest()
	if report := r.check(manifest); !report.Clean() || !report.Owned("/usr/bin/tool.distrib") || len(report.Diverted) > 0 {
		t.Errorf("%s", told(report))
	}
	r.write("usr/bin/tool.distrib", "changed")
	r.write("usr/lib/shared", "changed")
	report := r.check(manifest)
	if got := told(report); got != "/bin/tool.distrib content, /usr/lib/shared content" || !slices.Equal(report.Packages(), []string{"one", "two:amd64"}) {
		t.Errorf("%s of %v", got, report.Packages())
	}
}

// TestStrayIsToldForEver: what was not there by right when a manifest was
// written is told with the next manifest too, until a package has it.
func TestStrayIsToldForEver(t *testing.T) {
	r := newTree(t)
	r.write("var/lib/dpkg/status", "Package: one\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n")
	r.write("var/lib/dpkg/info/one.list", "/.\n/usr\n/usr/bin\n/usr/bin/tool\n/usr/lib\n/etc\n/var\n/bin\n")
	r.write("usr/bin/tool", "tool")
	r.write("usr/lib/cache", "a package's script made it")
	first := r.manifest()
	r.write("usr/lib/by-hand", "x")
	r.write("opt/vendor/a/b", "x")
	r.write("usr/lib/cache", "newer")
	r.link("/etc/alternatives/editor", "usr/bin/editor")
	r.write("etc/mine", "x")
	r.write("var/cache/mine", "x")
	r.write("usr/local/bin/mine", "x")
	want := "/opt/, /usr/lib/by-hand, /usr/lib/cache"
	report := r.check(first)
	if got := told(report); got != want {
		t.Fatalf("told %s", got)
	}
	var second bytes.Buffer
	stray := report.Stray()
	if err := rootfs.WriteManifest(t.Context(), &second, r.root, stray); err != nil {
		t.Fatal(err)
	}
	if got := told(r.check(second.Bytes())); got != want {
		t.Errorf("with the next manifest: %s", got)
	}
	for path, is := range map[string]bool{"/opt": true, "/opt/vendor/a/b": true, "/usr/lib/by-hand": true, "/usr/lib": false, "/": false, "/optional": false, "/usr/lib/by-hand2": false} {
		if stray(path) != is {
			t.Errorf("%s is stray: %v", path, !is)
		}
	}
	if none := (Report{}).Stray(); none("/opt") {
		t.Error("nothing is stray and something is")
	}
	// Without a record nobody can tell what belongs there.
	if report := r.check(nil); len(report.Unowned) > 0 || report.Recorded {
		t.Errorf("%+v", report.Unowned)
	}
}

func TestMendGivesDirectoriesBack(t *testing.T) {
	r := newTree(t)
	r.write("var/lib/dpkg/status", "Package: one\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n")
	r.write("var/lib/dpkg/info/one.list", "/.\n/usr\n/usr/lib\n/usr/lib/one\n/usr/lib/one/deep\n/usr/lib/one/deep/file\n/usr/lib/two\n")
	r.write("usr/lib/one/deep/file", "x")
	r.write("usr/lib/two", "x")
	manifest := r.manifest()
	if err := os.RemoveAll(filepath.Join(r.root, "usr/lib/one")); err != nil {
		t.Fatal(err)
	}
	// A link that leads out of the root must lead nowhere.
	outside := t.TempDir()
	r.link(outside, "usr/lib/one")
	if err := os.Remove(filepath.Join(r.root, "usr/lib/two")); err != nil {
		t.Fatal(err)
	}
	r.write("usr/lib/two/in-the-way", "x")
	report := r.check(manifest)
	if got := told(report); got != "/usr/lib/one type, /usr/lib/one/deep missing, /usr/lib/one/deep/file missing, /usr/lib/two type, /usr/lib/two/in-the-way" {
		t.Errorf("told %s", got)
	}
	if err := report.Mend(r.root); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(r.root, "usr/lib/one")); err != nil || !info.IsDir() {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Lstat(filepath.Join(r.root, "usr/lib/two")); !os.IsNotExist(err) {
		t.Errorf("what is in the way of a file stays: %v", err)
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside of the root there is %v, %v", left, err)
	}
}

// TestOverrides: the fixed mode is as good as the recorded one, any other is not.
func TestOverrides(t *testing.T) {
	r := newTree(t)
	r.write("var/lib/dpkg/status", "Package: one\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n")
	r.write("var/lib/dpkg/info/one.list", "/.\n/usr\n/usr/bin\n/usr/bin/tool\n/usr/lib\n")
	r.write("var/lib/dpkg/statoverride", "root crontab 2755 /usr/bin/tool\n")
	r.write("usr/bin/tool", "x")
	manifest := r.manifest()
	for mode, want := range map[os.FileMode]string{0o644: "", 0o755 | os.ModeSetgid: "", 0o777 | os.ModeSetuid: "/usr/bin/tool permission"} {
		if err := os.Chmod(filepath.Join(r.root, "usr/bin/tool"), mode); err != nil {
			t.Fatal(err)
		}
		report := r.check(manifest)
		if got := told(report); got != want || !slices.Equal(report.Overrides, []string{"/usr/bin/tool"}) {
			t.Errorf("mode %v: told %q, overrides %v", mode, got, report.Overrides)
		}
	}
}

func TestFilters(t *testing.T) {
	r := newTree(t)
	r.write("var/lib/dpkg/status", "")
	r.write("etc/dpkg/dpkg.cfg", "# none\nno-debsig\n")
	r.write("etc/dpkg/dpkg.cfg.d/slim", "path-exclude=/usr/share/doc/*\npath-include = \"/usr/share/doc/*/copyright\"\npath-exclude=/usr/share/locale/[!d]?/*\n")
	db, err := readDatabase(r.root)
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{
		"/usr/share/doc/x/README": true, "/usr/share/doc/x/copyright": false, "/usr/share/docs/x": false, "/usr/share/locale/fr/a/b": true, "/usr/share/locale/de/a": false,
	} {
		if db.excluded(path) != want {
			t.Errorf("%s is left out: %v", path, !want)
		}
	}
}

// TestDamagedDatabases are errors that name the file, never a clean report.
func TestDamagedDatabases(t *testing.T) {
	for name, content := range map[string]string{
		"var/lib/dpkg/diversions":       "/bin/a\n/bin/b\n",
		"var/lib/dpkg/statoverride":     "root\n",
		"var/lib/dpkg/info/one.list":    "usr/bin\n",
		"var/lib/dpkg/info/one.md5sums": "zzz\n",
		"var/lib/dpkg/status":           "Package: ../one\nStatus: install ok installed\n",
		"etc/dpkg/dpkg.cfg":             "path-exclude=/x[z-a]\n",
	} {
		r := newTree(t)
		r.write("var/lib/dpkg/status", "Package: one\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n")
		r.write("var/lib/dpkg/info/one.list", "/.\n")
		r.write(name, content)
		if report, err := Check(t.Context(), r.root, nil); err == nil {
			t.Errorf("%s: %+v", name, report)
		}
	}
	r := newTree(t)
	if _, err := Check(t.Context(), r.root, nil); err == nil {
		t.Error("a root without dpkg is as its packages want it")
	}
	loop := newTree(t)
	loop.write("var/lib/dpkg/status", "Package: one\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n")
	loop.write("var/lib/dpkg/info/one.list", "/a/x\n")
	loop.link("b", "a")
	loop.link("a", "b")
	if _, err := Check(t.Context(), loop.root, nil); err == nil {
		t.Error("links in a circle have an end")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	loop.write("var/lib/dpkg/info/one.list", "/etc\n")
	if _, err := Check(ctx, loop.root, nil); err == nil {
		t.Error("it was not stopped")
	}
}
