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
	"sync"

	"golang.org/x/sys/unix"
)

// Pool is the directory pool/ of a published tree. It implements release.Pool
// and mirror.Pool. Its methods may be called by many at once.
type Pool struct {
	dir   string
	locks [256]sync.Mutex // by the first byte of the content's SHA-256
}

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

// lock keeps others from content while it comes or goes, until unlock is called.
func (p *Pool) lock(sum [sha256.Size]byte) (unlock func()) {
	p.locks[sum[0]].Lock()
	return p.locks[sum[0]].Unlock
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
	defer p.lock(sum)()
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

// PutBytes is Put for a small file that is in memory. It is written where it
// stays; until it is whole it has no permissions, so that nobody but root can
// open it. A process that dies meanwhile leaves a part of it, which is replaced
// like what a power failure left. On an error there is no file.
func (p *Pool) PutBytes(content []byte, sum [sha256.Size]byte, file string) (already bool, err error) {
	if err := checkName(file); err != nil {
		return false, err
	}
	defer p.lock(sum)()
	target := p.Path(sum, file)
	dir := filepath.Dir(target)
	err = unix.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) { // the first two digits are new
		err = os.MkdirAll(dir, 0o755)
	}
	if errors.Is(err, fs.ErrExist) { // the file too, or it was torn by a power failure
		if already, err = holds(target, sum); err == nil && !already {
			err = removeAny(target)
		}
	}
	if err == nil && !already {
		if err = create(target, content); err != nil {
			err = errors.Join(err, removeAny(target), p.prune(sum))
		}
	}
	if err != nil {
		return already, fmt.Errorf("cannot put %s into the pool: %w", file, err)
	}
	return already, nil
}

// create writes a new file of the mode 0444. It costs as few system calls as
// there can be: an import is little else.
func create(path string, content []byte) error {
	const nobodys = 0
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, nobodys)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	for len(content) > 0 && err == nil {
		var n int
		if n, err = unix.Write(fd, content); errors.Is(err, unix.EINTR) {
			n, err = 0, nil
		}
		content = content[max(n, 0):]
	}
	if err == nil {
		err = unix.Fchmod(fd, 0o444)
	}
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// Remove takes a file out of the pool; one that is not there is no error. The
// caller knows that no state needs it.
func (p *Pool) Remove(sum [sha256.Size]byte, file string) error {
	if err := checkName(file); err != nil {
		return err
	}
	defer p.lock(sum)()
	if err := removeAny(p.Path(sum, file)); err != nil {
		return fmt.Errorf("cannot remove %s from the pool: %w", file, err)
	}
	return p.prune(sum)
}

// removeAny removes a file; one that is not there is no error.
func removeAny(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
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

// holds reports whether the file at path has the SHA-256 sum. One that was
// never finished may be there, which nobody can read.
func holds(path string, sum [sha256.Size]byte) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
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
