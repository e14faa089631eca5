package publish

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"aptfleet/internal/atomicfile"
)

// temporary and indexStore are directories below the root. Their names begin
// with a dot: no pipeline can have them.
const (
	temporary  = ".tmp"
	indexStore = ".indices"
)

// PoolFilename returns the value of the Filename field of a package whose bytes
// have the SHA-256 sum: its path below the root of the tree, which is the same
// below every base. file is what deb.FileName returns.
func PoolFilename(sum [sha256.Size]byte, file string) string {
	name := hex.EncodeToString(sum[:])
	return path.Join("pool", name[:2], name, file)
}

// tree changes files below a root. A name holds, at any moment, either what it
// held before or what it is given, whole. Paths are relative to the root.
// Nothing is durable before sync.
type tree struct {
	root  string
	names *atomic.Int64 // counts temporary names
	// before, if set, is called before each change and may fail it: tests cut
	// a publication short with it.
	before func(op, path string) error
}

func newTree(root string) tree { return tree{root: root, names: new(atomic.Int64)} }

func (t tree) path(rel string) string { return filepath.Join(t.root, rel) }

func (t tree) step(op, rel string) error {
	if t.before == nil {
		return nil
	}
	return t.before(op, rel)
}

// mkdir makes a directory and its parents.
func (t tree) mkdir(rel string) error {
	if info, err := os.Lstat(t.path(rel)); err == nil && info.IsDir() {
		return nil
	}
	if err := t.step("mkdir", rel); err != nil {
		return err
	}
	return os.MkdirAll(t.path(rel), 0o755)
}

// prepare makes a temporary name with create. finish renames it to rel, with
// ok, or takes it away; it must be called once.
func (t tree) prepare(op, rel string, create func(tmp string) error) (finish func(ok bool) error, err error) {
	tmp := t.path(path.Join(temporary, strconv.FormatInt(t.names.Add(1), 10)))
	finish = func(ok bool) error {
		if !ok {
			return removeIfThere(tmp)
		}
		err := t.step(op, rel)
		if err == nil {
			err = os.Rename(tmp, t.path(rel))
		}
		if err != nil {
			return errors.Join(err, removeIfThere(tmp))
		}
		return nil
	}
	if err := create(tmp); err != nil {
		return nil, errors.Join(err, finish(false))
	}
	return finish, nil
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// place makes a temporary name with create and renames it to rel. On an error
// the temporary name is gone.
func (t tree) place(op, rel string, create func(tmp string) error) error {
	finish, err := t.prepare(op, rel, create)
	if err != nil {
		return err
	}
	return finish(true)
}

// write makes rel a file that holds data. One that does stays as it is.
func (t tree) write(rel string, data []byte) error {
	finish, err := t.prepareFile(rel, data, time.Time{})
	if err != nil {
		return err
	}
	return finish(true)
}

// prepareFile is prepare for a file that holds data and was modified at at,
// unless that is zero. If rel is such a file already, finish does nothing.
func (t tree) prepareFile(rel string, data []byte, at time.Time) (finish func(ok bool) error, err error) {
	if there, err := os.ReadFile(t.path(rel)); err == nil && bytes.Equal(there, data) {
		info, err := os.Lstat(t.path(rel))
		if err == nil && info.Mode().IsRegular() && (at.IsZero() || info.ModTime().Equal(at)) {
			return func(bool) error { return nil }, nil
		}
	}
	return t.prepare("write", rel, func(tmp string) error {
		if err := os.WriteFile(tmp, data, 0o644); err != nil {
			return err
		}
		if at.IsZero() {
			return nil
		}
		return os.Chtimes(tmp, at, at)
	})
}

// create makes rel a read-only file of what fill writes, modified at at.
func (t tree) create(rel string, at time.Time, fill func(*os.File) error) error {
	return t.place("create", rel, func(tmp string) error {
		f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
		if err != nil {
			return err
		}
		return errors.Join(fill(f), f.Close(), os.Chtimes(tmp, at, at))
	})
}

// link makes rel another name of the file from.
func (t tree) link(from, rel string) error {
	err := t.linkOnce(from, rel)
	if errors.Is(err, syscall.EMLINK) {
		// A file has 65,000 names at most (ext4), and every state's base adds
		// some: further names are of a copy.
		if err := t.renew(from); err != nil {
			return fmt.Errorf("cannot copy %s, which has as many names as the file system allows: %w", from, err)
		}
		err = t.linkOnce(from, rel)
	}
	return err
}

func (t tree) linkOnce(from, rel string) error {
	there, err := os.Lstat(t.path(rel))
	if errors.Is(err, fs.ErrNotExist) {
		if err := t.step("link", rel); err != nil {
			return err
		}
		return os.Link(t.path(from), t.path(rel))
	}
	if source, statErr := os.Lstat(t.path(from)); err != nil || statErr != nil || os.SameFile(source, there) {
		return errors.Join(err, statErr)
	}
	return t.place("link", rel, func(tmp string) error { return os.Link(t.path(from), tmp) })
}

// renew replaces a file by a durable copy of itself.
func (t tree) renew(rel string) error {
	data, err := os.ReadFile(t.path(rel))
	if err != nil {
		return err
	}
	info, err := os.Stat(t.path(rel))
	if err != nil {
		return err
	}
	return t.place("renew", rel, func(tmp string) error {
		return errors.Join(atomicfile.Write(tmp, data, 0o444), os.Chtimes(tmp, info.ModTime(), info.ModTime()))
	})
}

// symlink makes rel a symbolic link to target.
func (t tree) symlink(target, rel string) error {
	if there, err := os.Readlink(t.path(rel)); err == nil && there == target {
		return nil
	}
	return t.place("symlink", rel, func(tmp string) error { return os.Symlink(target, tmp) })
}

// remove takes a name away; one that is not there is no error.
func (t tree) remove(rel string) error {
	if err := t.step("remove", rel); err != nil {
		return err
	}
	if err := os.RemoveAll(t.path(rel)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sync makes everything so far durable.
func (t tree) sync() error {
	if err := t.step("sync", "."); err != nil {
		return err
	}
	return atomicfile.SyncFS(t.root)
}

// syncDir makes the names in a directory durable.
func (t tree) syncDir(rel string) error {
	if err := t.step("syncdir", rel); err != nil {
		return err
	}
	return atomicfile.SyncDir(t.path(rel))
}
