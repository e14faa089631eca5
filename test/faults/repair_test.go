package faults

import (
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/mattn/go-sqlite3" // to lose rows that no interface would lose

	"aptfleet/internal/protocol"
)

// repairPhases are the moments of a repair: its rows, then each of its steps.
var repairPhases = []string{"repair:rows-mended", "repair:step"}

// repairSteps is how many steps one round of a repair has.
const repairSteps = 8

// TestKilledRepairs kills the server after each step of a repair. The next one
// finishes the work, and what is fixed is the same byte for byte as before all
// that.
func TestKilledRepairs(t *testing.T) {
	t.Parallel()
	data := newData(t)
	s := start(t, data, "")
	s.pipeline("demo")
	for n := range 3 {
		s.mustUpload("demo", "app", fmt.Sprintf("%d.0", n), 3000)
		if _, err := s.API.CreateSnapshot(t.Context(), "demo", protocol.NewSnapshot{Note: "test"}); err != nil {
			t.Fatal(err)
		}
		s.promote("demo")
	}
	s.mustBeClean()
	before := s.fixedBases()
	kills := make(map[string]int)
	for n := range 1 + repairSteps {
		fault := repairPhases[0]
		if n > 0 {
			fault = fmt.Sprintf("%s:%d", repairPhases[1], n)
		}
		s.stop()
		loseRows(t, data)
		s = start(t, data, fault)
		harm(t, data)
		if _, err := s.API.Repair(t.Context(), nil); err == nil {
			t.Errorf("%s: the repair was answered although the server died before", fault)
		}
		if !s.died() {
			t.Fatalf("the server did not die at %s:\n%s", fault, s.Log())
		}
		kills[strings.TrimRight(fault, ":0123456789")]++

		s = start(t, data, "")
		report, err := s.API.Repair(t.Context(), nil)
		if err != nil {
			t.Fatalf("killed at %s, then again: %v", fault, err)
		}
		for _, f := range report.Findings {
			if f.Repaired == "" {
				t.Errorf("killed at %s, then again: %s %s: restore %s", fault, f.Path, f.Reason, f.Restore)
			}
		}
		s.mustBeClean()
		after := s.fixedBases()
		for path, content := range before {
			if after[path] != content {
				t.Errorf("killed at %s: %s is another file than before", fault, path)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	s.stop()
	report(t, "a repair", repairPhases, kills)
}

// loseRows takes away a row of each table that can be derived.
func loseRows(t *testing.T, data string) {
	t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(data, "repo-manager.db"))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`DELETE FROM snapshots WHERE id = (SELECT min(id) FROM snapshots)`,
		`DELETE FROM stages WHERE name = 'canary'`,
		`DELETE FROM bases WHERE number = (SELECT max(number) FROM bases)`,
		`UPDATE files SET size = size + 1`,
	} {
		if _, err := db.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// harm damages files of all kinds that can be derived.
func harm(t *testing.T, data string) {
	t.Helper()
	for pattern, spoil := range map[string]func(path string) error{
		"blobs/??/*.gz":                           os.Remove,
		"blobs/[0-7]?/*":                          func(path string) error { return os.Truncate(path, 1) },
		"public/.indices/*/*/Packages.zst":        func(path string) error { return os.Truncate(path, 10) },
		"public/demo/*/dists/*/InRelease":         os.Remove,
		"public/demo/snapshots/*/dists/*/Release": os.Remove,
		"public/demo/states/*/pool":               os.Remove,
	} {
		found, err := filepath.Glob(filepath.Join(data, pattern))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(found)
		for _, path := range found {
			if err := spoil(path); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
}

// fixedBases reads every file of the bases of snapshots and states.
func (s *server) fixedBases() map[string]string {
	s.t.Helper()
	all := s.tree("demo")
	maps.DeleteFunc(all, func(name, _ string) bool {
		return !strings.HasPrefix(name, "snapshots/") && !strings.HasPrefix(name, "states/")
	})
	return all
}
