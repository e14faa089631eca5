package apt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// keyring is where the archive-keyring package puts the archive key.
const keyring = "/usr/share/keyrings/aptfleet-archive-keyring.pgp"

// machine is a Debian machine that installs from a server with nothing but
// its own apt.
type machine struct {
	t     *testing.T
	suite string
	dir   string // with upper, work and root of the overlay
	lower string
}

// newMachine returns a machine that trusts the server's archive key by means
// of its keyring package and follows base, e.g. "demo/dev".
func newMachine(t *testing.T, suite string, s *server, base string) *machine {
	t.Helper()
	m := &machine{t: t, suite: suite, dir: t.TempDir(), lower: shared.roots[suite]}
	for _, name := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(m.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m.write("/keyring.deb", s.download("archive-keyring.deb"))
	m.must("dpkg", "--install", "/keyring.deb")
	m.follow(s, base)
	return m
}

// follow makes base the machine's only source.
func (m *machine) follow(s *server, base string) {
	m.t.Helper()
	m.write("/etc/apt/sources.list.d/aptfleet.sources", []byte("Types: deb\nURIs: "+s.public+"/"+base+"/\n"+
		"Suites: "+distribution+"\nComponents: "+component+"\nSigned-By: "+keyring+"\n"))
}

// prefer pins the whole pipeline above what is installed, so that apt
// downgrades.
func (m *machine) prefer(priority int) {
	m.t.Helper()
	m.write("/etc/apt/preferences.d/aptfleet", fmt.Appendf(nil, "Package: *\nPin: release n=%s\nPin-Priority: %d\n", distribution, priority))
}

// write puts a file into the machine.
func (m *machine) write(path string, content []byte) {
	m.t.Helper()
	path = filepath.Join(m.dir, "upper", path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// enter mounts the overlay in a new mount namespace and becomes the command
// inside of it. The network is the host's: the server listens on loopback.
const enter = `set -e
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
mount -t proc proc "$2/root/proc"
root=$2/root
shift 2
exec chroot "$root" "$@"`

// run runs a command in the machine and returns what it printed, on both
// streams, and its exit code.
func (m *machine) run(ctx context.Context, args ...string) (output string, code int) {
	m.t.Helper()
	args = append([]string{"--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, "enter", m.lower, m.dir}, args...)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C",
		"DEBIAN_FRONTEND=noninteractive", "DEBCONF_NOWARNINGS=yes",
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		m.t.Fatalf("%s: cannot run %v: %v", m.suite, args, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// must runs a command that is to succeed.
func (m *machine) must(args ...string) string {
	m.t.Helper()
	out, code := m.run(m.t.Context(), args...)
	if code != 0 {
		m.t.Fatalf("%s: %s exits %d:\n%s", m.suite, strings.Join(args, " "), code, out)
	}
	return out
}

// refuses runs a command that is to fail with a message that matches.
func (m *machine) refuses(message *regexp.Regexp, args ...string) {
	m.t.Helper()
	out, code := m.run(m.t.Context(), args...)
	if code == 0 {
		m.t.Fatalf("%s: %s succeeds:\n%s", m.suite, strings.Join(args, " "), out)
	}
	if !message.MatchString(out) {
		m.t.Fatalf("%s: %s fails without %q:\n%s", m.suite, strings.Join(args, " "), message, out)
	}
}

func (m *machine) update() {
	m.t.Helper()
	m.must("apt-get", "update")
}

// apt runs apt-get without questions.
func (m *machine) apt(args ...string) {
	m.t.Helper()
	m.must(append([]string{"apt-get", "--yes", "--quiet"}, args...)...)
}

// installed is the version of a package that dpkg has, "" for none.
func (m *machine) installed(name string) string {
	m.t.Helper()
	out, code := m.run(m.t.Context(), "dpkg-query", "--show", "--showformat=${db:Status-Abbrev}${Version}", name)
	version, isInstalled := strings.CutPrefix(out, "ii ")
	if code != 0 || !isInstalled {
		return ""
	}
	return version
}

// wantInstalled checks the version that dpkg has and the file it came with.
func (m *machine) wantInstalled(name, version string) {
	m.t.Helper()
	if got := m.installed(name); got != version {
		m.t.Fatalf("%s: %s %q is installed, want %q", m.suite, name, got, version)
	}
	if version == "" {
		return
	}
	if got := m.must("cat", "/usr/share/"+name+"/version"); got != version+"\n" {
		m.t.Fatalf("%s: the file of %s is that of %q, want %q", m.suite, name, got, version)
	}
}

// candidate is the version that apt would install, "" for none.
func (m *machine) candidate(name string) string {
	m.t.Helper()
	for line := range strings.Lines(m.must("apt-cache", "policy", name)) {
		if version, found := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); found && version != "(none)" {
			return version
		}
	}
	return ""
}

func (m *machine) wantCandidate(name, version string) {
	m.t.Helper()
	if got := m.candidate(name); got != version {
		m.t.Fatalf("%s: apt would install %s %q, want %q", m.suite, name, got, version)
	}
}
