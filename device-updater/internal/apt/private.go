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
	"path/filepath"
	"strings"
	"time"

	"aptfleet/internal/aptroot"
	"aptfleet/internal/atomicfile"
)

// Source is the one apt source of a device: the base of one state.
type Source = aptroot.Source

// Package is one entry of the exact list of a release.
type Package = aptroot.Package

// Private is a private root of apt with downloads, for the updater alone. Only
// root may enter it: apt takes a file of the right size from its cache without
// hashing it.
type Private struct {
	*aptroot.Root
	source Source
}

// NewPrivate uses dir as [aptroot.New] does. Downloads of an earlier process
// stay; they are hashed before they are used.
func NewPrivate(dir string, source Source) (*Private, error) {
	root, err := aptroot.New(dir, source)
	if err != nil {
		return nil, err
	}
	return &Private{root, source}, nil
}

// Download fetches what the plan needs and is not here yet, and checks every
// file against its hash. status is the dpkg status that the plan was made for:
// apt proves on the way that the transaction can be done. Files that are not
// needed any more are deleted. progress is told how much is here; it may be nil.
func (p *Private) Download(ctx context.Context, plan Plan, status []byte, progress func(Fetched)) error {
	if err := atomicfile.Write(p.Path("state/status"), status, 0o600); err != nil {
		return fmt.Errorf("cannot prepare apt: %w", err)
	}
	if err := p.sweep(plan); err != nil {
		return err
	}
	stop := p.watch(ctx, plan, progress)
	args := append([]string{"apt-get", "-q", "install", "--download-only"}, transaction...)
	err := p.Run(ctx, "fetch.conf", io.Discard, append(args, plan.arguments()...)...)
	again, parseErr := ParseStatus(bytes.NewReader(status))
	if rebuilt := plan.reinstalls(again); err == nil && parseErr == nil && len(rebuilt) > 0 {
		args := append([]string{"apt-get", "-q", "install", "--download-only", "--reinstall"}, transaction...)
		for _, r := range rebuilt {
			args = append(args, r.Argument())
		}
		err = p.Run(ctx, "fetch.conf", io.Discard, args...)
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
	entries, err := os.ReadDir(p.Path("archives"))
	if err != nil {
		return fmt.Errorf("cannot look through downloads: %w", err)
	}
	for _, e := range entries {
		want, ok := need[e.Name()]
		if !strings.HasSuffix(e.Name(), ".deb") || ok && p.checkFile(want) == nil {
			continue
		}
		if err := os.Remove(p.Path("archives/" + e.Name())); err != nil {
			return fmt.Errorf("cannot delete old download: %w", err)
		}
	}
	return p.sweepPartial(need)
}

// sweepPartial deletes what is here of files that nobody needs any more. Of
// others apt asks for the rest alone.
func (p *Private) sweepPartial(need map[string]Package) error {
	entries, err := os.ReadDir(p.Path("archives/partial"))
	if err != nil {
		return fmt.Errorf("cannot look through downloads: %w", err)
	}
	for _, e := range entries {
		if _, ok := need[e.Name()]; ok || e.IsDir() {
			continue
		}
		if err := os.Remove(p.Path("archives/partial/" + e.Name())); err != nil {
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
	return p.Path("archives/" + want.File)
}

// Fetched is how far a download is.
type Fetched struct {
	Files, AllFiles int
	Bytes, AllBytes int64
}

// watch tells progress about files as they arrive, until stop.
func (p *Private) watch(ctx context.Context, plan Plan, progress func(Fetched)) (stop func()) {
	if progress == nil {
		return func() {}
	}
	count := func() {
		now := Fetched{AllFiles: len(plan.Fetch), AllBytes: plan.FetchSize()}
		for _, f := range plan.Fetch {
			here := p.here(f)
			if now.Bytes += here; here == f.Size {
				now.Files++
			}
		}
		progress(now)
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
