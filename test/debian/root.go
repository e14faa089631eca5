package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// Spec says what a root contains.
type Spec struct {
	Suite    string   // a Debian release, e.g. "trixie"
	Variant  string   // of mmdebstrap: "apt" (the default: essential packages and apt), "minbase", "essential"
	Packages []string // beyond the variant; their dependencies follow, without Recommends
}

// Architecture is that of this machine in Debian's words.
func Architecture(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "dpkg", "--print-architecture").Output()
	if err != nil {
		return "", fmt.Errorf("cannot ask dpkg for this machine's architecture: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// CacheDir is where roots are kept: $APTFLEET_CACHE, else /var/cache/aptfleet.
// Removing it costs nothing but the time to fill it again.
func CacheDir() string {
	if dir := os.Getenv("APTFLEET_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/aptfleet"
}

// Root returns the path of a tar archive of a root file system with what spec
// names, installed from the machine's mirror for the machine's architecture.
// It is built once and kept in [CacheDir] under a hash of everything that
// decides its contents; the mirror's own updates do not make a kept root
// stale. Processes that want the same root at once build it once. An archive
// appears complete or not at all.
//
// It needs root and mmdebstrap.
func Root(ctx context.Context, spec Spec) (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("cannot build a root file system: not root; run the tests with `make test`")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return "", errors.New("cannot build a root file system: mmdebstrap is missing; `make test` installs it")
	}
	mirror, keyring, err := Mirror()
	if err != nil {
		return "", err
	}
	architecture, err := Architecture(ctx)
	if err != nil {
		return "", err
	}
	if spec.Variant == "" {
		spec.Variant = "apt"
	}
	dir := filepath.Join(CacheDir(), "roots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cache of roots: %w", err)
	}
	base := filepath.Join(dir, spec.Suite+"-"+spec.key(mirror, architecture))
	unlock, err := lock(ctx, base+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	tar := base + ".tar"
	if _, err := os.Stat(tar); err == nil {
		return tar, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("cannot look into the cache of roots: %w", err)
	}
	// The lock is ours, so whatever an interrupted build left is too.
	scratch, partial := base+".build", base+".partial"
	if err := errors.Join(os.RemoveAll(scratch), os.MkdirAll(scratch, 0o755)); err != nil {
		return "", fmt.Errorf("cannot make room for building a root: %w", err)
	}
	err = build(ctx, spec, mirror, keyring, architecture, scratch, partial)
	if err == nil {
		err = os.Rename(partial, tar)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("cannot build a %s root: %w", spec.Suite, err),
			removeIfThere(partial), os.RemoveAll(scratch))
	}
	if err := os.RemoveAll(scratch); err != nil {
		return "", fmt.Errorf("cannot remove the scratch directory of a root: %w", err)
	}
	return tar, nil
}

// key is a hash of what decides the contents. The number at the front counts
// changes of the build itself.
func (s Spec) key(mirror, architecture string) string {
	packages := append([]string(nil), s.Packages...)
	sort.Strings(packages)
	sum := sha256.Sum256([]byte(strings.Join([]string{
		"1", s.Suite, s.Variant, strings.Join(packages, ","), mirror, architecture,
	}, "\n")))
	return hex.EncodeToString(sum[:8])
}

func build(ctx context.Context, spec Spec, mirror, keyring, architecture, scratch, target string) error {
	args := []string{
		"--mode=root", "--format=tar", "--variant=" + spec.Variant,
		"--architectures=" + architecture, "--components=main", "--keyring=" + keyring,
		`--aptopt=Acquire::Languages "none"`,
	}
	settings, err := aptNetworkSettings(ctx)
	if err != nil {
		return err
	}
	for _, setting := range settings {
		args = append(args, "--aptopt="+setting)
	}
	if len(spec.Packages) > 0 {
		args = append(args, "--include="+strings.Join(spec.Packages, ","))
	}
	args = append(args, spec.Suite, target, mirror)
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	// mmdebstrap and the apt below it are one process group, which is asked
	// to end (mmdebstrap then unmounts and removes what it made).
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("mmdebstrap: %w; its last words:\n%s", err, lastLines(log.String(), 15))
	}
	return nil
}

// aptNetworkSettings returns how this machine's apt reaches the network
// (proxies, certificates) as lines of apt.conf(5), because mmdebstrap starts
// from apt's defaults.
func aptNetworkSettings(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--no-empty", "--format", `%f "%v";%n`).Output()
	if err != nil {
		return nil, fmt.Errorf("cannot read apt's configuration: %w", err)
	}
	var settings []string
	for _, line := range strings.Split(string(out), "\n") {
		if strings.HasPrefix(line, "Acquire::http::") || strings.HasPrefix(line, "Acquire::https::") {
			settings = append(settings, strings.TrimSuffix(line, ";"))
		}
	}
	return settings, nil
}

// ProxyEnvironment returns this machine's apt proxies as environment
// variables (http_proxy=…, https_proxy=…) for programs that are to reach the
// same mirror; empty when apt goes directly.
func ProxyEnvironment(ctx context.Context) ([]string, error) {
	settings, err := aptNetworkSettings(ctx)
	if err != nil {
		return nil, err
	}
	var env []string
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, " ")
		value = strings.Trim(value, `"`)
		if value == "DIRECT" {
			continue
		}
		switch name {
		case "Acquire::http::Proxy":
			env = append(env, "http_proxy="+value)
		case "Acquire::https::Proxy":
			env = append(env, "https_proxy="+value)
		}
	}
	return env, nil
}

// Unpack extracts an archive that [Root] made into dir, which must exist,
// with owners, modes, capabilities and devices. It needs root.
func Unpack(ctx context.Context, tar, dir string) error {
	cmd := exec.CommandContext(ctx, "tar", "--extract", "--file="+tar, "--directory="+dir,
		"--numeric-owner", "--preserve-permissions", "--xattrs", "--xattrs-include=*")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("cannot unpack %s: %w: %s", tar, err, lastLines(string(out), 5))
	}
	return nil
}

// lock takes an exclusive lock on path and waits for it as long as ctx lives.
// The file stays: removing it would let two processes hold "the" lock.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open a lock: %w", err)
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil // closing releases
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			file.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, fmt.Errorf("cannot lock %s: %w", path, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
