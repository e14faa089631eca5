// Package rootfstest is what every back end of deployments' roots must do: one
// suite for what names there are, which also those in memory pass, and one for
// the files in them.
package rootfstest

import (
	"context"
	"strings"
	"testing"
)

// Roots is what the state machine needs of a back end; its promises are those of
// update.Roots. Names are relative to the top level.
type Roots interface {
	Path(rel string) string
	Snapshot(src, dst string, readOnly bool) error
	Delete(ctx context.Context, rel string) error
	Rename(src, dst string) error
	Exists(rel string) bool
	Nested(ctx context.Context, rel string) ([]string, error)
	List(dir string) ([]string, error)
	Sync() error
	Free() (bytes int64, err error)
}

// Backend is an empty back end of a test with what only its maker can do.
type Backend struct {
	Roots
	Create func(rel string) // makes an empty root; its directory is made, too
	Plain  func(rel string) // puts something there that is no root
	Size   int64            // bytes, at most, that it can hold
}

// Names runs the suite on back ends that open makes.
func Names(t *testing.T, open func(t *testing.T) Backend) {
	run := func(name string, test func(t *testing.T, b Backend)) {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
	run("what is not there", func(t *testing.T, b Backend) {
		if b.Exists("deployments/1") {
			t.Error("a root exists that nobody made")
		}
		if names, err := b.List("deployments"); err != nil || len(names) > 0 {
			t.Errorf("List of a directory that is not there: %v, %v", names, err)
		}
		if err := b.Snapshot("deployments/1", "base/2", true); err == nil || b.Exists("base/2") {
			t.Errorf("a snapshot of nothing: %v, exists: %v", err, b.Exists("base/2"))
		}
		if err := b.Rename("deployments/1", "deployments/2"); err == nil {
			t.Error("nothing was renamed")
		}
		for range 2 {
			if err := b.Delete(t.Context(), "deployments/1"); err != nil {
				t.Errorf("deleting what is not there: %v", err)
			}
		}
	})
	run("snapshot", func(t *testing.T, b Backend) {
		b.Create("deployments/1")
		must(t, b.Snapshot("deployments/1", "base/2", true))
		must(t, b.Snapshot("base/2", "pristine/2.work", false))
		for _, rel := range []string{"deployments/1", "base/2", "pristine/2.work"} {
			if !b.Exists(rel) {
				t.Errorf("%s does not exist", rel)
			}
		}
		for _, taken := range []string{"base/2", "deployments/1"} {
			if err := b.Snapshot("deployments/1", taken, false); err == nil {
				t.Errorf("a snapshot took the place of %s", taken)
			}
		}
	})
	run("something that is no root", func(t *testing.T, b Backend) {
		b.Create("deployments/1")
		b.Plain("deployments/7")
		if b.Exists("deployments/7") {
			t.Error("it exists as a root")
		}
		if err := b.Snapshot("deployments/7", "base/8", false); err == nil {
			t.Error("it was snapshotted")
		}
		if err := b.Delete(t.Context(), "deployments/7"); err == nil {
			t.Error("it was deleted")
		}
		want(t, b, "deployments", "1", "7")
	})
	run("rename", func(t *testing.T, b Backend) {
		b.Create("deployments/1")
		must(t, b.Snapshot("deployments/1", "deployments/2.work", false))
		if err := b.Rename("deployments/2.work", "deployments/1"); err == nil {
			t.Error("a root took the place of another")
		}
		want(t, b, "deployments", "1", "2.work")
		must(t, b.Rename("deployments/2.work", "deployments/2"))
		want(t, b, "deployments", "1", "2")
		if b.Exists("deployments/2.work") || !b.Exists("deployments/2") {
			t.Error("the old name stays, or the new one does not exist")
		}
		// What was read-only can be renamed and deleted like any other.
		must(t, b.Snapshot("deployments/1", "pristine/3.work", true))
		must(t, b.Rename("pristine/3.work", "pristine/3"))
		must(t, b.Delete(t.Context(), "pristine/3"))
		want(t, b, "pristine")
	})
	run("delete", func(t *testing.T, b Backend) {
		b.Create("deployments/1")
		must(t, b.Snapshot("deployments/1", "deployments/10", false))
		must(t, b.Delete(t.Context(), "deployments/1"))
		if b.Exists("deployments/1") || !b.Exists("deployments/10") {
			t.Error("not that one was deleted")
		}
		want(t, b, "deployments", "10")
		must(t, b.Snapshot("deployments/10", "deployments/1", false)) // the name is free
	})
	run("nothing is nested in a snapshot", func(t *testing.T, b Backend) {
		b.Create("deployments/1")
		must(t, b.Snapshot("deployments/1", "deployments/2", false))
		if nested, err := b.Nested(t.Context(), "deployments/2"); err != nil || len(nested) > 0 {
			t.Errorf("%v, %v", nested, err)
		}
	})
	run("sync and room", func(t *testing.T, b Backend) {
		must(t, b.Sync())
		if free, err := b.Free(); err != nil || free <= 0 || free > b.Size {
			t.Errorf("%d bytes of %d are free, %v", free, b.Size, err)
		}
	})
}

// want compares the names in a directory, which are to come sorted.
func want(t *testing.T, b Backend, dir string, names ...string) {
	t.Helper()
	got, err := b.List(dir)
	if err != nil || strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("%s has %v (%v), want %v", dir, got, err, names)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
