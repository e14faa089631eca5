package blobs

import (
	"os"
	"path/filepath"
	"testing"

	"aptfleet/snapshots"
)

func sizes(t *testing.T, s *Store) map[snapshots.ID]int64 {
	t.Helper()
	found := make(map[snapshots.ID]int64)
	if err := s.List(func(id snapshots.ID, bytes int64) { found[id] += bytes }); err != nil {
		t.Fatal(err)
	}
	return found
}

// What was dropped is written again when it is put again: the store does not
// go by what it remembers.
func TestDrop(t *testing.T) {
	ctx := t.Context()
	s := open(t, t.TempDir())
	id, kept := put(t, s, "Package: a\n\n"), put(t, s, "Package: b\n\n")
	var frames [len(Encodings)][]byte
	for i, as := range Encodings {
		frame, err := s.Frame(ctx, id, as)
		if err != nil {
			t.Fatal(err)
		}
		frames[i] = frame
	}
	if got, want := sizes(t, s)[id], int64(len("Package: a\n\n")+len(frames[0])+len(frames[1])); got != want {
		t.Errorf("listed with %d bytes, want %d", got, want)
	}
	for range 2 { // the second time it is gone
		if dropped, err := s.Drop(id); !dropped || err != nil {
			t.Fatalf("Drop: %v, %v", dropped, err)
		}
	}
	if _, there := sizes(t, s)[id]; there || len(sizes(t, s)) != 1 {
		t.Errorf("listed are %v", sizes(t, s))
	}
	if _, err := s.Get(ctx, id); err == nil {
		t.Error("what was dropped can be read")
	}
	if _, err := s.Frame(ctx, id, Gzip); err == nil {
		t.Error("what was dropped has a frame")
	}
	if again := put(t, s, "Package: a\n\n"); again != id {
		t.Fatal(again)
	}
	for i, as := range Encodings {
		frame, err := s.Frame(ctx, id, as)
		if err != nil || string(frame) != string(frames[i]) {
			t.Errorf("the frame %s of what came back: %v", as, err)
		}
	}
	if text, err := s.Get(ctx, kept); err != nil || string(text) != "Package: b\n\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestProtect(t *testing.T) {
	s := open(t, t.TempDir())
	before, again := put(t, s, "before"), put(t, s, "again")
	release := s.Protect()
	put(t, s, "again") // is there, so nothing is written
	fresh := put(t, s, "fresh")
	for id, want := range map[snapshots.ID]bool{before: true, again: false, fresh: false} {
		if dropped, err := s.Drop(id); dropped != want || err != nil {
			t.Errorf("Drop: %v, %v, want %v", dropped, err, want)
		}
		if _, err := s.Get(t.Context(), id); (err != nil) != want {
			t.Errorf("Get after Drop: %v", err)
		}
	}
	release()
	put(t, s, "again")
	if dropped, err := s.Drop(again); !dropped || err != nil {
		t.Errorf("Drop after the end of the protection: %v, %v", dropped, err)
	}
}

// A gc that was killed may leave frames without a text; files that are not the
// store's are not its business.
func TestListFindsWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id := put(t, s, "text")
	if _, err := s.Frame(t.Context(), id, Zstd); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(s.Path(id)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README", filepath.Join(id.String()[:2], "README"), filepath.Join(temporary, id.String())} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if found := sizes(t, s); len(found) != 1 || found[id] == 0 {
		t.Errorf("listed are %v", found)
	}
	if dropped, err := s.Drop(id); !dropped || err != nil || len(sizes(t, s)) != 0 {
		t.Errorf("Drop: %v, %v", dropped, err)
	}
}
