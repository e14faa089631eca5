package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// What the pool is still writing has no permissions; root, as whom tests run,
// could read it all the same.
func TestArchiveHidesUnfinishedFiles(t *testing.T) {
	dir := t.TempDir()
	const name = "pool/aa/x/hello_1.0_all.deb"
	path := filepath.Join(dir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte("a pa"), 0))
	archive, err := openArchive(dir)
	must(t, err)
	defer archive.Close()
	for _, c := range []struct {
		mode   os.FileMode
		hidden bool
	}{{0, true}, {0o444, false}} {
		must(t, os.Chmod(path, c.mode))
		file, _, err := archive.open(name)
		// Who is not root may not even open it.
		if hidden := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission); hidden != c.hidden || !hidden && err != nil {
			t.Errorf("with the mode %v: %v", c.mode, err)
		}
		if err == nil {
			must(t, file.Close())
		}
	}
}
