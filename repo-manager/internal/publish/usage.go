package publish

import (
	"io/fs"
	"path"
	"strings"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// Usage says what the data directory is full of, in bytes. A file with many
// names counts once.
type Usage struct {
	Pool       int64 // package files
	Indices    int64 // index files that a base offers
	Superseded int64 // index files that none offers any more, or that nothing needs
	States     int64 // texts of states
	Chunks     int64 // texts of chunks
	Frames     int64 // compressed chunks
}

// usage gathers a Usage.
type usage struct {
	Usage
	inodes map[fileID]*inode
}

// inode is an index file under any of its names.
type inode struct {
	size   int64
	wanted bool // by one of its names
}

// file counts a file of the tree.
func (u *usage) file(name string, entry fs.DirEntry, wanted bool) {
	inPool := strings.HasPrefix(name, "pool/")
	if !entry.Type().IsRegular() || !inPool && !isIndex(name) {
		return
	}
	info, err := entry.Info()
	if err != nil {
		return // removed since its directory was read
	}
	if inPool {
		u.Pool += info.Size()
		return
	}
	id := idOf(info)
	if u.inodes[id] == nil {
		u.inodes[id] = &inode{size: info.Size()}
	}
	u.inodes[id].wanted = u.inodes[id].wanted || wanted
}

// total adds up.
func (u *usage) total() Usage {
	sum := u.Usage
	for _, i := range u.inodes {
		if i.wanted {
			sum.Indices += i.size
		} else {
			sum.Superseded += i.size
		}
	}
	return sum
}

// isIndex reports whether a path is that of an index file, by its name.
func isIndex(name string) bool {
	return strings.HasPrefix(path.Base(name), "Packages.") || path.Base(path.Dir(name)) == "SHA256"
}

// walkBlobs counts the blobs and finds files that are none.
func (c *checker) walkBlobs() error {
	states := make(map[snapshots.ID]bool)
	for _, base := range c.expect.Bases {
		states[base.State] = true
	}
	return c.p.blobs.Walk(func(id snapshots.ID, as frame.Encoding, size int64) {
		switch {
		case as != "":
			c.usage.Frames += size
		case states[id]:
			c.usage.States += size
		default:
			c.usage.Chunks += size
		}
	}, func(name string) { c.note("", name, "is there, and is no blob") })
}
