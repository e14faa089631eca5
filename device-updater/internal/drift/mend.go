package drift

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Mend makes root ready for the packages that are to be installed again: what
// stands in the way of a file or directory goes, and directories get back the
// mode, owner and attributes that the manifest has. dpkg itself leaves both alone.
func (r Report) Mend(root string) error {
	for _, d := range r.Damage {
		if err := d.mend(root); err != nil {
			return fmt.Errorf("cannot mend %s: %w", d.Path, err)
		}
	}
	return nil
}

func (d Damage) mend(root string) error {
	if d.Kind != Type && !d.mended() {
		return nil
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Its parents are as they were, or were mended before: paths are sorted.
	rel := d.real[1:]
	if d.Kind == Type {
		if err := dir.RemoveAll(rel); err != nil {
			return err
		}
	}
	if !d.mended() {
		return nil
	}
	if err := dir.Mkdir(rel, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.want.Restore(filepath.Join(root, rel))
}
