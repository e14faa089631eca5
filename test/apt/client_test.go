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
// of its keyring package and follows base, e.g. "demo/dev". The package is
// installed once for a server; other machines are copies of that one.
func newMachine(t *testing.T, suite string, s *server, base string) *machine {
	t.Helper()
	m := emptyMachine(t, suite)
	trusting := s.trustingMachine(suite)
	if out, err := exec.Command("cp", "--archive", "--no-target-directory", trusting, filepath.Join(m.dir, "upper")).CombinedOutput(); err != nil {
		t.Fatalf("cannot copy a machine: %v: %s", err, out)
	}
	m.follow(s, base)
	return m
}

// trustingMachine returns the upper directory of a machine that has installed
// the server's keyring package.
func (s *server) trustingMachine(suite string) string {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trusting[suite] == "" {
		m := emptyMachine(s.t, suite)
		m.write("/keyring.deb", s.download("archive-keyring.deb"))
		m.must("dpkg", "--install", "/keyring.deb")
		s.trusting[suite] = filepath.Join(m.dir, "upper")
	}
	return s.trusting[suite]
}

// emptyMachine returns a machine without any source.
func emptyMachine(t *testing.T, suite string) *machine {
	t.Helper()
	m := &machine{t: t, suite: suite, dir: t.TempDir(), lower: shared.roots[suite]}
	for _, name := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(m.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
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

// wantInstalled checks the version that dpkg has, "" for none, and the file
// it came with.
func (m *machine) wantInstalled(name, version string) {
	m.t.Helper()
	const ask = `dpkg-query --show --showformat='${db:Status-Abbrev}${Version}\n' "$1" && cat "/usr/share/$1/content"`
	out, code := m.run(m.t.Context(), "sh", "-c", ask, "ask", name)
	want := "ii " + version + "\n" + version + "\n"
	if version == "" && code == 0 || version != "" && out != want {
		m.t.Fatalf("%s: of %s there is %q, want version %q", m.suite, name, out, version)
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
