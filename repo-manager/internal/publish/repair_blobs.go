package publish

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// use is a place where an index is published, with what is recorded of its
// files there. Those of fixed bases come first: they never change.
type use struct {
	index snapshots.Index
	base  ExpectedBase
	sums
}

// uses returns the places of all indices, the same index with the same sums
// once.
func (r *repairer) uses() []use {
	if r.all != nil {
		return r.all
	}
	type place struct {
		key  IndexKey
		sums sums
	}
	seen := make(map[place]bool)
	r.byKey = make(map[IndexKey][]use)
	for _, base := range r.fixedFirst {
		state, ok := r.states[base.State]
		if !ok {
			continue
		}
		text := r.releaseOf(base)
		for _, key := range state.Keys() {
			index := state.Index(key)
			s, ok := listedSums(text, indexDir(key))
			at := place{IndexKeyOf(index), s}
			if !ok || seen[at] {
				continue
			}
			seen[at] = true
			r.all = append(r.all, use{index, base, s})
			r.byKey[at.key] = append(r.byKey[at.key], use{index, base, s})
		}
	}
	return r.all
}

// usesOf returns the places of one index.
func (r *repairer) usesOf(key IndexKey) []use {
	r.uses()
	return r.byKey[key]
}

// holding returns the places of the indices that have a chunk.
func (r *repairer) holding(id snapshots.ID) []use {
	var uses []use
	for _, use := range r.uses() {
		if slices.ContainsFunc(use.index.Chunks, func(ref snapshots.ChunkRef) bool { return ref.ID == id }) {
			uses = append(uses, use)
		}
	}
	return uses
}

// releaseOf returns the Release text of a base, if somebody vouches for it: its
// row in the database or its InRelease with a good signature.
func (r *repairer) releaseOf(base ExpectedBase) []byte {
	if base.Signed != nil && r.p.verify(*base.Signed) == nil {
		return base.Signed.Text
	}
	inRelease, err := os.ReadFile(r.p.tree.path(path.Join(baseAt(base.Base, base.Dir).dists, inReleaseFile)))
	if err != nil {
		return nil
	}
	text, err := r.p.inReleaseText(inRelease)
	if err != nil {
		return nil
	}
	return text
}

// listedSums returns what a Release text lists for an index.
func listedSums(text []byte, dir string) (sums, bool) {
	listed := entries(text)
	var lines strings.Builder
	for _, suffix := range suffixes {
		lines.WriteString(listed[path.Join(dir, "Packages"+suffix)] + "Packages" + suffix + "\n")
	}
	return parseSums(lines.String())
}

// copy returns the bytes of an index file that lies somewhere in the tree with
// this SHA-256.
func (r *repairer) copy(want sum) ([]byte, bool) {
	file, ok := r.c.copies[want]
	if !ok {
		return nil, false
	}
	data, err := os.ReadFile(file)
	return data, err == nil && sha256.Sum256(data) == want
}

// frames returns the frames of an index whose file has the SHA-256 want: from a
// file that has it, else those that are stored, where they are whole, and the
// others compressed again, else all compressed again.
func (r *repairer) frames(ctx context.Context, index snapshots.Index, as frame.Encoding, want sum) ([][]byte, error) {
	if data, ok := r.copy(want); ok {
		frames, err := frame.Split(data, as, largestText)
		if err == nil && r.match(index, as, frames) {
			return frames, nil
		}
	}
	for _, anew := range []bool{false, true} {
		var frames [][]byte
		h := sha256.New()
		for _, ref := range index.Chunks {
			data, err := r.frame(ctx, ref, as, anew)
			if err != nil {
				return nil, err
			}
			h.Write(data)
			frames = append(frames, data)
		}
		if sum(h.Sum(nil)) == want {
			return frames, nil
		}
	}
	return nil, errors.New("compressed again, its chunks have other bytes than a Release file lists")
}

// largestText is more than any chunk has, in bytes.
const largestText = 16 << 20

// match reports whether frames are those of the chunks of an index.
func (r *repairer) match(index snapshots.Index, as frame.Encoding, frames [][]byte) bool {
	if len(frames) != len(index.Chunks) {
		return false
	}
	for i, ref := range index.Chunks {
		text, err := frame.Decode(frames[i], as, ref.Size)
		if err != nil || sha256.Sum256(text) != ref.ID {
			return false
		}
	}
	return true
}

// frame returns the frame that is stored, if it is whole and not wanted anew,
// else one that is made now. Nothing is written.
func (r *repairer) frame(ctx context.Context, ref snapshots.ChunkRef, as frame.Encoding, anew bool) ([]byte, error) {
	text, err := r.text(ctx, ref.ID)
	if err != nil {
		return nil, err
	}
	if stored, err := r.p.blobs.Stored(ref.ID, as); err == nil && !anew && frame.Holds(stored, as, text) {
		return stored, nil
	}
	return r.p.blobs.Encode(text, as)
}

// text returns a blob that has the bytes that its id names.
func (r *repairer) text(ctx context.Context, id snapshots.ID) ([]byte, error) {
	text, err := r.p.blobs.Get(ctx, id)
	if err == nil && sha256.Sum256(text) != id {
		err = fmt.Errorf("blob %s has other bytes than its name says", id)
	}
	return text, err
}

// keep stores the frames of an index where other bytes are, or none.
func (r *repairer) keep(index snapshots.Index, as frame.Encoding, frames [][]byte) error {
	for i, ref := range index.Chunks {
		if there, err := r.p.blobs.Stored(ref.ID, as); err == nil && bytes.Equal(there, frames[i]) {
			continue
		}
		if err := r.p.tree.step("frame", ref.ID.String()+string(as)); err != nil {
			return err
		}
		if err := r.p.blobs.RestoreFrame(ref.ID, as, frames[i]); err != nil {
			return err
		}
		r.changes++
	}
	return nil
}

// mendStates makes the texts of states again from the index files of their
// bases, and stores the chunks that it finds there, too.
func (r *repairer) mendStates(ctx context.Context, d damages) error {
	for id, finding := range d.states {
		var failed []error
		for _, base := range r.c.expect.Bases {
			if base.State != id {
				continue
			}
			state, chunks, err := r.assemble(ctx, base)
			if err != nil {
				failed = append(failed, err)
				continue
			}
			if err := errors.Join(r.clear(finding), r.restore(append(chunks, state.Text())...)); err != nil {
				return err
			}
			r.states[id], r.all = state, nil
			r.did([]string{finding}, "made again from the index files of "+baseAt(base.Base, base.Dir).root)
			break
		}
		if _, ok := r.states[id]; !ok {
			r.failed([]string{finding}, "restore this file from a backup: %v", errors.Join(failed...))
		}
	}
	return nil
}

// restore stores texts in place of what lies under their ids.
func (r *repairer) restore(texts ...[]byte) error {
	for _, text := range texts {
		if there, err := r.p.blobs.Stored(sha256.Sum256(text), ""); err == nil && bytes.Equal(there, text) {
			continue
		}
		if err := r.p.tree.step("blob", snapshots.ID(sha256.Sum256(text)).String()); err != nil {
			return err
		}
		if err := r.p.blobs.Restore(text); err != nil {
			return err
		}
		r.changes++
	}
	return nil
}

// assemble makes the state of a base from what its Release text lists. Frames
// end where chunks do.
func (r *repairer) assemble(ctx context.Context, base ExpectedBase) (snapshots.State, [][]byte, error) {
	text := r.releaseOf(base)
	if text == nil {
		return snapshots.State{}, nil, fmt.Errorf("nothing vouches for the Release of %s", baseAt(base.Base, base.Dir).root)
	}
	indices := make(map[snapshots.Key][][]byte)
	var all [][]byte
	for _, key := range keysOf(text) {
		chunks, err := r.cut(text, indexDir(key))
		if err != nil {
			return snapshots.State{}, nil, err
		}
		indices[key] = chunks
		all = append(all, chunks...)
	}
	state, err := snapshots.Assemble(ctx, indices)
	if err == nil && state.ID() != base.State {
		err = fmt.Errorf("the index files of %s make state %s", baseAt(base.Base, base.Dir).root, state.ID())
	}
	return state, all, err
}

// keysOf returns the indices that a Release text declares.
func keysOf(text []byte) []snapshots.Key {
	var base Base
	for line := range strings.Lines(string(text)) {
		switch name, value, _ := strings.Cut(line, ": "); name {
		case "Architectures":
			base.Architectures = strings.Fields(value)
		case "Components":
			base.Components = strings.Fields(value)
		}
	}
	return base.keys()
}

// cut returns the chunks of an index that a Release text lists, from one of its
// files.
func (r *repairer) cut(text []byte, dir string) ([][]byte, error) {
	s, ok := listedSums(text, dir)
	if !ok {
		return nil, fmt.Errorf("its Release does not list the index files of %s", dir)
	}
	if s[0].size == 0 {
		return [][]byte{}, nil
	}
	for i, as := range frame.Encodings {
		data, ok := r.copy(s[i+1].sum)
		if !ok {
			continue
		}
		frames, err := frame.Split(data, as, largestText)
		if err != nil {
			return nil, err
		}
		var chunks [][]byte
		for _, data := range frames {
			chunk, err := frame.Decode(data, as, largestText)
			if err != nil {
				return nil, err
			}
			chunks = append(chunks, chunk)
		}
		return chunks, nil
	}
	return nil, fmt.Errorf("no index file of %s is whole", dir)
}

// mendChunks makes the texts of chunks again.
func (r *repairer) mendChunks(ctx context.Context, d damages) error {
	for id, finding := range d.chunks {
		text, from, err := r.chunk(ctx, id)
		if err != nil {
			r.failed([]string{finding}, "restore this file, or one of the same name with .gz or .zst, from a backup: %v", err)
			continue
		}
		if err := errors.Join(r.clear(finding), r.restore(text)); err != nil {
			return err
		}
		r.did([]string{finding}, "made again from "+from)
	}
	return nil
}

// chunk finds the text of a chunk in its frames, or in any part of an index
// file that is still whole: the SHA-256 is its name.
func (r *repairer) chunk(_ context.Context, id snapshots.ID) (text []byte, from string, err error) {
	is := func(data []byte, as frame.Encoding) bool {
		text, err = frame.Decode(data, as, largestText)
		return err == nil && sha256.Sum256(text) == id
	}
	for _, as := range frame.Encodings {
		if stored, err := r.p.blobs.Stored(id, as); err == nil && is(stored, as) {
			return text, "its frame " + string(as), nil
		}
	}
	for _, use := range r.holding(id) {
		at := baseAt(use.base.Base, use.base.Dir)
		for i, as := range frame.Encodings {
			for _, name := range r.filesOf(at, use, i+1) {
				data, err := os.ReadFile(r.p.tree.path(name))
				if err != nil {
					continue
				}
				// An error leaves the frames before the damage.
				frames, _ := frame.Split(data, as, largestText)
				if slices.ContainsFunc(frames, func(data []byte) bool { return is(data, as) }) {
					return text, name, nil
				}
			}
		}
	}
	return nil, "", errors.New("neither a frame nor an index file holds it any more")
}

// filesOf lists where the files of an index may be, below the root of the tree.
func (r *repairer) filesOf(at place, use use, i int) []string {
	names := []string{path.Join(IndexKeyOf(use.index).dir(), "Packages"+suffixes[i])}
	for _, key := range use.base.keys() {
		dir := indexDir(key)
		names = append(names, path.Join(at.byHash(dir), fmt.Sprintf("%x", use.sums[i].sum)), path.Join(at.dists, dir, "Packages"+suffixes[i]))
	}
	return names
}

// mendFrames makes frames again: with the bytes that a Release file has named,
// if one has.
func (r *repairer) mendFrames(ctx context.Context, d damages) error {
	for lost, finding := range d.frames {
		if err := r.mendFrame(ctx, lost, finding); err != nil {
			return err
		}
	}
	return nil
}

func (r *repairer) mendFrame(ctx context.Context, lost frameID, finding string) error {
	text, err := r.text(ctx, lost.id)
	if err != nil {
		r.failed([]string{finding}, "restore this file from a backup: %v", err)
		return nil
	}
	if there, err := r.p.blobs.Stored(lost.id, lost.as); err == nil {
		if got, err := frame.Decode(there, lost.as, int64(len(text))); err == nil && bytes.Equal(got, text) {
			r.did([]string{finding}, "made again together with others of its index")
			return nil
		}
	}
	fixed := ""
	for _, use := range r.holding(lost.id) {
		i := slices.Index(suffixes[:], string(lost.as))
		frames, err := r.frames(ctx, use.index, lost.as, use.sums[i].sum)
		if err == nil {
			if err := errors.Join(r.clear(finding), r.keep(use.index, lost.as, frames)); err != nil {
				return err
			}
			r.did([]string{finding}, "made again, with the bytes that the Release of "+baseAt(use.base.Base, use.base.Dir).root+" lists")
			return nil
		}
		if use.base.Signed != nil {
			fixed = baseAt(use.base.Base, use.base.Dir).root
		}
	}
	if fixed != "" {
		r.failed([]string{finding}, "restore this file from a backup: compressed again it has other bytes than the Release of %s lists", fixed)
		return nil
	}
	data, err := r.p.blobs.Encode(text, lost.as)
	if err == nil {
		err = errors.Join(r.clear(finding), r.p.blobs.RestoreFrame(lost.id, lost.as, data))
	}
	if err != nil {
		return err
	}
	r.did([]string{finding}, "compressed again; no fixed base names its bytes")
	return nil
}
