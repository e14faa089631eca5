package device

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"aptfleet/test/debian"
)

// Root names the root file system of a first deployment: what apt installs
// from one base of the archive, from nothing.
type Root struct {
	Base         string   // URL of the base, e.g. http://127.0.0.1:8080/demo/snapshots/20261120T101500Z
	State        string   // id of the state it offers; names the contents in the cache
	Distribution string   // e.g. trixie
	Components   []string // of the pipeline
	Packages     []string // what is wanted beyond Essential and Priority: required
	Keyring      string   // file with the archive key's certificate, absolute
	Progress     io.Writer
}

// keepRoots is how many roots the cache holds; the least recently used go.
const keepRoots = 4

// Tar returns the path of a tar archive of the root. It is built once per
// state and package list and kept in debian.CacheDir. The archive of packages
// is the only source: nothing else is reached.
func (r Root) Tar(ctx context.Context) (string, error) {
	dir := filepath.Join(debian.CacheDir(), "device-roots")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("cannot make the cache of device roots: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fmt.Errorf("cannot lock the cache of device roots: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("cannot lock the cache of device roots: %w", err)
	}
	tar := filepath.Join(dir, r.key()+".tar")
	now := time.Now()
	if os.Chtimes(tar, now, now) == nil {
		return tar, nil
	}
	if err := r.build(ctx, tar+".partial"); err != nil {
		return "", errors.Join(err, os.RemoveAll(tar+".partial"))
	}
	if err := os.Rename(tar+".partial", tar); err != nil {
		return "", fmt.Errorf("cannot keep device root: %w", err)
	}
	return tar, prune(dir)
}

// key is a hash of what decides the contents. Its first line counts changes of
// how a root is made.
func (r Root) key() string {
	packages := slices.Sorted(slices.Values(r.Packages))
	sum := sha256.Sum256([]byte(strings.Join([]string{
		"1", r.State, r.Distribution, strings.Join(r.Components, ","), strings.Join(packages, ","),
	}, "\n")))
	return hex.EncodeToString(sum[:12])
}

// build runs mmdebstrap. Its minbase variant is Essential plus Priority:
// required plus apt, which is what the updater solves for, too.
func (r Root) build(ctx context.Context, target string) error {
	source := fmt.Sprintf("deb [signed-by=%s] %s %s %s\n", r.Keyring, r.Base, r.Distribution, strings.Join(r.Components, " "))
	cmd := exec.CommandContext(ctx, "mmdebstrap",
		"--mode=root", "--format=tar", "--variant=minbase", "--include="+strings.Join(r.Packages, ","),
		`--aptopt=Acquire::Languages "none"`, `--aptopt=Acquire::http::Proxy "DIRECT"`,
		// The keyring may lie where only root can read.
		`--aptopt=APT::Sandbox::User "root"`, "--dpkgopt=force-unsafe-io",
		// The device's sources are the updater's business; the rest are these
		// very settings and the building machine's names.
		`--customize-hook=cd "$1/etc" && rm -f apt/sources.list apt/apt.conf.d/99mmdebstrap dpkg/dpkg.cfg.d/99mmdebstrap resolv.conf hostname`,
		r.Distribution, target, "-")
	cmd.Stdin = strings.NewReader(source)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "http_proxy=", "no_proxy=*")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if r.Progress != nil {
		cmd.Stdout = io.MultiWriter(&log, r.Progress)
		cmd.Stderr = cmd.Stdout
	}
	// mmdebstrap unmounts and removes what it made when it is asked to end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Run(); err != nil {
		words := bytes.TrimSpace(log.Bytes())
		return fmt.Errorf("cannot build device root from %s: mmdebstrap: %w; its last words:\n%s", r.Base, err, words[max(0, len(words)-2000):])
	}
	return nil
}

// prune removes the least recently used roots beyond keepRoots.
func prune(dir string) error {
	paths, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil {
		return fmt.Errorf("cannot list device roots: %w", err)
	}
	used := map[string]time.Time{}
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("cannot look at device root: %w", err)
		}
		used[path] = info.ModTime()
	}
	slices.SortFunc(paths, func(a, b string) int { return cmp.Or(used[b].Compare(used[a]), strings.Compare(a, b)) })
	for _, path := range paths[min(keepRoots, len(paths)):] {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("cannot remove device root: %w", err)
		}
	}
	return nil
}
