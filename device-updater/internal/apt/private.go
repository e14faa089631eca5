package apt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/internal/atomicfile"
)

// Source is the one apt source of a device: the base of one state.
type Source struct {
	URL          string // base, without a slash at its end
	Distribution string
	Components   []string
	Keyring      string // absolute path
}

// Private is a directory with apt's lists, downloads and settings for the
// updater alone. Only root may enter it: apt takes a file of the right size
// from its cache without hashing it.
type Private struct {
	dir    string
	source Source
}

// NewPrivate uses dir, which is made where it is absent. Lists of an earlier
// process are thrown away: after a power cut they may be empty files that apt
// takes for current, and another state has other lists anyway. Downloads stay;
// they are hashed before they are used.
func NewPrivate(dir string, source Source) (*Private, error) {
	p := &Private{dir, source}
	if err := os.RemoveAll(p.path("lists")); err != nil {
		return nil, fmt.Errorf("cannot prepare apt: %w", err)
	}
	for _, sub := range []string{"", "lists/partial", "archives/partial", "solve/partial", "etc/sources.list.d", "state", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("cannot prepare apt: %w", err)
		}
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot prepare apt: %w", err)
	}
	files := map[string]string{
		"etc/sources.list.d/aptfleet.sources": source.deb822(source.Keyring),
		"state/empty-status":                  "",
		"state/extended_states":               "",
		"solve.conf":                          p.settings(p.path("solve"), p.path("state/empty-status")),
		"fetch.conf":                          p.settings(p.path("archives"), p.path("state/status")),
	}
	for name, content := range files {
		if err := atomicfile.Write(p.path(name), []byte(content), 0o600); err != nil {
			return nil, fmt.Errorf("cannot prepare apt: %w", err)
		}
	}
	return p, nil
}

func (p *Private) path(name string) string { return filepath.Join(p.dir, name) }

// deb822 is the source in the format of sources.list(5).
func (s Source) deb822(keyring string) string {
	return fmt.Sprintf("Types: deb\nURIs: %s/\nSuites: %s\nComponents: %s\nSigned-By: %s\n",
		s.URL, s.Distribution, strings.Join(s.Components, " "), keyring)
}

// common are settings for every use of apt: nothing of the device's own
// configuration, no recommended packages, and no unsigned source.
const common = `APT::Install-Recommends "false";
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
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
`

// settings is an apt.conf(5) for work outside a root.
func (p *Private) settings(archives, status string) string {
	return common + fmt.Sprintf(`Dir::Etc::sourceparts %q;
Dir::State %q;
Dir::State::lists %q;
Dir::State::status %q;
Dir::State::extended_states %q;
Dir::Cache %q;
Dir::Cache::archives %q;
Dir::Log %q;
`, p.path("etc/sources.list.d"), p.path("state"), p.path("lists"), status, p.path("state/extended_states"), p.dir, archives, p.path("log"))
}

// command runs a program of apt with one of our settings. On failure the error
// holds what apt complained about.
func (p *Private) command(ctx context.Context, conf string, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+p.path(conf), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
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
func (p *Private) Update(ctx context.Context) error {
	// Any error counts: without this option a source that cannot be read is
	// only a warning.
	if err := p.command(ctx, "fetch.conf", io.Discard, "apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"); err != nil {
		return fmt.Errorf("cannot update package lists: %w", err)
	}
	return nil
}

// InRelease returns the signed text that apt verified and keeps.
func (p *Private) InRelease() ([]byte, error) {
	found, err := filepath.Glob(p.path("lists/*_InRelease"))
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("cannot read package lists: apt keeps %d InRelease files, not one", len(found))
	}
	return os.ReadFile(found[0])
}

// Solve lets apt compute what the top-level packages need, with every essential
// and required package, from an empty system: so the list depends on the
// source alone and never on what was installed before. The list is sorted.
func (p *Private) Solve(ctx context.Context, topLevel []string) ([]Package, error) {
	args := []string{"apt-get", "-q", "--print-uris", "install", "?essential", "?priority(required)"}
	var out bytes.Buffer
	if err := p.command(ctx, "solve.conf", &out, append(args, topLevel...)...); err != nil {
		return nil, fmt.Errorf("cannot compute the packages of the release: %w", err)
	}
	list, err := parseURIs(&out)
	if err != nil {
		return nil, err
	}
	for _, name := range topLevel {
		if !contains(list, name) {
			return nil, fmt.Errorf("cannot compute the packages of the release: apt left %s out", name)
		}
	}
	return list, nil
}

func contains(list []Package, name string) bool {
	for _, p := range list {
		if p.Name == name {
			return true
		}
	}
	return false
}

// Native returns the architecture of the running system.
func (p *Private) Native(ctx context.Context) (string, error) {
	var out bytes.Buffer
	if err := p.command(ctx, "solve.conf", &out, "dpkg", "--print-architecture"); err != nil {
		return "", fmt.Errorf("cannot tell the architecture: %w", err)
	}
	return strings.TrimSpace(out.String()), nil
}

// Download fetches what the plan needs and is not here yet, and checks every
// file against its hash. status is the dpkg status that the plan was made for:
// apt proves on the way that the transaction can be done. Files that are not
// needed any more are deleted. progress is told how many files of how many are
// here; it may be nil.
func (p *Private) Download(ctx context.Context, plan Plan, status []byte, progress func(done, total int)) error {
	if err := atomicfile.Write(p.path("state/status"), status, 0o600); err != nil {
		return fmt.Errorf("cannot prepare apt: %w", err)
	}
	if err := p.sweep(plan); err != nil {
		return err
	}
	stop := p.watch(ctx, plan, progress)
	args := append([]string{"apt-get", "-q", "install", "--download-only"}, transaction...)
	err := p.command(ctx, "fetch.conf", io.Discard, append(args, plan.arguments()...)...)
	again, parseErr := ParseStatus(bytes.NewReader(status))
	if rebuilt := plan.reinstalls(again); err == nil && parseErr == nil && len(rebuilt) > 0 {
		args := append([]string{"apt-get", "-q", "install", "--download-only", "--reinstall"}, transaction...)
		for _, r := range rebuilt {
			args = append(args, r.argument())
		}
		err = p.command(ctx, "fetch.conf", io.Discard, args...)
	}
	stop()
	if err = errors.Join(err, parseErr); err != nil {
		return fmt.Errorf("cannot download packages: %w", err)
	}
	if err := p.refuseOthers(plan); err != nil {
		return err
	}
	return p.Recheck(ctx, plan)
}

// transaction are apt-get's options for doing exactly what it is told.
var transaction = []string{
	"--allow-downgrades", "--allow-remove-essential", "--allow-change-held-packages", "--purge", "--no-install-recommends",
}

// sweep deletes from the cache what the plan does not need, and files that are
// not what they should be.
func (p *Private) sweep(plan Plan) error {
	need := make(map[string]Package)
	for _, f := range plan.Fetch {
		if f.Local == "" {
			need[f.File] = f
		}
	}
	entries, err := os.ReadDir(p.path("archives"))
	if err != nil {
		return fmt.Errorf("cannot look through downloads: %w", err)
	}
	for _, e := range entries {
		want, ok := need[e.Name()]
		if !strings.HasSuffix(e.Name(), ".deb") || ok && p.checkFile(want) == nil {
			continue
		}
		if err := os.Remove(p.path("archives/" + e.Name())); err != nil {
			return fmt.Errorf("cannot delete old download: %w", err)
		}
	}
	return nil
}

// Recheck hashes every downloaded file of the plan.
func (p *Private) Recheck(ctx context.Context, plan Plan) error {
	for _, f := range plan.Fetch {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := p.checkFile(f); err != nil {
			return fmt.Errorf("cannot use download of %s: %w", f, err)
		}
	}
	return nil
}

func (p *Private) checkFile(want Package) error {
	f, err := os.Open(p.file(want))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(f, want.Size+1))
	if err != nil {
		return err
	}
	if n != want.Size {
		return fmt.Errorf("%s has not %d bytes", want.File, want.Size)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want.SHA256 {
		return fmt.Errorf("%s has SHA-256 %s, the index says %s", want.File, got, want.SHA256)
	}
	return nil
}

// file is where the .deb of a package of a plan lies.
func (p *Private) file(want Package) string {
	if want.Local != "" {
		return want.Local
	}
	return p.path("archives/" + want.File)
}

// watch tells progress about files as they arrive, until stop.
func (p *Private) watch(ctx context.Context, plan Plan, progress func(done, total int)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	count := func() {
		done := 0
		for _, f := range plan.Fetch {
			if info, err := os.Stat(p.file(f)); err == nil && info.Size() == f.Size {
				done++
			}
		}
		progress(done, len(plan.Fetch))
	}
	ctx, cancel := context.WithCancel(ctx)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
				count()
			}
		}
	}()
	return func() { cancel(); <-finished; count() }
}

// Clean deletes the downloads in a private directory.
func Clean(private string) error {
	for _, dir := range []string{"archives", "archives/partial"} {
		entries, err := os.ReadDir(filepath.Join(private, dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("cannot delete downloads: %w", err)
		}
		for _, e := range entries {
			if e.IsDir() {
				continue
			}
			if err := os.Remove(filepath.Join(private, dir, e.Name())); err != nil {
				return fmt.Errorf("cannot delete download: %w", err)
			}
		}
	}
	return nil
}
