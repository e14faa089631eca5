package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"aptfleet/repo-manager/internal/blobs"
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
var suffixes = [...]string{"", string(blobs.Gzip), string(blobs.Zstd)}

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
func (p *Publisher) index(ctx context.Context, index snapshots.Index) (IndexKey, sums, error) {
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
	s, err := p.build(ctx, key, index)
	if err != nil {
		return key, s, fmt.Errorf("cannot write index: %w", err)
	}
	p.sums[key] = s
	p.unsealed[key] = true
	return key, s, nil
}

// filesExist reports whether the files are there with their sizes.
func (p *Publisher) filesExist(key IndexKey, s sums) bool {
	for i, suffix := range suffixes[1:] {
		info, err := os.Lstat(p.tree.path(path.Join(key.dir(), "Packages"+suffix)))
		if err != nil || info.Size() != s[i+1].size {
			return false
		}
	}
	return true
}

// build writes the files of an index: the frames of its chunks one after the
// other. A chunk is compressed at most once in its life.
func (p *Publisher) build(ctx context.Context, key IndexKey, index snapshots.Index) (sums, error) {
	var s sums
	if err := p.tree.mkdir(key.dir()); err != nil {
		return s, err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		count := counter{h: sha256.New(), w: io.Discard}
		for _, chunk := range index.Chunks {
			text, err := p.blobs.Get(ctx, chunk.ID)
			if err != nil {
				return err
			}
			if int64(len(text)) != chunk.Size {
				return fmt.Errorf("chunk %s has %d bytes instead of %d: the blob is damaged", chunk.ID, len(text), chunk.Size)
			}
			if _, err := count.Write(text); err != nil {
				return err
			}
		}
		s[0].sum, s[0].size = sum(count.h.Sum(nil)), count.n
		return nil
	})
	for i, as := range blobs.Encodings {
		group.Go(func() error {
			count := counter{h: sha256.New()}
			err := p.tree.create(path.Join(key.dir(), "Packages"+string(as)), func(w io.Writer) error {
				count.w = w
				if len(index.Chunks) == 0 {
					empty, err := p.blobs.Empty(as)
					if err != nil {
						return err
					}
					_, err = count.Write(empty)
					return err
				}
				for _, chunk := range index.Chunks {
					frame, err := p.blobs.Frame(ctx, chunk.ID, as)
					if err != nil {
						return err
					}
					if _, err := count.Write(frame); err != nil {
						return err
					}
				}
				return nil
			})
			s[i+1].sum, s[i+1].size = sum(count.h.Sum(nil)), count.n
			return err
		})
	}
	return s, group.Wait()
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

// counter hashes and counts what passes.
type counter struct {
	h hash.Hash
	w io.Writer
	n int64
}

func (c *counter) Write(data []byte) (int, error) {
	if _, err := c.h.Write(data); err != nil {
		return 0, err
	}
	n, err := c.w.Write(data)
	c.n += int64(n)
	return n, err
}
