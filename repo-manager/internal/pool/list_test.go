package pool

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListAndDrop(t *testing.T) {
	p, dir := newPool(t)
	list := func() map[[sha256.Size]byte]int64 {
		t.Helper()
		found := make(map[[sha256.Size]byte]int64)
		if err := p.List(func(sum [sha256.Size]byte, bytes int64) { found[sum] = bytes }); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if len(list()) != 0 {
		t.Error("an empty pool lists something")
	}
	var sums [][sha256.Size]byte
	for _, content := range []string{"a", "bc"} {
		tmp, sum := incoming(t, dir, content)
		if _, err := p.Put(tmp, sum, file); err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
	}
	// What no pool would make is passed over.
	for _, path := range []string{"README", "aa/README", "aa/" + strings.Repeat("b", 64) + "/x", "aa/" + strings.Repeat("A", 64) + "/x"} {
		path = filepath.Join(p.dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if found := list(); len(found) != 2 || found[sums[0]] != 1 || found[sums[1]] != 2 {
		t.Errorf("listed are %v", found)
	}
	for range 2 { // the second time it is gone
		if err := p.Drop(sums[0]); err != nil {
			t.Fatal(err)
		}
	}
	if found := list(); len(found) != 1 || p.Has(sums[0], file) || !p.Has(sums[1], file) {
		t.Errorf("after Drop there are %v", found)
	}
}
