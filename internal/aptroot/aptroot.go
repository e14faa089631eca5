// Package aptroot lets the real apt compute packages in a private root: lists,
// cache, sources and settings of the running system play no part. The device
// and the server compute with it, and so come to the same packages.
package aptroot

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/internal/atomicfile"
)

// Source is the one apt source of a root: the base of one state.
type Source struct {
	URL          string // base, without a slash at its end
	Distribution string
	Components   []string
	Keyring      string // absolute path
	User         string // who reads it; "": everybody may
	Password     string
	CA           string // absolute path of the only authority of its certificate; "": the system's
}

// Deb822 is the source in the format of sources.list(5), verified with keyring.
func (s Source) Deb822(keyring string) string {
	return s.paragraph() + "Signed-By: " + keyring + "\n"
}

func (s Source) paragraph() string {
	return fmt.Sprintf("Types: deb\nURIs: %s/\nSuites: %s\nComponents: %s\n", s.URL, s.Distribution, strings.Join(s.Components, " "))
}

// auth is the password in the format of apt_auth.conf(5). The URL is whole, so
// that it goes nowhere else, and also over HTTP where there is no other way.
func (s Source) auth() string {
	if s.Password == "" {
		return ""
	}
	return fmt.Sprintf("machine %s/ login %s password %s\n", s.URL, s.User, s.Password)
}

// authority is the setting that has apt trust the source's certificate.
func (s Source) authority() string {
	if s.CA == "" {
		return ""
	}
	return fmt.Sprintf("Acquire::https::CAInfo %q;\n", s.CA)
}

// Root is a directory with apt's lists and settings. Only its owner may enter
// it: apt takes a file of the right size from its cache without hashing it.
type Root struct {
	dir string
}

// New uses dir, which is made where it is absent, for a source that apt
// verifies. Lists of an earlier process are thrown away: after a power cut they
// may be empty files that apt takes for current, and another state has other
// lists anyway. Downloads stay.
func New(dir string, source Source) (*Root, error) {
	r := &Root{dir}
	return r, r.prepare(source.Deb822(source.Keyring), source.auth(), source.authority())
}

// prepare makes the directories and files. more are settings besides the usual.
func (r *Root) prepare(sources, auth, more string) error {
	if err := os.RemoveAll(r.Path("lists")); err != nil {
		return fmt.Errorf("cannot prepare apt: %w", err)
	}
	for _, sub := range []string{"", "lists/partial", "archives/partial", "solve/partial", "etc/sources.list.d", "state", "log"} {
		if err := os.MkdirAll(r.Path(sub), 0o700); err != nil {
			return fmt.Errorf("cannot prepare apt: %w", err)
		}
	}
	if err := os.Chmod(r.dir, 0o700); err != nil {
		return fmt.Errorf("cannot prepare apt: %w", err)
	}
	files := map[string]string{
		"etc/sources.list.d/aptfleet.sources": sources,
		"etc/auth.conf":                       auth,
		"state/empty-status":                  "",
		"state/extended_states":               "",
		"solve.conf":                          r.settings(r.Path("solve"), r.Path("state/empty-status")) + more,
		"fetch.conf":                          r.settings(r.Path("archives"), r.Path("state/status")) + more,
	}
	for name, content := range files {
		if err := atomicfile.Write(r.Path(name), []byte(content), 0o600); err != nil {
			return fmt.Errorf("cannot prepare apt: %w", err)
		}
	}
	return nil
}

// Path is a file of the root.
func (r *Root) Path(name string) string { return filepath.Join(r.dir, name) }

// Settings are those for every use of apt, in the format of apt.conf(5):
// nothing of the system's own configuration, no recommended packages, and no
// unsigned source.
const Settings = `APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Get::Assume-Yes "true";
APT::Get::Always-Include-Phased-Updates "true";
APT::Get::AllowUnauthenticated "false";
APT::Sandbox::User "root";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::ForceHash "SHA256";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "/dev/null";
Dir::Etc::netrc "/dev/null";
Dir::Etc::netrcparts "/dev/null";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
`

// settings is an apt.conf(5) for work in the root.
func (r *Root) settings(archives, status string) string {
	return Settings + fmt.Sprintf(`Dir::Etc::sourceparts %q;
Dir::Etc::netrc %q;
Dir::State %q;
Dir::State::lists %q;
Dir::State::status %q;
Dir::State::extended_states %q;
Dir::Cache %q;
Dir::Cache::archives %q;
Dir::Log %q;
`, r.Path("etc/sources.list.d"), r.Path("etc/auth.conf"), r.Path("state"), r.Path("lists"), status, r.Path("state/extended_states"), r.dir, archives, r.Path("log"))
}

// Run runs a program of apt with one of the root's settings, "solve.conf" for
// an empty system or "fetch.conf" for the one of state/status. On failure the
// error holds what apt complained about.
func (r *Root) Run(ctx context.Context, conf string, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+r.Path(conf), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	cmd.WaitDelay = 5 * time.Second
	var complaints bytes.Buffer
	cmd.Stdout = out
	cmd.Stderr = &complaints
	err := cmd.Run()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return complaint(complaints.String(), err)
	}
	return nil
}

// complaint puts apt's "E:" and "W:" lines into one error, at most three.
func complaint(text string, err error) error {
	var said []string
	for _, mark := range []string{"E: ", "W: "} {
		for line := range strings.Lines(text) {
			line, ok := strings.CutPrefix(strings.TrimSpace(line), mark)
			if ok && len(said) < 3 && line != "" {
				said = append(said, line)
			}
		}
		if len(said) > 0 {
			return errors.New(strings.Join(said, "; "))
		}
	}
	return err
}

// Update fetches the indices of the source. apt verifies the signature and
// every hash.
func (r *Root) Update(ctx context.Context) error {
	// Any error counts: without this option a source that cannot be read is
	// only a warning.
	if err := r.Run(ctx, "fetch.conf", io.Discard, "apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"); err != nil {
		return fmt.Errorf("cannot update package lists: %w", err)
	}
	return nil
}

// InRelease returns the signed text that apt verified and keeps.
func (r *Root) InRelease() ([]byte, error) {
	found, err := filepath.Glob(r.Path("lists/*_InRelease"))
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("cannot read package lists: apt keeps %d InRelease files, not one", len(found))
	}
	return os.ReadFile(found[0])
}

// Native returns the architecture of the running system.
func (r *Root) Native(ctx context.Context) (string, error) {
	var out bytes.Buffer
	if err := r.Run(ctx, "solve.conf", &out, "dpkg", "--print-architecture"); err != nil {
		return "", fmt.Errorf("cannot tell the architecture: %w", err)
	}
	return strings.TrimSpace(out.String()), nil
}

// NewOffline uses dir for package lists that the caller makes and vouches for:
// apt fetches and verifies nothing. architecture is the native one, whatever
// this machine is. write writes the Packages file of one component. What apt
// knows of the lists is kept beside them, so that only the first Solve reads
// them. After an error dir is good for nothing.
func NewOffline(dir, architecture string, components []string, write func(component string, w io.Writer) error) (*Root, error) {
	r := &Root{dir}
	// apt calls a list after where it came from, and shows that to nobody:
	// plain words need no escapes.
	source := Source{URL: "file:/offline", Distribution: "state"}
	for i := range components {
		source.Components = append(source.Components, fmt.Sprintf("c%d", i))
	}
	more := fmt.Sprintf("APT::Architecture %q;\nAPT::Architectures { %q; };\nDir::Cache::pkgcache \"pkgcache.bin\";\n", architecture, architecture)
	sources := ""
	if len(components) > 0 { // apt refuses a source without any
		sources = source.paragraph() + "Trusted: yes\n"
	}
	if err := r.prepare(sources, "", more); err != nil {
		return nil, err
	}
	for i, component := range components {
		if err := r.writeList(r.offlineList(architecture, i), component, write); err != nil {
			return nil, fmt.Errorf("cannot write package list of %s: %w", component, err)
		}
	}
	return r, nil
}

// offlineList is where apt looks for the list of the i-th component of
// NewOffline.
func (r *Root) offlineList(architecture string, i int) string {
	return r.Path(fmt.Sprintf("lists/_offline_dists_state_c%d_binary-%s_Packages", i, architecture))
}

func (r *Root) writeList(path, component string, write func(component string, w io.Writer) error) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	buffer := bufio.NewWriterSize(file, 1<<20)
	err = write(component, buffer)
	if err == nil {
		err = buffer.Flush()
	}
	return errors.Join(err, file.Close())
}

// Lists are the files of package lists that there are.
func (r *Root) Lists() ([]string, error) { return filepath.Glob(r.Path("lists/*_Packages")) }
