package release

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// rowFinding is a row of the store that is lost or altered.
type rowFinding struct {
	Finding
	mend func(*Mending) // nil: it must be restored
	did  string         // what mend will have done
}

// key tells findings of two looks apart.
func (f rowFinding) key() string { return f.Path + ": " + f.Reason }

// audit looks for rows that contradict what signatures, other rows and the
// engine say.
type audit struct {
	e     *Engine
	found []rowFinding
}

// row calls a row in a finding.
func (e *Engine) row(table string, key ...string) string {
	return e.Database + ": " + table + " " + strings.Join(key, "/")
}

// bad notes a row that must be restored.
func (a *audit) bad(path, restore, reason string, args ...any) {
	a.found = append(a.found, rowFinding{Finding: Finding{Path: path, Reason: fmt.Sprintf(reason, args...), Restore: restore}})
}

// mendable notes a row that can be made again.
func (a *audit) mendable(path, reason, did string, mend func(*Mending)) {
	a.found = append(a.found, rowFinding{Finding: Finding{Path: path, Reason: reason}, mend: mend, did: did})
}

// fromBackup is what helps where rows are primary data.
const fromBackup = "restore the database from a backup"

// rows returns the rows that are lost or altered. With signatures, those of
// fixed bases are verified too, which Publisher.Check does by itself. alone runs
// a function while nobody commits.
func (e *Engine) rows(ctx context.Context, signatures bool, alone func(func(context.Context) error) error) ([]rowFinding, error) {
	a := &audit{e: e}
	damage, err := e.Store.Integrity(ctx)
	if err != nil {
		return nil, because(err, "cannot check the database")
	}
	for _, sentence := range damage {
		a.mendable(e.Database, sentence, "its lookups are made again", func(m *Mending) { m.Lookups = true })
	}
	err = alone(a.memory)
	for name := range e.all() {
		for _, look := range []func(context.Context, *line) error{
			a.moves,
			func(ctx context.Context, l *line) error { return a.bases(ctx, l, signatures) },
		} {
			if err == nil {
				err = a.twice(ctx, name, look, alone)
			}
		}
	}
	if err == nil {
		err = a.uploads(ctx)
	}
	if err != nil && len(damage) > 0 && ctx.Err() == nil {
		a.bad(e.Database, fromBackup, "cannot be read any further: %v", err)
		err = nil
	}
	return a.found, err
}

// twice looks at a pipeline while others may commit, and if that finds
// something, once more while nobody does.
func (a *audit) twice(ctx context.Context, pipeline string, look func(context.Context, *line) error, alone func(func(context.Context) error) error) error {
	l, err := a.e.line(pipeline)
	if err != nil {
		return err
	}
	before := len(a.found)
	if err := look(ctx, l); err != nil || len(a.found) == before {
		return err
	}
	a.found = a.found[:before]
	return alone(func(context.Context) error {
		if l, err = a.e.line(pipeline); err != nil {
			return err
		}
		return look(ctx, l)
	})
}

// memory compares rows with what the engine works with: it read them when the
// server started, and nobody else writes them.
func (a *audit) memory(ctx context.Context) error {
	stored, err := a.e.Store.Pipelines(ctx)
	if err != nil {
		return err
	}
	for _, l := range a.e.all() {
		at := slices.IndexFunc(stored, func(p Pipeline) bool { return p.Name == l.Name })
		if at < 0 {
			a.mendable(a.e.row("pipelines", l.Name), "is missing", "written again as the server knows it", func(m *Mending) {
				m.Pipelines, m.Components = append(m.Pipelines, l.Pipeline), append(m.Components, l.Components...)
			})
			continue
		}
		a.pipeline(l, stored[at])
		if err := a.stages(ctx, l); err != nil {
			return err
		}
		if err := a.snapshots(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// differ says what is wrong with a row.
func differ(missing bool) string {
	if missing {
		return "is missing"
	}
	return "is not what it was committed as"
}

func (a *audit) pipeline(l *line, stored Pipeline) {
	known := l.Pipeline
	known.Components = stored.Components
	if !reflect.DeepEqual(known, stored) {
		a.mendable(a.e.row("pipelines", l.Name), differ(false), "written again as the server knows it", func(m *Mending) { m.Pipelines = append(m.Pipelines, l.Pipeline) })
	}
	for _, c := range l.Components {
		at := slices.IndexFunc(stored.Components, func(o Component) bool { return o.Name == c.Name })
		if at < 0 || !reflect.DeepEqual(stored.Components[at], c) {
			a.mendable(a.e.row("components", l.Name, c.Name), differ(at < 0), "written again as the server knows it", func(m *Mending) { m.Components = append(m.Components, c) })
		}
	}
	names := make(map[string]bool)
	for _, key := range l.head().Keys() {
		names[key.Component] = true
	}
	for _, c := range l.Components {
		delete(names, c.Name)
	}
	for name := range names {
		a.bad(a.e.row("components", l.Name, name), fromBackup, "is missing: the pipeline has packages in this component, and nothing says what it is")
	}
}

func (a *audit) stages(ctx context.Context, l *line) error {
	stored, err := a.e.Store.Standings(ctx, l.Name)
	if err != nil {
		return err
	}
	for _, s := range l.standings {
		at := slices.IndexFunc(stored, func(o Standing) bool { return o.Name == s.Name })
		if at < 0 || !reflect.DeepEqual(stored[at], s) {
			a.mendable(a.e.row("stages", l.Name, s.Name), differ(at < 0), "written again, as its last move and its InRelease say", func(m *Mending) { m.Standings = append(m.Standings, s) })
		}
	}
	for _, s := range stored {
		if !slices.Contains(l.Stages, s.Name) {
			a.mendable(a.e.row("stages", l.Name, s.Name), "is of no stage of the pipeline", "dropped", func(m *Mending) {
				m.Drop = append(m.Drop, RowName{Table: "stages", Pipeline: l.Name, Key: s.Name})
			})
		}
	}
	return nil
}

func (a *audit) snapshots(ctx context.Context, l *line) error {
	stored, err := a.e.Store.Snapshots(ctx, l.Name)
	if err != nil {
		return err
	}
	for _, s := range l.snapshots {
		at := slices.IndexFunc(stored, func(o Snapshot) bool { return o.ID == s.ID })
		if len(s.Labels) == 0 {
			s.Labels = nil // as it is stored
		}
		if at < 0 || !reflect.DeepEqual(stored[at], s) {
			a.mendable(a.e.row("snapshots", l.Name, s.ID), differ(at < 0), "written again, as its Release and the audit trail say; labels that only the row had are lost",
				func(m *Mending) { m.Snapshots = append(m.Snapshots, s) })
		}
	}
	for _, s := range stored {
		if !slices.ContainsFunc(l.snapshots, func(o Snapshot) bool { return o.ID == s.ID }) {
			a.mendable(a.e.row("snapshots", l.Name, s.ID), "is of a snapshot that was never published", "dropped", func(m *Mending) {
				m.Drop = append(m.Drop, RowName{Table: "snapshots", Pipeline: l.Name, Key: s.ID})
			})
		}
	}
	return nil
}

// moves follows the history of a pipeline: numbers have no gaps, and each move
// of a stage begins where the one before ended.
func (a *audit) moves(ctx context.Context, l *line) error {
	moves, err := a.e.Store.Moves(ctx, l.Name, "", 0)
	if err != nil {
		return err
	}
	slices.Reverse(moves)
	const lost = fromBackup + "; until then the history lacks it, and an undo may not go back beyond it"
	next, bySeq, last := int64(1), make(map[int64]Move), make(map[string]Move)
	for _, m := range moves {
		for ; next < m.Seq; next++ {
			a.bad(a.e.row("moves", l.Name, fmt.Sprint(next)), lost, "is missing")
		}
		next = m.Seq + 1
		path, before := a.e.row("moves", l.Name, fmt.Sprint(m.Seq)), last[m.Stage]
		over, known := bySeq[m.Over]
		switch {
		case !slices.Contains(l.Stages, m.Stage):
			a.bad(path, lost, "is of stage %s, which the pipeline does not have", m.Stage)
		case m.From != before.To:
			a.bad(path, lost, "does not begin where move %d of stage %s ended: one of the two is altered, or a move between them is lost", before.Seq, m.Stage)
		case m.Over != 0 && (!known || over.Stage != m.Stage):
			a.bad(path, lost, "goes back to move %d, which is none of its stage", m.Over)
		}
		bySeq[m.Seq], last[m.Stage] = m, m
	}
	for _, s := range l.standings {
		switch m := last[s.Name]; {
		case s.Standing > m.Seq:
			if s.Standing >= next {
				a.bad(a.e.row("moves", l.Name, fmt.Sprint(s.Standing)), lost, "is missing: it put what stage %s offers there", s.Name)
			}
		case !s.Offer.State.IsZero() && !s.follows(m):
			a.bad(a.e.row("moves", l.Name, fmt.Sprint(m.Seq)), lost, "is not the move that put what stage %s offers there", s.Name)
		}
	}
	return nil
}

// bases holds the rows of fixed bases against what they sign, and looks for
// rows that are lost.
func (a *audit) bases(ctx context.Context, l *line, signatures bool) error {
	dirs, err := a.e.Publisher.Dirs(l.Name)
	if err != nil {
		return err
	}
	stored, err := a.e.Store.Bases(ctx, l.Name)
	if err != nil {
		return err
	}
	rows := make(map[string]Base)
	for _, b := range stored {
		rows[b.Dir] = b
	}
	needed := make(map[string]bool) // without them a name leads nowhere
	for _, s := range l.snapshots {
		needed["snapshots/"+s.ID] = true
	}
	needed["states/"+l.head().ID().String()] = true
	all := slices.Concat(dirs, slices.Collect(maps.Keys(rows)), slices.Collect(maps.Keys(needed)))
	slices.Sort(all)
	for _, dir := range slices.Compact(all) {
		row, there := rows[dir]
		if there {
			err := row.agrees(publish.ParseRelease(row.Text))
			if err == nil && signatures {
				err = a.e.Publisher.Verify(*row.signed())
			}
			if err == nil {
				continue
			}
			a.base(ctx, l, row, fmt.Sprintf("is not what it was committed as: %v", err))
			continue
		}
		a.base(ctx, l, Base{Pipeline: l.Name, Dir: dir}, "is missing")
		if !needed[dir] && a.found[len(a.found)-1].mend == nil {
			// A directory that says nothing credible is the publisher's to judge.
			a.found = a.found[:len(a.found)-1]
		}
	}
	return nil
}

// agrees returns an error unless a Release text is that of the base.
func (b Base) agrees(fields publish.ReleaseFields) error {
	kind, name, _ := strings.Cut(b.Dir, "/")
	switch {
	case fields.Pipeline != b.Pipeline:
		return fmt.Errorf("its Release is of pipeline %q", fields.Pipeline)
	case !b.State.IsZero() && fields.State != b.State || fields.State.IsZero():
		return fmt.Errorf("its Release is of state %s", fields.State)
	case kind == "snapshots" && fields.Snapshot != name, kind == "states" && (fields.State.String() != name || fields.Snapshot != ""):
		return fmt.Errorf("its Release is of snapshot %q, state %s", fields.Snapshot, fields.State)
	}
	return nil
}

// base finds the row of a fixed base that is lost or altered in what is left of
// it, there and in the published tree.
func (a *audit) base(ctx context.Context, l *line, row Base, reason string) {
	path := a.e.row("bases", l.Name, row.Dir)
	there := a.e.Publisher.PublishedParts(publish.Base{Pipeline: l.Name, Distribution: l.Distribution}, row.Dir)
	signed, whole := a.join(there, *row.signed())
	if signed.Text == nil {
		a.bad(path, fromBackup+", or the files of this base in the published tree", "%s", reason)
		return
	}
	made := Base{Pipeline: l.Name, Dir: row.Dir}
	fields := publish.ParseRelease(signed.Text)
	made.State = fields.State
	if made.agrees(fields) != nil {
		if row.Text == nil {
			a.bad(path, fromBackup, "%s", reason)
			return
		}
		a.mendable(path, reason, "dropped: it is the base of another directory", func(m *Mending) {
			m.Drop = append(m.Drop, RowName{Table: "bases", Pipeline: l.Name, Key: row.Dir})
		})
		return
	}
	if _, err := snapshots.Load(ctx, a.e.Chunks, made.State); err != nil && row.Text == nil {
		a.bad(path, fromBackup, "%s, and its state cannot be read: %v", reason, err)
		return
	}
	did := "read again from the published tree, whose signatures are good"
	switch {
	case !whole:
		anew, err := a.e.Publisher.Sign(signed.Text)
		if err != nil {
			a.bad(path, fromBackup, "%s", reason)
			return
		}
		did = "the same Release is signed anew where its signature was lost"
		if signed.InRelease == nil {
			signed.InRelease = anew.InRelease
		}
		if signed.Gpg == nil {
			signed.Gpg = anew.Gpg
		}
	case string(signed.InRelease) == string(row.InRelease) && string(signed.Gpg) == string(row.Signature):
		did = "corrected by what it has signed"
	}
	made.Text, made.InRelease, made.Signature = signed.Text, signed.InRelease, signed.Gpg
	a.mendable(path, reason, did, func(m *Mending) { m.Bases = append(m.Bases, made) })
}

// join takes the parts of signed files that have good signatures. Parts that are
// missing are nil; whole says that none is.
func (a *audit) join(copies ...publish.Signed) (signed publish.Signed, whole bool) {
	for _, c := range copies {
		if text, err := a.e.Publisher.VerifyPart(publish.Signed{InRelease: c.InRelease}); err == nil && signed.Text == nil {
			signed.Text, signed.InRelease = text, c.InRelease
		}
	}
	for _, c := range copies {
		for _, text := range [][]byte{signed.Text, c.Text} {
			if text == nil || signed.Gpg != nil || signed.Text != nil && string(text) != string(signed.Text) {
				continue
			}
			if _, err := a.e.Publisher.VerifyPart(publish.Signed{Text: text, Gpg: c.Gpg}); err == nil {
				signed.Text, signed.Gpg = text, c.Gpg
			}
		}
	}
	return signed, signed.InRelease != nil && signed.Gpg != nil
}

// uploads holds the record of files against that of uploads. An upload without a
// file is no damage: a gc removed what no state needed. What a state needs is
// looked at by whoever opens its chunks.
func (a *audit) uploads(ctx context.Context) error {
	uploads, err := a.e.Store.Uploads(ctx)
	if err != nil {
		return err
	}
	files, err := a.e.Store.Files(ctx)
	if err != nil {
		return err
	}
	known := make(map[[32]byte]File, len(files))
	for _, f := range files {
		known[f.SHA256] = f
	}
	for _, u := range uploads {
		due := File{SHA256: u.SHA256, Name: deb.FileName(u.Name, u.Version, u.Architecture), Size: u.Size}
		if there, ok := known[u.SHA256]; ok && there != due {
			known[u.SHA256] = due
			a.file(due, false, "the record of uploads")
		}
	}
	return nil
}

// file notes the row of a file that is lost or altered.
func (a *audit) file(due File, missing bool, who string) {
	a.mendable(a.e.row("files", hex.EncodeToString(due.SHA256[:])), differ(missing), "written again as "+who+" says: "+due.Name,
		func(m *Mending) { m.Files = append(m.Files, due) })
}

// byPath orders findings.
func byPath(a, b Finding) int {
	return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Reason, b.Reason))
}
