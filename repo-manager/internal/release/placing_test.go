package release_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/pool"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// together has acts share a batch, in their order.
func (w *world) together(acts ...func()) {
	w.t.Helper()
	held := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		if err := w.Still(context.Background(), func(context.Context) error { <-held; return nil }); err != nil {
			w.t.Error(err)
		}
	})
	synctest.Wait()
	for _, act := range acts {
		all.Go(act)
		synctest.Wait()
	}
	close(held)
	all.Wait()
}

// addAll uploads packages together to a repository, and gives them back.
func (w *world) addAll(repository string, uploads ...release.Incoming) []release.Added {
	w.t.Helper()
	added := w.AddAll(w.t.Context(), ann, "demo", repository, uploads, false)
	for _, in := range uploads {
		must(w.t, in.Discard())
	}
	return added
}

// inFile is the same upload, waiting in a file as large ones do.
func (w *world) inFile(in release.Incoming) release.Incoming {
	w.t.Helper()
	path := filepath.Join(w.dir, "incoming", "file-"+in.Name)
	must(w.t, os.WriteFile(path, in.Content, 0o600))
	must(w.t, in.Discard())
	in.Path, in.Content, in.Done = path, nil, nil
	return in
}

// debian makes a mirror of that name.
func (w *world) debian() {
	w.t.Helper()
	_, err := w.CreateMirror(w.t.Context(), ann, "demo", "debian", release.MirrorConfig{
		Suites:   []release.MirrorSuite{{URL: "https://mirror.example/debian", Suite: "trixie", Components: []string{"main"}, Keyring: []byte("k")}},
		Packages: []string{"app"},
	})
	must(w.t, err)
}

// lose takes the file of an upload out of the pool.
func (w *world) lose(in release.Incoming) {
	w.t.Helper()
	p := in.Package
	must(w.t, w.config.Pool.Remove(p.SHA256, deb.FileName(p.Name, p.Version, p.Architecture)))
}

// The same bytes come twice in a batch, are refused once and taken once: the
// file is there, whatever it waited in and whichever came first.
func TestRefusedAndTaken(t *testing.T) {
	for name, first := range map[string]bool{"refused first": true, "taken first": false} {
		for by, take := range map[string]func(w *world) func(){
			"a small upload": func(w *world) func() {
				in := w.receive("app", "1.0", "amd64", "")
				return func() { must(w.t, w.addAll("other", in)[0].Err) }
			},
			"an upload in a file": func(w *world) func() {
				in := w.inFile(w.receive("app", "1.0", "amd64", ""))
				return func() { must(w.t, w.addAll("other", in)[0].Err) }
			},
			"a mirror": func(w *world) func() {
				p, f := w.mirrored(w.receive("app", "1.0", "amd64", ""))
				return func() {
					_, err := w.ReplaceMirror(w.t.Context(), ann, "demo", "debian", []snapshots.Package{p}, []release.File{f})
					must(w.t, err)
				}
			},
		} {
			t.Run(by+", "+name, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					_, err := w.CreateRepository(t.Context(), ann, "demo", "other", 1)
					must(t, err)
					w.debian()
					_, err = w.add("app", "2.0", "amd64")
					must(t, err)
					small, second := w.receive("app", "1.0", "amd64", ""), w.receive("second", "1.0", "all", "")
					refused := func() {
						added := w.addAll("apps", small, second)
						wantCode(t, added[0].Err, release.Refused, "is older")
						must(t, added[1].Err)
					}
					acts := []func(){take(w), refused}
					if first {
						acts[0], acts[1] = acts[1], acts[0]
					}
					w.together(acts...)
				}) // which ends with a check
			})
		}
	}
}

// A batch whose commit fails leaves nothing in the pool. Files that cannot be
// stored fail who wants them, and leave nothing; the rest of the batch is made as
// if they had not come.
func TestABatchIsTakenBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		two := func() []release.Incoming {
			return []release.Incoming{w.receive("app", "1.0", "amd64", ""), w.receive("tool", "1.0", "all", "")}
		}
		w.store.FailNext(syscall.ENOSPC)
		for _, a := range w.addAll("apps", two()...) {
			wantCode(t, a.Err, release.NoSpace, "no space left")
		}
		w.mustBeClean()
		w.debian()
		_, err := w.add("old", "1.0", "amd64")
		must(t, err)
		gone := w.inFile(w.receive("large", "1.0", "all", ""))
		must(t, os.Remove(gone.Path))
		p, there := w.mirrored(w.receive("base", "1.0", "all", ""))
		q, missing := w.mirrored(w.receive("more", "1.0", "all", ""))
		must(t, os.Remove(missing.Path))
		before, err := w.History(t.Context(), "demo", "dev")
		must(t, err)
		vanished := func(err error) {
			t.Helper()
			if !errors.Is(err, os.ErrNotExist) {
				t.Errorf("of a file that vanished: %v", err)
			}
		}
		w.together(func() {
			added := w.addAll("apps", append(two(), gone)...)
			must(t, added[0].Err)
			must(t, added[1].Err)
			vanished(added[2].Err)
		}, func() {
			_, err := w.ReplaceMirror(t.Context(), ann, "demo", "debian", []snapshots.Package{p, q}, []release.File{there, missing})
			vanished(err)
		}, func() {
			_, err := w.Remove(t.Context(), ann, "demo", "apps", "old", "")
			must(t, err)
		})
		if got, want := sorted(w.list("dev")), "app 1.0 amd64, tool 1.0 all"; got != want {
			t.Errorf("dev lists %q, want %q", got, want)
		}
		if after, err := w.History(t.Context(), "demo", "dev"); err != nil || len(after) != len(before)+1 {
			t.Errorf("dev moved %d times (%v)", len(after)-len(before), err)
		}
	}) // which ends with a check
}

// Who uploads again what the pool has lost is told that it is there once it is
// there durably, whatever became of those who tried before.
func TestWhatWasLostIsBackDurably(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		_, err := w.add("app", "1.0", "amd64")
		must(t, err)
		app := func() release.Incoming { return w.receive("app", "1.0", "amd64", "") }
		synced := func(what string, act func() (release.Upload, error)) {
			t.Helper()
			before := w.syncs.Load()
			if upload, err := act(); err != nil || !upload.Already || w.syncs.Load() == before {
				t.Errorf("%s: %+v, %v, %d syncs", what, upload, err, w.syncs.Load()-before)
			}
			w.mustBeClean()
		}
		again := func() (release.Upload, error) { a := w.addAll("apps", app()); return a[0].Upload, a[0].Err }
		lost := app()
		w.lose(lost)
		must(t, lost.Discard())
		synced("a lost file", again)

		w.lose(lost)
		w.syncFails.Store(true)
		for _, a := range w.addAll("apps", app(), app()) {
			if a.Err == nil {
				t.Error("a file that may not be durable is said to be there")
			}
		}
		synced("after a sync that failed", again)

		w.lose(lost)
		w.syncFails.Store(true)
		if _, err := w.RestoreFile(t.Context(), ann, app()); err == nil {
			t.Error("a file that may not be durable is said to be restored")
		}
		synced("after a restore that failed", func() (release.Upload, error) { return w.RestoreFile(t.Context(), ann, app()) })

		// Its row in the database is lost as well, which is for a repair to find.
		w.lose(lost)
		var rows []release.File
		w.store.Alter(func(b *release.Batch) { rows, b.Files = b.Files, nil })
		if upload, err := again(); err != nil || !upload.Already || !w.config.Pool.(*pool.Pool).Has(lost.Package.SHA256, rows[0].Name) {
			t.Errorf("without a row: %+v, %v", upload, err)
		}
		w.store.Alter(func(b *release.Batch) { b.Files = rows })

		w.close()
		w.open() // the process before may have died while it put files into the pool
		synced("after a restart", again)
		before := w.syncs.Load()
		if upload, err := again(); err != nil || !upload.Already || w.syncs.Load() != before {
			t.Errorf("what is durable for certain: %+v, %v, %d syncs", upload, err, w.syncs.Load()-before)
		}
	})
}
