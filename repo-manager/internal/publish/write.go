package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"aptfleet/internal/faultpoint"
	"aptfleet/snapshots"
)

// The signed files of a base, in the order in which they are replaced. A
// client that takes Release and Release.gpg apart may meet two generations; apt
// takes InRelease.
const (
	gpgFile       = "Release.gpg"
	releaseFile   = "Release"
	inReleaseFile = "InRelease"
)

// Stage makes <pipeline>/<stage>/ offer state. When it returns nil, the base is
// durable and every client that asks from now on sees it; on an error the base
// still offers what it did, whole, and calling Stage again finishes the work.
// If the Release text that meta asks for is published already, with a good
// signature, nothing is signed anew.
//
// Date must be later than that of what the stage offered before, else apt keeps
// what it has; that is for the caller to see to. It becomes the modification
// time of the signed files, which HTTP compares to the second.
func (p *Publisher) Stage(ctx context.Context, base Base, stage string, state snapshots.State, meta Meta) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := ValidStage(stage); err != nil {
		return err
	}
	meta.Suite = stage
	text, indices, err := p.releaseText(ctx, base, state, meta)
	if err != nil {
		return err
	}
	place := baseAt(base, stage)
	if err := p.stage(place, text, indices); err != nil {
		return fmt.Errorf("cannot publish stage %s of %s: %w", stage, base.Pipeline, err)
	}
	return nil
}

func (p *Publisher) stage(place place, text []byte, indices []named) error {
	p.touch(place)
	signed, err := p.published(place)
	if err != nil || !bytes.Equal(signed.Text, text) || p.verify(signed) != nil {
		if signed, err = p.Sign(text); err != nil {
			return err
		}
	}
	before, err := p.namedBefore(place)
	if err != nil {
		return err
	}
	if faultpoint.RenameFirst {
		_ = p.commit(place, signed)
	}
	if err := p.writeIndices(place, indices); err != nil {
		return err
	}
	if err := p.supersede(place, before, indices); err != nil {
		return err
	}
	if err := p.commit(place, signed); err != nil {
		return err
	}
	return p.dropPlain(place, indices)
}

// Fixed makes <pipeline>/<dir>/ offer state, once and for ever: dir is
// "snapshots/<id>" or "states/<state id>", signed.Text is what ReleaseText gave
// for base and state. A base that holds exactly these signed files is left
// alone, so rebuilding a tree repeats it byte by byte. Durability and errors
// are as for Stage.
func (p *Publisher) Fixed(ctx context.Context, base Base, dir string, state snapshots.State, signed Signed) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !fixedDirectory.MatchString(dir) {
		return fmt.Errorf("cannot publish %q: want snapshots/<id> or states/<id>", dir)
	}
	if err := base.validate(); err != nil {
		return err
	}
	place := baseAt(base, dir)
	if there, err := p.published(place); err == nil &&
		bytes.Equal(there.Text, signed.Text) && bytes.Equal(there.InRelease, signed.InRelease) && bytes.Equal(there.Gpg, signed.Gpg) {
		return nil
	}
	if err := p.fixed(ctx, base, place, state, signed); err != nil {
		return fmt.Errorf("cannot publish %s of %s: %w", dir, base.Pipeline, err)
	}
	return nil
}

func (p *Publisher) fixed(ctx context.Context, base Base, place place, state snapshots.State, signed Signed) error {
	p.touch(place)
	indices, err := p.indices(ctx, base, state)
	if err != nil {
		return err
	}
	if !bytes.HasSuffix(signed.Text, []byte("\n"+section(indices))) {
		return errors.New("its Release text lists other index files than the state has: a frame was lost and came back with other bytes")
	}
	if err := p.writeIndices(place, indices); err != nil {
		return err
	}
	return p.commit(place, signed)
}

// place is where a base lies below the root.
type place struct {
	root  string // <pipeline>/<stage>, or <pipeline>/snapshots/<id>
	dists string // root/dists/<distribution>
}

func baseAt(base Base, dir string) place {
	root := path.Join(base.Pipeline, dir)
	return place{root: root, dists: path.Join(root, "dists", base.Distribution)}
}

// touch notes, for checks that are under way, that the files of a base change
// now.
func (p *Publisher) touch(at place) {
	p.seq++
	if p.checks > 0 {
		p.touched[at.root] = p.seq
	}
}

// pool returns the target of the base's symbolic link to the pool.
func (at place) pool() string {
	return strings.Repeat("../", strings.Count(at.root, "/")+1) + "pool"
}

// byHash returns the directory of an index's by-hash names.
func (at place) byHash(dir string) string { return path.Join(at.dists, dir, "by-hash", "SHA256") }

// published reads the signed files of a base.
func (p *Publisher) published(at place) (signed Signed, err error) {
	for name, target := range map[string]*[]byte{releaseFile: &signed.Text, inReleaseFile: &signed.InRelease, gpgFile: &signed.Gpg} {
		if *target, err = os.ReadFile(p.tree.path(path.Join(at.dists, name))); err != nil {
			return Signed{}, err
		}
	}
	return signed, nil
}

// writeIndices gives the index files their names in the base. Until InRelease
// names them, nobody asks for those below by-hash.
func (p *Publisher) writeIndices(at place, indices []named) error {
	if err := p.tree.mkdir(at.dists); err != nil {
		return err
	}
	if err := p.tree.symlink(at.pool(), path.Join(at.root, "pool")); err != nil {
		return err
	}
	for _, index := range indices {
		byHash := at.byHash(index.dir)
		if err := p.tree.mkdir(byHash); err != nil {
			return err
		}
		for i, suffix := range suffixes[1:] {
			file := path.Join(index.key.dir(), "Packages"+suffix)
			for _, name := range []string{
				path.Join(byHash, fmt.Sprintf("%x", index.sums[i+1].sum)),
				path.Join(at.dists, index.dir, "Packages"+suffix),
			} {
				if err := p.tree.link(file, name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// commit makes what was written durable, the new signed files among it, and
// then moves the base.
func (p *Publisher) commit(at place, signed Signed) (err error) {
	date, err := dateOf(signed.Text)
	if err != nil {
		return err
	}
	var renames []func(ok bool) error
	defer func() { // those that an error leaves over
		for _, rename := range renames {
			err = errors.Join(err, rename(false))
		}
	}()
	for _, file := range []struct {
		name string
		data []byte
	}{{gpgFile, signed.Gpg}, {releaseFile, signed.Text}, {inReleaseFile, signed.InRelease}} {
		rename, err := p.tree.prepareFile(path.Join(at.dists, file.name), file.data, date)
		if err != nil {
			return err
		}
		renames = append(renames, rename)
	}
	if err := p.tree.sync(); err != nil {
		return err
	}
	if err := p.seal(); err != nil {
		return err
	}
	faultpoint.Hit("publish:indices-written")
	for len(renames) > 0 {
		rename := renames[0]
		renames = renames[1:]
		if err := rename(true); err != nil {
			return err
		}
	}
	faultpoint.Hit("publish:inrelease-renamed")
	return p.tree.syncDir(at.dists)
}
