package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Commit implements release.Store.
func (d *DB) Commit(ctx context.Context, b release.Batch) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		for _, write := range []func(context.Context, *sql.Tx, release.Batch) error{
			insertPipelines, updateMirrors, insertSnapshots, insertMoves, putStandings, insertBases, insertUploads, putRetention, drop,
		} {
			if err := write(ctx, tx, b); err != nil {
				return err
			}
		}
		return insertActs(ctx, tx, b.Acts)
	})
}

func insertPipelines(ctx context.Context, tx *sql.Tx, b release.Batch) error {
	for _, p := range b.Pipelines {
		if _, err := tx.ExecContext(ctx, `INSERT INTO pipelines (name, distribution, architectures, stages, keep_states, keep_days, private, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			p.Name, p.Distribution, jsonText(p.Architectures), jsonText(p.Stages), p.Retention.States, p.Retention.Days, p.Private, timeText(p.Created)); err != nil {
			return fmt.Errorf("cannot store pipeline %s: %w", p.Name, err)
		}
	}
	for _, c := range b.Components {
		var mirror any
		if c.Mirror != nil {
			mirror = jsonText(c.Mirror)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO components (pipeline, name, kind, keep, mirror, created) VALUES (?, ?, ?, ?, ?, ?)`,
			c.Pipeline, c.Name, string(c.Kind), c.Keep, mirror, timeText(c.Created)); err != nil {
			return fmt.Errorf("cannot store component %s: %w", c.Name, err)
		}
	}
	return nil
}

func updateMirrors(ctx context.Context, tx *sql.Tx, b release.Batch) error {
	for _, c := range b.Mirrors {
		result, err := tx.ExecContext(ctx, `UPDATE components SET mirror = ? WHERE pipeline = ? AND name = ? AND kind = 'mirror'`,
			jsonText(c.Mirror), c.Pipeline, c.Name)
		if err != nil {
			return fmt.Errorf("cannot store mirror %s: %w", c.Name, err)
		}
		switch n, err := result.RowsAffected(); {
		case err != nil:
			return fmt.Errorf("cannot store mirror %s: %w", c.Name, err)
		case n != 1:
			return fmt.Errorf("cannot store mirror %s: pipeline %s has none of that name", c.Name, c.Pipeline)
		}
	}
	return nil
}

func insertSnapshots(ctx context.Context, tx *sql.Tx, b release.Batch) error {
	for _, s := range b.Snapshots {
		if _, err := tx.ExecContext(ctx, `INSERT INTO snapshots (pipeline, id, state, labels, note, by, created, packages) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
			s.Pipeline, s.ID, s.State[:], jsonText(s.Labels), s.Note, s.By, timeText(s.Created), s.Packages); err != nil {
			return fmt.Errorf("cannot store snapshot %s: %w", s.ID, err)
		}
	}
	return nil
}

func insertMoves(ctx context.Context, tx *sql.Tx, b release.Batch) error {
	for _, m := range b.Moves {
		if _, err := tx.ExecContext(ctx, `INSERT INTO moves (pipeline, seq, stage, kind, from_state, from_snapshot, to_state, to_snapshot, by, reason, at, over)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			m.Pipeline, m.Seq, m.Stage, string(m.Kind), optionalID(m.From.State), m.From.Snapshot, m.To.State[:], m.To.Snapshot,
			m.By, m.Reason, timeText(m.At), m.Over); err != nil {
			return fmt.Errorf("cannot store move %d of stage %s: %w", m.Seq, m.Stage, err)
		}
	}
	return nil
}

func putStandings(ctx context.Context, tx *sql.Tx, b release.Batch) error {
	for _, s := range b.Standings {
		if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO stages
			(pipeline, name, position, state, snapshot, since, by, reason, packages, standing, date, valid_until, modified, archive)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			s.Pipeline, s.Name, s.Position, optionalID(s.Offer.State), s.Offer.Snapshot, optionalTime(s.Since), s.By, s.Reason, s.Packages,
			s.Standing, optionalTime(s.Date), optionalTime(s.ValidUntil), optionalTime(s.Modified), s.Archive); err != nil {
			return fmt.Errorf("cannot store stage %s: %w", s.Name, err)
		}
	}
	return nil
}

func insertBases(ctx context.Context, tx *sql.Tx, b release.Batch) error {
	for _, f := range b.Bases {
		if _, err := tx.ExecContext(ctx, `INSERT INTO bases (pipeline, dir, state, text, inrelease, signature) VALUES (?, ?, ?, ?, ?, ?)`,
			f.Pipeline, f.Dir, f.State[:], f.Text, f.InRelease, f.Signature); err != nil {
			return fmt.Errorf("cannot store base %s: %w", f.Dir, err)
		}
	}
	return nil
}

func insertUploads(ctx context.Context, tx *sql.Tx, b release.Batch) error {
	err := each(ctx, tx, `INSERT OR IGNORE INTO files (sha256, name, size) VALUES (?, ?, ?)`, b.Files, func(f release.File) []any {
		return []any{f.SHA256[:], f.Name, f.Size}
	})
	if err != nil {
		return fmt.Errorf("cannot store files: %w", err)
	}
	err = each(ctx, tx, `INSERT INTO uploads (pipeline, component, name, version, architecture, sha256, size, state, by, via, at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, b.Uploads, func(a release.Accepted) []any {
		return []any{a.Pipeline, a.Component, a.Name, a.Version, a.Architecture, a.SHA256[:], a.Size, a.State[:], a.By, a.Via, timeText(a.At)}
	})
	if err != nil {
		return fmt.Errorf("cannot store uploads: %w", err)
	}
	return nil
}

func insertActs(ctx context.Context, tx *sql.Tx, acts []release.Act) error {
	err := each(ctx, tx, `INSERT INTO acts (at, by, via, verb, pipeline, object, detail) VALUES (?, ?, ?, ?, ?, ?, ?)`, acts, func(a release.Act) []any {
		return []any{timeText(a.At), a.By, a.Via, a.Verb, a.Pipeline, a.Object, a.Detail}
	})
	if err != nil {
		return fmt.Errorf("cannot store the audit trail: %w", err)
	}
	return nil
}

// each runs a statement, which is read once, for every row.
func each[T any](ctx context.Context, tx *sql.Tx, query string, rows []T, values func(T) []any) error {
	if len(rows) == 0 {
		return nil
	}
	statement, err := tx.PrepareContext(ctx, query)
	if err != nil {
		return err
	}
	defer statement.Close()
	for _, row := range rows {
		if _, err := statement.ExecContext(ctx, values(row)...); err != nil {
			return err
		}
	}
	return nil
}

// Pipelines implements release.Store.
func (d *DB) Pipelines(ctx context.Context) ([]release.Pipeline, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT name, distribution, architectures, stages, keep_states, keep_days, private, deleted, created FROM pipelines ORDER BY name`)
	pipelines, err := list(rows, err, func(r *sql.Rows, p *release.Pipeline) error {
		return r.Scan(&p.Name, &p.Distribution, jsonValue[[]string]{&p.Architectures}, jsonValue[[]string]{&p.Stages},
			&p.Retention.States, &p.Retention.Days, &p.Private, &p.Deleted, timeValue{&p.Created})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot list pipelines: %w", err)
	}
	for i := range pipelines {
		p := &pipelines[i]
		rows, err := d.read.QueryContext(ctx, `SELECT pipeline, name, kind, keep, mirror, created FROM components WHERE pipeline = ? ORDER BY name`, p.Name)
		p.Components, err = list(rows, err, func(r *sql.Rows, c *release.Component) error {
			return r.Scan(&c.Pipeline, &c.Name, &c.Kind, &c.Keep, jsonValue[*release.MirrorConfig]{&c.Mirror}, timeValue{&c.Created})
		})
		if err != nil {
			return nil, fmt.Errorf("cannot list components of %s: %w", p.Name, err)
		}
	}
	return pipelines, nil
}

// Standings implements release.Store.
func (d *DB) Standings(ctx context.Context, pipeline string) ([]release.Standing, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT pipeline, name, position, state, snapshot, since, by, reason, packages, standing, date, valid_until, modified, archive
		FROM stages WHERE pipeline = ? ORDER BY position`, pipeline)
	return list(rows, err, func(r *sql.Rows, s *release.Standing) error {
		return r.Scan(&s.Pipeline, &s.Name, &s.Position, idValue(&s.Offer.State), &s.Offer.Snapshot, timeValue{&s.Since}, &s.By, &s.Reason,
			&s.Packages, &s.Standing, timeValue{&s.Date}, timeValue{&s.ValidUntil}, timeValue{&s.Modified}, &s.Archive)
	})
}

// Snapshots implements release.Store.
func (d *DB) Snapshots(ctx context.Context, pipeline string) ([]release.Snapshot, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT s.pipeline, s.id, s.state, s.labels, s.note, s.by, s.created, s.packages, p.by, p.reason, p.at
		FROM snapshots s LEFT JOIN pins p ON p.pipeline = s.pipeline AND p.snapshot = s.id WHERE s.pipeline = ? ORDER BY s.id`, pipeline)
	return list(rows, err, scanSnapshot)
}

const selectMoves = `SELECT pipeline, seq, stage, kind, from_state, from_snapshot, to_state, to_snapshot, by, reason, at, over FROM moves `

func scanMove(r *sql.Rows, m *release.Move) error {
	return r.Scan(&m.Pipeline, &m.Seq, &m.Stage, &m.Kind, idValue(&m.From.State), &m.From.Snapshot, idValue(&m.To.State), &m.To.Snapshot,
		&m.By, &m.Reason, timeValue{&m.At}, &m.Over)
}

// Moves implements release.Store.
func (d *DB) Moves(ctx context.Context, pipeline, stage string, limit int) ([]release.Move, error) {
	query, args := selectMoves+`WHERE pipeline = ? AND stage = ? ORDER BY seq DESC LIMIT ?`, []any{pipeline, stage, atMost(limit)}
	if stage == "" {
		query, args = selectMoves+`WHERE pipeline = ? ORDER BY seq DESC LIMIT ?`, []any{pipeline, atMost(limit)}
	}
	rows, err := d.read.QueryContext(ctx, query, args...)
	return list(rows, err, scanMove)
}

// Move implements release.Store.
func (d *DB) Move(ctx context.Context, pipeline string, seq int64) (release.Move, bool, error) {
	rows, err := d.read.QueryContext(ctx, selectMoves+`WHERE pipeline = ? AND seq = ?`, pipeline, seq)
	return first(list(rows, err, scanMove))
}

const selectBases = `SELECT pipeline, dir, state, text, inrelease, signature FROM bases `

func scanBase(r *sql.Rows, b *release.Base) error {
	return r.Scan(&b.Pipeline, &b.Dir, idValue(&b.State), &b.Text, &b.InRelease, &b.Signature)
}

// Bases implements release.Store.
func (d *DB) Bases(ctx context.Context, pipeline string) ([]release.Base, error) {
	rows, err := d.read.QueryContext(ctx, selectBases+`WHERE pipeline = ? ORDER BY number`, pipeline)
	return list(rows, err, scanBase)
}

// Base implements release.Store.
func (d *DB) Base(ctx context.Context, pipeline, dir string) (release.Base, bool, error) {
	rows, err := d.read.QueryContext(ctx, selectBases+`WHERE pipeline = ? AND dir = ?`, pipeline, dir)
	return first(list(rows, err, scanBase))
}

// HasBase implements release.Store.
func (d *DB) HasBase(ctx context.Context, pipeline, dir string) (bool, error) {
	return d.exists(ctx, `SELECT 1 FROM bases WHERE pipeline = ? AND dir = ?`, pipeline, dir)
}

// Files implements release.Store.
func (d *DB) Files(ctx context.Context) ([]release.File, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT sha256, name, size FROM files ORDER BY sha256`)
	return list(rows, err, func(r *sql.Rows, f *release.File) error {
		return r.Scan(hashValue{&f.SHA256}, &f.Name, &f.Size)
	})
}

// HasFile implements release.Store.
func (d *DB) HasFile(ctx context.Context, sha256 [32]byte) (bool, error) {
	return d.exists(ctx, `SELECT 1 FROM files WHERE sha256 = ?`, sha256[:])
}

func (d *DB) exists(ctx context.Context, query string, args ...any) (bool, error) {
	var one int
	err := d.read.QueryRowContext(ctx, query, args...).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

const selectUploads = `SELECT pipeline, component, name, version, architecture, sha256, size, state, by, via, at FROM uploads `

// selectAccepted takes a pipeline and a JSON list of [name, version, architecture].
const selectAccepted = `SELECT u.pipeline, u.component, u.name, u.version, u.architecture, u.sha256, u.size, u.state, u.by, u.via, u.at
	FROM json_each(?2) AS asked CROSS JOIN uploads AS u ON u.number = (
		SELECT max(number) FROM uploads WHERE pipeline = ?1 AND name = asked.value->>0 AND version = asked.value->>1 AND architecture = asked.value->>2)`

func scanUpload(r *sql.Rows, a *release.Accepted) error {
	return r.Scan(&a.Pipeline, &a.Component, &a.Name, &a.Version, &a.Architecture, hashValue{&a.SHA256}, &a.Size, idValue(&a.State), &a.By, &a.Via, timeValue{&a.At})
}

// Accepted implements release.Store.
func (d *DB) Accepted(ctx context.Context, pipeline string, packages ...snapshots.Ref) (map[snapshots.Ref]release.Accepted, error) {
	asked := make([][3]string, len(packages))
	for i, p := range packages {
		asked[i] = [3]string{p.Name, p.Version, p.Architecture}
	}
	rows, err := d.read.QueryContext(ctx, selectAccepted, pipeline, jsonText(asked))
	uploads, err := list(rows, err, scanUpload)
	if err != nil {
		return nil, fmt.Errorf("cannot look for earlier uploads: %w", err)
	}
	found := make(map[snapshots.Ref]release.Accepted, len(uploads))
	for _, a := range uploads {
		found[a.Ref()] = a
	}
	return found, nil
}

// Acts implements release.Store.
func (d *DB) Acts(ctx context.Context, pipeline string, limit int) ([]release.Act, error) {
	return d.FindActs(ctx, release.ActFilter{Pipeline: pipeline, Limit: limit})
}

// FindActs implements release.Store.
func (d *DB) FindActs(ctx context.Context, filter release.ActFilter) ([]release.Act, error) {
	var where []string
	var args []any
	restrict := func(yes bool, condition string, value any) {
		if yes {
			where, args = append(where, condition), append(args, value)
		}
	}
	restrict(filter.By != "", "by = ?", filter.By)
	restrict(filter.Pipeline != "", "pipeline = ?", filter.Pipeline)
	restrict(!filter.Since.IsZero(), "at >= ?", timeText(filter.Since))
	query := `SELECT at, by, via, verb, pipeline, object, detail FROM acts`
	if len(where) > 0 {
		query += ` WHERE ` + strings.Join(where, ` AND `)
	}
	rows, err := d.read.QueryContext(ctx, query+` ORDER BY number DESC LIMIT ?`, append(args, atMost(filter.Limit))...)
	return list(rows, err, func(r *sql.Rows, a *release.Act) error {
		return r.Scan(timeValue{&a.At}, &a.By, &a.Via, &a.Verb, &a.Pipeline, &a.Object, &a.Detail)
	})
}

// PutChange implements release.Store.
func (d *DB) PutChange(ctx context.Context, c release.Change) (release.Change, error) {
	var id any
	if c.ID != 0 {
		id = c.ID
	}
	err := d.inWrite(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO changes
			(id, kind, summary, pipeline, subject, status, by, reason, created, finished, done, total, unit, log, error)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			id, c.Kind, c.Summary, c.Pipeline, c.Subject, string(c.Status), c.By, c.Reason, timeText(c.Created), optionalTime(c.Finished),
			c.Done, c.Total, c.Unit, jsonText(c.Log), c.Error)
		if err != nil {
			return fmt.Errorf("cannot store change %s: %w", c.Summary, err)
		}
		c.ID, err = result.LastInsertId()
		return err
	})
	return c, err
}

// Changes implements release.Store.
func (d *DB) Changes(ctx context.Context, limit int) ([]release.Change, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT id, kind, summary, pipeline, subject, status, by, reason, created, finished, done, total, unit, log, error
		FROM changes ORDER BY id DESC LIMIT ?`, atMost(limit))
	return list(rows, err, func(r *sql.Rows, c *release.Change) error {
		return r.Scan(&c.ID, &c.Kind, &c.Summary, &c.Pipeline, &c.Subject, &c.Status, &c.By, &c.Reason, timeValue{&c.Created}, timeValue{&c.Finished},
			&c.Done, &c.Total, &c.Unit, jsonValue[[]string]{&c.Log}, &c.Error)
	})
}
