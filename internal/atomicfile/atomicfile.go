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
	"strings"

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
	// the rename can leave it behind, so owners of directories call Sweep.
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*"+unfinished)
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

// unfinished ends the name of a file that is not whole yet.
const unfinished = ".tmp"

// Sweep deletes what crashes left in dir of a Write of those files of which of
// is true; nil is all. Nobody may be writing them. No directory is fine.
func Sweep(dir string, of func(file string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot sweep %s: %w", dir, err)
	}
	var failures []error
	for _, e := range entries {
		if file, ok := unfinishedOf(e.Name()); ok && (of == nil || of(file)) {
			failures = append(failures, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("cannot sweep %s: %w", dir, err)
	}
	return nil
}

// unfinishedOf returns the file that was to become of one with this name.
func unfinishedOf(name string) (file string, ok bool) {
	name, hidden := strings.CutPrefix(name, ".")
	name, half := strings.CutSuffix(name, unfinished)
	end := strings.LastIndexByte(name, '.') // what follows is random
	if !hidden || !half || end < 1 {
		return "", false
	}
	return name[:end], true
}

// StartWriting has the kernel begin to write to the disk what f holds so far,
// and does not wait for it: a sync that follows has less left to do. It promises
// nothing, so a file system that cannot do it is none the worse for it.
func StartWriting(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
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
