package incoming

import (
	"io/fs"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The disk is asked for its free space once for so many bytes, and after so
// much time: somebody else may fill it.
const (
	probeEvery = 4 << 20
	probeAfter = time.Second
)

// maxWaiting is how many bytes of the disk the packages may need that wait in
// memory. What comes beyond waits in files.
const maxWaiting = 64 << 20

// onDisk is how many bytes a small file takes in the pool: whole blocks, and
// one for its directory.
func onDisk(size int) int64 {
	const block = 4 << 10
	return int64(size+block-1)/block*block + block
}

// room is the free space of a directory's file system. It is given out until
// only the reserve is left: what is published next needs room too.
type room struct {
	dir     string
	reserve int64

	mu      sync.Mutex
	left    int64     // bytes that were found free and not taken yet
	found   time.Time // when
	waiting int64     // bytes that packages in memory will need
}

// take takes room for n bytes that are about to be written. There being none
// is ENOSPC.
func (r *room) take(n int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left < n || time.Since(r.found) > probeAfter {
		r.left = 0
		var stat unix.Statfs_t
		if err := unix.Statfs(r.dir, &stat); err != nil {
			return &fs.PathError{Op: "statfs", Path: r.dir, Err: err}
		}
		if int64(stat.Bavail)*stat.Bsize-r.waiting < r.reserve+probeEvery+n {
			return &fs.PathError{Op: "write", Path: r.dir, Err: syscall.ENOSPC}
		}
		r.left, r.found = probeEvery+n, time.Now()
	}
	r.left -= n
	return nil
}

// wait lets a package of size bytes wait in memory, for which room was taken,
// and returns what must be called when it does no more. It returns nil if too
// many wait.
func (r *room) wait(size int) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	need := onDisk(size)
	if r.waiting+need > maxWaiting {
		return nil
	}
	r.waiting += need
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.waiting -= need
	}
}
