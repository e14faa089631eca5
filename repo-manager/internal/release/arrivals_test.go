package release_test

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/release"
)

// Files of packages that arrive together are in the pool before the rules have
// looked at them: a failed commit leaves none, one that the pool lost is back
// durably, and one that two uploads bring stays if either is taken.
func TestFilesArriveFirst(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, err := w.CreateRepository(t.Context(), ann, "demo", "other", 1)
		must(t, err)
		all := func(repository string, uploads ...release.Incoming) []release.Added {
			added := w.AddAll(t.Context(), ann, "demo", repository, uploads, false)
			for _, in := range uploads {
				must(t, in.Discard())
			}
			return added
		}
		w.store.FailNext(syscall.ENOSPC)
		for _, a := range all("apps", w.receive("app", "1.0", "amd64", ""), w.receive("tool", "1.0", "all", "")) {
			wantCode(t, a.Err, release.NoSpace, "no space left")
		}
		w.mustBeClean()

		for _, a := range all("apps", w.receive("app", "1.0", "amd64", ""), w.receive("tool", "1.0", "all", "")) {
			must(t, a.Err)
		}
		app := w.receive("app", "1.0", "amd64", "")
		must(t, w.config.Pool.Remove(app.Package.SHA256, deb.FileName("app", "1.0", "amd64")))
		synced := w.syncs.Load()
		added := all("apps", app, w.receive("app", "0.9", "amd64", ""))
		if added[0].Err != nil || !added[0].Already || w.syncs.Load() == synced {
			t.Errorf("a file that was lost: %+v, %d syncs", added[0], w.syncs.Load()-synced)
		}
		wantCode(t, added[1].Err, release.Refused, "is older")
		w.mustBeClean()

		_, err = w.add("new", "2.0", "amd64")
		must(t, err)
		var both sync.WaitGroup
		var taken atomic.Int64
		for _, repository := range []string{"apps", "other"} {
			uploads := []release.Incoming{w.receive("new", "1.0", "amd64", ""), w.receive("second", "1.0", "all", "")}
			both.Go(func() {
				for _, a := range all(repository, uploads...) {
					if a.Err == nil {
						taken.Add(1)
					}
				}
			})
		}
		both.Wait()
		if taken.Load() != 3 {
			t.Errorf("%d of four uploads were taken, want all but the one that apps has newer", taken.Load())
		}
	})
}
