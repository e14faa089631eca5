package blobs

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"aptfleet/repo-manager/internal/blobs/blobstest"
	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t testing.TB, s *Store, text string) snapshots.ID {
	t.Helper()
	id, err := s.Put(context.Background(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestStore(t *testing.T) {
	blobstest.Run(t, func(t *testing.T) blobstest.Subject {
		dir := filepath.Join(t.TempDir(), "blobs")
		s := open(t, dir)
		return blobstest.Subject{
			Store:  s,
			Reopen: func() blobstest.Store { return open(t, dir) },
			Damage: func(id snapshots.ID, as frame.Encoding, data []byte) {
				path := s.FramePath(id, as)
				err := os.Remove(path)
				if err == nil && data != nil {
					err = os.WriteFile(path, data, 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// The layout is a format: backups and people rely on it.
func TestWhereBlobsLie(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blobs")
	s := open(t, dir)
	id := put(t, s, "text")
	if want := filepath.Join(dir, id.String()[:2], id.String()); s.Path(id) != want {
		t.Errorf("path is %s", s.Path(id))
	}
	for as, want := range map[frame.Encoding]string{"": "", frame.Gzip: ".gz", frame.Zstd: ".zst"} {
		want = "blobs/" + id.String()[:2] + "/" + id.String() + want
		if got := s.Name(id, as); got != want || filepath.Join(filepath.Dir(dir), got) != s.FramePath(id, as) {
			t.Errorf("%q is called %s and lies at %s", as, got, s.FramePath(id, as))
		}
	}
	for _, name := range []string{"", "blobs", id.String(), "blobs/" + id.String(), "blobs/00/" + id.String(), s.Path(id), s.Name(id, "") + ".xz", "public/" + id.String()[:2] + "/" + id.String()} {
		if _, _, ok := s.Parse(name); ok {
			t.Errorf("%q is taken for a blob", name)
		}
	}
}

// What is no blob is named, except files under way.
func TestWalkNamesWhatIsNoBlob(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blobs")
	s := open(t, dir)
	id := put(t, s, "text")
	for _, name := range []string{"README", filepath.Join(id.String()[:2], "README"), filepath.Join(temporary, "half")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var found, others []string
	err := s.Walk(func(id snapshots.ID, as frame.Encoding, _ int64) { found = append(found, s.Name(id, as)) }, func(name string) { others = append(others, name) })
	if err != nil || !slices.Equal(found, []string{s.Name(id, "")}) {
		t.Errorf("blobs are %q, %v", found, err)
	}
	if slices.Sort(others); !slices.Equal(others, []string{"blobs/" + id.String()[:2] + "/README", "blobs/README"}) {
		t.Errorf("others are %q", others)
	}
}

func TestOpenRemovesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if err := os.WriteFile(filepath.Join(dir, ".tmp", "half"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	left, err := os.ReadDir(filepath.Join(dir, ".tmp"))
	if err != nil || len(left) != 0 {
		t.Fatalf("left: %v, %v", left, err)
	}
}

// A disk that is really full: the error says so, nothing half-written stays,
// and what was there is readable.
func TestAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Fatalf("cannot mount a small file system (`make test` runs as root): %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := open(t, dir)
	small := put(t, s, "small")
	large := make([]byte, 1<<20)
	if _, err := rand.Read(large); err != nil {
		t.Fatal(err)
	}
	_, err := s.Put(t.Context(), large)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "cannot store blob") {
		t.Fatalf("error is %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, ".tmp")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if got, err := s.Get(t.Context(), small); err != nil || string(got) != "small" {
		t.Errorf("%q, %v", got, err)
	}
	put(t, s, "there is room for this")
}
