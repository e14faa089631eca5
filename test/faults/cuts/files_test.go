package cuts

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFilesDiffer: a judge that sees no difference would find nothing.
func TestFilesDiffer(t *testing.T) {
	for name, change := range map[string]func(at func(string) string) error{
		"content":   func(at func(string) string) error { return os.WriteFile(at("d/file"), []byte("Text"), 0) },
		"zeros":     func(at func(string) string) error { return os.WriteFile(at("d/file"), make([]byte, 4), 0) },
		"shorter":   func(at func(string) string) error { return os.Truncate(at("d/file"), 0) },
		"mode":      func(at func(string) string) error { return os.Chmod(at("d/file"), 0o755) },
		"set-id":    func(at func(string) string) error { return os.Chmod(at("d/file"), 0o644|os.ModeSetuid) },
		"owner":     func(at func(string) string) error { return os.Chown(at("d"), 7, 0) },
		"attribute": func(at func(string) string) error { return unix.Lsetxattr(at("d/file"), "trusted.a", []byte("y"), 0) },
		"no attribute": func(at func(string) string) error {
			return unix.Lremovexattr(at("d/file"), "trusted.a")
		},
		"target": func(at func(string) string) error {
			return errors.Join(os.Remove(at("link")), os.Symlink("e", at("link")))
		},
		"type": func(at func(string) string) error {
			return errors.Join(os.Remove(at("link")), os.Mkdir(at("link"), 0o777))
		},
		"device": func(at func(string) string) error {
			return errors.Join(os.Remove(at("null")), unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))))
		},
		"gone": func(at func(string) string) error { return os.Remove(at("d/file")) },
		"new":  func(at func(string) string) error { return os.WriteFile(at("d/other"), nil, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			at := func(path string) string { return filepath.Join(dir, path) }
			if err := errors.Join(os.Mkdir(at("d"), 0o755), os.WriteFile(at("d/file"), []byte("text"), 0o644), os.Symlink("d", at("link")),
				unix.Lsetxattr(at("d/file"), "trusted.a", []byte("x"), 0), unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))); err != nil {
				t.Fatal(err)
			}
			before := read(t, dir)
			if differs := read(t, dir).difference(before); differs != "" || len(before) != 5 {
				t.Fatalf("%d files, unchanged: %s", len(before), differs)
			}
			if err := change(at); err != nil {
				t.Fatal(err)
			}
			after := read(t, dir)
			if after.difference(before) == "" || before.difference(after) == "" || after.among(before) == "" {
				t.Error("it is not seen")
			}
			if differs := after.among(before, after); differs != "" {
				t.Errorf("it is one of both: %s", differs)
			}
		})
	}
}

func read(t *testing.T, dir string) files {
	t.Helper()
	all, err := readFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}
