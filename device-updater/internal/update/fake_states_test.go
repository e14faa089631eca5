package update

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"aptfleet/device-updater/internal/rootfs"
)

// states are the real units on a real directory, below the roots that are in
// memory: what a release declares is written down when somebody asks.
type states struct {
	rootfs.Units
	w *world
}

func (w *world) states() states {
	return states{rootfs.Units{Sysroot: filepath.Join(w.dir, "top"), Clock: w.clock}, w}
}

// declares makes a directory with what the release of a tree declares.
func (s states) declares(rel string) string {
	release := s.w.trees[rel].release
	root := filepath.Join(s.w.dir, "declared", release)
	file := filepath.Join(root, "usr/lib/aptfleet/state.d/app.conf")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(s.w.declared[release]), 0o644)); err != nil {
		s.w.t.Fatal(err)
	}
	return root
}

func (s states) Declared(root string) ([]rootfs.Unit, error) {
	return s.Units.Declared(s.declares(strings.TrimPrefix(root, "/mem/")))
}

func (s states) Drop(n int) (err error) {
	s.w.step(fmt.Sprintf("drop %d", n), func() { err = s.Units.Drop(n) })
	return err
}

// bootState does what mount-state does of a boot, and then what an application
// does: it reads its data, which it must be able to, brings them to its own
// format, and writes that it ran.
func (w *world) bootState() {
	w.t.Helper()
	if w.declared == nil {
		return
	}
	declared, err := rootfs.ReadDeclared(w.states().declares(deployment(w.current)))
	if err != nil {
		w.t.Error(err)
	}
	if closed, troubles := w.states().Settle(w.current, declared); len(closed)+len(troubles) > 0 {
		w.t.Errorf("boot of %d: %v", w.current, troubles)
	}
	format := 0
	for _, u := range declared.Units {
		format = u.Epoch
	}
	db := filepath.Join(w.dir, "top/state/var-lib/app/db")
	old, err := os.ReadFile(db)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Error(err)
	}
	first, rows, _ := strings.Cut(string(old), "\n")
	var of int
	if _, err := fmt.Sscanf(first, "format %d", &of); err == nil && of > format {
		w.t.Errorf("boot %d: release %s reads format %d and meets format %d", w.boots, w.trees[deployment(w.current)].release, format, of)
	}
	w.found = string(old)
	rows = fmt.Sprintf("format %d\n%sboot %d of %s\n", format, rows, w.boots, w.trees[deployment(w.current)].release)
	if err := errors.Join(os.MkdirAll(filepath.Dir(db), 0o755), os.WriteFile(db, []byte(rows), 0o644)); err != nil {
		w.t.Error(err)
	}
}
