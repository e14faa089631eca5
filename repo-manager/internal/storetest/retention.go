package storetest

import (
	"crypto/sha256"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// retention is what a store does about the past: settings, pins, and what a
// commit drops.
func retention(t *testing.T, s release.Store, again func() release.Store) {
	ctx := t.Context()
	b := demo("demo")
	b.Pipelines[0].Retention = release.Retention{States: 7, Days: 3}
	b.Pipelines[0].Private = true
	b.Snapshots = []release.Snapshot{
		{ID: "1", Pipeline: "demo", State: state(1), By: "ann", Created: day},
		{ID: "2", Pipeline: "demo", State: state(2), By: "ann", Created: day},
	}
	must(t, s.Commit(ctx, b))
	must(t, s.Commit(ctx, demo("other")))
	same(t, "retention", must1(s.Pipelines(ctx))[0].Retention, release.Retention{States: 7, Days: 3})
	must(t, s.Commit(ctx, release.Batch{Retentions: []release.Retained{{Pipeline: "demo", Retention: release.Retention{States: 1}}}}))
	same(t, "retention", must1(s.Pipelines(ctx))[0].Retention, release.Retention{States: 1})

	private := func(want bool) {
		t.Helper()
		for _, p := range must1(again().Pipelines(ctx)) {
			same(t, "private "+p.Name, p.Private, p.Name == "demo" && want)
		}
	}
	private(true)
	for _, want := range []bool{false, true} {
		must(t, s.Commit(ctx, release.Batch{Readings: []release.Reading{{Pipeline: "demo", Private: want}}}))
		private(want)
	}

	pin := release.Pin{Pipeline: "demo", Snapshot: "2", By: "mia", Reason: "line 3", At: day}
	must(t, s.Commit(ctx, release.Batch{Pins: []release.Pin{pin}}))
	list := must1(again().Snapshots(ctx, "demo"))
	same(t, "pin", list[1].Pin, &pin)
	same(t, "pin of another", list[0].Pin, nil)
	for what, batch := range map[string]release.Batch{
		"a second pin":                {Pins: []release.Pin{pin}},
		"a pin of nothing":            {Pins: []release.Pin{{Pipeline: "demo", Snapshot: "3", By: "mia", At: day}}},
		"deleting a pinned snapshot":  {Dropped: release.Dropped{Snapshots: []release.SnapshotName{{Pipeline: "demo", ID: "2"}}}},
		"deleting it with other acts": {Acts: demo("demo").Acts, Dropped: release.Dropped{Snapshots: []release.SnapshotName{{Pipeline: "demo", ID: "1"}, {Pipeline: "demo", ID: "2"}}}},
	} {
		if err := s.Commit(ctx, batch); err == nil {
			t.Errorf("%s was committed", what)
		}
		same(t, "snapshots after "+what, len(must1(s.Snapshots(ctx, "demo"))), 2)
	}
	name := []release.SnapshotName{{Pipeline: "demo", ID: "2"}}
	must(t, s.Commit(ctx, release.Batch{Unpinned: name}))
	must(t, s.Commit(ctx, release.Batch{Dropped: release.Dropped{Snapshots: name}}))
	same(t, "highest deleted", must1(s.Pipelines(ctx))[0].Deleted, "2")
	must(t, s.Commit(ctx, release.Batch{Dropped: release.Dropped{Snapshots: []release.SnapshotName{{Pipeline: "demo", ID: "1"}}}}))
	same(t, "highest deleted", must1(again().Pipelines(ctx))[0].Deleted, "2")
	same(t, "snapshots", len(must1(s.Snapshots(ctx, "demo"))), 0)
}

// dropped looks at bases and files that a commit forgets: identities of
// uploads outlive their files, and both may come back.
func dropped(t *testing.T, s release.Store, again func() release.Store) {
	ctx := t.Context()
	b := demo("demo")
	sum, kept := sha256.Sum256([]byte("deb")), sha256.Sum256([]byte("kept"))
	b.Files = []release.File{{SHA256: sum, Name: "a_1_all.deb", Size: 3}, {SHA256: kept, Name: "b_1_all.deb", Size: 4}}
	b.Uploads = []release.Accepted{{Pipeline: "demo", Component: "apps", Name: "a", Version: "1", Architecture: "all", SHA256: sum, Size: 3, State: state(1), By: "ann", Via: "x", At: day}}
	b.Bases = append(b.Bases, release.Base{Pipeline: "demo", Dir: "states/2", State: state(2), Text: []byte("t"), InRelease: []byte("i"), Signature: []byte("s")})
	must(t, s.Commit(ctx, b))
	must(t, s.Commit(ctx, demo("other")))
	same(t, "base states", must1(s.BaseStates(ctx, "demo")), []release.Base{
		{Pipeline: "demo", Dir: "states/1", State: state(1)}, {Pipeline: "demo", Dir: "states/2", State: state(2)},
	})
	drop := release.Batch{Dropped: release.Dropped{
		Bases: []release.BaseName{{Pipeline: "demo", Dir: "states/1"}, {Pipeline: "demo", Dir: "states/none"}},
		Files: [][32]byte{sum, {1}},
	}}
	must(t, s.Commit(ctx, drop))
	for _, s := range []release.Store{s, again()} {
		same(t, "bases", must1(s.Bases(ctx, "demo")), b.Bases[1:])
		same(t, "has base", must1(s.HasBase(ctx, "demo", "states/1")), false)
		same(t, "another pipeline's base", must1(s.HasBase(ctx, "other", "states/1")), true)
		same(t, "has file", must1(s.HasFile(ctx, sum)), false)
		same(t, "files", must1(s.Files(ctx)), []release.File{b.Files[1]})
		ref := b.Uploads[0].Ref()
		same(t, "identity", must1(s.Accepted(ctx, "demo", ref)), map[snapshots.Ref]release.Accepted{ref: b.Uploads[0]})
	}
	must(t, s.Commit(ctx, release.Batch{Bases: b.Bases[:1], Files: b.Files[:1]}))
	same(t, "bases", len(must1(s.Bases(ctx, "demo"))), 2)
	same(t, "has file", must1(s.HasFile(ctx, sum)), true)
	for more := true; more; {
		more = must1(s.Compact(ctx))
	}
}

// below walks the moves that undos go back to.
func below(t *testing.T, s release.Store, _ func() release.Store) {
	ctx := t.Context()
	must(t, s.Commit(ctx, demo("demo")))
	must(t, s.Commit(ctx, demo("other")))
	over := map[int64]int64{2: 0, 3: 2, 4: 3, 5: 2, 6: 5}
	for seq := int64(2); seq <= 6; seq++ {
		must(t, s.Commit(ctx, release.Batch{Moves: []release.Move{{
			Seq: seq, Pipeline: "demo", Stage: "canary", Kind: release.MovePromote, To: release.Offer{State: state(byte(seq))}, By: "ann", At: day.Add(time.Duration(seq)), Over: over[seq],
		}}}))
	}
	for from, want := range map[int64][]int64{0: nil, 2: {2}, 4: {4, 3, 2}, 6: {6, 5, 2}, 9: nil} {
		var got []int64
		for _, move := range must1(s.Below(ctx, "demo", from)) {
			got = append(got, move.Seq)
			same(t, "state", move.To.State, state(byte(move.Seq)))
		}
		same(t, "moves below", got, want)
	}
}

func results(t *testing.T, s release.Store, again func() release.Store) {
	ctx := t.Context()
	c := must1(s.PutChange(ctx, release.Change{Kind: "gc", Summary: "gc", Status: release.Doing, By: "ann", Created: day}))
	_, ok, err := s.Result(ctx, c.ID)
	must(t, err)
	same(t, "a result before it was put", ok, false)
	for _, text := range []string{`{"a":1}`, `{"a":2}`} {
		must(t, s.PutResult(ctx, c.ID, []byte(text)))
		got, ok, err := again().Result(ctx, c.ID)
		must(t, err)
		same(t, "there is a result", ok, true)
		same(t, "result", string(got), text)
		must1(s.PutChange(ctx, c)) // replaces the change, not its result
	}
}
