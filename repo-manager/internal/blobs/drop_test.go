package blobs

import (
	"os"
	"path/filepath"
	"testing"

	"aptfleet/repo-manager/internal/frame"
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

// A gc that was killed may leave frames without a text; files that are not the
// store's are not its business.
func TestListFindsWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	id := put(t, s, "text")
	if _, err := s.AppendFrame(t.Context(), nil, id, frame.Zstd); err != nil {
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
