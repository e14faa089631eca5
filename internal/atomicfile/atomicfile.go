// Package atomicfile writes files that are, after a crash or a power cut,
// either the old or the new one, whole.
//
// A durable write is: a temporary file in the same directory, fsync, rename,
// fsync of the directory. A batch of many files writes and renames them all
// and then calls SyncFS once.
package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"aptfleet/internal/faultpoint"
)

// Write replaces the file at path by data. When it returns nil the new file is
// durable; on an error the old one is untouched and nothing is left behind.
// perm is exact: the umask does not matter.
func Write(path string, data []byte, perm fs.FileMode) error {
	return WriteFrom(path, bytes.NewReader(data), perm)
}

// WriteFrom is Write for what r yields until io.EOF.
func WriteFrom(path string, r io.Reader, perm fs.FileMode) (err error) {
	dir := filepath.Dir(path)
	// The leading dot keeps an unfinished file out of globs; a crash before
	// the rename can leave it behind, so owners of directories clear *.tmp.
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	closed := false
	defer func() {
		if err == nil {
			return
		}
		if !closed {
			err = errors.Join(err, f.Close())
		}
		if remove := os.Remove(f.Name()); remove != nil && !errors.Is(remove, fs.ErrNotExist) {
			err = errors.Join(err, remove)
		}
	}()
	if _, err := io.Copy(f, r); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := f.Chmod(perm); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	closed = true
	if err := f.Close(); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	return SyncDir(dir)
}

// SyncDir makes the names in a directory durable: files created, renamed and
// removed there survive a power cut.
func SyncDir(dir string) error { return onDirectory(dir, unix.Fsync) }

// SyncFS makes everything written so far to the file system that holds dir
// durable, contents and names, with one call.
func SyncFS(dir string) error { return onDirectory(dir, unix.Syncfs) }

func onDirectory(dir string, sync func(fd int) error) error {
	if faultpoint.SkipSync {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", dir, err)
	}
	if err := sync(int(d.Fd())); err != nil {
		return errors.Join(fmt.Errorf("cannot sync %s: %w", dir, err), d.Close())
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("cannot sync %s: %w", dir, err)
	}
	return nil
}
