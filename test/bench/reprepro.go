package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// reprepro is reprepro with a distribution for each stage, of which canary
// pulls from dev. It writes Packages.gz only and signs with gpg, whose agent
// runs already and whose time is not counted. It has no undo: what canary was
// is kept with gensnapshot, and the packages that differ are restored from it.
type reprepro struct {
	peer
}

func newReprepro(dir string, key signingKey, say func(string)) *reprepro {
	return &reprepro{peer: peer{runner: runner{say: say, env: []string{"GNUPGHOME=" + key.home}}, dir: dir, key: key}}
}

func (r *reprepro) name() string { return "reprepro-gz" }

func (r *reprepro) version(ctx context.Context) (string, error) {
	// It says its version on stderr.
	out, err := new(runner).run(ctx, "/", "sh", "-c", "reprepro --version 2>&1")
	return strings.TrimPrefix(strings.TrimSpace(out), "reprepro: This is reprepro version "), err
}

func (r *reprepro) reprepro(ctx context.Context, args ...string) (string, error) {
	return r.run(ctx, r.dir, "reprepro", append([]string{"--basedir=" + r.dir}, args...)...)
}

func (r *reprepro) start(context.Context) error {
	var distributions strings.Builder
	for _, stage := range []string{dev, canary} {
		fmt.Fprintf(&distributions, "Codename: %s\nComponents: %s\nArchitectures: %s\nDebIndices: Packages Release .gz\nSignWith: %s\n",
			stage, component, architecture, r.key.fingerprint)
		if stage == canary {
			distributions.WriteString("Pull: " + dev + "\n")
		}
		distributions.WriteString("\n")
	}
	conf := filepath.Join(r.dir, "conf")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(conf, "distributions"), []byte(distributions.String()), 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(conf, "pulls"), []byte("Name: "+dev+"\nFrom: "+dev+"\n"), 0o644); err != nil {
		return err
	}
	return r.serve(r.dir)
}

func (r *reprepro) addAll(ctx context.Context, dir string, files []string) error {
	_, err := r.run(ctx, dir, "reprepro", append([]string{"--basedir=" + r.dir, "includedeb", dev}, files...)...)
	return err
}

func (r *reprepro) branch(ctx context.Context) error {
	if _, err := r.reprepro(ctx, "pull", canary); err != nil {
		return err
	}
	_, err := r.reprepro(ctx, "gensnapshot", canary, "before")
	return err
}

func (r *reprepro) snapshot(ctx context.Context, name string) error {
	_, err := r.reprepro(ctx, "gensnapshot", dev, name)
	return err
}

func (r *reprepro) addOne(ctx context.Context, path string) error {
	_, err := r.reprepro(ctx, "includedeb", dev, path)
	return err
}

func (r *reprepro) diff(ctx context.Context, _ string) (string, error) {
	return r.reprepro(ctx, "dumppull", canary)
}

func (r *reprepro) promote(ctx context.Context, _ string) error {
	_, err := r.reprepro(ctx, "pull", canary)
	return err
}

func (r *reprepro) undo(ctx context.Context, names []string) error {
	_, err := r.reprepro(ctx, append([]string{"restore", canary, "before"}, names...)...)
	return err
}

func (r *reprepro) dists(stage string) string { return fmt.Sprintf("%s/dists/%s", r.http.URL, stage) }
