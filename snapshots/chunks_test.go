package snapshots_test

import (
	"testing"

	"aptfleet/snapshots"
	"aptfleet/snapshots/chunkstest"
)

func TestMemoryIsAChunks(t *testing.T) {
	chunkstest.Run(t, func(*testing.T) snapshots.Chunks { return &snapshots.Memory{} })
}
