package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// aptly is aptly with a local repository that dev publishes as it is, and
// snapshots of it that canary publishes. It signs in its own process, which is
// several times faster than gpg; by-hash names cost it nothing that can be
// measured.
type aptly struct {
	peer
	before string // the snapshot that canary offered before it was promoted
	offers string
}

func newAptly(dir string, key signingKey, say func(string)) *aptly {
	return &aptly{peer: peer{runner: runner{say: say}, dir: dir, key: key}}
}

func (a *aptly) name() string { return "aptly" }

func (a *aptly) version(ctx context.Context) (string, error) {
	out, err := new(runner).run(ctx, "/", "aptly", "version")
	return strings.TrimPrefix(strings.TrimSpace(out), "aptly version: "), err
}

// aptly runs one of its commands; the first words name it.
func (a *aptly) aptly(ctx context.Context, words []string, args ...string) (string, error) {
	all := append(append([]string{"-config=" + filepath.Join(a.dir, "aptly.conf")}, words...), args...)
	return a.run(ctx, a.dir, "aptly", all...)
}

// publishFlags choose gz indices and no Contents, and sign.
func (a *aptly) publishFlags() []string {
	return []string{"-skip-contents", "-skip-bz2", "-gpg-provider=internal", "-keyring=" + a.key.public, "-secret-keyring=" + a.key.secret}
}

func (a *aptly) start(ctx context.Context) error {
	config, err := json.Marshal(map[string]any{
		"rootDir": filepath.Join(a.dir, "root"), "architectures": []string{architecture},
		"skipContentsPublishing": true, "gpgProvider": "internal",
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(a.dir, "aptly.conf"), config, 0o644); err != nil {
		return err
	}
	if err := a.serve(filepath.Join(a.dir, "root", "public")); err != nil {
		return err
	}
	_, err = a.aptly(ctx, []string{"repo", "create"}, "-distribution="+distribution, "-component="+component, "rolling")
	return err
}

func (a *aptly) addAll(ctx context.Context, dir string, _ []string) error {
	if _, err := a.aptly(ctx, []string{"repo", "add"}, "rolling", dir); err != nil {
		return err
	}
	_, err := a.aptly(ctx, []string{"publish", "repo"}, append(a.publishFlags(), "-acquire-by-hash", "-distribution="+distribution, "rolling", dev)...)
	return err
}

func (a *aptly) branch(ctx context.Context) error {
	a.offers = "first"
	if err := a.snapshot(ctx, a.offers); err != nil {
		return err
	}
	_, err := a.aptly(ctx, []string{"publish", "snapshot"}, append(a.publishFlags(), "-acquire-by-hash", "-distribution="+distribution, a.offers, canary)...)
	return err
}

func (a *aptly) snapshot(ctx context.Context, name string) error {
	_, err := a.aptly(ctx, []string{"snapshot", "create"}, name, "from", "repo", "rolling")
	return err
}

func (a *aptly) addOne(ctx context.Context, path string) error {
	if _, err := a.aptly(ctx, []string{"repo", "add"}, "rolling", path); err != nil {
		return err
	}
	_, err := a.aptly(ctx, []string{"publish", "update"}, append(a.publishFlags(), distribution, dev)...)
	return err
}

func (a *aptly) diff(ctx context.Context, snapshot string) (string, error) {
	return a.aptly(ctx, []string{"snapshot", "diff"}, a.offers, snapshot)
}

func (a *aptly) promote(ctx context.Context, snapshot string) error {
	a.before, a.offers = a.offers, snapshot
	return a.switchTo(ctx, snapshot)
}

func (a *aptly) undo(ctx context.Context, _ []string) error {
	a.offers = a.before
	return a.switchTo(ctx, a.offers)
}

func (a *aptly) switchTo(ctx context.Context, snapshot string) error {
	_, err := a.aptly(ctx, []string{"publish", "switch"}, append(a.publishFlags(), distribution, canary, snapshot)...)
	return err
}

func (a *aptly) dists(stage string) string {
	return fmt.Sprintf("%s/%s/dists/%s", a.http.URL, stage, distribution)
}
