package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"aptfleet/repo-manager/internal/release"
)

// parallelDownloads is how many packages are fetched at the same time.
const parallelDownloads = 4

// downloads is a directory with whole and partial .debs, each under the
// SHA-256 it is to have. What an interrupted update left there is checked
// before it is used.
type downloads struct{ dir string }

func (d downloads) path(s selected) string {
	return filepath.Join(d.dir, hex.EncodeToString(s.SHA256[:]))
}

// keepOnly removes what no package of the current selection needs.
func (d downloads) keepOnly(wanted []selected) error {
	keep := map[string]bool{}
	for _, s := range wanted {
		keep[d.path(s)] = true
	}
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("cannot look through earlier downloads: %w", err)
	}
	for _, entry := range entries {
		if path := filepath.Join(d.dir, entry.Name()); !keep[path] {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("cannot remove an earlier download: %w", err)
			}
		}
	}
	return nil
}

// clear removes the directory after the engine took its files.
func (d downloads) clear() error {
	if err := os.RemoveAll(d.dir); err != nil {
		return fmt.Errorf("cannot remove finished downloads: %w", err)
	}
	return nil
}

// download fetches the .debs that the pool lacks and returns them. Each has
// the size and SHA-256 of the signed index.
func (u *Updater) download(ctx context.Context, up *upstream, store downloads, packages []selected, progress Progress) ([]release.File, error) {
	var missing []selected
	var files []release.File
	var total int64
	names := map[[32]byte]string{}
	for _, s := range packages {
		if other, known := names[s.SHA256]; known {
			return nil, fmt.Errorf("cannot take over %s: upstream gives it the same bytes as %s", s.file, other)
		}
		names[s.SHA256] = s.file
		if u.config.Pool.Has(s.SHA256, s.file) {
			continue
		}
		missing = append(missing, s)
		files = append(files, release.File{Path: store.path(s), SHA256: s.SHA256, Name: s.file, Size: s.Size})
		total += s.Size
	}
	if err := store.keepOnly(missing); err != nil {
		return nil, err
	}
	progress.Logf("%d packages selected, %d of them to download (%d bytes)", len(packages), len(missing), total)
	if err := u.mustFit(store, missing, total); err != nil {
		return nil, err
	}
	progress.Total(total, "bytes")
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelDownloads)
	for _, s := range missing {
		group.Go(func() error {
			if err := up.retry(ctx, func() error { return up.fetchPackage(ctx, store.path(s), s, progress) }); err != nil {
				return fmt.Errorf("cannot download %s: %w", up.url(s.source), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return files, nil
}

// mustFit refuses downloads that would use the disk up: then no upload could
// be taken and no stage be signed any more. total is the size of missing.
func (u *Updater) mustFit(store downloads, missing []selected, total int64) error {
	needed := total
	for _, s := range missing {
		if info, err := os.Lstat(store.path(s)); err == nil { // a part of it is there
			needed -= min(info.Size(), s.Size)
		}
	}
	if needed == 0 {
		return nil
	}
	free, err := u.config.Free(store.dir)
	if err != nil {
		return fmt.Errorf("cannot look for room for the downloads: %w", err)
	}
	if free-u.config.Reserve < needed {
		return fmt.Errorf("cannot download %d packages: no space left on the disk of the data directory: %d bytes are needed, %d are free, of which %d stay free",
			len(missing), needed, free, u.config.Reserve)
	}
	return nil
}

// free is how many bytes may still be written to the file system of dir.
func free(dir string) (int64, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return 0, err
	}
	return int64(stat.Bavail) * stat.Bsize, nil
}

// fetchPackage brings the file at path to the content that s names. A part
// that is there is continued; a file that turns out wrong is removed, so that
// the next try starts at its beginning.
func (u *upstream) fetchPackage(ctx context.Context, path string, s selected, progress Progress) (err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	d := &download{file: file, sum: sha256.New(), progress: progress}
	defer func() {
		err = errors.Join(err, file.Close())
		if err != nil {
			progress.Add(-d.n)
		}
	}()
	if _, err := io.Copy(d, contextReader{ctx, io.LimitReader(file, s.Size)}); err != nil {
		return err
	}
	if d.n < s.Size {
		err := u.fetch(ctx, s.source, d.n, s.Size, d.start)
		if d.n > s.Size {
			err = errors.Join(err, os.Remove(path))
		}
		if err != nil {
			return err
		}
	}
	if d.n < s.Size {
		return fmt.Errorf("it ends after %d of %d bytes", d.n, s.Size)
	}
	want := listed{sha256: s.SHA256, size: s.Size}
	if err := want.check(d.sum, d.n); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return file.Truncate(s.Size)
}

// download is a file that is read up to its end, then written from there on,
// with the hash of both.
type download struct {
	file     *os.File
	writing  bool
	n        int64
	sum      hash.Hash
	progress Progress
}

// start is told where the server begins: behind what we have, or at 0.
func (d *download) start(at int64) (io.Writer, error) {
	if at != d.n {
		d.progress.Add(-d.n)
		d.n, d.sum = 0, sha256.New()
	}
	if err := d.file.Truncate(d.n); err != nil {
		return nil, err
	}
	if _, err := d.file.Seek(d.n, io.SeekStart); err != nil {
		return nil, err
	}
	d.writing = true
	return d, nil
}

func (d *download) Write(p []byte) (int, error) {
	if d.writing {
		if n, err := d.file.Write(p); err != nil {
			return n, err
		}
	}
	d.sum.Write(p)
	d.n += int64(len(p))
	d.progress.Add(int64(len(p)))
	return len(p), nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
