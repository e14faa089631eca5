package pooltest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// deb is the name of a file, and alias another one that the same bytes may
// have.
const (
	deb   = "hello_2.10-3_amd64.deb"
	alias = "hallo_2.10-3_amd64.deb"
)

// Run tests what open returns: each time an empty pool.
func Run(t *testing.T, open func(t *testing.T) Subject) {
	for _, row := range []struct {
		name string
		test func(*testing.T, *Subject)
	}{
		{"takes a file once", testPut},
		{"keeps the same bytes under two names", testTwoNames},
		{"replaces what a power failure left", testTorn},
		{"leaves a file that it cannot take", testRefused},
		{"removes a file", testRemove},
		{"lists and drops content", testListAndDrop},
		{"outlives a process", testReopen},
		{"serves many at once", testMany},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := open(t)
			row.test(t, &s)
		})
	}
}

// ways are the two ways into a pool: as a file that waits, and from memory. put
// takes what lies at path, which then must be gone.
var ways = map[string]func(s *Subject, path string, sum [sha256.Size]byte, name string) (already bool, err error){
	"Put": func(s *Subject, path string, sum [sha256.Size]byte, name string) (bool, error) {
		return s.Put(path, sum, name)
	},
	"PutBytes": func(s *Subject, path string, sum [sha256.Size]byte, name string) (bool, error) {
		content, err := os.ReadFile(path)
		if err != nil {
			return false, err
		}
		already, err := s.PutBytes(content, sum, name)
		if err == nil {
			err = os.Remove(path)
		}
		return already, err
	},
}

// wait makes content wait in a file.
func (s *Subject) wait(t *testing.T, content string) (path string) {
	t.Helper()
	f, err := os.CreateTemp(s.Dir, "waits")
	if err == nil {
		_, err = f.WriteString(content)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// put puts content under a name in one of the ways.
func (s *Subject) put(t *testing.T, way, content, name string) (sum [sha256.Size]byte, already bool) {
	t.Helper()
	sum = sha256.Sum256([]byte(content))
	path := s.wait(t, content)
	already, err := ways[way](s, path, sum, name)
	if err != nil {
		t.Fatalf("%s: %v", way, err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: what waited is still there: %v", way, err)
	}
	return sum, already
}

// mustHave checks that a file is there with its content.
func (s *Subject) mustHave(t *testing.T, content, name string) {
	t.Helper()
	sum := sha256.Sum256([]byte(content))
	if got, err := s.Read(sum, name); err != nil || string(got) != content {
		t.Errorf("%s holds %q, %v; want %q", name, got, err, content)
	}
	if !s.Has(sum, name) {
		t.Errorf("%s is said not to be there", name)
	}
}

// sizes returns what a pool lists.
func (s *Subject) sizes(t *testing.T) map[[sha256.Size]byte]int64 {
	t.Helper()
	found := make(map[[sha256.Size]byte]int64)
	if err := s.List(func(sum [sha256.Size]byte, bytes int64) {
		if _, twice := found[sum]; twice {
			t.Errorf("%x is listed twice", sum)
		}
		found[sum] = bytes
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func testPut(t *testing.T, s *Subject) {
	for first := range ways {
		for second := range ways {
			content := "a package, by " + first + " and " + second
			sum := sha256.Sum256([]byte(content))
			if s.Has(sum, deb) {
				t.Error("it is there already")
			}
			if _, already := s.put(t, first, content, deb); already {
				t.Errorf("%s says that it was there", first)
			}
			s.mustHave(t, content, deb)
			if _, already := s.put(t, second, content, deb); !already {
				t.Errorf("%s says that it was not there", second)
			}
			s.mustHave(t, content, deb)
		}
	}
}

func testTwoNames(t *testing.T, s *Subject) {
	for way := range ways {
		content := "a package, by " + way
		sum, _ := s.put(t, way, content, deb)
		if s.Has(sum, alias) {
			t.Error("it has a name that nobody gave it")
		}
		if _, already := s.put(t, way, content, alias); already {
			t.Errorf("%s says that the other name was there", way)
		}
		s.mustHave(t, content, deb)
		s.mustHave(t, content, alias)
		if got := s.sizes(t)[sum]; got != int64(2*len(content)) {
			t.Errorf("listed with %d bytes, want %d", got, 2*len(content))
		}
		if err := s.Remove(sum, deb); err != nil {
			t.Fatal(err)
		}
		s.mustHave(t, content, alias)
		if s.Has(sum, deb) {
			t.Error("it is still there under the name that was removed")
		}
		if err := s.Drop(sum); err != nil || s.Has(sum, alias) {
			t.Errorf("after Drop it is there, %v", err)
		}
	}
}

func testTorn(t *testing.T, s *Subject) {
	const content = "a package"
	sum := sha256.Sum256([]byte(content))
	for way := range ways {
		for name, torn := range map[string][]byte{"none": nil, "empty": {}, "short": []byte("a pa"), "zeros": make([]byte, len(content)), "longer": []byte("a package!")} {
			s.Damage(sum, deb, torn)
			if _, already := s.put(t, way, content, deb); already {
				t.Errorf("%s over a file that is %s says that it was there", way, name)
			}
			s.mustHave(t, content, deb)
		}
	}
}

func testRefused(t *testing.T, s *Subject) {
	const content = "a package"
	sum := sha256.Sum256([]byte(content))
	for way, put := range ways {
		for _, name := range []string{"", ".", "..", "a/b", "../../evil.deb", ".hidden", "nul\x00"} {
			path := s.wait(t, content)
			if _, err := put(s, path, sum, name); err == nil || !strings.Contains(err.Error(), "want a plain name") {
				t.Errorf("%s, %q: error is %v", way, name, err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != content {
				t.Errorf("%s, %q: what waits is %q, %v", way, name, got, err)
			}
			if err := s.Remove(sum, name); err == nil {
				t.Errorf("Remove accepts %q", name)
			}
		}
		if _, err := put(s, filepath.Join(s.Dir, "missing"), sum, deb); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of nothing: %v, want fs.ErrNotExist", way, err)
		}
	}
	if found := s.sizes(t); len(found) > 0 {
		t.Errorf("listed are %v", found)
	}
}

func testRemove(t *testing.T, s *Subject) {
	for way := range ways {
		sum, _ := s.put(t, way, "a package", deb)
		s.put(t, way, "another", deb)
		for range 2 { // the second time it is gone
			if err := s.Remove(sum, deb); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Read(sum, deb); err == nil || s.Has(sum, deb) {
			t.Errorf("it is still there: %v", err)
		}
		if _, listed := s.sizes(t)[sum]; listed {
			t.Error("it is still listed")
		}
		s.mustHave(t, "another", deb)
		if _, already := s.put(t, way, "a package", deb); already {
			t.Errorf("%s says that what was removed is there", way)
		}
		s.mustHave(t, "a package", deb)
		if err := s.Drop(sum); err != nil {
			t.Fatal(err)
		}
	}
}

func testListAndDrop(t *testing.T, s *Subject) {
	if len(s.sizes(t)) > 0 {
		t.Error("an empty pool lists something")
	}
	want := make(map[[sha256.Size]byte]int64)
	for way := range ways {
		for _, content := range []string{"a", "bc", ""} {
			sum, _ := s.put(t, way, content, deb)
			want[sum] = int64(len(content))
		}
	}
	if got := s.sizes(t); !maps.Equal(got, want) {
		t.Errorf("listed are %v; want %v", got, want)
	}
	for sum := range want {
		for range 2 { // the second time it is gone
			if err := s.Drop(sum); err != nil {
				t.Fatal(err)
			}
		}
		delete(want, sum)
		if got := s.sizes(t); !maps.Equal(got, want) || s.Has(sum, deb) {
			t.Errorf("listed are %v; want %v", got, want)
		}
	}
	if _, already := s.put(t, "PutBytes", "bc", deb); already {
		t.Error("what was dropped is said to be there")
	}
	s.mustHave(t, "bc", deb)
}

func testReopen(t *testing.T, s *Subject) {
	for way := range ways {
		s.put(t, way, "a package, by "+way, deb)
	}
	gone, _ := s.put(t, "Put", "gone", deb)
	if err := s.Remove(gone, deb); err != nil {
		t.Fatal(err)
	}
	before := s.sizes(t)
	s.Pool = s.Reopen()
	if after := s.sizes(t); !maps.Equal(before, after) {
		t.Errorf("listed are %v; want %v", after, before)
	}
	for way := range ways {
		s.mustHave(t, "a package, by "+way, deb)
		if _, already := s.put(t, way, "a package, by "+way, deb); !already {
			t.Errorf("%s says that it was not there", way)
		}
	}
}

// Uploads of the same files and of others, and somebody who lists them.
func testMany(t *testing.T, s *Subject) {
	const files = 20
	content := func(i int) string { return fmt.Sprintf("package %d", i) }
	var writers, others sync.WaitGroup
	var mu sync.Mutex
	fresh := make(map[int]int) // how often a file was new
	for way, put := range ways {
		for range 2 {
			var paths [files]string
			for i := range paths {
				paths[i] = s.wait(t, content(i))
			}
			writers.Go(func() {
				for i, path := range paths {
					already, err := put(s, path, sha256.Sum256([]byte(content(i))), deb)
					if err != nil {
						t.Errorf("%s: %v", way, err)
						return
					}
					mu.Lock()
					if !already {
						fresh[i]++
					}
					mu.Unlock()
				}
			})
		}
	}
	done := make(chan struct{})
	others.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := s.List(func([sha256.Size]byte, int64) {}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	writers.Wait()
	close(done)
	others.Wait()
	for i := range files {
		s.mustHave(t, content(i), deb)
		if fresh[i] == 0 {
			t.Errorf("file %d was never new", i)
		}
	}
	if found := s.sizes(t); len(found) != files {
		t.Errorf("there are %d files, want %d", len(found), files)
	}
}
