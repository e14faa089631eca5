package atomicfile_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"aptfleet/internal/atomicfile"
)

// only fails unless dir holds exactly the named file with the content.
func only(t *testing.T, dir, name, content string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if strings.Join(names, " ") != name {
		t.Errorf("the directory holds %q, want %q", names, name)
	}
	if name == "" {
		return
	}
	if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != content {
		t.Errorf("%s holds %q, %v; want %q", name, got, err, content)
	}
}

func TestWriteReplaces(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, content := range []string{"one", "a longer one", ""} {
		if err := atomicfile.Write(path, []byte(content), 0o664); err != nil {
			t.Fatal(err)
		}
		only(t, dir, "file", content)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o664 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
}

func TestAFailedWriteLeavesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	broken := errors.New("the source broke")
	source := func() io.Reader { return io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)) }
	if err := atomicfile.WriteFrom(path, source(), 0o644); !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "cannot write "+path) {
		t.Errorf("a failing source: %v", err)
	}
	only(t, dir, "", "")
	if err := atomicfile.Write(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.WriteFrom(path, source(), 0o644); !errors.Is(err, broken) {
		t.Errorf("a failing source: %v", err)
	}
	only(t, dir, "file", "old")
	// A directory in the way cannot be replaced.
	if err := os.MkdirAll(filepath.Join(dir, "sub", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(filepath.Join(dir, "sub"), nil, 0o644); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if err := os.RemoveAll(filepath.Join(dir, "sub")); err != nil {
		t.Fatal(err)
	}
	only(t, dir, "file", "old")
	if err := atomicfile.Write(filepath.Join(dir, "absent", "file"), nil, 0o644); err == nil {
		t.Error("a file was written into a directory that is not there")
	}
}

// TestReadersSeeWholeFiles reads while several writers replace the file.
func TestReadersSeeWholeFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	contents := map[string]bool{}
	var writers sync.WaitGroup
	for _, c := range "abc" {
		content := strings.Repeat(string(c), 100_000)
		contents[content] = true
		if err := atomicfile.Write(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		writers.Go(func() {
			for range 10 {
				if err := atomicfile.Write(path, []byte(content), 0o644); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		got, err := os.ReadFile(path)
		if err != nil || !contents[string(got)] {
			t.Fatalf("a reader saw %d bytes, %v", len(got), err)
		}
	}
}

// TestSweep: what was left of a Write goes, whatever the name of the file, and
// nothing else.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	put := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// As a crash leaves it: the writer never comes back from reading.
	interrupted := func(file string) (name string) {
		t.Helper()
		source, end := io.Pipe()
		reading := make(chan error, 1)
		go func() { reading <- atomicfile.WriteFrom(filepath.Join(dir, file), source, 0o600) }()
		if _, err := end.Write([]byte("half")); err != nil {
			t.Fatal(err)
		}
		left, err := filepath.Glob(filepath.Join(dir, "."+file+".*"))
		if err != nil || len(left) != 1 {
			t.Fatalf("%s: %v, %v", file, left, err)
		}
		if err := end.CloseWithError(errors.New("cut")); err != nil || <-reading == nil {
			t.Fatalf("it was not interrupted: %v", err)
		}
		return filepath.Base(left[0])
	}
	one, dots := interrupted("one"), interrupted("a.b.json")
	others := []string{"one", ".one", ".tmp", "x.1.tmp", ".one.tmp.1"}
	for _, name := range append(others, one, dots) {
		put(name)
	}
	remain := func(want ...string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		var got []string
		for _, e := range entries {
			got = append(got, e.Name())
		}
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("there is %q, %v; want %q", got, err, want)
		}
	}
	if err := atomicfile.Sweep(dir, func(file string) bool { return file == "a.b.json" }); err != nil {
		t.Error(err)
	}
	remain(append(others, one)...)
	if err := atomicfile.Sweep(dir, nil); err != nil {
		t.Error(err)
	}
	remain(others...)
	if err := atomicfile.Sweep(filepath.Join(dir, "absent"), nil); err != nil {
		t.Error(err)
	}
	if err := atomicfile.Sweep(filepath.Join(dir, "one"), nil); err == nil {
		t.Error("a file was swept like a directory")
	}
}

func TestSync(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(atomicfile.SyncDir(dir), atomicfile.SyncFS(dir)); err != nil {
		t.Error(err)
	}
	absent := filepath.Join(dir, "absent")
	if err := atomicfile.SyncDir(absent); err == nil || !strings.HasPrefix(err.Error(), "cannot sync "+absent) {
		t.Error(err)
	}
	if err := atomicfile.SyncFS(absent); err == nil {
		t.Error("a directory that is not there was synced")
	}
}
