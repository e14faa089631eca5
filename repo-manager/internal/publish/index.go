package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"aptfleet/internal/atomicfile"
	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"

	"golang.org/x/sync/errgroup"
)

// IndexKey names an index's files: the SHA-256 over its chunks' ids.
type IndexKey [sha256.Size]byte

// IndexKeyOf names the files of an index. Equal content has equal keys.
func IndexKeyOf(index snapshots.Index) IndexKey {
	h := sha256.New()
	for _, chunk := range index.Chunks {
		fmt.Fprintf(h, "%s\n", chunk.ID)
	}
	return IndexKey(h.Sum(nil))
}

// dir returns the directory that holds the files of an index.
func (k IndexKey) dir() string {
	name := hex.EncodeToString(k[:])
	return path.Join(indexStore, name[:2], name)
}

// suffixes are those of the index files in a Release file. The first, without
// compression, is listed and never served: without its entry apt reads an
// index as empty.
var suffixes = [...]string{"", string(frame.Gzip), string(frame.Zstd)}

// sums says what a Release file says about the files of an index, in the
// order of suffixes.
type sums [len(suffixes)]struct {
	sum  sum
	size int64
}

// lines returns the entries of a Release file. With dir "" they are what the
// file "sums" beside an index holds.
func (s sums) lines(dir string) string {
	var b strings.Builder
	for i, suffix := range suffixes {
		fmt.Fprintf(&b, " %x %d %s\n", s[i].sum, s[i].size, path.Join(dir, "Packages"+suffix))
	}
	return b.String()
}

// parseSums reads what lines("") wrote, and nothing else.
func parseSums(text string) (s sums, ok bool) {
	lines := strings.Split(text, "\n")
	if len(lines) != len(suffixes)+1 {
		return s, false
	}
	for i := range suffixes {
		words := strings.Split(lines[i], " ")
		if len(words) != 4 {
			return s, false
		}
		id, err := snapshots.ParseID(words[1])
		if err != nil {
			return s, false
		}
		s[i].sum = id
		if s[i].size, err = strconv.ParseInt(words[2], 10, 64); err != nil {
			return s, false
		}
	}
	return s, s.lines("") == text
}

// sumsFile is written into an index's directory once its files are durable. A
// directory without it holds nothing that can be relied on.
const sumsFile = "sums"

// index makes the files of an index, unless they are there, and returns what
// a Release file says about them. They may not be durable before seal.
//
// line names what the index is a later version of: its files are made from
// those of the version before.
func (p *Publisher) index(ctx context.Context, line string, index snapshots.Index) (IndexKey, sums, error) {
	key := IndexKeyOf(index)
	if s, ok := p.sums[key]; ok && p.filesExist(key, s) {
		return key, s, nil
	}
	if text, err := os.ReadFile(p.tree.path(path.Join(key.dir(), sumsFile))); err == nil {
		if s, ok := parseSums(string(text)); ok && p.filesExist(key, s) {
			p.sums[key] = s
			return key, s, nil
		}
	}
	s, trail, err := p.build(ctx, key, index, p.trailTo(line, index))
	if err != nil {
		delete(p.trails, line) // it may be what cannot be read
		return key, s, fmt.Errorf("cannot write index: %w", err)
	}
	p.sums[key] = s
	p.trails[line] = trail
	for _, file := range s[1:] {
		p.indexBytes.Add(file.size)
	}
	p.unsealed[key] = true
	return key, s, nil
}

// filesExist reports whether the files are there with their sizes.
func (p *Publisher) filesExist(key IndexKey, s sums) bool {
	for i, as := range frame.Encodings {
		info, err := p.indexFile(key, as)
		if err != nil || info.Size() != s[i+1].size {
			return false
		}
	}
	return true
}

// build writes the files of an index: the frames of its chunks one after the
// other. A chunk is compressed at most once in its life. What the files share
// with those of before is copied by the kernel and not hashed again.
func (p *Publisher) build(ctx context.Context, key IndexKey, index snapshots.Index, before resumed) (s sums, next *trail, err error) {
	if err := p.tree.mkdir(key.dir()); err != nil {
		return s, nil, err
	}
	next = newTrail(key, index, before)
	at, err := p.stamp()
	if err != nil {
		return s, nil, err
	}
	var ends [len(suffixes)]mark
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		ends[0], err = p.hashTexts(ctx, index, before, next)
		return err
	})
	for i, as := range frame.Encodings {
		group.Go(func() error {
			return p.tree.create(path.Join(key.dir(), "Packages"+string(as)), at, func(w *os.File) (err error) {
				ends[i+1], err = p.writeFrames(ctx, w, i+1, as, index, before, next)
				return err
			})
		})
	}
	if err := group.Wait(); err != nil {
		return s, nil, err
	}
	for i, as := range frame.Encodings {
		if next.files[i], err = p.indexFile(key, as); err != nil {
			return s, nil, err
		}
	}
	for i, end := range ends {
		s[i].sum, s[i].size = end.sum(), end.size
	}
	return s, next, nil
}

// hashTexts goes through the uncompressed index, which no file has.
func (p *Publisher) hashTexts(ctx context.Context, index snapshots.Index, before resumed, next *trail) (mark, error) {
	at := before.mark(0)
	var text []byte
	for _, chunk := range index.Chunks[before.chunks:] {
		var err error
		if text, err = p.blobs.AppendText(ctx, text[:0], chunk.ID); err != nil {
			return at, err
		}
		if int64(len(text)) != chunk.Size {
			return at, fmt.Errorf("chunk %s has %d bytes instead of %d: the blob is damaged", chunk.ID, len(text), chunk.Size)
		}
		if at, err = next.add(0, at, text); err != nil {
			return at, err
		}
	}
	return at, nil
}

// early is after how many further bytes of an index file the disk is made to
// begin with them: it has most of a file when the sync comes that waits for it.
const early = 2 << 20

// writeFrames writes file i of an index.
func (p *Publisher) writeFrames(ctx context.Context, w *os.File, i int, as frame.Encoding, index snapshots.Index, before resumed, next *trail) (mark, error) {
	at := before.mark(i)
	if err := p.copyStart(w, before, string(as), at.size); err != nil {
		return at, err
	}
	atomicfile.StartWriting(w)
	begun := at.size
	var data []byte
	var err error
	add := func() error {
		if err == nil {
			at, err = next.add(i, at, data)
		}
		if err == nil {
			_, err = w.Write(data)
		}
		if at.size-begun >= early {
			atomicfile.StartWriting(w)
			begun = at.size
		}
		return err
	}
	if len(index.Chunks) == 0 {
		data, err = frame.Empty(as)
		return at, add()
	}
	for _, chunk := range index.Chunks[before.chunks:] {
		data, err = p.blobs.AppendFrame(ctx, data[:0], chunk.ID, as)
		if add() != nil {
			return at, err
		}
	}
	return at, nil
}

// copyStart copies the first size bytes of an index file of before.
func (p *Publisher) copyStart(w io.Writer, before resumed, suffix string, size int64) error {
	if size == 0 {
		return nil
	}
	f, err := os.Open(p.tree.path(path.Join(before.key.dir(), "Packages"+suffix)))
	if err != nil {
		return err
	}
	n, err := io.Copy(w, io.LimitReader(f, size))
	if err == nil && n != size {
		err = fmt.Errorf("%s ends after %d bytes instead of %d", f.Name(), n, size)
	}
	return errors.Join(err, f.Close())
}

// maxRemembered bounds the memory for sums: some hundred bytes each.
const maxRemembered = 10000

// seal marks the files of indices as durable. The caller has synced.
func (p *Publisher) seal() error {
	for key := range p.unsealed {
		if err := p.tree.write(path.Join(key.dir(), sumsFile), []byte(p.sums[key].lines(""))); err != nil {
			return fmt.Errorf("cannot write index: %w", err)
		}
		delete(p.unsealed, key)
	}
	if len(p.sums) > maxRemembered {
		clear(p.sums) // the files say the same
	}
	return nil
}
