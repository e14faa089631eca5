package sqlite

import (
	"crypto/sha256"
	"database/sql"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/access"
)

// Users, tokens and sessions of a database that did not know of expiry yet:
// they are good as they were.
func TestPeopleOfAnOlderDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	old, err := sql.Open("sqlite3", source(path))
	if err != nil {
		t.Fatal(err)
	}
	exec := func(text string, args ...any) {
		t.Helper()
		if _, err := old.Exec(text, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE migrations (name TEXT PRIMARY KEY, sha256 BLOB NOT NULL) STRICT, WITHOUT ROWID`)
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names[:3] {
		text, err := fs.ReadFile(migrations, name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(text)
		exec(string(text))
		exec(`INSERT INTO migrations VALUES (?, ?)`, name, sum[:])
	}
	at := time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)
	token, cookie := access.Hash{1}, access.Hash{2}
	exec(`INSERT INTO users VALUES ('ann', '["admin"]', ?)`, timeText(at))
	exec(`INSERT INTO tokens VALUES (7, 'ann', 'build', '["uploader"]', ?, ?)`, timeText(at), token[:])
	exec(`INSERT INTO sessions VALUES (?, 'ann', ?)`, cookie[:], timeText(at.Add(time.Hour)))
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}

	d := open(t, path)
	u, ok, err := d.User(t.Context(), "ann")
	if !ok || err != nil || !u.Disabled.IsZero() {
		t.Errorf("ann: %+v, %v, %v", u, ok, err)
	}
	found, ok, err := d.TokenBySecret(t.Context(), token)
	if !ok || err != nil || found.ID != 7 || !found.Expires.IsZero() || !found.Used.IsZero() {
		t.Errorf("the token: %+v, %v, %v", found, ok, err)
	}
	session, ok, err := d.Session(t.Context(), cookie)
	if !ok || err != nil || session != (access.Session{ID: session.ID, User: "ann", Expires: at.Add(time.Hour)}) || session.ID == 0 {
		t.Errorf("the session: %+v, %v, %v", session, ok, err)
	}
}
