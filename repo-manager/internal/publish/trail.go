package publish

import (
	"crypto/sha256"
	"hash"
	"io/fs"
	"os"
	"path"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// A trail is how far the hashes of an index's files had come after each of its
// chunks. The next version of the index shares most of its chunks; up to the
// first that it does not share, nothing has to be read and hashed again.
type trail struct {
	key    IndexKey
	files  [len(frame.Encodings)]fs.FileInfo // as they were written
	chunks []snapshots.ID
	marks  [len(suffixes)][]mark // after each chunk
}

// mark is one file, in the order of suffixes, up to the end of a chunk.
type mark struct {
	size int64
	hash hash.Cloner // never written to: a copy goes on from it
}

// resumed is where the files of a new index begin to differ from those of an
// older one.
type resumed struct {
	*trail
	chunks int // that both begin with
}

// trailTo returns how much of an index the last version of its line has, if
// the files of that are still those that were written.
func (p *Publisher) trailTo(line string, index snapshots.Index) resumed {
	t := p.trails[line]
	if t == nil || !p.areAsWritten(t) {
		return resumed{}
	}
	n := 0
	for n < len(t.chunks) && n < len(index.Chunks) && t.chunks[n] == index.Chunks[n].ID {
		n++
	}
	return resumed{t, n}
}

// areAsWritten reports whether the files of a trail are still the same ones: a
// repair, or a person, may have put others in their place, which the hashes do
// not fit. Damage that changes no time of modification is for a check to find.
func (p *Publisher) areAsWritten(t *trail) bool {
	for i, was := range t.files {
		is, err := p.indexFile(t.key, frame.Encodings[i])
		if err != nil || !os.SameFile(is, was) || is.Size() != was.Size() || !is.ModTime().Equal(was.ModTime()) {
			return false
		}
	}
	return true
}

// indexFile describes a file of an index.
func (p *Publisher) indexFile(key IndexKey, as frame.Encoding) (fs.FileInfo, error) {
	return os.Lstat(p.tree.path(path.Join(key.dir(), "Packages"+string(as))))
}

// mark returns where file i begins to differ.
func (r resumed) mark(i int) mark {
	if r.chunks == 0 {
		return mark{}
	}
	return r.marks[i][r.chunks-1]
}

// newTrail begins the trail of an index with what it shares with before.
func newTrail(key IndexKey, index snapshots.Index, before resumed) *trail {
	t := &trail{key: key, chunks: make([]snapshots.ID, len(index.Chunks))}
	for i, chunk := range index.Chunks {
		t.chunks[i] = chunk.ID
	}
	for i := range t.marks {
		t.marks[i] = make([]mark, 0, len(index.Chunks))
		if before.chunks > 0 {
			t.marks[i] = append(t.marks[i], before.marks[i][:before.chunks]...)
		}
	}
	return t
}

// add notes that file i goes on from the mark at with data, and returns the
// mark behind it.
func (t *trail) add(i int, at mark, data []byte) (mark, error) {
	next, err := at.clone()
	if err != nil {
		return at, err
	}
	if _, err := next.Write(data); err != nil {
		return at, err
	}
	at = mark{at.size + int64(len(data)), next}
	t.marks[i] = append(t.marks[i], at)
	return at, nil
}

// clone returns a hash that goes on from the mark.
func (m mark) clone() (hash.Cloner, error) {
	if m.hash == nil {
		m.hash = sha256.New().(hash.Cloner)
	}
	return m.hash.Clone()
}

// sum returns the SHA-256 of the file up to the mark.
func (m mark) sum() sum {
	if m.hash == nil {
		return sha256.Sum256(nil)
	}
	return sum(m.hash.Sum(nil))
}
