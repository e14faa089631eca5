package mirror

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/test/debian"
)

// apt is the judge of a closure: from an index of nothing but its members, on
// a machine where nothing is installed, it must be able to install what was
// wanted together with what every device has.
func TestAptInstallsEveryClosure(t *testing.T) {
	config := wholeTrixie(t)
	architecture, err := debian.Architecture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := newRigFor(t, nil, architecture)
	m := r.updater.memory("demo", "debian")
	releases, err := r.updater.verify(t.Context(), m, config.Suites, &fakeProgress{})
	if err != nil {
		t.Fatal(err)
	}
	var indices []index
	for i := range releases {
		found, err := releases[i].indices(architecture)
		if err != nil {
			t.Fatal(err)
		}
		indices = append(indices, found...)
	}
	if err := r.updater.fetchIndices(t.Context(), m.indices(), indices, &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	u, err := loadUniverse(t.Context(), m.indices(), indices, architecture, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, c := range []struct {
		wanted     []string
		recommends bool
	}{
		{wanted: nil},
		{wanted: []string{"systemd-sysv", "udev", "dbus", "openssh-server", "nginx"}},
		{wanted: []string{"mailutils", "bsd-mailx", "cron"}},              // default-mta | mail-transport-agent
		{wanted: []string{"default-jre", "libreoffice-writer"}},           // many alternatives
		{wanted: []string{"python3-numpy", "postgresql", "php", "gnupg"}}, // versioned provides
		{wanted: []string{"openssh-server", "network-manager"}, recommends: true},
	} {
		t.Run(fmt.Sprintf("%s recommends %v", strings.Join(c.wanted, " "), c.recommends), func(t *testing.T) {
			members, err := u.close(rootsOf(c.wanted), c.recommends)
			if err != nil {
				t.Fatal(err)
			}
			var index bytes.Buffer
			for _, m := range members {
				stanza, err := u.stanza(m.candidate)
				if err != nil {
					t.Fatal(err)
				}
				index.Write(stanza.Bytes())
				index.WriteByte('\n')
			}
			option := "--no-install-recommends"
			if c.recommends {
				option = "--install-recommends"
			}
			names := append(u.base(), c.wanted...)
			out, err := simulate(t, index.Bytes(), option, names)
			if err != nil {
				t.Fatalf("apt cannot install %v: %v\n%s", names, err, out)
			}
			if n := strings.Count(out, "\nInst "); n < len(names) || n > len(members) {
				t.Errorf("apt installs %d of %d packages:\n%s", n, len(members), out)
			}
			// Without a package that everything needs, apt must object.
			broken := bytes.Replace(index.Bytes(), []byte("Package: libc6\n"), []byte("Package: libc5\n"), 1)
			if out, err := simulate(t, broken, option, names); err == nil {
				t.Errorf("apt installs without libc6:\n%s", out)
			}
		})
	}
}

// simulate lets apt-get plan the installation of names on a machine that
// knows one index and has no package. It returns what apt-get prints.
func simulate(t *testing.T, index []byte, option string, names []string) (string, error) {
	t.Helper()
	archive := t.TempDir()
	if err := os.WriteFile(filepath.Join(archive, "Packages"), index, 0o644); err != nil {
		t.Fatal(err)
	}
	run := aptRoot(t, fmt.Sprintf("deb [trusted=yes] file:%s ./\n", archive))
	if out, err := run("apt-get", "update"); err != nil {
		t.Fatalf("apt-get update: %v\n%s", err, out)
	}
	return run("apt-get", append([]string{"--simulate", "install", option}, names...)...)
}

// aptRoot returns how to run apt on a machine that has no package.
func aptRoot(t *testing.T, sources string) (run func(program string, args ...string) (string, error)) {
	t.Helper()
	root := t.TempDir()
	for _, dir := range []string{"etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(root, "apt.conf")
	for path, text := range map[string][]byte{
		filepath.Join(root, "var/lib/dpkg/status"):  nil,
		filepath.Join(root, "etc/apt/sources.list"): []byte(sources),
		config: fmt.Appendf(nil, "Dir %[1]q;\nDir::State::status \"%[1]s/var/lib/dpkg/status\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n", root),
	} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return func(program string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = append(os.Environ(), "APT_CONFIG="+config, "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}
