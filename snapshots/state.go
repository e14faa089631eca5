package snapshots

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Key names one index of a state: the packages of a component for one
// architecture, those of architecture "all" among them.
type Key struct{ Component, Architecture string }

// String returns component/architecture.
func (k Key) String() string { return k.Component + "/" + k.Architecture }

func (k Key) compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Component, o.Component), cmp.Compare(k.Architecture, o.Architecture))
}

// Index is the chunks of one Key, in order.
type Index struct{ Chunks []ChunkRef }

// ChunkRef is what a state says about a chunk.
type ChunkRef struct {
	ID    ID
	Count int   // packages, at least 1
	Size  int64 // bytes of its text
	First Ref   // its first package: a package is found without opening other chunks
}

// Count returns the number of packages of the index.
func (i Index) Count() int {
	n := 0
	for _, c := range i.Chunks {
		n += c.Count
	}
	return n
}

// Size returns the size in bytes of the Packages file that the index is.
func (i Index) Size() int64 {
	var n int64
	for _, c := range i.Chunks {
		n += c.Size
	}
	return n
}

// State is an immutable set of packages per component and architecture. Its
// zero value has no indices and the zero ID; New makes a state that can be
// stored. States are small (one ChunkRef for about 500 packages) and may be
// copied and used by many at once.
type State struct {
	id      ID
	text    []byte
	indices []namedIndex // sorted by key
}

type namedIndex struct {
	key   Key
	index Index
}

// ID returns the SHA-256 of Text.
func (s State) ID() ID { return s.id }

// Text returns the state as it is stored. The caller does not modify it.
func (s State) Text() []byte { return s.text }

// Keys returns the keys of the state's indices, sorted.
func (s State) Keys() []Key {
	keys := make([]Key, len(s.indices))
	for i, n := range s.indices {
		keys[i] = n.key
	}
	return keys
}

// Has reports whether the state has an index for key, be it empty.
func (s State) Has(key Key) bool {
	_, ok := s.find(key)
	return ok
}

// Index returns the index of key, or an empty one. The caller does not modify
// it.
func (s State) Index(key Key) Index {
	if i, ok := s.find(key); ok {
		return s.indices[i].index
	}
	return Index{}
}

// Count returns the number of entries of all indices; a package of
// architecture "all" counts once per architecture.
func (s State) Count() int {
	n := 0
	for _, i := range s.indices {
		n += i.index.Count()
	}
	return n
}

func (s State) find(key Key) (int, bool) {
	return slices.BinarySearchFunc(s.indices, key, func(n namedIndex, k Key) int { return n.key.compare(k) })
}

// maxStateText bounds the text of a state, in bytes: room for some hundred
// thousand chunks.
const maxStateText = 64 << 20

// header is the first two lines of every state: the version of the format and
// the parameters of chunking, so that both are hashed into the id.
var header = fmt.Sprintf("Aptfleet-State: 1\nChunking: sha256 name/%d run/%d count/%d bytes/%d\n",
	averageChunk, longRun, maxChunkCount, maxChunkBytes)

// build makes a state of indices, which it takes over, and stores its text.
func build(ctx context.Context, c Chunks, indices []namedIndex) (State, error) {
	slices.SortFunc(indices, func(a, b namedIndex) int { return a.key.compare(b.key) })
	var text bytes.Buffer
	text.WriteString(header)
	for _, n := range indices {
		fmt.Fprintf(&text, "Index: %s %s %d\n", n.key.Component, n.key.Architecture, len(n.index.Chunks))
		for _, r := range n.index.Chunks {
			fmt.Fprintf(&text, "%s %d %d %s %s %s\n", r.ID, r.Count, r.Size, r.First.Name, r.First.Version, r.First.Architecture)
		}
	}
	if text.Len() > maxStateText {
		return State{}, fmt.Errorf("cannot store state: its text has %d bytes, the limit is %d", text.Len(), maxStateText)
	}
	s := State{id: ID(sha256.Sum256(text.Bytes())), text: text.Bytes(), indices: indices}
	id, err := c.Put(ctx, s.text)
	if err != nil {
		return State{}, fmt.Errorf("cannot store state %s: %w", s.id, err)
	}
	if id != s.id {
		return State{}, fmt.Errorf("cannot store state %s: the store calls it %s", s.id, id)
	}
	return s, nil
}

// Load reads the state id. Its chunks are not opened; whoever opens one finds
// out whether it is what the state says.
func Load(ctx context.Context, c Chunks, id ID) (State, error) {
	text, err := get(ctx, c, id)
	if err != nil {
		return State{}, fmt.Errorf("cannot load state %s: %w", id, err)
	}
	s, err := Decode(text)
	if err != nil {
		return State{}, fmt.Errorf("cannot load state %s: %w", id, err)
	}
	return s, nil
}

// Decode reads the text of a state. It accepts exactly the texts that this
// package writes: one set of chunks has one text.
func Decode(text []byte) (State, error) {
	if len(text) > maxStateText {
		return State{}, fmt.Errorf("cannot read state text: it has %d bytes, the limit is %d", len(text), maxStateText)
	}
	indices, err := decodeIndices(string(text))
	if err != nil {
		return State{}, fmt.Errorf("cannot read state text: %w", err)
	}
	return State{id: ID(sha256.Sum256(text)), text: slices.Clone(text), indices: indices}, nil
}

func decodeIndices(text string) ([]namedIndex, error) {
	rest, ok := strings.CutPrefix(text, header)
	if !ok {
		return nil, fmt.Errorf("it does not begin with %q: not a state, or one of another format version", header)
	}
	var indices []namedIndex
	for number := 3; rest != ""; {
		line, after, ended := strings.Cut(rest, "\n")
		if !ended {
			return nil, errors.New("its last line has no end")
		}
		key, chunks, err := decodeIndexLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d is wrong: %w", number, err)
		}
		if n := len(indices); n > 0 && indices[n-1].key.compare(key) >= 0 {
			return nil, fmt.Errorf("line %d is wrong: %s follows %s", number, key, indices[n-1].key)
		}
		rest = after
		number++
		var refs []ChunkRef
		for ; chunks > 0; chunks-- {
			line, after, ended := strings.Cut(rest, "\n")
			if !ended {
				return nil, fmt.Errorf("%s lacks %d chunks", key, chunks)
			}
			ref, err := decodeChunkLine(line)
			if err != nil {
				return nil, fmt.Errorf("line %d is wrong: %w", number, err)
			}
			if n := len(refs); n > 0 && refs[n-1].First.compare(ref.First) >= 0 {
				return nil, fmt.Errorf("line %d is wrong: %s follows %s", number, ref.First, refs[n-1].First)
			}
			refs = append(refs, ref)
			rest = after
			number++
		}
		indices = append(indices, namedIndex{key, Index{refs}})
	}
	return indices, nil
}

// decodeIndexLine reads "Index: <component> <architecture> <chunks>".
func decodeIndexLine(line string) (Key, int64, error) {
	words := strings.Split(line, " ")
	if len(words) != 4 || words[0] != "Index:" {
		return Key{}, 0, errors.New("want Index: <component> <architecture> <chunks>")
	}
	key := Key{words[1], words[2]}
	if err := key.validate(); err != nil {
		return Key{}, 0, err
	}
	chunks, err := parseCount(words[3])
	return key, chunks, err
}

// decodeChunkLine reads "<sha256> <packages> <bytes> <name> <version>
// <architecture>".
func decodeChunkLine(line string) (ChunkRef, error) {
	words := strings.Split(line, " ")
	if len(words) != 6 {
		return ChunkRef{}, errors.New("want <sha256> <packages> <bytes> <name> <version> <architecture>")
	}
	id, err := ParseID(words[0])
	if err != nil {
		return ChunkRef{}, err
	}
	count, err := strconv.Atoi(words[1])
	if err != nil || count < 1 || count > maxChunkCount || strconv.Itoa(count) != words[1] {
		return ChunkRef{}, fmt.Errorf("a chunk has 1 to %d packages, not %q", maxChunkCount, words[1])
	}
	size, err := parseCount(words[2])
	if err != nil {
		return ChunkRef{}, err
	}
	if size < 1 || size > largestChunk {
		return ChunkRef{}, fmt.Errorf("a chunk has 1 to %d bytes, not %d", largestChunk, size)
	}
	first := Ref{words[3], words[4], words[5]}
	if err := first.validate(); err != nil {
		return ChunkRef{}, err
	}
	return ChunkRef{id, count, size, first}, nil
}
