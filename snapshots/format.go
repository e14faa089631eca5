package snapshots

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"aptfleet/internal/deb"
)

// The parameters of chunking. They are written into every state's text and so
// hashed into its id: changing one makes another format.
const (
	// averageChunk is how many names, on average, lie between two borders.
	averageChunk = 512
	// longRun is how many stanzas of one name a chunk holds before versions,
	// too, can be borders.
	longRun = 64
	// maxChunkCount and maxChunkBytes end a chunk whatever its names are.
	// They are reached once in about fifty chunks.
	maxChunkCount = 2048
	maxChunkBytes = 8 << 20
)

// largestChunk is the most bytes a chunk's text can have: the last stanza may
// begin just before maxChunkBytes; each is followed by an empty line.
const largestChunk = maxChunkBytes + MaxStanza + 1

// chunker decides where a chunk ends. It sees the packages of an index in
// order; every decision depends on nothing but the packages since the last
// border, so that a decision made once stays right as long as these stay.
type chunker struct {
	last  string // name of the last package
	run   int    // packages of that name in this chunk
	count int    // packages in this chunk
	size  int64  // bytes of this chunk
}

// cutsBefore reports whether a border lies between the packages seen so far
// and next. The first package of an index needs no decision.
func (c *chunker) cutsBefore(next Ref) bool {
	switch {
	case c.count == 0:
		return false
	case c.count >= maxChunkCount || c.size >= maxChunkBytes:
		return true
	case next.Name != c.last:
		return isBorder(next.Name)
	default:
		return c.run >= longRun && isBorder(next.Name+" "+next.Version)
	}
}

// add takes p into the chunk.
func (c *chunker) add(p Package) {
	if p.Name != c.last {
		c.last, c.run = p.Name, 0
	}
	c.run++
	c.count++
	c.size += int64(len(p.Stanza)) + 1
}

// isBorder draws one of averageChunk texts: those whose SHA-256, its first
// four bytes read as a big-endian number, is a multiple of averageChunk.
func isBorder(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return binary.BigEndian.Uint32(sum[:4])%averageChunk == 0
}

// encodeChunk returns the text of a chunk: every stanza followed by an empty
// line, as in a Packages file.
func encodeChunk(packages []Package) []byte {
	size := 0
	for _, p := range packages {
		size += len(p.Stanza) + 1
	}
	text := make([]byte, 0, size)
	for _, p := range packages {
		text = append(text, p.Stanza...)
		text = append(text, '\n')
	}
	return text
}

// decodeChunk reads the text of a chunk: stanzas each followed by one empty
// line, at least one, in order, no name and version twice, within the limits
// of the format. The packages' stanzas are parts of the text.
func decodeChunk(text []byte) ([]Package, error) {
	if len(text) > largestChunk {
		return nil, fmt.Errorf("it has %d bytes, the limit is %d", len(text), largestChunk)
	}
	packages := make([]Package, 0, min(bytes.Count(text, []byte("\n\n")), maxChunkCount))
	rest := text
	for stanzas := deb.StanzasOf(text, MaxStanza); ; {
		stanza, err := stanzas.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		p, err := packageOf(stanza)
		if err != nil {
			return nil, fmt.Errorf("package %d is wrong: %w", len(packages)+1, err)
		}
		if n := len(packages); n > 0 && packages[n-1].Ref().compare(p.Ref()) >= 0 {
			return nil, fmt.Errorf("%s follows %s", p.Ref(), packages[n-1].Ref())
		}
		if len(packages) == maxChunkCount {
			return nil, fmt.Errorf("it has more than %d packages", maxChunkCount)
		}
		packages = append(packages, p)
		if !bytes.HasPrefix(rest, p.Stanza) || !bytes.HasPrefix(rest[len(p.Stanza):], []byte("\n")) {
			return nil, errors.New("its stanzas are not followed by one empty line each")
		}
		rest = rest[len(p.Stanza)+1:]
	}
	if len(packages) == 0 {
		return nil, errors.New("it is empty")
	}
	if len(rest) > 0 {
		return nil, errors.New("an empty line too many ends it")
	}
	return packages, nil
}

// OpenChunk reads the packages of a chunk and holds them against what the
// state says of it.
func OpenChunk(ctx context.Context, c Chunks, ref ChunkRef) ([]Package, error) {
	text, err := get(ctx, c, ref.ID)
	if err != nil {
		return nil, fmt.Errorf("cannot open chunk %s: %w", ref.ID, err)
	}
	packages, err := decodeChunk(text)
	if err != nil {
		return nil, fmt.Errorf("cannot open chunk %s: %w", ref.ID, err)
	}
	if len(packages) != ref.Count || int64(len(text)) != ref.Size || packages[0].Ref() != ref.First {
		return nil, fmt.Errorf("cannot open chunk %s: its state counts %d packages from %s, %d bytes; it has %d from %s, %d bytes",
			ref.ID, ref.Count, ref.First, ref.Size, len(packages), packages[0].Ref(), len(text))
	}
	return packages, nil
}
