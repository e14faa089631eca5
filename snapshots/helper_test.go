package snapshots

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"

	"aptfleet/internal/deb"
)

// stanzaOf makes the stanza of a small package; note tells two stanzas of one
// package apart.
func stanzaOf(name, version, arch, note string) []byte {
	sum := sha256.Sum256([]byte(name + version + arch + note))
	return fmt.Appendf(nil, "Package: %s\nVersion: %s\nArchitecture: %s\nDescription: %s\n more of it\nFilename: pool/%x/%x/%s\nSize: %d\nSHA256: %x\n",
		name, version, arch, "made for a test "+note, sum[:1], sum, deb.FileName(name, version, arch), 1000+len(note), sum)
}

// pkg returns a package made for a test.
func pkg(t testing.TB, name, version, arch string) Package {
	t.Helper()
	p, err := ParsePackage(stanzaOf(name, version, arch, ""))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// must returns the value of a call that cannot fail here.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// content lists an index as "name=version:arch".
func content(t testing.TB, c Chunks, s State, key Key) []string {
	t.Helper()
	var refs []string
	for p, err := range All(context.Background(), c, s, key) {
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, p.Ref().String())
	}
	return refs
}

// counting counts the texts that are read and the new ones that are written.
type counting struct {
	Memory
	mu        sync.Mutex
	gets      map[ID]int
	getBytes  int
	puts, new int
}

func (c *counting) Get(ctx context.Context, id ID) ([]byte, error) {
	text, err := c.Memory.Get(ctx, id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gets == nil {
		c.gets = make(map[ID]int)
	}
	c.gets[id]++
	c.getBytes += len(text)
	return text, err
}

func (c *counting) Put(ctx context.Context, text []byte) (ID, error) {
	_, missing := c.Memory.Get(ctx, sha256.Sum256(text))
	c.mu.Lock()
	c.puts++
	if missing != nil {
		c.new++
	}
	c.mu.Unlock()
	return c.Memory.Put(ctx, text)
}

// reset forgets the counts.
func (c *counting) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gets, c.getBytes, c.puts, c.new = nil, 0, 0, 0
}
