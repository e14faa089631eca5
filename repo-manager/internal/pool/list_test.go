package pool

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListPassesOverOtherFiles(t *testing.T) {
	p, dir := newPool(t)
	var sums [][sha256.Size]byte
	for _, content := range []string{"a", "bc"} {
		tmp, sum := incoming(t, dir, content)
		if _, err := p.Put(tmp, sum, file); err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
	}
	for _, path := range []string{"README", "aa/README", "aa/" + strings.Repeat("b", 64) + "/x", "aa/" + strings.Repeat("A", 64) + "/x"} {
		path = filepath.Join(p.dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	found := make(map[[sha256.Size]byte]int64)
	if err := p.List(func(sum [sha256.Size]byte, bytes int64) { found[sum] = bytes }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 2 || found[sums[0]] != 1 || found[sums[1]] != 2 {
		t.Errorf("listed are %v", found)
	}
}
