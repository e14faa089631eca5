package build_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"aptfleet/test/debian"
)

// root is a private Debian system.
type root struct {
	t   *testing.T
	dir string
}

func newRoot(t *testing.T) root {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("chroot needs root (hint: make test runs as root)")
	}
	tar, err := debian.Root(t.Context(), debian.Spec{Suite: "trixie"})
	if err != nil {
		t.Fatal(err)
	}
	r := root{t, t.TempDir()}
	if err := debian.Unpack(t.Context(), tar, r.dir); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r root) run(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("chroot", append([]string{r.dir}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// install builds a version of a source and gives it to the root's dpkg.
func (r root) install(s source, version string) {
	r.t.Helper()
	data, err := os.ReadFile(s.build(version).File)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "tmp/package.deb"), data, 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.run("dpkg", "--force-confold", "--install", "/tmp/package.deb")
	if audit := r.run("dpkg", "--audit"); audit != "" {
		r.t.Errorf("dpkg --audit: %s", audit)
	}
	if got := r.run("dpkg-query", "--show", "--showformat=${Status} ${Version}", "hello"); got != "install ok installed "+version {
		r.t.Errorf("dpkg says %q", got)
	}
}

func (r root) has(path string, want bool) {
	r.t.Helper()
	if _, err := os.Lstat(filepath.Join(r.dir, path)); (err == nil) != want {
		r.t.Errorf("%s: %v, want it there: %t", path, err, want)
	}
}

// listing is what packages may leave behind: settings, state and units.
func (r root) listing() string {
	return r.run("find", "/etc", "/usr", "/var/lib", "-not", "-path", "/var/lib/dpkg/*", "-not", "-path", "/var/lib/dpkg")
}

// TestALifeInARealRoot installs, upgrades, removes and purges a package with
// units, settings, scripts and triggers on Debian 13.
func TestALifeInARealRoot(t *testing.T) {
	r := newRoot(t)
	before := r.listing()
	const service, timer = "/etc/systemd/system/multi-user.target.wants/hello.service", "/etc/systemd/system/timers.target.wants/hello.timer"
	s := newSource(t, rich, richFiles)
	r.install(s, "1.0")
	r.has(service, true)
	r.has(timer, true)
	r.has("/var/lib/hello/state", true) // the manifest's own postinst ran
	if got := r.run("/usr/lib/hello/hello"); got != "hello\n" {
		t.Errorf("the program says %q", got)
	}
	if got := r.run("dpkg", "--verify", "hello"); got != "" {
		t.Errorf("dpkg --verify: %s", got)
	}
	// What the administrator disabled and edited stays so.
	if err := os.Remove(filepath.Join(r.dir, timer)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "/etc/hello.conf"), []byte("greeting=edited\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.write("hello.conf", "greeting=from 1.1\n")
	s.write("bin/hello", "#!/bin/sh\necho hello 1.1\n")
	r.install(s, "1.1")
	r.has(service, true)
	r.has(timer, false)
	r.has("/etc/hello.conf.dpkg-dist", true)
	if got := r.run("cat", "/etc/hello.conf"); got != "greeting=edited\n" {
		t.Errorf("the edited file became %q", got)
	}
	if got := r.run("hello"); got != "hello 1.1\n" {
		t.Errorf("the upgraded program says %q", got)
	}
	r.install(s, "1.0") // and back
	r.has(service, true)
	r.run("dpkg", "--remove", "hello")
	r.has("/usr/bin/hello", false)
	r.has("/etc/hello.conf", true)
	r.run("dpkg", "--purge", "hello")
	if after := r.listing(); after != before {
		t.Errorf("after purge the root differs:\nbefore\n%s\nafter\n%s", before, after)
	}
}

// TestInstalledSizeIsDpkgs asks dpkg-gencontrol about the same tree.
func TestInstalledSizeIsDpkgs(t *testing.T) {
	s := newSource(t, rich, richFiles)
	s.write("tree/large", strings.Repeat("x", 100_001))
	if err := os.Symlink("large", filepath.Join(s.dir, "tree/link")); err != nil {
		t.Fatal(err)
	}
	file := s.build("").File
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "debian"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, "dpkg-deb", "--raw-extract", file, filepath.Join(dir, "debian/hello"))
	// As in a build with debhelper, these come later.
	for _, name := range []string{"control", "md5sums"} {
		if err := os.Remove(filepath.Join(dir, "debian/hello/DEBIAN", name)); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"debian/control":   "Source: hello\nMaintainer: A <a@test.example>\n\nPackage: hello\nArchitecture: all\nDescription: x\n y\n",
		"debian/changelog": "hello (1.0) unstable; urgency=medium\n\n  * x\n\n -- A <a@test.example>  Thu, 01 Jan 2026 00:00:00 +0000\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := command(t, "dpkg-gencontrol", "-Pdebian/hello", "-O")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for line := range strings.Lines(string(out)) {
		if value, found := strings.CutPrefix(line, "Installed-Size: "); found {
			want = value
		}
	}
	if got := run(t, "dpkg-deb", "--field", file, "Installed-Size"); got != want {
		t.Errorf("Installed-Size is %s, dpkg-gencontrol says %s", strconv.Quote(got), strconv.Quote(want))
	}
}
