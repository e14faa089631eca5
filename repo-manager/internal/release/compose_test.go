package release_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// put uploads packages, "name version architecture" each, or removes the name
// behind a "-", and returns the snapshot of what dev then offers.
func (w *world) put(words ...string) string {
	w.t.Helper()
	for _, word := range words {
		if name, gone := strings.CutPrefix(word, "-"); gone {
			_, err := w.Remove(w.t.Context(), ann, "demo", "apps", name, "")
			must(w.t, err)
			continue
		}
		f := strings.Fields(word)
		_, err := w.addSalted(f[0], f[1], f[2], "", true)
		must(w.t, err)
	}
	s, err := w.CreateSnapshot(w.t.Context(), ann, "demo", "", "", nil)
	must(w.t, err)
	return s.ID
}

// blobs counts the files of the data directory that hold texts.
func (w *world) blobs() int {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(w.dir, "blobs", "??", "*"))
	must(w.t, err)
	return len(slices.DeleteFunc(found, func(path string) bool { return filepath.Ext(path) != "" }))
}

func TestMergeSnapshots(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		a := w.put("app 1.0 amd64", "app 1.0 arm64", "tool 1.0 all")
		b := w.put("app 2.0 amd64", "app 2.0 arm64", "-tool", "new 0.1 amd64")
		before, dev := w.blobs(), w.stage("dev")

		_, err := w.Merge(ctx, ann, "demo", []string{a, "dev"}, snapshots.Refuse, release.Naming{})
		wantCode(t, err, release.Conflict, "one package differs: app of apps (1.0 in "+a+", 2.0 in dev)")
		plan, err := w.Merge(ctx, ann, "demo", []string{a, b}, snapshots.Latest, release.Naming{DryRun: true})
		must(t, err)
		if plan.Snapshot.ID != "" || len(plan.Differences) != 3 || len(plan.Conflicts) != 1 || plan.Conflicts[0].Taken != 1 || plan.Base.Snapshot != a {
			t.Errorf("a dry run gave %+v", plan)
		}
		if w.blobs() != before {
			t.Error("a refusal and a dry run wrote something")
		}

		merged, err := w.Merge(ctx, ann, "demo", []string{a, b}, snapshots.Latest, release.Naming{Labels: []string{"both"}})
		must(t, err)
		if want := "app 2.0 amd64, app 2.0 arm64, new 0.1 amd64, tool 1.0 all"; sorted(w.list(merged.Snapshot.ID)) != want {
			t.Errorf("the merge has %q, want %q", sorted(w.list(merged.Snapshot.ID)), want)
		}
		if merged.Snapshot.State != plan.Snapshot.State || merged.Snapshot.By != "ann" || merged.Snapshot.Note != "merge of "+a+", "+b+"; the latest versions" {
			t.Errorf("the merge is %+v", merged.Snapshot)
		}
		if w.stage("dev") != dev {
			t.Error("the merge moved dev")
		}

		// It is a snapshot like others: with bases, promotable, and it survives.
		for _, base := range []string{"snapshots/" + merged.Snapshot.ID, "states/" + merged.Snapshot.State.String()} {
			if text, _ := w.inRelease(base); field(text, "Aptfleet-State") != merged.Snapshot.State.String() {
				t.Errorf("%s publishes %s", base, field(text, "Aptfleet-State"))
			}
		}
		w.promote(merged.Snapshot.ID, "canary")
		w.close()
		w.open()
		w.mustBeClean()
		if offer, err := w.Resolve(ctx, "demo", "state:"+merged.Snapshot.State.String()); err != nil || offer.Snapshot != merged.Snapshot.ID {
			t.Errorf("by its state it is %+v, %v", offer, err)
		}

		// A result that exists is named once more, and stored once.
		before = w.blobs()
		first, err := w.Merge(ctx, ann, "demo", []string{b, a, "canary"}, snapshots.Latest, release.Naming{Note: "again"})
		must(t, err)
		if first.Snapshot.State != merged.Snapshot.State || first.Snapshot.ID <= merged.Snapshot.ID || first.Snapshot.Note != "again" || w.blobs() != before {
			t.Errorf("the same merge is %+v", first.Snapshot)
		}
		old, err := w.Merge(ctx, ann, "demo", []string{a, b}, snapshots.First, release.Naming{})
		must(t, err)
		if want := "app 1.0 amd64, app 1.0 arm64, new 0.1 amd64, tool 1.0 all"; sorted(w.list(old.Snapshot.ID)) != want {
			t.Errorf("the merge has %q, want %q", sorted(w.list(old.Snapshot.ID)), want)
		}
		acts, err := w.Acts(ctx, "demo", 1)
		must(t, err)
		if acts[0].Verb != "merge" || acts[0].Object != "snapshot "+old.Snapshot.ID || acts[0].Detail != old.Snapshot.Note {
			t.Errorf("the act is %+v", acts[0])
		}

		for name, refs := range map[string][]string{"too few": {a}, "none": nil} {
			_, err := w.Merge(ctx, ann, "demo", refs, snapshots.Latest, release.Naming{})
			if release.CodeOf(err) != release.Invalid {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, err = w.Merge(ctx, ann, "demo", []string{a, "nowhere"}, snapshots.Latest, release.Naming{})
		wantCode(t, err, release.NotFound, "nowhere")
		_, err = w.Merge(ctx, ann, "demo", []string{a, b}, snapshots.Latest, release.Naming{Note: strings.Repeat("x", 5000)})
		wantCode(t, err, release.Invalid, "5000 bytes")
		_, err = w.Merge(ctx, ann, "demo", []string{a, b}, snapshots.Latest, release.Naming{Labels: make([]string, 200)})
		wantCode(t, err, release.Invalid, "labels")
	})
}

// A conflict names a few packages, and counts all.
func TestManyConflicts(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.put("a1 1 amd64", "a2 1 amd64", "a3 1 amd64", "a4 1 amd64", "a5 1 all")
		b := w.put("a1 2 amd64", "a2 2 amd64", "a3 2 amd64", "a4 2 amd64", "a5 2 all")
		c := w.put("-a1", "a2 3 amd64")
		_, err := w.Merge(t.Context(), ann, "demo", []string{a, b, c}, snapshots.Refuse, release.Naming{})
		wantCode(t, err, release.Conflict, "5 packages differ: a1 of apps (1 in "+a+", 2 in "+b+"), a2 of apps (1 in "+a+", 2 in "+b+", 3 in "+c+"), a3", " and 2 more")
	})
}

func TestPickPackages(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		a := w.put("app 1.0 amd64", "lib 1.0 amd64", "tool 1.0 all")
		w.put("app 2.0 amd64", "lib 2.0 amd64", "tool 2.0 all")
		picked, err := w.Pick(ctx, ann, "demo", a, "dev", []string{"tool", "app"}, true, release.Naming{Note: "hotfix"})
		must(t, err)
		if want := "app 2.0 amd64, lib 1.0 amd64, tool 2.0 all"; sorted(w.list(picked.Snapshot.ID)) != want {
			t.Errorf("the result has %q, want %q", sorted(w.list(picked.Snapshot.ID)), want)
		}
		if !slices.Equal(picked.Picked, []string{"app", "tool"}) || picked.Base.Snapshot != a || picked.Snapshot.Note != "hotfix" {
			t.Errorf("picked %+v", picked)
		}
		w.promote(picked.Snapshot.ID, "canary")
		_, err = w.Pick(ctx, ann, "demo", a, "dev", []string{"app", "nothing", "lost"}, false, release.Naming{})
		wantCode(t, err, release.NotFound, "cannot pick nothing, lost: dev has no package of that name")
		_, err = w.Pick(ctx, ann, "demo", a, "dev", nil, false, release.Naming{})
		wantCode(t, err, release.Invalid, "name of a package")
	})
}

func TestFilterState(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := t.Context()
		w.put("app 1.0 amd64", "lib-a 1.0 amd64", "lib-b 2.0 all")
		filtered, err := w.FilterState(ctx, ann, "demo", "dev", "Name (% lib-*), $Version (<< 2)", release.Naming{})
		must(t, err)
		if w.list(filtered.Snapshot.ID) != "lib-a 1.0 amd64" || len(filtered.Differences) != 3 {
			t.Errorf("it has %q, %+v", w.list(filtered.Snapshot.ID), filtered.Differences)
		}
		nothing, err := w.FilterState(ctx, ann, "demo", "dev", "absent", release.Naming{})
		must(t, err)
		if nothing.Snapshot.Packages != 0 {
			t.Errorf("a filter that takes nothing leaves %d", nothing.Snapshot.Packages)
		}
		for text, want := range map[string]string{"": "the query is empty", "Name (": "ends where a value is expected"} {
			_, err := w.FilterState(ctx, ann, "demo", "dev", text, release.Naming{})
			wantCode(t, err, release.Invalid, want)
		}
		listed, err := w.Packages(ctx, "demo", "dev", release.Filter{Query: "Name (% lib-*)", Limit: 1})
		must(t, err)
		if len(listed) != 1 || listed[0].Name != "lib-a" {
			t.Errorf("listed are %+v", listed)
		}
		listed, err = w.Packages(ctx, "demo", "dev", release.Filter{Query: "$Architecture (arm64)", Name: "lib-b"})
		must(t, err)
		if len(listed) != 1 || listed[0].Name != "lib-b" {
			t.Errorf("listed are %+v", listed)
		}
		_, err = w.Packages(ctx, "demo", "dev", release.Filter{Query: "("})
		wantCode(t, err, release.Invalid, "cannot list packages: cannot read query")
	})
}

// Merges, picks and uploads at the same time: each gives one state, and names
// differ.
func TestComposingWhileOthersWrite(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.put("app 1.0 amd64", "tool 1.0 all")
		b := w.put("app 2.0 amd64", "new 0.1 amd64")
		var group sync.WaitGroup
		var mu sync.Mutex
		names, states := map[string]bool{}, map[snapshots.ID]bool{}
		note := func(c release.Composed, err error) {
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			names[c.Snapshot.ID], states[c.Snapshot.State] = true, true
		}
		for range 4 {
			group.Go(func() {
				note(w.Merge(t.Context(), ann, "demo", []string{a, b}, snapshots.Latest, release.Naming{}))
			})
			group.Go(func() {
				note(w.Pick(t.Context(), ann, "demo", a, b, []string{"new"}, true, release.Naming{}))
			})
		}
		for _, version := range []string{"3.0", "4.0", "5.0"} {
			w.version(version)
		}
		group.Wait()
		if len(names) != 8 || len(states) != 2 {
			t.Errorf("eight acts gave %d names of %d states", len(names), len(states))
		}
	})
}

// Whoever has left gets no snapshot; a full disk is told as what it is, and
// the next one succeeds.
func TestAComposedStateThatCannotBeStored(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a := w.put("app 1.0 amd64")
		b := w.put("app 2.0 amd64", "new 0.1 amd64")
		w.close()
		w.config.Chunks = &full{Chunks: w.config.Chunks, left: 0}
		var err error
		w.Engine, err = release.Open(t.Context(), w.config)
		must(t, err)
		w.closed = false
		_, err = w.Pick(t.Context(), ann, "demo", a, b, []string{"new"}, false, release.Naming{})
		wantCode(t, err, release.NoSpace, "cannot pick: cannot store the result: no space left")
		list, err := w.Snapshots(t.Context(), "demo")
		must(t, err)
		w.close()
		w.open()
		again, err := w.Snapshots(t.Context(), "demo")
		must(t, err)
		if len(list) != 2 || len(again) != 2 {
			t.Errorf("there are %d snapshots, after a restart %d", len(list), len(again))
		}
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := w.Pick(cancelled, ann, "demo", a, b, []string{"new"}, false, release.Naming{}); err == nil {
			t.Error("who had left got a snapshot")
		}
		_, err = w.Pick(t.Context(), ann, "demo", a, b, []string{"new"}, false, release.Naming{})
		must(t, err)
	})
}

// full is a Chunks on a disk with room for so many texts.
type full struct {
	snapshots.Chunks
	left int
}

func (f *full) Put(ctx context.Context, text []byte) (snapshots.ID, error) {
	if f.left--; f.left < 0 {
		return snapshots.ID{}, &os.PathError{Op: "write", Path: "blobs", Err: syscall.ENOSPC}
	}
	return f.Chunks.Put(ctx, text)
}
