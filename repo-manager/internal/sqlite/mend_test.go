package sqlite

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// filled makes a database with a pipeline, moves, a file and uploads, closes
// it, and lets harm have the raw one.
func filled(t *testing.T, harm ...string) *DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	d := open(t, path)
	at := time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)
	batch := release.Batch{
		Pipelines:  []release.Pipeline{{Name: "demo", Distribution: "trixie", Created: at}},
		Components: []release.Component{{Pipeline: "demo", Name: "apps", Kind: release.Repository, Created: at}},
		Files:      []release.File{{SHA256: [32]byte{1}, Name: "a_1_all.deb", Size: 3}},
	}
	for n := range 50 {
		batch.Moves = append(batch.Moves, release.Move{Seq: int64(n + 1), Pipeline: "demo", Stage: "dev", Kind: release.MovePublish, To: release.Offer{State: snapshots.ID{byte(n + 1)}}, At: at})
		batch.Uploads = append(batch.Uploads, release.Accepted{Pipeline: "demo", Component: "apps", Name: "a", Version: "1", Architecture: "all", SHA256: [32]byte{1}, At: at})
	}
	if err := d.Commit(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	raw.SetMaxOpenConns(1)
	for _, statement := range harm {
		if _, err := raw.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

func TestIntegrityNamesDamage(t *testing.T) {
	for name, row := range map[string]struct {
		harm []string
		want string
	}{
		"a pipeline's row is lost":  {[]string{`DELETE FROM pipelines`}, "of table moves name rows of table pipelines"},
		"a component's row is lost": {[]string{`DELETE FROM components`}, "of table uploads name rows of table components"},
		"an upload is lost":         {[]string{`DELETE FROM uploads WHERE number = 7`}, "1 rows of table uploads are missing"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := filled(t, row.harm...).Integrity(t.Context())
			if err != nil || !strings.Contains(strings.Join(got, "\n"), row.want) {
				t.Errorf("%q, %v; want %q", got, err, row.want)
			}
		})
	}
	if got, err := filled(t).Integrity(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("a whole database: %q, %v", got, err)
	}
}

// An index of SQLite that lacks rows is derived like ours.
func TestLookupsAreMadeAgain(t *testing.T) {
	d := filled(t,
		// The index is hidden while rows are written.
		`PRAGMA writable_schema = ON`,
		`CREATE TABLE hidden AS SELECT * FROM sqlite_schema WHERE name = 'moves_by_stage'`,
		`DELETE FROM sqlite_schema WHERE name = 'moves_by_stage'`,
		`PRAGMA schema_version = 100`,
		`INSERT INTO moves SELECT pipeline, seq + 50, stage, kind, from_state, from_snapshot, to_state, to_snapshot, by, reason, at, over FROM moves`,
		`INSERT INTO sqlite_schema SELECT * FROM hidden`,
		`DROP TABLE hidden`,
		`PRAGMA schema_version = 101`,
	)
	damage, err := d.Integrity(t.Context())
	if err != nil || !strings.Contains(strings.Join(damage, "\n"), "moves_by_stage") {
		t.Fatalf("%q, %v", damage, err)
	}
	if err := d.Mend(t.Context(), release.Mending{Lookups: true}); err != nil {
		t.Fatal(err)
	}
	if damage, err := d.Integrity(t.Context()); err != nil || len(damage) > 0 {
		t.Errorf("%q, %v", damage, err)
	}
	if moves, err := d.Moves(t.Context(), "demo", "dev", 0); err != nil || len(moves) != 100 {
		t.Errorf("after: %d moves, %v", len(moves), err)
	}
}

// Pages that a disk lost are told, as far as the file can be opened.
func TestLostPagesAreNamed(t *testing.T) {
	d := filled(t)
	var page, size int64
	if err := d.read.QueryRow(`SELECT rootpage FROM sqlite_schema WHERE name = 'uploads'`).Scan(&page); err != nil {
		t.Fatal(err)
	}
	if err := d.read.QueryRow(`PRAGMA page_size`).Scan(&size); err != nil {
		t.Fatal(err)
	}
	var seq int
	var name, path string
	if err := d.read.QueryRow(`PRAGMA database_list`).Scan(&seq, &name, &path); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt(make([]byte, size), (page-1)*size); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	d = open(t, path)
	damage, err := d.Integrity(t.Context())
	if err != nil || len(damage) == 0 {
		t.Fatalf("%q, %v", damage, err)
	}
	if _, err := d.Uploads(t.Context()); !IsDamaged(err) {
		t.Errorf("error is %v", err)
	}
}
