package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"

	"github.com/mattn/go-sqlite3"

	"aptfleet/repo-manager/internal/backup"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// snapshot is the database as it was at one moment: a transaction that reads.
type snapshot struct{ conn *sql.Conn }

// Snapshot implements backup.Database. Until it is closed, what is written
// meanwhile stays in the write-ahead log, which grows.
func (d *DB) Snapshot(ctx context.Context) (backup.Snapshot, error) {
	conn, err := d.read.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read the database: %w", err)
	}
	s := &snapshot{conn}
	// BEGIN reads nothing yet: the first statement decides what is seen.
	_, err = conn.ExecContext(ctx, `BEGIN`)
	if err == nil {
		var n int
		err = conn.QueryRowContext(ctx, `SELECT count(*) FROM migrations`).Scan(&n)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot read the database: %w", err), s.Close())
	}
	return s, nil
}

// Close implements backup.Snapshot. A connection whose transaction cannot be
// ended is dropped.
func (s *snapshot) Close() error {
	if _, err := s.conn.ExecContext(context.Background(), `ROLLBACK`); err != nil {
		return errors.Join(s.conn.Raw(func(any) error { return driver.ErrBadConn }), s.conn.Close())
	}
	return s.conn.Close()
}

// pagesAtOnce bounds what is copied between two looks at the context.
const pagesAtOnce = 1000

// CopyTo implements backup.Snapshot: every page where it was, so that two
// copies of a database differ where it changed.
func (s *snapshot) CopyTo(ctx context.Context, path string) error {
	name := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: "_journal_mode=OFF&_synchronous=OFF"}).String()
	opened, err := new(sqlite3.SQLiteDriver).Open(name)
	if err != nil {
		return fmt.Errorf("cannot copy the database: %w", classify(err))
	}
	into, ok := opened.(*sqlite3.SQLiteConn)
	if !ok {
		return errors.Join(errors.New("cannot copy the database: the driver is another"), opened.Close())
	}
	err = s.conn.Raw(func(from any) error {
		source, ok := from.(*sqlite3.SQLiteConn)
		if !ok {
			return errors.New("the driver is another")
		}
		b, err := into.Backup("main", source, "main")
		if err != nil {
			return err
		}
		for done := false; !done && err == nil; {
			if err = ctx.Err(); err == nil {
				done, err = b.Step(pagesAtOnce)
			}
		}
		return errors.Join(err, b.Finish())
	})
	if err := errors.Join(err, into.Close()); err != nil {
		return fmt.Errorf("cannot copy the database: %w", classify(err))
	}
	return nil
}

// Files implements backup.Snapshot.
func (s *snapshot) Files(ctx context.Context) ([]release.File, error) {
	rows, err := s.conn.QueryContext(ctx, `SELECT sha256, name, size FROM files ORDER BY sha256`)
	return list(rows, err, func(r *sql.Rows, f *release.File) error {
		return r.Scan(hashValue{&f.SHA256}, &f.Name, &f.Size)
	})
}

// States implements backup.Snapshot.
func (s *snapshot) States(ctx context.Context) ([]snapshots.ID, error) {
	rows, err := s.conn.QueryContext(ctx, `SELECT state FROM bases UNION SELECT state FROM stages WHERE state IS NOT NULL`)
	return list(rows, err, func(r *sql.Rows, id *snapshots.ID) error { return r.Scan(idValue(id)) })
}

// Stages implements backup.Snapshot.
func (s *snapshot) Stages(ctx context.Context) ([]backup.Stage, error) {
	rows, err := s.conn.QueryContext(ctx, `SELECT stages.pipeline, pipelines.distribution, stages.name
		FROM stages JOIN pipelines ON pipelines.name = stages.pipeline WHERE stages.state IS NOT NULL`)
	return list(rows, err, func(r *sql.Rows, stage *backup.Stage) error {
		return r.Scan(&stage.Pipeline, &stage.Distribution, &stage.Name)
	})
}

// Restored notes in a database that was just restored who did that. The
// change that made the backup is over there, links and sessions of browsers
// are not good on another machine, and standings are stages that are to be
// signed anew.
func (d *DB) Restored(ctx context.Context, change int64, standings []release.Standing, act release.Act) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		for _, statement := range []string{`DELETE FROM links`, `DELETE FROM sessions`} {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("cannot end sessions: %w", err)
			}
		}
		if _, err := tx.ExecContext(ctx, `UPDATE changes SET status = 'done', finished = ? WHERE id = ? AND status = 'doing'`,
			timeText(act.At), change); err != nil {
			return fmt.Errorf("cannot end change %d: %w", change, err)
		}
		if err := putStandings(ctx, tx, release.Batch{Standings: standings}); err != nil {
			return err
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
}
