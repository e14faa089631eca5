package pool

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// List calls f for all content in the pool, with the bytes it takes. What is
// put or removed meanwhile may be missing or not. Directories that the pool
// would not make are passed over.
func (p *Pool) List(f func(sum [sha256.Size]byte, bytes int64)) error {
	groups, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("cannot list the pool: %w", err)
	}
	for _, group := range groups {
		dirs, err := readDir(filepath.Join(p.dir, group.Name()))
		if err != nil {
			return fmt.Errorf("cannot list the pool: %w", err)
		}
		for _, dir := range dirs {
			raw, err := hex.DecodeString(dir.Name())
			if err != nil || len(raw) != sha256.Size || dir.Name() != hex.EncodeToString(raw) || dir.Name()[:2] != group.Name() {
				continue
			}
			files, err := readDir(filepath.Join(p.dir, group.Name(), dir.Name()))
			if err != nil {
				return fmt.Errorf("cannot list the pool: %w", err)
			}
			var bytes int64
			for _, file := range files {
				if info, err := file.Info(); err == nil {
					bytes += info.Size()
				}
			}
			f([sha256.Size]byte(raw), bytes)
		}
	}
	return nil
}

// readDir lists a directory; one that is gone, or is none, is empty.
func readDir(path string) ([]fs.DirEntry, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}

// Drop takes content out of the pool under all names it has; what is not
// there is no error. The caller knows that no state needs it.
func (p *Pool) Drop(sum [sha256.Size]byte) error {
	defer p.lock(sum)()
	if err := os.RemoveAll(filepath.Dir(p.Path(sum, "x"))); err != nil {
		return fmt.Errorf("cannot remove %x from the pool: %w", sum, err)
	}
	return nil
}
