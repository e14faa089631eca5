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

// Update is one base that is to offer a state: a stage if Signed is nil, else a
// fixed one.
type Update struct {
	Base
	Dir    string // the stage, "snapshots/<id>" or "states/<state id>"
	State  snapshots.State
	Meta   Meta    // of a stage; Suite is Dir
	Signed *Signed // of a fixed base: its very files; Text is what ReleaseText gave for Base and State
}

// Publish makes every base offer its state. When it returns nil, all of them
// are durable and every client that asks from now on sees them; they move one
// after the other in the order of updates, each from one moment to the next. On
// an error each offers what it did or what it should, whole, and calling
// Publish again finishes the work. What is published already stays as it is: a
// fixed base that holds exactly its signed files, so that rebuilding a tree
// repeats it byte by byte, and a stage with the Release text that its Meta asks
// for and a good signature.
//
// The Date of a stage must not be earlier than that of what it offered before,
// and its Modified must be later, else apt keeps what it has; that is for the
// caller to see to.
func (p *Publisher) Publish(ctx context.Context, updates ...Update) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var moves []*move
	defer func() {
		for _, m := range moves {
			m.giveUp()
		}
	}()
	for _, u := range updates {
		m, err := p.prepare(ctx, u)
		if err != nil {
			return u.failed(err)
		}
		if m != nil {
			moves = append(moves, m)
		}
	}
	return p.commit(moves...)
}

// commit makes what was prepared durable, the new signed files among it, and
// then moves the bases.
func (p *Publisher) commit(moves ...*move) error {
	if len(moves) == 0 {
		return nil
	}
	err := p.tree.sync()
	if err == nil {
		err = p.seal()
	}
	if err != nil {
		return moves[0].update.failed(err)
	}
	faultpoint.Hit("publish:indices-written")
	for _, m := range moves {
		if err := m.rename(); err != nil {
			return m.update.failed(err)
		}
		if m.aging != nil {
			p.aging[m.at.root] = m.aging
		}
		faultpoint.Hit("publish:inrelease-renamed")
	}
	for _, m := range moves {
		if err := p.finish(m); err != nil {
			return m.update.failed(err)
		}
	}
	return nil
}

func (u Update) failed(err error) error {
	what := u.Dir
	if u.Signed == nil {
		what = "stage " + u.Dir
	}
	return fmt.Errorf("cannot publish %s of %s: %w", what, u.Pipeline, err)
}

// move is a base whose new index files have their names and whose new signed
// files wait for theirs.
type move struct {
	update  Update
	at      place
	indices []named
	aging   aging                 // of a stage, from now on; nil: as it was
	renames []func(ok bool) error // InRelease last
}

// rename moves the base.
func (m *move) rename() error {
	for len(m.renames) > 0 {
		rename := m.renames[0]
		m.renames = m.renames[1:]
		if err := rename(true); err != nil {
			return err
		}
	}
	return nil
}

// giveUp takes away what an error left waiting. What cannot be removed is
// removed by the next start.
func (m *move) giveUp() {
	for _, rename := range m.renames {
		_ = rename(false)
	}
}

// prepare does everything for a base that no client sees. It returns nil if
// nothing is to be done.
func (p *Publisher) prepare(ctx context.Context, u Update) (*move, error) {
	at := baseAt(u.Base, u.Dir)
	if u.Signed == nil {
		if err := ValidStage(u.Dir); err != nil {
			return nil, err
		}
	} else {
		if !fixedDirectory.MatchString(u.Dir) {
			return nil, errors.New("want snapshots/<id> or states/<id>")
		}
		if err := u.validate(); err != nil {
			return nil, err
		}
		there, err := p.published(at)
		if err == nil && there.equal(*u.Signed) {
			return nil, nil
		}
		// What is there already is never replaced by what nobody can verify: the
		// row that Signed came from may be damaged.
		if _, err := os.Lstat(p.tree.path(path.Join(at.dists, inReleaseFile))); err == nil {
			if err := p.verify(*u.Signed); err != nil {
				return nil, err
			}
		}
	}
	p.touch(at)
	indices, err := p.indices(ctx, u.Base, u.State)
	if err != nil {
		return nil, err
	}
	signed, err := p.sign(at, u, indices)
	if err != nil {
		return nil, err
	}
	var before map[string]int64
	if u.Signed == nil {
		if before, err = p.namedBefore(at); err != nil {
			return nil, err
		}
	}
	if faultpoint.RenameFirst {
		early := &move{update: u, at: at}
		_ = p.stageFiles(early, signed)
		_ = early.rename()
	}
	if err := p.writeIndices(at, indices); err != nil {
		return nil, err
	}
	m := &move{update: u, at: at, indices: indices}
	if u.Signed == nil {
		if m.aging, err = p.supersede(at, before, indices); err != nil {
			return nil, err
		}
	}
	if err := p.stageFiles(m, signed); err != nil {
		m.giveUp()
		return nil, err
	}
	return m, nil
}

// sign returns the signed files of a base.
func (p *Publisher) sign(at place, u Update, indices []named) (Signed, error) {
	if u.Signed != nil {
		if !bytes.HasSuffix(u.Signed.Text, []byte("\n"+section(indices))) {
			return Signed{}, errors.New("its Release text lists other index files than the state has: a frame was lost and came back with other bytes")
		}
		return *u.Signed, nil
	}
	meta := u.Meta
	meta.Suite = u.Dir
	text, err := releaseText(u.Base, u.State.ID(), meta, indices)
	if err != nil {
		return Signed{}, err
	}
	if there, err := p.published(at); err == nil && bytes.Equal(there.Text, text) && p.verify(there) == nil {
		return there, nil
	}
	return p.Sign(text)
}

// stageFiles writes the signed files under temporary names, modified at the
// time that HTTP compares to the second.
func (p *Publisher) stageFiles(m *move, signed Signed) error {
	at := m.update.Meta.Modified
	if at.IsZero() {
		var err error
		if at, err = dateOf(signed.Text); err != nil {
			return err
		}
	}
	for _, file := range []struct {
		name string
		data []byte
	}{{gpgFile, signed.Gpg}, {releaseFile, signed.Text}, {inReleaseFile, signed.InRelease}} {
		rename, err := p.tree.prepareFile(path.Join(m.at.dists, file.name), file.data, at)
		if err != nil {
			return err
		}
		m.renames = append(m.renames, rename)
	}
	return nil
}

// finish makes a move durable and removes the names that it left over.
func (p *Publisher) finish(m *move) error {
	if err := p.tree.syncDir(m.at.dists); err != nil {
		return err
	}
	if m.update.Signed != nil {
		return nil
	}
	return p.dropPlain(m.at, m.indices)
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
