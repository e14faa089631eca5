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
	"slices"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"aptfleet/repo-manager/internal/release"
)

// parallelDownloads is how many files are fetched at the same time.
const parallelDownloads = 4

// downloads is a directory with whole and partial files, each under the
// SHA-256 it is to have. What an interrupted update left there is checked
// before it is used.
type downloads struct{ dir string }

func (d downloads) path(l listed) string {
	return filepath.Join(d.dir, hex.EncodeToString(l.sha256[:]))
}

// keepOnly makes the directory if it is not there, and removes from it all but
// the wanted files.
func (d downloads) keepOnly(wanted []listed) error {
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return fmt.Errorf("cannot make room for downloads: %w", err)
	}
	keep := map[string]bool{}
	for _, l := range wanted {
		keep[d.path(l)] = true
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

// missing returns what of a selection the pool lacks.
func (u *Updater) missing(packages []selected) ([]selected, error) {
	var missing []selected
	names := map[[32]byte]string{}
	for _, s := range packages {
		if other, known := names[s.SHA256]; known {
			return nil, fmt.Errorf("cannot take over %s: upstream gives it the same bytes as %s", s.file, other)
		}
		names[s.SHA256] = s.file
		if !u.config.Pool.Has(s.SHA256, s.file) {
			missing = append(missing, s)
		}
	}
	return missing, nil
}

// download fetches .debs and returns them. Each has the size and SHA-256 of
// the signed index.
func (u *Updater) download(ctx context.Context, store downloads, missing []selected, progress Progress) ([]release.File, error) {
	var wanted []listed
	var files []release.File
	for _, s := range missing {
		wanted = append(wanted, s.listed())
		files = append(files, release.File{Path: store.path(s.listed()), SHA256: s.SHA256, Name: s.file, Size: s.Size})
	}
	if err := store.keepOnly(wanted); err != nil {
		return nil, err
	}
	if err := u.mustFit(store, wanted, "packages"); err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelDownloads)
	for _, s := range missing {
		group.Go(func() error {
			if err := s.from.retry(ctx, func() error { return s.from.bring(ctx, store.path(s.listed()), s.source, s.listed(), progress) }); err != nil {
				return fmt.Errorf("cannot download %s: %w", s.from.url(s.source), err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return files, nil
}

// fetchIndices brings indices into the store, several at a time.
func (u *Updater) fetchIndices(ctx context.Context, store downloads, indices []index, progress Progress) error {
	var wanted []listed
	var different []index // Debian's binary-all is read for every architecture
	for _, ix := range indices {
		if !slices.Contains(wanted, ix.packed) {
			wanted, different = append(wanted, ix.packed), append(different, ix)
		}
	}
	if err := store.keepOnly(wanted); err != nil {
		return err
	}
	if err := u.mustFit(store, wanted, "indices"); err != nil {
		return err
	}
	progress.Total(sizes(wanted), "bytes")
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelDownloads)
	for _, ix := range different {
		group.Go(func() error { return ix.fetch(ctx, store, progress) })
	}
	return group.Wait()
}

// sizes sums up.
func sizes(files []listed) int64 {
	var total int64
	for _, l := range files {
		total += l.size
	}
	return total
}

// mustFit refuses downloads that would use the disk up: then no upload could
// be taken and no stage be signed any more.
func (u *Updater) mustFit(store downloads, wanted []listed, what string) error {
	needed := sizes(wanted)
	for _, l := range wanted {
		if info, err := os.Lstat(store.path(l)); err == nil { // a part of it is there
			needed -= min(info.Size(), l.size)
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
		return fmt.Errorf("cannot download %d %s: no space left on the disk of the data directory: %d bytes are needed, %d are free, of which %d stay free",
			len(wanted), what, needed, free, u.config.Reserve)
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

// bring makes the file at path the one that upstream calls name and whose
// content is known. A part that is there is continued; a file that turns out
// wrong is removed, so that the next try starts at its beginning.
func (u *upstream) bring(ctx context.Context, path, name string, want listed, progress Progress) (err error) {
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
	if _, err := io.Copy(d, contextReader{ctx, io.LimitReader(file, want.size)}); err != nil {
		return err
	}
	if d.n < want.size {
		err := u.fetch(ctx, name, d.n, want.size, d.start)
		if d.n > want.size {
			err = errors.Join(err, os.Remove(path))
		}
		if err != nil {
			return err
		}
	}
	if d.n < want.size {
		return fmt.Errorf("it ends after %d of %d bytes", d.n, want.size)
	}
	if err := want.check(d.sum, d.n); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return file.Truncate(want.size)
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
