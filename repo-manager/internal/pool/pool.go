// Package pool keeps the .deb files of all pipelines, each once, under its
// content:
//
//	pool/<first 2 hex>/<sha256>/<name>_<version without epoch>_<arch>.deb
//
// A file never changes (its mode is 0444) and can be cached for ever. Nothing
// is durable before the caller syncs the file system; a power failure before
// that may leave any file absent, or present with other bytes.
package pool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Pool is the directory pool/ of a published tree. It implements release.Pool
// and mirror.Pool. Its methods may be called by many at once.
type Pool struct{ dir string }

// New uses the directory pool of publicDir, which it makes if needed.
func New(publicDir string) (*Pool, error) {
	dir := filepath.Join(publicDir, "pool")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot open pool: %w", err)
	}
	return &Pool{dir: dir}, nil
}

// Path returns where a file lies, or will: at publish.PoolFilename below the
// published tree.
func (p *Pool) Path(sum [sha256.Size]byte, file string) string {
	name := hex.EncodeToString(sum[:])
	return filepath.Join(p.dir, name[:2], name, file)
}

// Has reports whether there is a file of that content and name. It does not
// read it.
func (p *Pool) Has(sum [sha256.Size]byte, file string) bool {
	info, err := os.Lstat(p.Path(sum, file))
	return err == nil && info.Mode().IsRegular()
}

// Put moves the file tmp, whose bytes the caller has hashed and which lies on
// the same file system, into the pool. Already is true if a file with these
// bytes is there under the name; tmp is then removed. A file there that has
// other bytes (it was never synced before a power failure) is replaced. On an
// error tmp stays where it is, with the mode it had or 0444.
func (p *Pool) Put(tmp string, sum [sha256.Size]byte, file string) (already bool, err error) {
	if err := checkName(file); err != nil {
		return false, err
	}
	if err := os.Chmod(tmp, 0o444); err != nil {
		return false, fmt.Errorf("cannot put %s into the pool: %w", file, err)
	}
	target := p.Path(sum, file)
	already, err = holds(target, sum)
	if err == nil && already {
		err = os.Remove(tmp)
	}
	if err != nil {
		return already, fmt.Errorf("cannot put %s into the pool: %w", file, err)
	}
	if already {
		return true, nil
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return false, fmt.Errorf("cannot put %s into the pool: %w", file, err)
	}
	if err := os.Rename(tmp, target); err != nil {
		return false, errors.Join(fmt.Errorf("cannot put %s into the pool: %w", file, err), p.prune(sum))
	}
	return false, nil
}

// PutDir is Put for a file that lies in dir, a directory of its own and of the
// same file system, under its name and with the mode 0444: one rename takes
// both. dir is gone afterwards, unless there is an error.
func (p *Pool) PutDir(dir string, sum [sha256.Size]byte, file string) (already bool, err error) {
	if err := checkName(file); err != nil {
		return false, err
	}
	target := filepath.Dir(p.Path(sum, file))
	err = unix.Rename(dir, target)
	if errors.Is(err, fs.ErrNotExist) { // the first two digits are new
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return false, fmt.Errorf("cannot put %s into the pool: %w", file, err)
		}
		err = unix.Rename(dir, target)
	}
	switch {
	case errors.Is(err, fs.ErrExist): // ENOTEMPTY too: it is there, or was torn by a power failure
		if already, err = p.Put(filepath.Join(dir, file), sum, file); err == nil {
			err = os.Remove(dir)
		}
		return already, err
	case err != nil:
		return false, fmt.Errorf("cannot put %s into the pool: %w", file, err)
	}
	return false, nil
}

// Remove takes a file out of the pool; one that is not there is no error. The
// caller knows that no state needs it.
func (p *Pool) Remove(sum [sha256.Size]byte, file string) error {
	if err := checkName(file); err != nil {
		return err
	}
	if err := os.Remove(p.Path(sum, file)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove %s from the pool: %w", file, err)
	}
	return p.prune(sum)
}

// prune removes the directory of sum if it is empty.
func (p *Pool) prune(sum [sha256.Size]byte) error {
	dir := filepath.Dir(p.Path(sum, "x"))
	left, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(left) > 0 {
		return nil
	}
	if err == nil {
		err = os.Remove(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot tidy the pool: %w", err)
	}
	return nil
}

// checkName refuses names that would leave the file's directory.
func checkName(file string) error {
	if file == "" || strings.HasPrefix(file, ".") || strings.ContainsAny(file, "/\x00") {
		return fmt.Errorf("cannot use %q as the name of a file in the pool: want a plain name", file)
	}
	return nil
}

// holds reports whether the file at path has the SHA-256 sum.
func holds(path string, sum [sha256.Size]byte) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	hash := sha256.New()
	_, err = io.Copy(hash, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	return [sha256.Size]byte(hash.Sum(nil)) == sum, nil
}
