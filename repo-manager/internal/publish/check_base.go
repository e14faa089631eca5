package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// rootOf returns the root of the base that a path below the tree's root is in:
// <pipeline>/<stage> or <pipeline>/snapshots/<id>.
func rootOf(name string) string {
	words := strings.Split(name, "/")
	n := 2
	if len(words) > 1 && (words[1] == "snapshots" || words[1] == "states") {
		n = 3
	}
	return strings.Join(words[:min(n, len(words))], "/")
}

// isBase reports whether root is that of an expected base.
func (c *checker) isBase(root string) bool {
	_, ok := c.judged[root]
	return ok
}

// isStage reports whether root is that of an expected stage.
func (c *checker) isStage(root string) bool {
	return c.isBase(root) && strings.Count(root, "/") == 1
}

// idOf and changed read what only the system's own structure has.
func idOf(info fs.FileInfo) fileID {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{uint64(st.Dev), st.Ino, changed(info)}
}

func changed(info fs.FileInfo) time.Time {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.ModTime()
	}
	return time.Unix(st.Ctim.Unix())
}

// base checks all files of one base.
func (c *checker) base(ctx context.Context, want ExpectedBase) error {
	at := baseAt(want.Base, want.Dir)
	c.mu.Lock()
	c.judged[at.root] = false
	c.mu.Unlock()
	state, err := snapshots.Load(ctx, c.p.blobs, want.State)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		c.note("", c.p.blobs.Name(want.State, ""), "%v", err)
		return nil
	}
	c.newChunks(state)
	c.link(at)
	text := c.signedFiles(at, want)
	if text == nil {
		if text = c.recorded(want, state); text == nil {
			return nil
		}
	}
	listed := entries(text)
	var indices []named
	for _, key := range want.keys() {
		index, dir := state.Index(key), indexDir(key)
		s, complete := c.sums(at, dir, index, listed)
		if !complete {
			c.bad(at.root, c.p.tree.path(path.Join(at.dists, releaseFile)), "does not list the index files of %s", key)
			continue
		}
		indices = append(indices, named{dir: dir, sums: s})
		for i, suffix := range suffixes[1:] {
			for _, name := range []string{
				path.Join(at.byHash(dir), fmt.Sprintf("%x", s[i+1].sum)),
				path.Join(at.dists, dir, "Packages"+suffix),
			} {
				c.want(name)
				c.hashIs(at.root, c.p.tree.path(name), s[i+1].sum, s[i+1].size, at.root)
			}
		}
	}
	if want.Signed == nil {
		if err := c.plain(ctx, at, want.keys(), state, indices); err != nil {
			return err
		}
		meta := want.Meta
		meta.Suite = want.Dir
		due, err := releaseText(want.Base, want.State, meta, indices)
		if err != nil || string(due) != string(text) {
			c.bad(at.root, c.p.tree.path(path.Join(at.dists, releaseFile)), "is not the text that the database describes")
		}
	}
	c.mu.Lock()
	c.judged[at.root] = true
	c.mu.Unlock()
	return nil
}

// recorded returns the Release text that a stage should have, by the sums
// beside its indices, or nil: a bad InRelease need not hide what else is bad.
func (c *checker) recorded(want ExpectedBase, state snapshots.State) []byte {
	var indices []named
	for _, key := range want.keys() {
		text, err := os.ReadFile(c.p.tree.path(path.Join(IndexKeyOf(state.Index(key)).dir(), sumsFile)))
		if err != nil {
			return nil
		}
		s, ok := parseSums(string(text))
		if !ok {
			return nil
		}
		indices = append(indices, named{dir: indexDir(key), sums: s})
	}
	meta := want.Meta
	meta.Suite = want.Dir
	text, err := releaseText(want.Base, want.State, meta, indices)
	if err != nil {
		return nil
	}
	return text
}

// plain holds the listed SHA-256 of the uncompressed indices, which no file
// has, against the chunks. Fixed bases are spared: their Release text is the
// database's, byte by byte.
func (c *checker) plain(ctx context.Context, at place, keys []snapshots.Key, state snapshots.State, indices []named) error {
	for _, key := range keys {
		h := sha256.New()
		for _, ref := range state.Index(key).Chunks {
			text, err := c.p.blobs.Get(ctx, ref.ID)
			if err != nil {
				return ctx.Err() // the chunk has a finding of its own
			}
			h.Write(text)
		}
		for _, index := range indices {
			if index.dir == indexDir(key) && index.sums[0].sum != sum(h.Sum(nil)) {
				c.bad(at.root, c.p.tree.path(path.Join(at.dists, releaseFile)), "lists another SHA-256 for %s/Packages than its chunks have", index.dir)
			}
		}
	}
	return nil
}

// link checks the base's symbolic link to the pool.
func (c *checker) link(at place) {
	name := path.Join(at.root, "pool")
	c.want(name)
	target, err := os.Readlink(c.p.tree.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.bad(at.root, c.p.tree.path(name), "is missing: apt cannot fetch packages below this base")
	case err != nil:
		c.bad(at.root, c.p.tree.path(name), "is no symbolic link")
	case target != at.pool():
		c.bad(at.root, c.p.tree.path(name), "leads to %q instead of %q", target, at.pool())
	}
}

// signedFiles checks Release, InRelease and Release.gpg, and returns the text
// that is good: that of InRelease, else that of the database, else nil.
func (c *checker) signedFiles(at place, want ExpectedBase) []byte {
	for _, name := range []string{releaseFile, inReleaseFile, gpgFile} {
		c.want(path.Join(at.dists, name))
	}
	if want.Signed != nil {
		return c.fixedFiles(at, want)
	}
	var text []byte
	inRelease, ok := c.read(at, inReleaseFile)
	if ok {
		signed, err := c.p.inReleaseText(inRelease)
		if err != nil {
			c.bad(at.root, c.p.tree.path(path.Join(at.dists, inReleaseFile)), "has no good signature: %v", err)
		}
		text = signed
	}
	release, ok := c.read(at, releaseFile)
	if ok && text != nil && string(release) != string(text) {
		c.bad(at.root, c.p.tree.path(path.Join(at.dists, releaseFile)), "holds another text than InRelease")
	}
	if gpg, ok := c.read(at, gpgFile); ok && text != nil {
		if err := c.p.verifyDetached(text, gpg); err != nil {
			c.bad(at.root, c.p.tree.path(path.Join(at.dists, gpgFile)), "is no good signature of Release: %v", err)
		}
	}
	return text
}

// fixedFiles holds the files of a fixed base against the database. If its row
// is damaged, the files may be the better ones.
func (c *checker) fixedFiles(at place, want ExpectedBase) []byte {
	if err := c.p.verify(*want.Signed); err != nil {
		c.note(at.root, want.Row, "is not what it was committed as: %v", err)
		if there, err := c.p.published(at); err == nil && c.p.verify(there) == nil {
			return there.Text
		}
	}
	c.content(at.root, path.Join(at.dists, releaseFile), want.Signed.Text)
	c.content(at.root, path.Join(at.dists, inReleaseFile), want.Signed.InRelease)
	c.content(at.root, path.Join(at.dists, gpgFile), want.Signed.Gpg)
	return want.Signed.Text
}

// read returns one of the signed files of a base.
func (c *checker) read(at place, name string) (data []byte, ok bool) {
	abs := c.p.tree.path(path.Join(at.dists, name))
	data, err := os.ReadFile(abs)
	c.count(int64(len(data)))
	if errors.Is(err, fs.ErrNotExist) {
		c.bad(at.root, abs, "is missing")
	} else if err != nil {
		c.bad(at.root, abs, "cannot be read: %v", err)
	}
	return data, err == nil
}

// entries returns the lines of a Release text that list a file, by its path.
func entries(text []byte) map[string]string {
	listed := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); line[0] == ' ' && len(words) == 3 {
			listed[words[2]] = " " + strings.Join(words[:2], " ") + " "
		}
	}
	return listed
}

// sums returns what a Release text lists for an index, and holds the sizes
// against those of the index's chunks and their frames.
func (c *checker) sums(at place, dir string, index snapshots.Index, listed map[string]string) (sums, bool) {
	var text strings.Builder
	for _, suffix := range suffixes {
		name := "Packages" + suffix
		entry, ok := listed[path.Join(dir, name)]
		if !ok {
			return sums{}, false
		}
		text.WriteString(entry + name + "\n")
	}
	s, ok := parseSums(text.String())
	if !ok {
		return sums{}, false
	}
	if s[0].size != index.Size() {
		c.bad(at.root, c.p.tree.path(path.Join(at.dists, releaseFile)), "lists %d bytes for %s/Packages, the state has %d", s[0].size, dir, index.Size())
	}
	return s, true
}

// newChunks notes the chunks of a state, and returns those that were not
// known.
func (c *checker) newChunks(state snapshots.State) []snapshots.ChunkRef {
	c.mu.Lock()
	defer c.mu.Unlock()
	var fresh []snapshots.ChunkRef
	for _, key := range state.Keys() {
		for _, ref := range state.Index(key).Chunks {
			if _, ok := c.chunks[ref.ID]; !ok {
				c.chunks[ref.ID] = ref
				fresh = append(fresh, ref)
			}
		}
	}
	return fresh
}

// needs notes the pool files of packages.
func (c *checker) needs(packages []snapshots.Package) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range packages {
		c.pool[p.Filename] = pooled{p.SHA256, p.Size, p.Ref().String()}
		c.wants[path.Clean(p.Filename)] = true
	}
}

// recordedFiles notes the pool files that the database has and no state needs.
// It returns those that states need and files does not name, or not so.
func (c *checker) recordedFiles(files []PoolFile) (lacks []Unrecorded) {
	c.mu.Lock()
	defer c.mu.Unlock()
	needed := make(map[sum]Unrecorded, len(c.pool))
	for name, f := range c.pool {
		needed[f.sum] = Unrecorded{PoolFile{f.sum, path.Base(name), f.size}, true}
	}
	for _, f := range files {
		if due, ok := needed[f.SHA256]; ok {
			if due.Lost = false; due.PoolFile == f {
				delete(needed, f.SHA256)
			} else {
				needed[f.SHA256] = due
			}
			continue
		}
		name := PoolFilename(f.SHA256, f.Name)
		c.pool[name] = pooled{f.SHA256, f.Size, "the record of uploads"}
		c.wants[name] = true
	}
	lacks = slices.Collect(maps.Values(needed))
	slices.SortFunc(lacks, func(a, b Unrecorded) int { return bytes.Compare(a.SHA256[:], b.SHA256[:]) })
	return lacks
}

// chunk checks the text and the frames of a chunk.
func (c *checker) chunk(ctx context.Context, ref snapshots.ChunkRef) error {
	packages, err := snapshots.OpenChunk(ctx, c.p.blobs, ref)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.count(ref.Size)
	if err != nil {
		c.note("", c.p.blobs.Name(ref.ID, ""), "%v", err)
		return nil
	}
	c.needs(packages)
	text, err := c.p.blobs.Get(ctx, ref.ID)
	if err != nil {
		return nil // removed since: the next run tells
	}
	for _, as := range frame.Encodings {
		stored, err := c.p.blobs.Stored(ref.ID, as)
		c.count(int64(len(stored)))
		if err == nil {
			var got []byte
			if got, err = frame.Decode(stored, as, int64(len(text))); err == nil && string(got) != string(text) {
				err = errors.New("it holds another text than its chunk")
			}
		}
		if err != nil {
			c.note("", c.p.blobs.Name(ref.ID, as), "%v", err)
		}
	}
	return nil
}

// poolFile checks one .deb.
func (c *checker) poolFile(_ context.Context, name string) error {
	c.mu.Lock()
	file := c.pool[name]
	c.mu.Unlock()
	c.hashIs("", c.p.tree.path(name), file.sum, file.size, file.who)
	return nil
}
