// Package sqlite is the database of repo-manager: one SQLite file in WAL mode
// that is synced on every commit. It holds all SQL there is and implements
// the stores of packages release, access, fleet and configuration.
//
// Writers share one connection, so a write never meets SQLITE_BUSY from
// within the process; readers have connections of their own and see the last
// commit.
package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"sort"

	"github.com/mattn/go-sqlite3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// readers bounds the connections that only read.
const readers = 4

// DB is an open database. Its methods may be called concurrently.
type DB struct {
	write *sql.DB // one connection
	read  *sql.DB
}

// Open opens the database file at path, creates it if it is absent (mode
// 0600 is the caller's umask), and brings its schema up to date. A database
// of a newer program is refused.
func Open(ctx context.Context, path string) (*DB, error) {
	write, err := sql.Open("sqlite3", source(path, "_txlock", "immediate", "_auto_vacuum", "incremental"))
	if err != nil {
		return nil, fmt.Errorf("cannot open database %s: %w", path, err)
	}
	write.SetMaxOpenConns(1)
	if err := migrate(ctx, write); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open database %s: %w", path, err), write.Close())
	}
	read, err := sql.Open("sqlite3", source(path, "_query_only", "true"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open database %s: %w", path, err), write.Close())
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	return &DB{write: write, read: read}, nil
}

// source is the driver's name of the file at path. WAL with synchronous=FULL
// syncs the log at each commit; the driver's default in WAL mode does not
// and may lose commits when the power goes. more is further keys and values.
func source(path string, more ...string) string {
	q := url.Values{
		"_journal_mode": {"WAL"},
		"_synchronous":  {"FULL"},
		"_foreign_keys": {"on"},
		"_busy_timeout": {"5000"},
	}
	for i := 0; i < len(more); i += 2 {
		q.Set(more[i], more[i+1])
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// Close closes all connections; the log is folded into the file.
func (d *DB) Close() error {
	return errors.Join(d.read.Close(), d.write.Close())
}

// migrate applies the numbered migrations that the database has not seen,
// each in a transaction of its own, and refuses one that changed since.
func migrate(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS migrations (
		name TEXT PRIMARY KEY, sha256 BLOB NOT NULL) STRICT, WITHOUT ROWID`); err != nil {
		return fmt.Errorf("cannot read schema: %w", err)
	}
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	sort.Strings(names)
	known := make(map[string]bool, len(names))
	for _, name := range names {
		known[name] = true
		if err := apply(ctx, db, name); err != nil {
			return fmt.Errorf("cannot apply %s: %w", name, err)
		}
	}
	rows, err := db.QueryContext(ctx, `SELECT name FROM migrations ORDER BY name`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		if !known[name] {
			return fmt.Errorf("its schema has %s, which this program does not know: it was written by a newer repo-manager", name)
		}
	}
	return rows.Err()
}

func apply(ctx context.Context, db *sql.DB, name string) error {
	text, err := fs.ReadFile(migrations, name)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(text)
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer rollback(tx)
	var seen []byte
	switch err := tx.QueryRowContext(ctx, `SELECT sha256 FROM migrations WHERE name = ?`, name).Scan(&seen); {
	case err == nil && string(seen) == string(sum[:]):
		return nil
	case err == nil:
		return errors.New("it was applied in another version before")
	case !errors.Is(err, sql.ErrNoRows):
		return err
	}
	if _, err := tx.ExecContext(ctx, string(text)); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO migrations VALUES (?, ?)`, name, sum[:]); err != nil {
		return err
	}
	return tx.Commit()
}

// rollback ends a transaction that was not committed. After a commit it does
// nothing, and a failure leaves nothing to repair: the driver drops the
// connection, and with it the transaction.
func rollback(tx *sql.Tx) { _ = tx.Rollback() }

// inWrite runs f in a transaction of the writing connection.
func (d *DB) inWrite(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return classify(err)
	}
	defer rollback(tx)
	if err := f(tx); err != nil {
		return classify(err)
	}
	return classify(tx.Commit())
}

// isFull tells whether SQLite found no room on the disk.
func isFull(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.Code == sqlite3.ErrFull || e.ExtendedCode == sqlite3.ErrIoErrWrite)
}

// isUnique tells whether a row of that key exists already.
func isUnique(err error) bool {
	var e sqlite3.Error
	return errors.As(err, &e) && (e.ExtendedCode == sqlite3.ErrConstraintUnique || e.ExtendedCode == sqlite3.ErrConstraintPrimaryKey)
}
