package sqlite

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

var day = time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pipeline commits a pipeline with a stage that offers a state.
func pipeline(t *testing.T, d *DB, name string, n byte) {
	t.Helper()
	must(t, d.Commit(t.Context(), release.Batch{
		Pipelines: []release.Pipeline{{Name: name, Distribution: "trixie", Stages: []string{"dev", "canary"}, Created: day}},
		Standings: []release.Standing{
			{Stage: release.Stage{Pipeline: name, Name: "dev", Offer: release.Offer{State: snapshots.ID{n}}}, Date: day, ValidUntil: day},
			{Stage: release.Stage{Pipeline: name, Name: "canary", Position: 1}},
		},
		Bases: []release.Base{
			{Pipeline: name, Dir: "states/1", State: snapshots.ID{n}, Text: []byte("text"), InRelease: []byte("signed"), Signature: []byte("sig")},
			{Pipeline: name, Dir: "states/2", State: snapshots.ID{n, 1}, Text: []byte("text"), InRelease: []byte("signed"), Signature: []byte("sig")},
		},
		Files: []release.File{{SHA256: [32]byte{n}, Name: name + "_1_all.deb", Size: 3}},
	}))
}

// A snapshot, and the copy that is made of it later, know nothing of what was
// committed in between.
func TestSnapshotIsOfOneMoment(t *testing.T) {
	ctx := t.Context()
	d := open(t, filepath.Join(t.TempDir(), "db"))
	pipeline(t, d, "one", 1)
	s, err := d.Snapshot(ctx)
	must(t, err)
	pipeline(t, d, "two", 2)
	path := filepath.Join(t.TempDir(), "odd name?#%.db")
	must(t, s.CopyTo(ctx, path))
	pipeline(t, d, "three", 3)
	files, err := s.Files(ctx)
	if err != nil || len(files) != 1 || files[0].Name != "one_1_all.deb" || files[0].Size != 3 {
		t.Errorf("files: %v, %v", files, err)
	}
	states, err := s.States(ctx)
	if err != nil || fmt.Sprint(states) != fmt.Sprint([]snapshots.ID{{1}, {1, 1}}) {
		t.Errorf("states: %v, %v", states, err)
	}
	stages, err := s.Stages(ctx)
	if err != nil || fmt.Sprint(stages) != "[{one trixie dev}]" {
		t.Errorf("stages: %v, %v", stages, err)
	}
	must(t, s.Close())
	if left, err := filepath.Glob(filepath.Dir(path) + "/*"); err != nil || len(left) != 1 {
		t.Errorf("beside the copy there are %v, %v", left, err)
	}
	found, err := open(t, path).Pipelines(ctx)
	if err != nil || len(found) != 1 || found[0].Name != "one" {
		t.Errorf("the copy has %v, %v", found, err)
	}
	found, err = d.Pipelines(ctx)
	if err != nil || len(found) != 3 {
		t.Errorf("the database has %v, %v", found, err)
	}
}

// Two copies have in common what did not change: that is what makes a second
// backup small.
func TestCopiesDifferWhereTheDatabaseDid(t *testing.T) {
	ctx := t.Context()
	d := open(t, filepath.Join(t.TempDir(), "db"))
	pipeline(t, d, "one", 1)
	var acts []release.Act
	for range 20000 {
		acts = append(acts, release.Act{At: day, By: "ann", Via: "socket", Verb: "upload", Object: "repository apps", Detail: "something that takes a little room"})
	}
	must(t, d.Commit(ctx, release.Batch{Acts: acts}))
	copied := func() []byte {
		s, err := d.Snapshot(ctx)
		must(t, err)
		path := filepath.Join(t.TempDir(), "copy")
		must(t, s.CopyTo(ctx, path))
		must(t, s.Close())
		data, err := os.ReadFile(path)
		must(t, err)
		return data
	}
	before := copied()
	pipeline(t, d, "two", 2)
	after := copied()
	const page = 4096
	differ := 0
	for i := 0; i < len(after); i += page {
		if i+page > len(before) || !bytes.Equal(before[i:i+page], after[i:i+page]) {
			differ++
		}
	}
	if all := len(after) / page; differ == 0 || differ > 40 || all < 500 {
		t.Errorf("%d of %d pages differ", differ, all)
	}
}

func TestSnapshotsEnd(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "db"))
	for range 2 * readers { // a connection that is not given back would be missed
		s, err := d.Snapshot(t.Context())
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.CopyTo(ctx, filepath.Join(t.TempDir(), "copy")); err == nil {
			t.Error("a copy outlived its context")
		}
		must(t, s.Close())
	}
}

func TestRestored(t *testing.T) {
	ctx := t.Context()
	d := open(t, filepath.Join(t.TempDir(), "db"))
	pipeline(t, d, "demo", 1)
	act := release.Act{At: day, By: "ann", Via: "restore", Verb: "restore", Object: "server"}
	must(t, d.PutUser(ctx, access.User{Name: "ann", Roles: []string{"admin"}, Created: day}, act))
	must(t, d.PutLink(ctx, access.Hash{1}, access.Grant{User: "ann", Expires: day.Add(time.Hour)}, day, act))
	_, err := d.PutToken(ctx, access.Token{User: "ann", Label: "l", Created: day}, access.Hash{2}, act)
	must(t, err)
	made, err := d.PutChange(ctx, release.Change{Kind: "backup", Status: release.Doing, Created: day})
	must(t, err)
	other, err := d.PutChange(ctx, release.Change{Kind: "mirror-update", Status: release.Doing, Created: day})
	must(t, err)
	standings, err := d.Standings(ctx, "demo")
	must(t, err)
	standings[0].Date = day.Add(time.Hour)

	must(t, d.Restored(ctx, made.ID, standings[:1], act))
	if _, there, err := d.Link(ctx, access.Hash{1}); there || err != nil {
		t.Errorf("a link is still good: %v", err)
	}
	if _, there, err := d.TokenBySecret(ctx, access.Hash{2}); !there || err != nil {
		t.Errorf("a token is gone: %v", err)
	}
	changes, err := d.Changes(ctx, 0)
	if err != nil || changes[1].Status != release.Done || changes[1].Finished.IsZero() || changes[0].ID != other.ID || changes[0].Status != release.Doing {
		t.Errorf("changes: %+v, %v", changes, err)
	}
	now, err := d.Standings(ctx, "demo")
	if err != nil || !now[0].Date.Equal(day.Add(time.Hour)) {
		t.Errorf("standings: %+v, %v", now, err)
	}
	acts, err := d.Acts(ctx, "", 1)
	if err != nil || acts[0].Verb != "restore" {
		t.Errorf("acts: %+v, %v", acts, err)
	}
}
