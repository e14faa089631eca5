package publish

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/snapshots"
)

func (f *fixture) mustBeGone(path ...string) {
	f.t.Helper()
	if _, err := os.Lstat(filepath.Join(append([]string{f.public}, path...)...)); !errors.Is(err, os.ErrNotExist) {
		f.t.Errorf("%s is still there (%v)", filepath.Join(path...), err)
	}
}

func TestWithdraw(t *testing.T) {
	f := newFixture(t)
	state := f.state(f.add("hello", "1.0", "amd64"))
	f.fix("snapshots/1", state)
	f.fix("states/2", state)
	f.offer(state)
	dirs := func() string {
		t.Helper()
		found, err := f.Dirs("demo")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(found, " ")
	}
	if got := dirs(); got != "snapshots/1 states/2" {
		t.Errorf("Dirs: %s", got)
	}
	for range 2 { // the second time it is gone
		if err := f.Withdraw("demo", "snapshots/1"); err != nil {
			t.Fatal(err)
		}
	}
	if got := dirs(); got != "states/2" {
		t.Errorf("after Withdraw: %s", got)
	}
	f.mustBeGone("demo/snapshots/1")
	f.consistent("demo/states/2")
	f.consistent("demo/dev")
	for _, bad := range []string{"dev", "states/..", "../demo/states/2", "states/2/dists", ""} {
		if err := f.Withdraw("demo", bad); err == nil {
			t.Errorf("%q was withdrawn", bad)
		}
	}
	if err := f.Withdraw("..", "states/2"); err == nil {
		t.Error("a path was taken for a pipeline")
	}
	if found, err := f.Dirs("nobody"); len(found) > 0 || err != nil {
		t.Errorf("a pipeline without a tree has %v, %v", found, err)
	}
	// It is published again as it was.
	again := f.fix("snapshots/1", state)
	if got := read(t, filepath.Join(f.public, "demo/snapshots/1/dists/trixie/InRelease")); string(got) != string(again.InRelease) {
		t.Error("a base that was withdrawn is not published again")
	}
	if left, err := os.ReadDir(filepath.Join(f.public, temporary)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A process that dies at any moment leaves the base whole or not at all.
func TestWithdrawCutShort(t *testing.T) {
	f := newFixture(t)
	state := f.state(f.add("hello", "1.0", "amd64"))
	f.fix("states/1", state)
	f.tree.before = func(op, _ string) error {
		if op == "takeaway" {
			return errors.New("cut short")
		}
		return nil
	}
	if err := f.Withdraw("demo", "states/1"); err == nil {
		t.Fatal("nothing failed")
	}
	f.consistent("demo/states/1")
	if left, err := os.ReadDir(filepath.Join(f.public, temporary)); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// What was renamed and not removed goes with the next start.
	if err := os.MkdirAll(filepath.Join(f.public, temporary, "x/gone/dists"), 0o755); err != nil {
		t.Fatal(err)
	}
	f.reopen()
	f.mustBeGone(temporary, "x")
	if err := f.Withdraw("demo", "states/1"); err != nil {
		t.Fatal(err)
	}
	f.mustBeGone("demo/states/1")
}

func TestDropIndex(t *testing.T) {
	f := newFixture(t)
	one, two := f.state(f.add("hello", "1.0", "amd64")), f.state(f.add("hello", "2.0", "amd64"))
	f.fix("states/1", one)
	f.fix("states/2", two)
	amd64 := snapshots.Key{Component: "apps", Architecture: "amd64"}
	key := IndexKeyOf(one.Index(amd64))
	stored := func() map[IndexKey]int64 {
		t.Helper()
		found := make(map[IndexKey]int64)
		if err := f.Indices(func(key IndexKey, bytes int64) { found[key] = bytes }); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := stored(); len(found) != 3 || found[key] == 0 { // two, and the empty one
		t.Errorf("stored are %v", found)
	}
	before := read(t, filepath.Join(f.public, "demo/states/1/dists/trixie/InRelease"))
	for range 2 { // the second time it is gone
		if dropped, err := f.DropIndex(key); !dropped || err != nil {
			t.Fatalf("DropIndex: %v, %v", dropped, err)
		}
	}
	if found := stored(); len(found) != 2 || found[key] != 0 {
		t.Errorf("after DropIndex there are %v", found)
	}
	f.consistent("demo/states/1") // has names of its own
	f.offer(one)                  // makes them again, and does not go by what it remembers
	f.consistent("demo/dev")
	if stored()[key] == 0 {
		t.Error("a publication did not make the index files again")
	}
	if got := read(t, filepath.Join(f.public, "demo/states/1/dists/trixie/InRelease")); string(got) != string(before) {
		t.Error("a fixed base changed")
	}
}

// Index files that a failed publication made, and the next one will use, stay.
func TestDropIndexOfAnUnfinishedPublication(t *testing.T) {
	f := newFixture(t)
	state := f.state(f.add("hello", "1.0", "amd64"))
	if _, err := f.ReleaseText(t.Context(), demo, state, Meta{Date: start}); err != nil {
		t.Fatal(err)
	}
	key := IndexKeyOf(state.Index(snapshots.Key{Component: "apps", Architecture: "amd64"}))
	if dropped, err := f.DropIndex(key); dropped || err != nil {
		t.Errorf("DropIndex: %v, %v", dropped, err)
	}
	f.now = f.now.Add(time.Second)
	f.offer(state)
	f.consistent("demo/dev")
	if dropped, err := f.DropIndex(key); !dropped || err != nil {
		t.Errorf("DropIndex after the publication: %v, %v", dropped, err)
	}
}
