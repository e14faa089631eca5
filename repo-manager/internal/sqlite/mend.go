package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/mattn/go-sqlite3"

	"aptfleet/repo-manager/internal/release"
)

// Uploads implements release.Store.
func (d *DB) Uploads(ctx context.Context) ([]release.Accepted, error) {
	rows, err := d.read.QueryContext(ctx, selectUploads+`ORDER BY number`)
	return list(rows, err, scanUpload)
}

// Integrity implements release.Store: what SQLite's own checks say, and tables
// from which nothing is ever deleted but rows are missing.
func (d *DB) Integrity(ctx context.Context) ([]string, error) {
	var damage []string
	for _, check := range []func(context.Context) ([]string, error){d.integrityCheck, d.foreignKeyCheck, d.countRows} {
		found, err := check(ctx)
		if IsDamaged(err) {
			found, err = append(found, err.Error()), nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot check the database: %w", err)
		}
		damage = append(damage, found...)
	}
	return damage, nil
}

func (d *DB) integrityCheck(ctx context.Context) ([]string, error) {
	rows, err := d.read.QueryContext(ctx, `PRAGMA integrity_check`)
	found, err := list(rows, err, func(r *sql.Rows, text *string) error { return r.Scan(text) })
	if len(found) == 1 && found[0] == "ok" {
		found = nil
	}
	return found, err
}

func (d *DB) foreignKeyCheck(ctx context.Context) ([]string, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT "table", coalesce(rowid, ''), parent, count(*) FROM pragma_foreign_key_check GROUP BY "table", parent ORDER BY 1, 3`)
	return list(rows, err, func(r *sql.Rows, text *string) error {
		var table, row, parent string
		var n int
		if err := r.Scan(&table, &row, &parent, &n); err != nil {
			return err
		}
		if row != "" {
			row = ", the first is " + row
		}
		*text = fmt.Sprintf("%d rows of table %s name rows of table %s that are not there%s", n, table, parent, row)
		return nil
	})
}

// countRows finds gaps in the numbers of tables to which rows are only added.
func (d *DB) countRows(ctx context.Context) ([]string, error) {
	var found []string
	for _, table := range []string{"uploads", "acts"} {
		var missing int
		if err := d.read.QueryRowContext(ctx, `SELECT coalesce(max(number), 0) - count(*) FROM `+table).Scan(&missing); err != nil {
			return found, err
		}
		if missing != 0 {
			found = append(found, fmt.Sprintf("%d rows of table %s are missing", missing, table))
		}
	}
	return found, nil
}

// IsDamaged tells whether SQLite could not make sense of its file.
func IsDamaged(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrCorrupt || e.Code == sqlite3.ErrNotADB)
}

// Mend implements release.Store.
func (d *DB) Mend(ctx context.Context, m release.Mending) error {
	err := d.inWrite(ctx, func(tx *sql.Tx) error {
		if m.Lookups {
			if _, err := tx.ExecContext(ctx, `REINDEX`); err != nil {
				return err
			}
		}
		for _, mend := range []func(context.Context, *sql.Tx, release.Mending) error{
			dropRows, mendPipelines, mendSnapshots, mendBases, mendFiles,
		} {
			if err := mend(ctx, tx, m); err != nil {
				return err
			}
		}
		if err := putStandings(ctx, tx, release.Batch{Standings: m.Standings}); err != nil {
			return err
		}
		return insertActs(ctx, tx, m.Acts)
	})
	if err != nil {
		return fmt.Errorf("cannot mend the database: %w", err)
	}
	return nil
}

func dropRows(ctx context.Context, tx *sql.Tx, m release.Mending) error {
	statements := map[string]string{
		"snapshots": `DELETE FROM snapshots WHERE pipeline = ? AND id = ?`,
		"stages":    `DELETE FROM stages WHERE pipeline = ? AND name = ?`,
		"bases":     `DELETE FROM bases WHERE pipeline = ? AND dir = ?`,
	}
	for _, row := range m.Drop {
		var err error
		if row.Table == "snapshots" {
			if _, err := tx.ExecContext(ctx, `DELETE FROM pins WHERE pipeline = ? AND snapshot = ?`, row.Pipeline, row.Key); err != nil {
				return fmt.Errorf("cannot drop a pin: %w", err)
			}
		}
		if row.Table == "files" {
			_, err = tx.ExecContext(ctx, `DELETE FROM files WHERE sha256 = ?`, row.SHA256[:])
		} else {
			_, err = tx.ExecContext(ctx, statements[row.Table], row.Pipeline, row.Key)
		}
		if err != nil {
			return fmt.Errorf("cannot drop a row of %s: %w", row.Table, err)
		}
	}
	return nil
}

func mendPipelines(ctx context.Context, tx *sql.Tx, m release.Mending) error {
	for _, p := range m.Pipelines {
		if _, err := tx.ExecContext(ctx, `INSERT INTO pipelines (name, distribution, architectures, stages, keep_states, keep_days, private, deleted, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET distribution = excluded.distribution, architectures = excluded.architectures, stages = excluded.stages,
				keep_states = excluded.keep_states, keep_days = excluded.keep_days, private = excluded.private, deleted = excluded.deleted, created = excluded.created`,
			p.Name, p.Distribution, jsonText(p.Architectures), jsonText(p.Stages), p.Retention.States, p.Retention.Days, p.Private, p.Deleted, timeText(p.Created)); err != nil {
			return fmt.Errorf("cannot store pipeline %s: %w", p.Name, err)
		}
	}
	for _, c := range m.Components {
		var mirror any
		if c.Mirror != nil {
			mirror = jsonText(c.Mirror)
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO components (pipeline, name, kind, keep, mirror, created) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET kind = excluded.kind, keep = excluded.keep, mirror = excluded.mirror, created = excluded.created`,
			c.Pipeline, c.Name, string(c.Kind), c.Keep, mirror, timeText(c.Created)); err != nil {
			return fmt.Errorf("cannot store component %s: %w", c.Name, err)
		}
	}
	return nil
}

func mendSnapshots(ctx context.Context, tx *sql.Tx, m release.Mending) error {
	for _, s := range m.Snapshots {
		if _, err := tx.ExecContext(ctx, `INSERT INTO snapshots (pipeline, id, state, labels, note, by, created, packages) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO UPDATE SET state = excluded.state, labels = excluded.labels, note = excluded.note, by = excluded.by,
				created = excluded.created, packages = excluded.packages`,
			s.Pipeline, s.ID, s.State[:], jsonText(s.Labels), s.Note, s.By, timeText(s.Created), s.Packages); err != nil {
			return fmt.Errorf("cannot store snapshot %s: %w", s.ID, err)
		}
		if s.Pin == nil {
			continue
		}
		if _, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO pins (pipeline, snapshot, by, reason, at) VALUES (?, ?, ?, ?, ?)`,
			s.Pipeline, s.ID, s.Pin.By, s.Pin.Reason, timeText(s.Pin.At)); err != nil {
			return fmt.Errorf("cannot store the pin of snapshot %s: %w", s.ID, err)
		}
	}
	return nil
}

func mendBases(ctx context.Context, tx *sql.Tx, m release.Mending) error {
	for _, b := range m.Bases {
		if _, err := tx.ExecContext(ctx, `INSERT INTO bases (pipeline, dir, state, text, inrelease, signature) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (pipeline, dir) DO UPDATE SET state = excluded.state, text = excluded.text, inrelease = excluded.inrelease, signature = excluded.signature`,
			b.Pipeline, b.Dir, b.State[:], b.Text, b.InRelease, b.Signature); err != nil {
			return fmt.Errorf("cannot store base %s: %w", b.Dir, err)
		}
	}
	return nil
}

func mendFiles(ctx context.Context, tx *sql.Tx, m release.Mending) error {
	for _, f := range m.Files {
		if _, err := tx.ExecContext(ctx, `INSERT INTO files (sha256, name, size) VALUES (?, ?, ?)
			ON CONFLICT DO UPDATE SET name = excluded.name, size = excluded.size`, f.SHA256[:], f.Name, f.Size); err != nil {
			return fmt.Errorf("cannot store file %s: %w", f.Name, err)
		}
	}
	return nil
}
