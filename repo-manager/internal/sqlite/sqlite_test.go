package sqlite

import (
	"crypto/sha256"
	"database/sql"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
)

func open(t *testing.T, path string) *DB {
	t.Helper()
	d, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestStores(t *testing.T) {
	storetest.Release(t, func(t *testing.T) (release.Store, func() release.Store) {
		path := filepath.Join(t.TempDir(), "odd name?#%.db")
		return open(t, path), func() release.Store { return open(t, path) }
	})
	t.Run("access", func(t *testing.T) {
		storetest.Access(t, func(t *testing.T) storetest.AccessStore { return open(t, filepath.Join(t.TempDir(), "db")) })
	})
	t.Run("configuration", func(t *testing.T) {
		storetest.Configuration(t, func(t *testing.T) (storetest.ConfigurationStore, func() storetest.ConfigurationStore) {
			path := filepath.Join(t.TempDir(), "db")
			return open(t, path), func() storetest.ConfigurationStore { return open(t, path) }
		})
	})
	t.Run("products", func(t *testing.T) {
		storetest.Products(t, func(t *testing.T) storetest.ProductStore { return open(t, filepath.Join(t.TempDir(), "db")) })
	})
	t.Run("fleet", func(t *testing.T) {
		storetest.Fleet(t, func(t *testing.T) storetest.FleetStore { return open(t, filepath.Join(t.TempDir(), "db")) })
	})
}

// A commit must survive a power cut, which the driver does not promise
// unless it is told to.
func TestDurability(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "db"))
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
		var got string
		if err := d.write.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("PRAGMA %s = %q, %v; want %q", pragma, got, err, want)
		}
	}
	if _, err := d.read.Exec(`DELETE FROM acts`); err == nil {
		t.Error("a reading connection can write")
	}
}

func TestOpenRefuses(t *testing.T) {
	tamper := func(t *testing.T, statement string) string {
		path := filepath.Join(t.TempDir(), "db")
		d, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		raw, err := sql.Open("sqlite3", path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := raw.Exec(statement); err != nil {
			t.Fatal(err)
		}
		if err := raw.Close(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	garbage := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, want string }{
		"a newer schema":      {tamper(t, `INSERT INTO migrations VALUES ('migrations/9999_later.sql', x'00')`), "newer repo-manager"},
		"a changed migration": {tamper(t, `UPDATE migrations SET sha256 = x'00' WHERE name LIKE '%0001%'`), "another version"},
		"what is no database": {garbage, "not a database"},
	} {
		d, err := Open(t.Context(), c.path)
		if err == nil {
			t.Errorf("%s was opened", name)
			if err := d.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) {
			t.Errorf("%s: error %q names not %q and the file", name, err, c.want)
		}
	}
}

// A database of the time when a mirror had one suite is read as one of today.
func TestMirrorsOfOneSuiteAreMigrated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	raw, err := sql.Open("sqlite3", path)
	if err != nil {
		t.Fatal(err)
	}
	first, err := fs.ReadFile(migrations, "migrations/0001_release.sql")
	if err != nil {
		t.Fatal(err)
	}
	const created = "2026-11-20T10:15:00.000000Z"
	sum := sha256.Sum256(first)
	for _, step := range []struct {
		statement string
		values    []any
	}{
		{string(first), nil},
		{`CREATE TABLE migrations (name TEXT PRIMARY KEY, sha256 BLOB NOT NULL) STRICT, WITHOUT ROWID`, nil},
		{`INSERT INTO migrations VALUES ('migrations/0001_release.sql', ?)`, []any{sum[:]}},
		{`INSERT INTO pipelines VALUES ('demo', 'trixie', '["amd64"]', '["dev"]', ?)`, []any{created}},
		{`INSERT INTO components VALUES ('demo', 'apps', 'repository', 1, NULL, ?)`, []any{created}},
		{`INSERT INTO components VALUES ('demo', 'debian', 'mirror', 0, ?, ?)`, []any{
			`{"URL":"https://mirror.example/debian","Suite":"trixie","Components":["main","contrib"],"Packages":["hello","apt"],"Recommends":true,"Keyring":"AAEC"}`, created}},
		{`INSERT INTO components VALUES ('demo', 'plain', 'mirror', 0, ?, ?)`, []any{
			`{"URL":"https://a.example/it's","Suite":"sid","Components":["main"],"Packages":null,"Recommends":false,"Keyring":""}`, created}},
	} {
		if _, err := raw.Exec(step.statement, step.values...); err != nil {
			t.Fatalf("%s: %v", step.statement, err)
		}
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // migrated once
		pipelines, err := open(t, path).Pipelines(t.Context())
		if err != nil || len(pipelines) != 1 || len(pipelines[0].Components) != 3 {
			t.Fatalf("%+v, %v", pipelines, err)
		}
		for i, want := range []*release.MirrorConfig{
			nil,
			{
				Suites: []release.MirrorSuite{{
					URL: "https://mirror.example/debian", Suite: "trixie", Components: []string{"main", "contrib"}, Keyring: []byte{0, 1, 2},
				}},
				Packages: []string{"hello", "apt"}, Recommends: true,
			},
			{Suites: []release.MirrorSuite{{URL: "https://a.example/it's", Suite: "sid", Components: []string{"main"}, Keyring: []byte{}}}},
		} {
			if got := pipelines[0].Components[i].Mirror; !reflect.DeepEqual(got, want) {
				t.Errorf("%s is read as %+v, want %+v", pipelines[0].Components[i].Name, got, want)
			}
		}
	}
}
