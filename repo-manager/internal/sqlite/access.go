package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// PutUser implements access.Store.
func (d *DB) PutUser(ctx context.Context, u access.User, act release.Act) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO users (name, roles, created) VALUES (?, ?, ?)`, u.Name, jsonText(u.Roles), timeText(u.Created))
		if isUnique(err) {
			return access.ErrExists
		}
		if err != nil {
			return fmt.Errorf("cannot store user %s: %w", u.Name, err)
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
}

func scanUser(r *sql.Rows, u *access.User) error {
	return r.Scan(&u.Name, jsonValue[[]string]{&u.Roles}, timeValue{&u.Created})
}

// User implements access.Store.
func (d *DB) User(ctx context.Context, name string) (access.User, bool, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT name, roles, created FROM users WHERE name = ?`, name)
	return first(list(rows, err, scanUser))
}

// Users implements access.Store.
func (d *DB) Users(ctx context.Context) ([]access.User, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT name, roles, created FROM users ORDER BY name`)
	return list(rows, err, scanUser)
}

// PutToken implements access.Store.
func (d *DB) PutToken(ctx context.Context, t access.Token, secret access.Hash, act release.Act) (access.Token, error) {
	err := d.inWrite(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `INSERT INTO tokens (user, label, roles, created, secret) VALUES (?, ?, ?, ?, ?)`,
			t.User, t.Label, jsonText(t.Roles), timeText(t.Created), secret[:])
		if err != nil {
			return fmt.Errorf("cannot store token %s: %w", t.Label, err)
		}
		if t.ID, err = result.LastInsertId(); err != nil {
			return err
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
	return t, err
}

func scanToken(r *sql.Rows, t *access.Token) error {
	return r.Scan(&t.ID, &t.User, &t.Label, jsonValue[[]string]{&t.Roles}, timeValue{&t.Created})
}

// TokenBySecret implements access.Store.
func (d *DB) TokenBySecret(ctx context.Context, secret access.Hash) (access.Token, bool, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT id, user, label, roles, created FROM tokens WHERE secret = ?`, secret[:])
	return first(list(rows, err, scanToken))
}

// Tokens implements access.Store.
func (d *DB) Tokens(ctx context.Context) ([]access.Token, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT id, user, label, roles, created FROM tokens ORDER BY id`)
	return list(rows, err, scanToken)
}

// DeleteToken implements access.Store.
func (d *DB) DeleteToken(ctx context.Context, id int64, act release.Act) (bool, error) {
	return d.delete(ctx, act, `DELETE FROM tokens WHERE id = ?`, id)
}

// errNothing undoes a transaction that found nothing to change.
var errNothing = errors.New("nothing to change")

// delete removes rows and records the act, if there were any.
func (d *DB) delete(ctx context.Context, act release.Act, query string, args ...any) (bool, error) {
	err := d.inWrite(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return err
		}
		if n == 0 {
			return errNothing
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return err == nil, err
}

// PutLink implements access.Store.
func (d *DB) PutLink(ctx context.Context, secret access.Hash, g access.Grant, now time.Time, act release.Act) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM links WHERE expires < ?`, timeText(now)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO links (secret, user, expires) VALUES (?, ?, ?)`, secret[:], g.User, timeText(g.Expires)); err != nil {
			return fmt.Errorf("cannot store login link: %w", err)
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
}

func scanGrant(r *sql.Rows, g *access.Grant) error { return r.Scan(&g.User, timeValue{&g.Expires}) }

// Link implements access.Store.
func (d *DB) Link(ctx context.Context, secret access.Hash) (access.Grant, bool, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT user, expires FROM links WHERE secret = ?`, secret[:])
	return first(list(rows, err, scanGrant))
}

// Redeem implements access.Store.
func (d *DB) Redeem(ctx context.Context, link, session access.Hash, g access.Grant, now time.Time, act release.Act) (bool, error) {
	err := d.inWrite(ctx, func(tx *sql.Tx) error {
		result, err := tx.ExecContext(ctx, `DELETE FROM links WHERE secret = ? AND expires > ?`, link[:], timeText(now))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, errNothing)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE expires < ?`, timeText(now)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO sessions (secret, user, expires) VALUES (?, ?, ?)`, session[:], g.User, timeText(g.Expires)); err != nil {
			return fmt.Errorf("cannot store session: %w", err)
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return err == nil, err
}

// Session implements access.Store.
func (d *DB) Session(ctx context.Context, secret access.Hash) (access.Grant, bool, error) {
	rows, err := d.read.QueryContext(ctx, `SELECT user, expires FROM sessions WHERE secret = ?`, secret[:])
	return first(list(rows, err, scanGrant))
}

// DeleteSession implements access.Store.
func (d *DB) DeleteSession(ctx context.Context, secret access.Hash) error {
	return d.inWrite(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE secret = ?`, secret[:])
		return err
	})
}

// first is the only row of a lookup by key.
func first[T any](found []T, err error) (T, bool, error) {
	if err != nil || len(found) == 0 {
		var none T
		return none, false, err
	}
	return found[0], true, nil
}
