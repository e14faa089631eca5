package product

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/bom"
)

// tree is the published tree as far as bills of materials go. Their files are
// derived from answers.
type tree struct{ root string }

// billPath is where a bill is below the published tree.
func billPath(pipeline string, sha256 [32]byte) string {
	return path.Join(pipeline, "boms", hex.EncodeToString(sha256[:]))
}

func (t tree) path(pipeline string, sha256 [32]byte) string {
	return filepath.Join(t.root, filepath.FromSlash(billPath(pipeline, sha256)))
}

// put writes a bill, durably.
func (t tree) put(pipeline string, sha256 [32]byte, text []byte) error {
	dir := filepath.Join(t.root, pipeline, "boms")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot publish bill of materials: %w", err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(dir)); err != nil {
		return fmt.Errorf("cannot publish bill of materials: %w", err)
	}
	if err := atomicfile.Write(t.path(pipeline, sha256), text, 0o644); err != nil {
		return fmt.Errorf("cannot publish bill of materials: %w", err)
	}
	return nil
}

// has tells whether a file of the right size is there.
func (t tree) has(pipeline string, sha256 [32]byte, size int64) bool {
	info, err := os.Lstat(t.path(pipeline, sha256))
	return err == nil && info.Mode().IsRegular() && info.Size() == size
}

// whole tells whether the file has the bytes of its name.
func (t tree) whole(pipeline string, sha256 [32]byte, size int64) bool {
	if !t.has(pipeline, sha256, size) {
		return false
	}
	text, err := os.ReadFile(t.path(pipeline, sha256))
	return err == nil && bom.Sum(text) == hex.EncodeToString(sha256[:])
}

// drop removes a bill; an absent one is fine.
func (t tree) drop(pipeline string, sha256 [32]byte) error {
	if err := os.Remove(t.path(pipeline, sha256)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove bill of materials: %w", err)
	}
	return nil
}
