package snapshots_test

import (
	"context"
	"errors"
	"io/fs"
	"testing"

	"aptfleet/snapshots"
	"aptfleet/snapshots/chunkstest"
)

func TestMemoryIsAChunks(t *testing.T) {
	chunkstest.Run(t, func(*testing.T) snapshots.Chunks { return &snapshots.Memory{} })
}

func TestStagedIsAChunks(t *testing.T) {
	chunkstest.Run(t, func(*testing.T) snapshots.Chunks { return &snapshots.Staged{Below: &snapshots.Memory{}} })
}

// What is staged is seen below once it is written, and not before.
func TestStagedIsWrittenAtOnce(t *testing.T) {
	ctx, below := context.Background(), &snapshots.Memory{}
	old, err := below.Put(ctx, []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	staged := &snapshots.Staged{Below: below}
	id, err := staged.Put(ctx, []byte("new"))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := staged.Get(ctx, old); err != nil || string(text) != "old" {
		t.Errorf("what is below reads %q, %v", text, err)
	}
	if _, err := below.Get(ctx, id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was only staged is there: %v", err)
	}
	if err := staged.Write(ctx); err != nil {
		t.Fatal(err)
	}
	if text, err := below.Get(ctx, id); err != nil || string(text) != "new" {
		t.Errorf("what was written reads %q, %v", text, err)
	}
}
