package siege

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// aptClient is this machine's apt with a world of its own: its own sources,
// lists and status, and nothing installed.
type aptClient struct{ dir string }

func newAptClient(dir string, keyring []byte) (*aptClient, error) {
	a := &aptClient{dir}
	for _, sub := range []string{"etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "etc/trusted.gpg.d", "lists/partial", "cache/archives/partial", "log"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	for name, content := range map[string]string{
		"status": "", "key.asc": string(keyring),
		"conf": strings.NewReplacer("DIR", dir, "ARCH", architecture).Replace(`Dir "DIR";
Dir::Etc "DIR/etc";
Dir::Etc::main "absent";
Dir::State "DIR";
Dir::State::status "DIR/status";
Dir::State::lists "DIR/lists";
Dir::Cache "DIR/cache";
Dir::Log "DIR/log";
APT::Architecture "ARCH";
APT::Architectures { "ARCH"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::http::Proxy "false";
Acquire::Retries "0";
`),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *aptClient) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + a.dir, "TMPDIR=" + a.dir, "LC_ALL=C", "APT_CONFIG=" + filepath.Join(a.dir, "conf")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// update has apt read a base.
func (a *aptClient) update(ctx context.Context, base string) (string, error) {
	source := fmt.Sprintf("deb [signed-by=%s] %s %s %s\n", filepath.Join(a.dir, "key.asc"), base, distribution, repository)
	if err := os.WriteFile(filepath.Join(a.dir, "etc/sources.list"), []byte(source), 0o644); err != nil {
		return "", err
	}
	return a.run(ctx, "apt-get", "update", "--error-on=any")
}

// candidate is the version that apt would install, "" for none.
func (a *aptClient) candidate(ctx context.Context, name string) (string, error) {
	out, err := a.run(ctx, "apt-cache", "policy", name)
	if err != nil {
		return "", fmt.Errorf("apt-cache policy: %w: %s", err, out)
	}
	for line := range strings.Lines(out) {
		if version, found := strings.CutPrefix(strings.TrimSpace(line), "Candidate: "); found && version != "(none)" {
			return version, nil
		}
	}
	return "", nil
}

// forbidden is what apt must never say, even while the server dies.
var forbidden = regexp.MustCompile(`(?i)mismatch|unexpected size|NO_PUBKEY|BADSIG|not signed|signature|404 +Not Found|not valid yet|expired`)

// aptUpdates lets apt update until the server is away.
func (c *crowd) aptUpdates(ctx context.Context, pipeline string) error {
	for ctx.Err() == nil {
		out, err := c.apt.update(ctx, c.server.Public+"/"+pipeline+"/dev")
		var failed *exec.ExitError
		switch {
		case ctx.Err() != nil:
			return nil // it was broken off
		case err != nil && !errors.As(err, &failed):
			return err
		case forbidden.MatchString(out):
			c.ledger.problem("apt-get update: %v\n%s", err, out)
		case err != nil:
			return nil // the server is away
		}
	}
	return nil
}
