package sqlite

import (
	"crypto/sha256"
	"database/sql"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// A database that was made before retention existed keeps everything it has,
// and gets the default retention.
func TestMigrationToRetention(t *testing.T) {
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
	for _, name := range []string{"0001_release.sql", "0002_access.sql", "0003_fleet.sql"} {
		text, err := fs.ReadFile(migrations, "migrations/"+name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(text)
		exec(string(text))
		exec(`INSERT INTO migrations VALUES (?, ?)`, "migrations/"+name, sum[:])
	}
	sum := sha256.Sum256([]byte("deb"))
	at := time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)
	exec(`INSERT INTO pipelines VALUES ('demo', 'trixie', '["amd64"]', '["dev"]', ?)`, timeText(at))
	exec(`INSERT INTO components VALUES ('demo', 'apps', 'repository', 1, NULL, ?)`, timeText(at))
	exec(`INSERT INTO files VALUES (?, 'a_1_all.deb', 3)`, sum[:])
	for range 3 {
		exec(`INSERT INTO uploads (pipeline, component, name, version, architecture, sha256, size, state, by, via, at)
			VALUES ('demo', 'apps', 'a', '1', 'all', ?, 3, ?, 'ann', 'socket', ?)`, sum[:], sum[:], timeText(at))
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}

	d := open(t, path)
	pipelines, err := d.Pipelines(t.Context())
	if err != nil || len(pipelines) != 1 || pipelines[0].Retention != release.DefaultRetention {
		t.Errorf("pipelines: %+v, %v", pipelines, err)
	}
	want := release.Accepted{Pipeline: "demo", Component: "apps", Name: "a", Version: "1", Architecture: "all", SHA256: sum, Size: 3, State: sum, By: "ann", Via: "socket", At: at}
	if err := d.Commit(t.Context(), release.Batch{Dropped: release.Dropped{Files: [][32]byte{sum}}}); err != nil {
		t.Fatal(err)
	}
	if found, err := d.Accepted(t.Context(), "demo", want.Ref()); found[want.Ref()] != want || err != nil {
		t.Errorf("the upload is %+v, %v", found, err)
	}
	var n int
	if err := d.read.QueryRow(`SELECT count(*) FROM uploads`).Scan(&n); n != 3 || err != nil {
		t.Errorf("%d uploads are left: %v", n, err)
	}
	if more, err := d.Compact(t.Context()); more || err != nil {
		t.Errorf("a file that cannot shrink: %v, %v", more, err)
	}
}

// What is dropped makes the file smaller, a step at a time.
func TestCompact(t *testing.T) {
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "db")
	d := open(t, path)
	if err := d.Commit(ctx, release.Batch{Pipelines: []release.Pipeline{{Name: "demo", Created: time.Now()}}}); err != nil {
		t.Fatal(err)
	}
	var made, drop release.Batch
	text := make([]byte, 20000)
	for n := range 400 {
		dir := fmt.Sprint("states/", n)
		made.Bases = append(made.Bases, release.Base{Pipeline: "demo", Dir: dir, State: snapshots.ID{1}, Text: text, InRelease: text, Signature: []byte("s")})
		if n > 0 {
			drop.Dropped.Bases = append(drop.Dropped.Bases, release.BaseName{Pipeline: "demo", Dir: dir})
		}
	}
	size := func() int64 {
		t.Helper()
		if _, err := d.write.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if err := d.Commit(ctx, made); err != nil {
		t.Fatal(err)
	}
	full := size()
	if err := d.Commit(ctx, drop); err != nil {
		t.Fatal(err)
	}
	steps := 0
	for more := true; more; steps++ {
		var err error
		if more, err = d.Compact(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if after := size(); full < 16_000_000 || after > 500_000 || steps < 5 {
		t.Errorf("the file had %d bytes and has %d after %d steps", full, after, steps)
	}
	bases, err := d.Bases(ctx, "demo")
	if err != nil || len(bases) != 1 || bases[0].Dir != "states/0" {
		t.Errorf("%d bases are left: %v", len(bases), err)
	}
}
