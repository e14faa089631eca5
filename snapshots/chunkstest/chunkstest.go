// Package chunkstest holds the suite that every implementation of
// snapshots.Chunks passes.
package chunkstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"aptfleet/snapshots"
)

// Run tests what open returns: each time an empty store.
func Run(t *testing.T, open func(t *testing.T) snapshots.Chunks) {
	ctx := context.Background()
	texts := map[string][]byte{
		"empty":  {},
		"small":  []byte("Package: hello\n"),
		"binary": {0, 1, 2, '\n', 0xff},
		"large":  bytes.Repeat([]byte("0123456789abcdef"), 1<<16),
	}
	for name, text := range texts {
		t.Run("returns what was put/"+name, func(t *testing.T) {
			c := open(t)
			for range 2 { // the second Put finds the text there
				id, err := c.Put(ctx, text)
				if err != nil {
					t.Fatal(err)
				}
				if id != snapshots.ID(sha256.Sum256(text)) {
					t.Fatalf("Put returned %s, which is not the SHA-256", id)
				}
				got, err := c.Get(ctx, id)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, text) {
					t.Fatalf("Get returned %d other bytes than the %d put", len(got), len(text))
				}
			}
		})
	}
	t.Run("what was never put does not exist", func(t *testing.T) {
		c := open(t)
		if _, err := c.Put(ctx, []byte("another")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(ctx, snapshots.ID{1}); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("Get of an unknown id: %v, want fs.ErrNotExist", err)
		}
	})
	t.Run("keeps its own copy", func(t *testing.T) {
		c := open(t)
		text := []byte("before")
		id, err := c.Put(ctx, text)
		if err != nil {
			t.Fatal(err)
		}
		copy(text, "after!")
		if got, err := c.Get(ctx, id); err != nil || string(got) != "before" {
			t.Fatalf("Get returned %q, %v", got, err)
		}
	})
	t.Run("serves many at once", func(t *testing.T) {
		c := open(t)
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for i := range 50 {
					text := fmt.Appendf(nil, "text %d", i)
					id, err := c.Put(ctx, text)
					if err != nil {
						t.Error(err)
						return
					}
					if got, err := c.Get(ctx, id); err != nil || !bytes.Equal(got, text) {
						t.Errorf("Get returned %q, %v; want %q", got, err, text)
						return
					}
				}
			})
		}
		group.Wait()
	})
}
