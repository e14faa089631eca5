package packaging

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"aptfleet/test/debian"
	"aptfleet/test/rig"
)

var bin string // with builder and device-updater

func TestMain(m *testing.M) {
	os.Exit(rig.Main("aptfleet-packaging-", "", []string{"builder", "device-updater"}, func(dir string) (int, error) {
		bin = dir
		return m.Run(), nil
	}))
}

// pack builds the updater's package.
func pack(t *testing.T, version string) string {
	t.Helper()
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "builder"), "build", "../../device-updater", "--version", version, "--output", out)
	cmd.Env = append(os.Environ(), "APTFLEET_BIN="+bin)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("builder build: %v\n%s", err, text)
	}
	found, err := filepath.Glob(filepath.Join(out, "*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("builder left %v, %v", found, err)
	}
	return found[0]
}

// system is a Debian system that is not running, as a clone is not.
type system struct {
	t   *testing.T
	dir string
}

func newSystem(t *testing.T, suite string) system {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("chroot needs root (hint: make test runs as root)")
	}
	tar, err := debian.Root(t.Context(), debian.Spec{Suite: suite, Packages: []string{"systemd-sysv"}})
	if err != nil {
		t.Fatal(err)
	}
	s := system{t, t.TempDir()}
	if err := debian.Unpack(t.Context(), tar, s.dir); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s system) path(name string) string { return filepath.Join(s.dir, name) }

// try runs a program in the system.
func (s system) try(args ...string) (string, error) {
	cmd := exec.CommandContext(s.t.Context(), "chroot", append([]string{s.dir}, args...)...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (s system) run(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s system) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(name), []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s system) install(deb string) {
	s.t.Helper()
	text, err := os.ReadFile(deb)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("tmp/device-updater.deb", string(text), 0o644)
	s.run("dpkg", "--force-confdef", "--force-confold", "--install", "/tmp/device-updater.deb")
	if audit := s.run("dpkg", "--audit"); audit != "" {
		s.t.Errorf("dpkg --audit: %s", audit)
	}
	if changed := s.run("dpkg", "--verify", "device-updater"); changed != "" {
		s.t.Errorf("dpkg --verify: %s", changed)
	}
}

// listing is what a package may leave behind.
func (s system) listing() []string {
	return strings.Split(s.run("find", "/etc", "/usr", "/var/lib", "/var/cache", "-not", "-path", "/var/lib/dpkg/*", "-not", "-path", "/var/lib/dpkg"), "\n")
}

// spies are the programs through which a maintainer script would reach a
// running systemd. They write down what they were asked.
func (s system) spies() {
	for _, name := range []string{"systemctl", "deb-systemd-invoke"} {
		s.write("usr/local/sbin/"+name, "#!/bin/sh\necho "+name+" \"$@\" >>/var/asked\n", 0o755)
	}
}

// asked returns what the spies wrote down since the last time.
func (s system) asked() string {
	text, err := os.ReadFile(s.path("var/asked"))
	if err != nil && !os.IsNotExist(err) {
		s.t.Error(err)
	}
	if err := os.RemoveAll(s.path("var/asked")); err != nil {
		s.t.Error(err)
	}
	return string(text)
}

// TestTheUpdatersLife installs, upgrades, downgrades, removes and purges the
// package where no systemd runs, on both releases of Debian, as a transaction
// does in its clone.
func TestTheUpdatersLife(t *testing.T) {
	first, second := pack(t, "1.0"), pack(t, "2.0")
	for _, suite := range []string{"trixie", "bookworm"} {
		t.Run(suite, func(t *testing.T) {
			s := newSystem(t, suite)
			s.spies()
			before := s.listing()
			s.install(first)
			if out := s.run("device-updater", "--version"); !strings.HasPrefix(out, "device-updater ") {
				t.Errorf("it says %q", out)
			}
			for _, link := range []string{"multi-user.target.wants/aptfleet-updater.service", "local-fs.target.requires/aptfleet-state.service", "sysinit.target.wants/aptfleet-trial.timer"} {
				if _, err := os.Stat(s.path("usr/lib/systemd/system/" + link)); err != nil {
					t.Errorf("a unit does not start at boot: %v", err)
				}
			}
			for _, dir := range []string{"config.d", "health.d/required", "health.d/wanted", "kernel.d", "release.d"} {
				if info, err := os.Stat(s.path("usr/lib/aptfleet/" + dir)); err != nil || !info.IsDir() {
					t.Errorf("there is no directory for hooks: %v", err)
				}
			}
			if _, err := os.Lstat(s.path("etc/aptfleet/device.yaml")); !os.IsNotExist(err) {
				t.Errorf("it brings a configuration, which is the product's: %v", err)
			}
			for _, name := range []string{"device-updater", "device-updater-status", "device-updater-config-get"} {
				out, err := exec.CommandContext(t.Context(), "man", "--warnings", "--local-file", s.path("usr/share/man/man8/"+name+".8.gz")).CombinedOutput()
				if err != nil || !bytes.Contains(out, []byte("EXAMPLE")) {
					t.Errorf("the manual page of %s: %v\n%s", name, err, out)
				}
			}

			// The product's configuration is not the package's.
			s.write("etc/aptfleet/device.yaml", "poll: 1h\n", 0o600)
			s.install(second)
			s.install(first) // and back
			if asked := s.asked(); asked != "" {
				t.Errorf("where no systemd runs, the scripts asked\n%s", asked)
			}
			if accounts := s.run("sh", "-c", "getent passwd; getent group"); strings.Contains(accounts, "aptfleet") {
				t.Errorf("it made an account")
			}
			s.run("dpkg", "--remove", "device-updater")
			s.run("dpkg", "--purge", "device-updater")
			if text, err := os.ReadFile(s.path("etc/aptfleet/device.yaml")); err != nil || string(text) != "poll: 1h\n" {
				t.Errorf("the configuration became %q, %v", text, err)
			}
			if err := os.RemoveAll(s.path("etc/aptfleet")); err != nil {
				t.Fatal(err)
			}
			if after := s.listing(); !slices.Equal(before, after) {
				t.Errorf("it left behind:\n%s", difference(before, after))
			}
		})
	}
}

// TestDpkgOnARunningSystemTouchesTheDaemonAlone: of a mounted state, and of the
// time of a trial, a person's dpkg takes nothing away.
func TestDpkgOnARunningSystemTouchesTheDaemonAlone(t *testing.T) {
	s := newSystem(t, "trixie")
	first, second := pack(t, "1.0"), pack(t, "2.0")
	s.spies()
	if err := os.MkdirAll(s.path("run/systemd/system"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 0\n", 0o755)
	for _, c := range []struct {
		name string
		act  func()
		want string
	}{
		{"install", func() { s.install(first) }, "systemctl --system daemon-reload\ndeb-systemd-invoke start aptfleet-updater.service\n"},
		{"upgrade", func() { s.install(second) }, "systemctl --system daemon-reload\ndeb-systemd-invoke restart aptfleet-updater.service\n"},
		{"remove", func() { s.run("dpkg", "--remove", "device-updater") }, "deb-systemd-invoke stop aptfleet-updater.service\nsystemctl --system daemon-reload\n"},
	} {
		c.act()
		if asked := s.asked(); asked != c.want {
			t.Errorf("%s asked\n%swant\n%s", c.name, asked, c.want)
		}
	}
}

// TestSystemdUnderstandsTheUnits lets systemd read them in a whole system.
func TestSystemdUnderstandsTheUnits(t *testing.T) {
	s := newSystem(t, "trixie")
	s.install(pack(t, "1.0"))
	for _, unit := range []string{"aptfleet-updater.service", "aptfleet-state.service", "aptfleet-trial.timer", "aptfleet-trial.service", "emergency.service", "rescue.service", "aptfleet-console.timer", "aptfleet-console.service", "emergency.target", "rescue.target"} {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--root="+s.dir, "--man=no", "--recursive-errors=no", unit).CombinedOutput()
		if err != nil || len(bytes.TrimSpace(out)) > 0 {
			t.Errorf("systemd-analyze verify %s: %v\n%s", unit, err, out)
		}
	}
}

// TestDebianToolsBuildIt: debian/ is what dpkg-buildpackage expects, and the
// package is the one that builder makes.
func TestDebianToolsBuildIt(t *testing.T) {
	work := t.TempDir()
	tree := filepath.Join(work, "aptfleet")
	files, err := exec.CommandContext(t.Context(), "git", "-C", "../..", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	var there []string // without what was deleted and not committed yet
	for name := range strings.SplitSeq(strings.TrimSuffix(string(files), "\x00"), "\x00") {
		if _, err := os.Lstat(filepath.Join("../..", name)); err == nil {
			there = append(there, name)
		}
	}
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	list := exec.CommandContext(t.Context(), "rsync", "--archive", "--from0", "--files-from=-", "../..", tree)
	list.Stdin = strings.NewReader(strings.Join(there, "\x00"))
	if out, err := list.CombinedOutput(); err != nil {
		t.Fatalf("rsync: %v\n%s", err, out)
	}
	build := exec.CommandContext(t.Context(), "dpkg-buildpackage", "--no-sign", "--build=binary")
	build.Dir = tree
	build.Env = append(os.Environ(), "GOPROXY=off") // nothing is fetched
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("dpkg-buildpackage: %v\n%s", err, out[max(0, len(out)-4000):])
	}
	arch, err := debian.Architecture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	deb := filepath.Join(work, fmt.Sprintf("device-updater_0.1_%s.deb", arch))
	if got, want := contents(t, deb), contents(t, pack(t, "0.1")); !slices.Equal(got, want) {
		t.Errorf("it differs from what builder makes:\n%s", difference(want, got))
	}
	changes, err := os.ReadFile(filepath.Join(work, fmt.Sprintf("aptfleet_0.1_%s.changes", arch)))
	if err != nil || !bytes.Contains(changes, []byte(" admin optional "+filepath.Base(deb))) {
		t.Errorf("the .changes file does not name the package: %v\n%s", err, changes)
	}
}

// contents lists the files of a package with their modes and owners.
func contents(t *testing.T, deb string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "dpkg-deb", "--contents", deb).Output()
	if err != nil {
		t.Fatalf("dpkg-deb --contents %s: %v", deb, err)
	}
	var all []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		all = append(all, strings.Join(append(f[:2:2], f[5:]...), " "))
	}
	return all
}

// difference lists what only one of two lists has.
func difference(a, b []string) string {
	var out strings.Builder
	for _, line := range a {
		if !slices.Contains(b, line) {
			fmt.Fprintln(&out, "- "+line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			fmt.Fprintln(&out, "+ "+line)
		}
	}
	return out.String()
}
