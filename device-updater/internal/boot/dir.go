package boot

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"aptfleet/internal/faultpoint"
)

// Dir keeps the blocks as files in a directory: a mounted boot-control
// partition. Its file system must have no journal that the loader does not
// replay.
type Dir string

// ReadBlock reads at most one byte more than a block.
func (d Dir) ReadBlock(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(string(d), name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, BlockSize+1))
}

// WriteBlock writes the block in place. A file that does not exist is made and
// its directory synced.
func (d Dir) WriteBlock(name string, block []byte) error {
	path := filepath.Join(string(d), name)
	_, statErr := os.Lstat(path)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("cannot open %s for writing: %w", path, err)
	}
	defer f.Close()
	if _, err := f.WriteAt(block, 0); err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if info, err := f.Stat(); err == nil && info.Size() > BlockSize {
		// Whoever made it longer, the loader refuses it.
		if err := f.Truncate(BlockSize); err != nil {
			return fmt.Errorf("cannot cut %s to %d bytes: %w", path, BlockSize, err)
		}
	}
	if faultpoint.SkipBootSync {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("cannot sync %s: %w", path, err)
	}
	if statErr == nil {
		return nil
	}
	dir, err := os.Open(string(d))
	if err != nil {
		return fmt.Errorf("cannot sync %s: %w", d, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("cannot sync %s: %w", d, err)
	}
	return nil
}
