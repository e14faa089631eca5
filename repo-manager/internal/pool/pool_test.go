package pool

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/repo-manager/internal/pool/pooltest"
	"aptfleet/repo-manager/internal/publish"
)

const file = "hello_2.10-3_amd64.deb"

// incoming writes a file that waits to be put.
func incoming(t *testing.T, dir, content string) (path string, sum [sha256.Size]byte) {
	t.Helper()
	path = filepath.Join(dir, "incoming")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, sha256.Sum256([]byte(content))
}

func newPool(t *testing.T) (*Pool, string) {
	t.Helper()
	dir := t.TempDir()
	p, err := New(filepath.Join(dir, "public"))
	if err != nil {
		t.Fatal(err)
	}
	return p, dir
}

func TestPool(t *testing.T) {
	pooltest.Run(t, func(t *testing.T) pooltest.Subject {
		p, dir := newPool(t)
		return pooltest.Subject{
			Pool: p,
			Dir:  dir,
			Reopen: func() pooltest.Pool {
				p, err := New(filepath.Join(dir, "public"))
				if err != nil {
					t.Fatal(err)
				}
				return p
			},
			Read: func(sum [sha256.Size]byte, name string) ([]byte, error) { return os.ReadFile(p.Path(sum, name)) },
			Damage: func(sum [sha256.Size]byte, name string, content []byte) {
				path := p.Path(sum, name)
				err := os.MkdirAll(filepath.Dir(path), 0o755)
				if err == nil {
					err = os.RemoveAll(path)
				}
				if err == nil && content != nil {
					err = os.WriteFile(path, content, 0o444)
				}
				if err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

// The pool and the Filename fields of packages are about the same files.
func TestFilesLieWherePackagesSay(t *testing.T) {
	p, dir := newPool(t)
	tmp, sum := incoming(t, dir, "a package")
	if _, err := p.Put(tmp, sum, file); err != nil {
		t.Fatal(err)
	}
	filename := publish.PoolFilename(sum, file)
	want := filepath.Join(dir, "public", filepath.FromSlash(filename))
	if p.Path(sum, file) != want || filename != fmt.Sprintf("pool/%x/%x/%s", sum[:1], sum, file) {
		t.Errorf("it lies at %s, PoolFilename is %s", p.Path(sum, file), filename)
	}
	if info, err := os.Lstat(want); err != nil || info.Mode() != 0o444 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestPutOfTheSameBytes(t *testing.T) {
	p, dir := newPool(t)
	tmp, sum := incoming(t, dir, "a package")
	if _, err := p.Put(tmp, sum, file); err != nil {
		t.Fatal(err)
	}
	before, err := os.Lstat(p.Path(sum, file))
	if err != nil {
		t.Fatal(err)
	}
	tmp, sum = incoming(t, dir, "a package")
	if already, err := p.Put(tmp, sum, file); !already || err != nil {
		t.Fatal(already, err)
	}
	if after, err := os.Lstat(p.Path(sum, file)); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced: %v", err)
	}
	if _, err := os.Lstat(tmp); err == nil {
		t.Error("the temporary file is still there")
	}
}

func TestPutThatFails(t *testing.T) {
	p, dir := newPool(t)
	for _, name := range []string{"", ".", "..", "a/b", "../../evil.deb", ".hidden", "nul\x00"} {
		tmp, sum := incoming(t, dir, "a package")
		if _, err := p.Put(tmp, sum, name); err == nil || !strings.Contains(err.Error(), "want a plain name") {
			t.Errorf("%q: error is %v", name, err)
		}
		if _, err := os.Lstat(tmp); err != nil {
			t.Errorf("%q: the temporary file is gone: %v", name, err)
		}
	}
	if _, err := p.Put(filepath.Join(dir, "missing"), sha256.Sum256(nil), file); err == nil {
		t.Error("a file that does not exist was put")
	}
	left, err := os.ReadDir(filepath.Join(dir, "public", "pool"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What PutBytes writes cannot be opened before it is whole, so what a process
// left that was killed is a file without permissions.
func TestPutBytesOverAnUnfinishedFile(t *testing.T) {
	p, dir := newPool(t)
	_, sum := incoming(t, dir, "a package")
	target := p.Path(sum, file)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target, []byte("a pa"), 0); err != nil {
		t.Fatal(err)
	}
	if already, err := p.PutBytes([]byte("a package"), sum, file); already || err != nil {
		t.Fatal(already, err)
	}
	if got, err := os.ReadFile(target); err != nil || string(got) != "a package" {
		t.Errorf("%q, %v", got, err)
	}
	if info, err := os.Lstat(target); err != nil || info.Mode() != 0o444 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestPutBytesThatFails(t *testing.T) {
	p, _ := newPool(t)
	sum := sha256.Sum256([]byte("a package"))
	long := strings.Repeat("n", 252) + ".deb" // one byte more than a name may have
	if _, err := p.PutBytes([]byte("a package"), sum, long); err == nil {
		t.Fatal("a name was taken that no file can have")
	}
	if left, err := os.ReadDir(filepath.Dir(filepath.Dir(p.Path(sum, file)))); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
