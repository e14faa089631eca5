// Package pooltest holds the suite that every pool of package files passes, and
// a pool in memory that passes it and serves as the reference.
package pooltest

import (
	"aptfleet/repo-manager/internal/mirror"
	"aptfleet/repo-manager/internal/release"
)

// Pool is what others want of a pool.
type Pool interface {
	release.Pool
	mirror.Pool
}

// Subject is a pool under test, and what the suite does around it.
type Subject struct {
	Pool
	Dir string // where files wait to be put; on the file system of the pool
	// Reopen returns the pool as the next process finds it. The one before is
	// used no more.
	Reopen func() Pool
	// Read returns the bytes of a file in the pool, or an error.
	Read func(sha256 [32]byte, name string) ([]byte, error)
	// Damage puts content, or nothing if it is nil, in the place of a file,
	// behind the pool's back.
	Damage func(sha256 [32]byte, name string, content []byte)
}
