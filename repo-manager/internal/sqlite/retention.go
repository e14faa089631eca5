package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"aptfleet/repo-manager/internal/release"
)

// putRetention stores what of the past is kept, and who says so.
func putRetention(ctx context.Context, tx *sql.Tx, b release.Batch) error {
	for _, r := range b.Retentions {
		if _, err := tx.ExecContext(ctx, `UPDATE pipelines SET keep_states = ?, keep_days = ? WHERE name = ?`, r.States, r.Days, r.Pipeline); err != nil {
			return fmt.Errorf("cannot store the retention of %s: %w", r.Pipeline, err)
		}
	}
	for _, r := range b.Readings {
		if _, err := tx.ExecContext(ctx, `UPDATE pipelines SET private = ? WHERE name = ?`, r.Private, r.Pipeline); err != nil {
			return fmt.Errorf("cannot store who may read %s: %w", r.Pipeline, err)
		}
	}
	for _, p := range b.Pins {
		if _, err := tx.ExecContext(ctx, `INSERT INTO pins (pipeline, snapshot, by, reason, at) VALUES (?, ?, ?, ?, ?)`,
			p.Pipeline, p.Snapshot, p.By, p.Reason, timeText(p.At)); err != nil {
			return fmt.Errorf("cannot store the pin of snapshot %s: %w", p.Snapshot, err)
		}
	}
	for _, s := range b.Unpinned {
		if _, err := tx.ExecContext(ctx, `DELETE FROM pins WHERE pipeline = ? AND snapshot = ?`, s.Pipeline, s.ID); err != nil {
			return fmt.Errorf("cannot take the pin off snapshot %s: %w", s.ID, err)
		}
	}
	return nil
}

// drop forgets what a gc or the deletion of a snapshot lets go.
func drop(ctx context.Context, tx *sql.Tx, b release.Batch) error {
	for _, s := range b.Dropped.Snapshots {
		if _, err := tx.ExecContext(ctx, `DELETE FROM snapshots WHERE pipeline = ? AND id = ?`, s.Pipeline, s.ID); err != nil {
			return fmt.Errorf("cannot delete snapshot %s: %w", s.ID, err)
		}
		if _, err := tx.ExecContext(ctx, `UPDATE pipelines SET deleted = max(deleted, ?) WHERE name = ?`, s.ID, s.Pipeline); err != nil {
			return fmt.Errorf("cannot delete snapshot %s: %w", s.ID, err)
		}
	}
	for _, f := range b.Dropped.Bases {
		if _, err := tx.ExecContext(ctx, `DELETE FROM bases WHERE pipeline = ? AND dir = ?`, f.Pipeline, f.Dir); err != nil {
			return fmt.Errorf("cannot drop base %s: %w", f.Dir, err)
		}
	}
	if len(b.Dropped.Files) == 0 {
		return nil
	}
	file, err := tx.PrepareContext(ctx, `DELETE FROM files WHERE sha256 = ?`)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, sum := range b.Dropped.Files {
		if _, err := file.ExecContext(ctx, sum[:]); err != nil {
			return fmt.Errorf("cannot drop file %x: %w", sum, err)
		}
	}
	return nil
}

func scanSnapshot(r *sql.Rows, s *release.Snapshot) error {
	var by, reason sql.NullString
	var pin release.Pin
	if err := r.Scan(&s.Pipeline, &s.ID, idValue(&s.State), jsonValue[[]string]{&s.Labels}, &s.Note, &s.By, timeValue{&s.Created}, &s.Packages,
		&by, &reason, timeValue{&pin.At}); err != nil {
		return err
	}
	if by.Valid {
		pin.Pipeline, pin.Snapshot, pin.By, pin.Reason = s.Pipeline, s.ID, by.String, reason.String
		s.Pin = &pin
	}
	return nil
}

// Below implements release.Store.
func (d *DB) Below(ctx context.Context, pipeline string, seq int64) ([]release.Move, error) {
	rows, err := d.read.QueryContext(ctx, `WITH RECURSIVE chain (number, depth) AS (
			SELECT ?2, 0
			UNION ALL
			SELECT moves.over, chain.depth + 1 FROM chain JOIN moves ON moves.pipeline = ?1 AND moves.seq = chain.number WHERE moves.over != 0)
		SELECT pipeline, seq, stage, kind, from_state, from_snapshot, to_state, to_snapshot, by, reason, at, over
		FROM chain JOIN moves ON moves.pipeline = ?1 AND moves.seq = chain.number ORDER BY chain.depth`, pipeline, seq)
	return list(rows, err, scanMove)
}

// BaseStates implements release.Store.
func (d *DB) BaseStates(ctx context.Context, pipeline string) ([]release.Base, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT pipeline, dir, state FROM bases WHERE pipeline = ? ORDER BY number`, pipeline)
	return list(rows, err, func(r *sql.Rows, b *release.Base) error {
		return r.Scan(&b.Pipeline, &b.Dir, idValue(&b.State))
	})
}

// PutResult implements release.Store.
func (d *DB) PutResult(ctx context.Context, change int64, result []byte) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO results (change, result) VALUES (?, ?)`, change, string(result))
		return err
	})
}

// Result implements release.Store.
func (d *DB) Result(ctx context.Context, change int64) ([]byte, bool, error) {
	var result string
	err := d.read.QueryRowContext(ctx, `SELECT result FROM results WHERE change = ?`, change).Scan(&result)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return []byte(result), err == nil, err
}

// compactPages is how many pages of 4 KiB one Compact frees: some megabytes
// that are written to the log.
const compactPages = 500

// Compact implements release.Store. A database that was made before files
// were made to shrink uses its free pages again and keeps its size.
func (d *DB) Compact(ctx context.Context) (bool, error) {
	// Each row is a page that was freed: whoever stops reading stops the work.
	rows, err := d.write.QueryContext(ctx, fmt.Sprintf(`PRAGMA incremental_vacuum(%d)`, compactPages))
	if err != nil {
		return false, classify(err)
	}
	for rows.Next() {
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return false, classify(err)
	}
	var mode, free int
	err = errors.Join(
		d.write.QueryRowContext(ctx, `PRAGMA auto_vacuum`).Scan(&mode),
		d.write.QueryRowContext(ctx, `PRAGMA freelist_count`).Scan(&free),
	)
	return mode != 0 && free > 0, classify(err)
}
