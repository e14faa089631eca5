package publish

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// modified returns the seconds in which index files were modified, each with the
// directory of the index.
func (f *fixture) modified() map[int64]string {
	f.t.Helper()
	files, err := filepath.Glob(filepath.Join(f.public, indexStore, "??", "*", "Packages.*"))
	if err != nil || len(files) == 0 {
		f.t.Fatalf("%d index files, %v", len(files), err)
	}
	seconds := make(map[int64]string)
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil {
			f.t.Fatal(err)
		}
		second, dir := info.ModTime().Unix(), filepath.Dir(file)
		if other, taken := seconds[second]; taken && other != dir || info.ModTime().Nanosecond() != 0 {
			f.t.Errorf("%s was modified at %s, as was %s", file, info.ModTime(), other)
		}
		seconds[second] = dir
	}
	return seconds
}

// A client that has a part of one index goes on with another that was modified
// in the same second: there is none, whatever the clock does, over restarts, and
// where a file was copied.
func TestEachIndexIsModifiedInASecondOfItsOwn(t *testing.T) {
	f := newFixture(t)
	made := 0
	publish := func() {
		t.Helper()
		made++
		f.offer(f.state(described(t, "tool", fmt.Sprint(made), "amd64"), described(t, "other", fmt.Sprint(made), "arm64")))
	}
	publish()
	if f.modified()[f.now.Unix()] == "" {
		t.Error("no index is of the clock's second")
	}
	publish()
	publish()
	f.reopen()
	publish()
	before := f.now
	f.now = before.Add(-time.Hour)
	publish()
	f.reopen()
	publish()
	// Index files that are gone count too: a base may still have names of them.
	if err := f.Indices(func(key IndexKey, _ int64) {
		if dropped, err := f.DropIndex(key); err != nil || !dropped {
			t.Errorf("an index stays: %v, %v", dropped, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	newest := f.newest
	f.reopen()
	publish()
	for second := range f.modified() {
		if second <= newest.Unix() {
			t.Errorf("an index is of second %d, one that is gone was of %d", second, newest.Unix())
		}
	}
	f.now = before.Add(time.Hour)
	publish()
	if f.modified()[f.now.Unix()] == "" {
		t.Error("an hour later no index is of the clock's second")
	}

	// A copy of a file with too many names is as old as the file.
	seconds := len(f.modified())
	full := true
	f.tree.before = func(op, _ string) error {
		if op == "link" && full {
			full = false
			return syscall.EMLINK
		}
		return nil
	}
	f.fix("snapshots/20261120T101500Z", f.state(described(t, "tool", fmt.Sprint(made), "amd64"), described(t, "other", fmt.Sprint(made), "arm64")))
	if got := len(f.modified()); full || got != seconds {
		t.Errorf("a copy changed %d seconds to %d", seconds, got)
	}
}
