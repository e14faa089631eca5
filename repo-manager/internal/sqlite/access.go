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

const selectUsers = `SELECT name, roles, created, disabled FROM users `

func scanUser(r *sql.Rows, u *access.User) error {
	return r.Scan(&u.Name, jsonValue[[]string]{&u.Roles}, timeValue{&u.Created}, timeValue{&u.Disabled})
}

// User implements access.Store.
func (d *DB) User(ctx context.Context, name string) (access.User, bool, error) {
	rows, err := d.read.QueryContext(ctx, selectUsers+`WHERE name = ?`, name)
	return first(list(rows, err, scanUser))
}

// Users implements access.Store.
func (d *DB) Users(ctx context.Context) ([]access.User, error) {
	rows, err := d.read.QueryContext(ctx, selectUsers+`ORDER BY name`)
	return list(rows, err, scanUser)
}

// SetUser implements access.Store.
func (d *DB) SetUser(ctx context.Context, u access.User, act release.Act) (ended access.Ended, ok bool, err error) {
	return d.endingUse(ctx, act, func(tx *sql.Tx) (access.Ended, int, error) {
		n, err := affected(tx.ExecContext(ctx, `UPDATE users SET roles = ?, disabled = ? WHERE name = ?`, jsonText(u.Roles), optionalTime(u.Disabled), u.Name))
		if err != nil || n == 0 || u.Disabled.IsZero() {
			return access.Ended{}, n, err
		}
		var ended access.Ended
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM tokens WHERE user = ?`, u.Name).Scan(&ended.Tokens); err != nil {
			return ended, 0, err
		}
		ended.Sessions, err = signOut(ctx, tx, u.Name)
		return ended, n, err
	})
}

// DeleteUser implements access.Store.
func (d *DB) DeleteUser(ctx context.Context, name string, act release.Act) (ended access.Ended, ok bool, err error) {
	return d.endingUse(ctx, act, func(tx *sql.Tx) (ended access.Ended, n int, err error) {
		if ended.Sessions, err = signOut(ctx, tx, name); err != nil {
			return ended, 0, err
		}
		if ended.Tokens, err = affected(tx.ExecContext(ctx, `DELETE FROM tokens WHERE user = ?`, name)); err != nil {
			return ended, 0, err
		}
		n, err = affected(tx.ExecContext(ctx, `DELETE FROM users WHERE name = ?`, name))
		return ended, n, err
	})
}

// endingUse changes the row of a user, with what hangs on it, and records the
// act, if there is such a user: change tells how many rows it found.
func (d *DB) endingUse(ctx context.Context, act release.Act, change func(tx *sql.Tx) (access.Ended, int, error)) (ended access.Ended, ok bool, err error) {
	err = d.inWrite(ctx, func(tx *sql.Tx) error {
		var n int
		if ended, n, err = change(tx); err != nil {
			return fmt.Errorf("cannot change %s: %w", act.Object, err)
		}
		if n == 0 {
			return errNothing
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
	if errors.Is(err, errNothing) {
		return access.Ended{}, false, nil
	}
	return ended, err == nil, err
}

// signOut ends the sessions and links of a user and counts the former.
func signOut(ctx context.Context, tx *sql.Tx, user string) (sessions int, err error) {
	if _, err := tx.ExecContext(ctx, `DELETE FROM links WHERE user = ?`, user); err != nil {
		return 0, err
	}
	return affected(tx.ExecContext(ctx, `DELETE FROM sessions WHERE user = ?`, user))
}

// affected is how many rows a statement changed.
func affected(result sql.Result, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	n, err := result.RowsAffected()
	return int(n), err
}

// PutToken implements access.Store.
func (d *DB) PutToken(ctx context.Context, t access.Token, secret access.Hash, act release.Act) (access.Token, error) {
	err := d.inWrite(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM tokens WHERE expires < ?`, timeText(t.Created.Add(-access.ExpiredKept))); err != nil {
			return err
		}
		result, err := tx.ExecContext(ctx, `INSERT INTO tokens (user, label, roles, created, expires, secret) VALUES (?, ?, ?, ?, ?, ?)`,
			t.User, t.Label, jsonText(t.Roles), timeText(t.Created), optionalTime(t.Expires), secret[:])
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

const selectTokens = `SELECT id, user, label, roles, created, expires, used FROM tokens `

func scanToken(r *sql.Rows, t *access.Token) error {
	return r.Scan(&t.ID, &t.User, &t.Label, jsonValue[[]string]{&t.Roles}, timeValue{&t.Created}, timeValue{&t.Expires}, timeValue{&t.Used})
}

// TokenBySecret implements access.Store.
func (d *DB) TokenBySecret(ctx context.Context, secret access.Hash) (access.Token, bool, error) {
	rows, err := d.read.QueryContext(ctx, selectTokens+`WHERE secret = ?`, secret[:])
	return first(list(rows, err, scanToken))
}

// Tokens implements access.Store.
func (d *DB) Tokens(ctx context.Context) ([]access.Token, error) {
	rows, err := d.read.QueryContext(ctx, selectTokens+`ORDER BY id`)
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
		n, err := affected(tx.ExecContext(ctx, query, args...))
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
func (d *DB) Redeem(ctx context.Context, link, secret access.Hash, s access.Session, now time.Time, act release.Act) (bool, error) {
	err := d.inWrite(ctx, func(tx *sql.Tx) error {
		n, err := affected(tx.ExecContext(ctx, `DELETE FROM links WHERE secret = ? AND expires > ?`, link[:], timeText(now)))
		if err != nil {
			return err
		}
		if n == 0 {
			return errNothing
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sessions WHERE expires < ?`, timeText(now)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO sessions (secret, user, created, expires, address, browser) VALUES (?, ?, ?, ?, ?, ?)`,
			secret[:], s.User, timeText(s.Created), timeText(s.Expires), s.From.Address, s.From.Browser); err != nil {
			return fmt.Errorf("cannot store session: %w", err)
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return err == nil, err
}

const selectSessions = `SELECT id, user, created, expires, seen, address, browser FROM sessions `

func scanSession(r *sql.Rows, s *access.Session) error {
	return r.Scan(&s.ID, &s.User, timeValue{&s.Created}, timeValue{&s.Expires}, timeValue{&s.Seen}, &s.From.Address, &s.From.Browser)
}

// Session implements access.Store.
func (d *DB) Session(ctx context.Context, secret access.Hash) (access.Session, bool, error) {
	rows, err := d.read.QueryContext(ctx, selectSessions+`WHERE secret = ?`, secret[:])
	return first(list(rows, err, scanSession))
}

// Sessions implements access.Store.
func (d *DB) Sessions(ctx context.Context) ([]access.Session, error) {
	rows, err := d.read.QueryContext(ctx, selectSessions+`ORDER BY id`)
	return list(rows, err, scanSession)
}

// DeleteSessions implements access.Store.
func (d *DB) DeleteSessions(ctx context.Context, ids []int64, act release.Act) (n int, err error) {
	err = d.inWrite(ctx, func(tx *sql.Tx) error {
		n = 0
		for _, id := range ids {
			gone, err := affected(tx.ExecContext(ctx, `DELETE FROM sessions WHERE id = ?`, id))
			if err != nil {
				return fmt.Errorf("cannot end session %d: %w", id, err)
			}
			n += gone
		}
		if n == 0 {
			return errNothing
		}
		return insertActs(ctx, tx, []release.Act{act})
	})
	if errors.Is(err, errNothing) {
		return 0, nil
	}
	return n, err
}

// PutUse implements access.Store.
func (d *DB) PutUse(ctx context.Context, tokens, sessions map[int64]time.Time) error {
	err := d.inWrite(ctx, func(tx *sql.Tx) error {
		for id, at := range tokens {
			if _, err := tx.ExecContext(ctx, `UPDATE tokens SET used = max(?, coalesce(used, '')) WHERE id = ?`, timeText(at), id); err != nil {
				return err
			}
		}
		for id, at := range sessions {
			if _, err := tx.ExecContext(ctx, `UPDATE sessions SET seen = max(?, coalesce(seen, '')) WHERE id = ?`, timeText(at), id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot store when tokens and sessions were used: %w", err)
	}
	return nil
}

// first is the only row of a lookup by key.
func first[T any](found []T, err error) (T, bool, error) {
	if err != nil || len(found) == 0 {
		var none T
		return none, false, err
	}
	return found[0], true, nil
}
