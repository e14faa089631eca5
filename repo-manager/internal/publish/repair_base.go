package publish

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// mendStored writes the files below .indices again. A directory there that no
// base needs is moved aside: nothing can be said about it.
func (r *repairer) mendStored(ctx context.Context, d damages) error {
	for dir, findings := range d.stored {
		var known []use
		if raw, err := hex.DecodeString(path.Base(dir)); err == nil && len(raw) == len(IndexKey{}) {
			known = r.usesOf(IndexKey(raw))
		}
		var err error
		if len(known) == 0 {
			if err = r.Alone(ctx, nil, func(context.Context) error { return r.dropStored(dir, findings[0]) }); err == nil {
				r.did(findings, "moved aside: nothing needs it")
			}
		} else if err = r.storeAny(ctx, known); err == nil {
			r.did(findings, "made again from the frames of its chunks")
		}
		if err != nil {
			r.failed(findings, "%v", err)
		}
	}
	return nil
}

func (r *repairer) dropStored(dir, finding string) error {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	for key := range r.p.sums {
		if key.dir() == dir {
			return errors.New("it is in use since the check; check again")
		}
	}
	return r.aside(r.p.publicPrefix()+dir, finding)
}

// storeAny stores the files of an index with the sums of the first of uses
// that can be met.
func (r *repairer) storeAny(ctx context.Context, uses []use) error {
	var failed []error
	for _, use := range uses {
		err := r.store(ctx, use)
		if err == nil {
			return nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", baseAt(use.base.Base, use.base.Dir).root, err))
	}
	return errors.Join(failed...)
}

// store makes the files of an index below .indices those that a base lists.
func (r *repairer) store(ctx context.Context, use use) error {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	key, whole := IndexKeyOf(use.index), true
	for i, as := range frame.Encodings {
		name := path.Join(key.dir(), "Packages"+string(as))
		if got, _, err := hashFile(r.p.tree.path(name)); err == nil && got == use.sums[i+1].sum {
			continue
		}
		whole = false
		if err := r.clear(r.p.publicPrefix() + name); err != nil {
			return err
		}
		if err := r.p.tree.mkdir(key.dir()); err != nil {
			return err
		}
		if err := r.write(ctx, name, use, i); err != nil {
			return err
		}
	}
	r.p.sums[key] = use.sums
	name := path.Join(key.dir(), sumsFile)
	if there, err := os.ReadFile(r.p.tree.path(name)); err == nil && whole && string(there) == use.lines("") {
		return nil
	}
	if err := r.clear(r.p.publicPrefix() + name); err != nil {
		return err
	}
	// The files must be durable before a sums file vouches for them.
	if err := r.p.tree.sync(); err != nil {
		return err
	}
	if err := r.p.tree.write(name, []byte(use.lines(""))); err != nil {
		return err
	}
	delete(r.p.unsealed, key)
	r.changes++
	return nil
}

// write makes name an index file with the bytes that a base lists.
func (r *repairer) write(ctx context.Context, name string, use use, i int) error {
	as := frame.Encodings[i]
	var whole []byte
	if len(use.index.Chunks) == 0 {
		empty, err := frame.Empty(as)
		if err != nil {
			return err
		}
		whole = empty
	} else {
		frames, err := r.frames(ctx, use.index, as, use.sums[i+1].sum)
		if err != nil {
			return err
		}
		if err := r.keep(use.index, as, frames); err != nil {
			return err
		}
		whole = bytes.Join(frames, nil)
	}
	at, err := r.p.stamp()
	if err != nil {
		return err
	}
	r.changes++
	return r.p.tree.create(name, at, func(w *os.File) error {
		_, err := w.Write(whole)
		return err
	})
}

// mendBases writes the names of index files, the link to the pool and the
// signed files of bases again.
func (r *repairer) mendBases(ctx context.Context, d damages) error {
	for _, base := range r.c.expect.Bases {
		findings := d.bases[baseAt(base.Base, base.Dir).root]
		if len(findings) == 0 {
			continue
		}
		did, err := r.base(ctx, base, findings)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.failed(findings, "%v", err)
			continue
		}
		r.did(findings, did)
	}
	return nil
}

func (r *repairer) base(ctx context.Context, base ExpectedBase, findings []string) (did string, err error) {
	at := baseAt(base.Base, base.Dir)
	state, ok := r.states[base.State]
	if !ok {
		return "", fmt.Errorf("state %s must be there first", base.State)
	}
	signed, err := r.due(base, at, state)
	if base.Signed != nil && err != nil {
		return "", err
	}
	if base.Signed == nil && (err != nil || slices.ContainsFunc(findings, isSigned)) {
		return "signed anew with a later Date", r.restage(ctx, base, state, findings)
	}
	err = r.Alone(ctx, &base, func(ctx context.Context) error { return r.rewrite(ctx, base, state, signed, findings) })
	return "written again, with the bytes that its Release lists", err
}

// isSigned reports whether a finding is about one of the signed files.
func isSigned(finding string) bool {
	return slices.Contains([]string{releaseFile, inReleaseFile, gpgFile}, path.Base(finding))
}

// due returns the signed files that a base should have: those of the database,
// or those of a stage if they say what they should.
func (r *repairer) due(base ExpectedBase, at place, state snapshots.State) (Signed, error) {
	if base.Signed != nil {
		if err := r.p.verify(*base.Signed); err != nil {
			return Signed{}, fmt.Errorf("restore its row in the database first: %w", err)
		}
		return *base.Signed, nil
	}
	signed, err := r.p.published(at)
	if err == nil {
		err = r.p.verify(signed)
	}
	if err != nil {
		return Signed{}, err
	}
	var indices []named
	for _, key := range base.keys() {
		s, ok := listedSums(signed.Text, indexDir(key))
		if !ok {
			return Signed{}, fmt.Errorf("its Release does not list %s", key)
		}
		indices = append(indices, named{indexDir(key), IndexKeyOf(state.Index(key)), s})
	}
	meta := base.Meta
	meta.Suite = base.Dir
	text, err := releaseText(base.Base, state.ID(), meta, indices)
	if err == nil && !bytes.Equal(text, signed.Text) {
		err = errors.New("its Release is not the text that the database describes")
	}
	return signed, err
}

// rewrite makes a base what signed says.
func (r *repairer) rewrite(ctx context.Context, base ExpectedBase, state snapshots.State, signed Signed, findings []string) error {
	at := baseAt(base.Base, base.Dir)
	for _, finding := range findings {
		if err := r.clear(finding); err != nil {
			return err
		}
	}
	var indices []named
	for _, key := range base.keys() {
		s, ok := listedSums(signed.Text, indexDir(key))
		if !ok {
			return fmt.Errorf("its Release does not list %s", key)
		}
		use := use{state.Index(key), base, s}
		if r.others(use) {
			return fmt.Errorf("the index files of %s have other bytes in another base; restore those of this one from a backup", key)
		}
		if err := r.store(ctx, use); err != nil {
			return err
		}
		indices = append(indices, named{indexDir(key), IndexKeyOf(use.index), s})
	}
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	r.p.touch(at)
	if base.Signed == nil {
		// A publication since may offer something else by now.
		if now, err := r.p.published(at); err != nil || !bytes.Equal(now.InRelease, signed.InRelease) {
			return errors.New("it was published meanwhile; check again")
		}
	}
	if err := r.p.writeIndices(at, indices); err != nil {
		return err
	}
	m := &move{update: Update{Base: base.Base, Dir: base.Dir, State: state, Meta: base.Meta, Signed: base.Signed}, at: at, indices: indices}
	defer m.giveUp()
	if err := r.p.stageFiles(m, signed); err != nil {
		return err
	}
	return r.p.commit(m)
}

// others reports whether a fixed base lists other files for an index than use
// does: after a frame was lost and made again by another compressor. What that
// base offers stays as it is.
func (r *repairer) others(use use) bool {
	for _, other := range r.usesOf(IndexKeyOf(use.index)) {
		if other.base.Signed != nil {
			return other.sums != use.sums
		}
	}
	return false
}

// restage has a stage published anew, from index files that are whole.
func (r *repairer) restage(ctx context.Context, base ExpectedBase, state snapshots.State, findings []string) error {
	for _, finding := range findings {
		if err := r.Alone(ctx, &base, func(context.Context) error { return r.clear(finding) }); err != nil {
			return err
		}
	}
	for _, key := range base.keys() {
		index := state.Index(key)
		known := r.usesOf(IndexKeyOf(index))
		if err := r.storeAny(ctx, known); err != nil || len(known) == 0 {
			r.forget(index)
		}
	}
	return r.Restage(ctx, base)
}

// forget lets the next publication make the files of an index from nothing,
// unless those that are there are what their sums say.
func (r *repairer) forget(index snapshots.Index) {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	key := IndexKeyOf(index)
	text, err := os.ReadFile(r.p.tree.path(path.Join(key.dir(), sumsFile)))
	s, ok := parseSums(string(text))
	good := err == nil && ok && s[0].size == index.Size()
	for i := range frame.Encodings {
		got, _, err := hashFile(r.p.tree.path(path.Join(key.dir(), "Packages"+suffixes[i+1])))
		good = good && err == nil && got == s[i+1].sum
	}
	delete(r.p.sums, key)
	if good {
		return
	}
	// Without its sums file the directory holds nothing that is believed.
	if err := r.p.tree.remove(path.Join(key.dir(), sumsFile)); err != nil {
		r.failed([]string{r.p.publicPrefix() + key.dir()}, "%v", err)
	}
}

// mendSurplus moves aside what a base, or the pool, should not have.
func (r *repairer) mendSurplus(ctx context.Context, d damages) error {
	for name, finding := range d.surplus {
		if strings.HasPrefix(name, "pool/") {
			if err := r.Alone(ctx, nil, func(context.Context) error { r.surplusInPool(name, finding); return nil }); err != nil {
				r.failed([]string{finding}, "%v", err)
			}
			continue
		}
		err := r.Alone(ctx, nil, func(context.Context) error {
			r.p.mu.Lock()
			defer r.p.mu.Unlock()
			return r.surplus(name, finding)
		})
		if err != nil {
			r.failed([]string{finding}, "%v", err)
		}
	}
	return nil
}

func (r *repairer) surplus(name, finding string) error {
	if r.isNamed(name) {
		return errors.New("it was published meanwhile; check again")
	}
	if path.Base(path.Dir(name)) == "SHA256" {
		if id, err := snapshots.ParseID(path.Base(name)); err == nil {
			if file, ok := r.c.copies[sum(id)]; ok && file != r.p.tree.path(name) && r.c.isStage(rootOf(name)) {
				if got, _, err := hashFile(file); err == nil && got == sum(id) {
					return r.relink(file, name, finding)
				}
			}
		}
	}
	if err := r.aside(finding, finding); err != nil {
		return err
	}
	r.did([]string{finding}, "moved aside: nothing offers it any more")
	return nil
}

// relink makes a superseded name one of a good file again.
func (r *repairer) relink(file, name, finding string) error {
	from, err := filepath.Rel(r.p.tree.root, file)
	if err == nil {
		err = r.p.tree.link(from, name)
	}
	if err != nil {
		return err
	}
	r.did([]string{finding}, "linked again to the file with these bytes")
	return nil
}

// isNamed reports whether a base offers a file now: by the InRelease that it
// has, whatever the check saw.
func (r *repairer) isNamed(name string) bool {
	for _, base := range r.c.expect.Bases {
		at := baseAt(base.Base, base.Dir)
		rel, below := strings.CutPrefix(name, at.dists+"/")
		if !below {
			continue
		}
		before, err := r.p.namedBefore(at)
		if err != nil {
			return false
		}
		if _, ok := before[rel]; ok {
			return true
		}
		for named := range before {
			dir := path.Dir(path.Dir(path.Dir(named)))
			if slices.ContainsFunc(suffixes[1:], func(suffix string) bool { return rel == path.Join(dir, "Packages"+suffix) }) {
				return true
			}
		}
	}
	return false
}

// surplusInPool moves aside what lies in the pool and cannot belong there. A
// whole package that nothing needs stays: an upload under way may be about to
// record it.
func (r *repairer) surplusInPool(name, finding string) {
	words := strings.Split(name, "/")
	if len(words) == 4 && len(words[2]) == 64 && strings.HasPrefix(words[2], words[1]) {
		if got, _, err := hashFile(r.p.tree.path(name)); err == nil && fmt.Sprintf("%x", got) == words[2] {
			r.failed([]string{finding}, "it is whole and nothing needs it: remove it, or upload it again to use it")
			return
		}
	}
	if err := r.aside(finding, finding); err != nil {
		r.failed([]string{finding}, "%v", err)
		return
	}
	r.did([]string{finding}, "moved aside: it is not what the names of its directories say")
}

// mendPool moves damaged package files aside, so that nobody is offered them.
func (r *repairer) mendPool(ctx context.Context, d damages) error {
	for name, finding := range d.pool {
		err := r.Alone(ctx, nil, func(context.Context) error {
			abs := r.p.tree.path(name)
			info, err := os.Lstat(abs)
			if err != nil {
				return nil // it is missing: the check said so
			}
			if got, _, err := hashFile(abs); err == nil && got == r.c.pool[name].sum && info.Mode().IsRegular() {
				r.did([]string{finding}, "put back meanwhile")
				return nil
			}
			return r.aside(finding, finding)
		})
		if err != nil {
			r.failed([]string{finding}, "%v", err)
		}
	}
	return nil
}
