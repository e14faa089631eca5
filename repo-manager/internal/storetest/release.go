package storetest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// day is the time of everything in the suites; stores keep microseconds.
var day = time.Date(2026, 11, 20, 10, 15, 0, 123456000, time.UTC)

func state(n byte) snapshots.ID { return snapshots.ID{n, 31: n} }

// demo is a batch that makes a pipeline with two stages and a repository.
func demo(name string) release.Batch {
	return release.Batch{
		Pipelines:  []release.Pipeline{{Name: name, Distribution: "trixie", Architectures: []string{"amd64", "arm64"}, Stages: []string{"dev", "canary"}, Created: day}},
		Components: []release.Component{{Pipeline: name, Name: "apps", Kind: release.Repository, Keep: 2, Created: day}},
		Moves:      []release.Move{{Seq: 1, Pipeline: name, Stage: "dev", Kind: release.MovePublish, To: release.Offer{State: state(1)}, By: "ann", At: day}},
		Standings: []release.Standing{
			{Stage: release.Stage{Pipeline: name, Name: "canary", Position: 1}},
			{Stage: release.Stage{Pipeline: name, Name: "dev", Offer: release.Offer{State: state(1)}, Since: day, By: "ann", Reason: "why", Packages: 3, Standing: 1},
				Date: day.Truncate(time.Second), ValidUntil: day.Add(time.Hour), Modified: day.Add(2 * time.Hour).Truncate(time.Second), Archive: "http://archive.example"},
		},
		Bases: []release.Base{{Pipeline: name, Dir: "states/1", State: state(1), Text: []byte("text"), InRelease: []byte("signed"), Signature: []byte("sig")}},
		Acts:  []release.Act{{At: day, By: "ann", Via: "socket", Verb: "create", Pipeline: name, Object: "pipeline " + name, Detail: "because"}},
	}
}

// Release runs the suite of release.Store. open returns an empty store; again
// opens the same one once more after it was closed.
func Release(t *testing.T, open func(t *testing.T) (store release.Store, again func() release.Store)) {
	run := func(name string, f func(t *testing.T, s release.Store, again func() release.Store)) {
		t.Run(name, func(t *testing.T) {
			store, again := open(t)
			f(t, store, again)
		})
	}
	run("everything comes back", everythingComesBack)
	run("a failed commit leaves nothing", failedCommit)
	run("a standing is replaced", standingReplaced)
	run("a mirror is changed", mirrorChanged)
	run("order and limits", orderAndLimits)
	run("uploads are found by identity", identities)
	run("changes", changes)
	run("rows are mended", mended)
	run("retention and pins", retention)
	run("what is dropped", dropped)
	run("the moves below", below)
	run("results of changes", results)
	run("the audit trail", func(t *testing.T, s release.Store, _ func() release.Store) { auditTrail(t, s) })
}

func everythingComesBack(t *testing.T, s release.Store, again func() release.Store) {
	ctx := t.Context()
	b := demo("demo")
	mirror := release.Component{Pipeline: "demo", Name: "debian", Kind: release.Mirror, Created: day, Mirror: &release.MirrorConfig{
		Suites: []release.MirrorSuite{
			{URL: "https://mirror.example/debian", Suite: "trixie", Components: []string{"main"}, Keyring: []byte{0, 1, 2}},
			{URL: "https://mirror.example/security", Suite: "trixie-security", Components: []string{"main", "contrib"}, Priority: -1, Keyring: []byte{3}},
		},
		Packages: []string{"hello"}, Filter: "Section (net)", FilterDeps: true, Recommends: true,
	}}
	b.Components = append(b.Components, mirror)
	b.Snapshots = []release.Snapshot{{ID: "20261120T101500Z", Pipeline: "demo", State: state(1), Labels: []string{"rc"}, Note: "a note", By: "ann", Created: day, Packages: 3}}
	b.Moves = append(b.Moves, release.Move{
		Seq: 2, Pipeline: "demo", Stage: "canary", Kind: release.MovePromote, From: release.Offer{State: state(2), Snapshot: "x"},
		To: release.Offer{State: state(1), Snapshot: "20261120T101500Z"}, By: "bob", Reason: "tested", At: day, Over: 1,
	})
	b.Files = []release.File{
		{Path: "/incoming/1", SHA256: sha256.Sum256([]byte("deb")), Name: "a_1_all.deb", Size: 3},
		{SHA256: sha256.Sum256([]byte("deb")), Name: "again.deb", Size: 3},
		{SHA256: sha256.Sum256([]byte("more")), Name: "b_1_all.deb", Size: 4},
	}
	b.Uploads = []release.Accepted{{Pipeline: "demo", Component: "apps", Name: "a", Version: "1", Architecture: "all", SHA256: sha256.Sum256([]byte("deb")), Size: 3, State: state(1), By: "ann", Via: "token:ci", At: day}}
	must(t, s.Commit(ctx, b))
	for _, s := range []release.Store{s, again()} {
		p := b.Pipelines[0]
		p.Components = []release.Component{b.Components[0], mirror}
		same(t, "pipelines", must1(s.Pipelines(ctx)), []release.Pipeline{p})
		same(t, "standings", must1(s.Standings(ctx, "demo")), []release.Standing{b.Standings[1], b.Standings[0]})
		same(t, "snapshots", must1(s.Snapshots(ctx, "demo")), b.Snapshots)
		same(t, "moves", must1(s.Moves(ctx, "demo", "", 0)), []release.Move{b.Moves[1], b.Moves[0]})
		same(t, "bases", must1(s.Bases(ctx, "demo")), b.Bases)
		same(t, "acts", must1(s.Acts(ctx, "demo", 0)), b.Acts)
		base, ok, err := s.Base(ctx, "demo", "states/1")
		must(t, err)
		same(t, "base", base, b.Bases[0])
		same(t, "base is there", ok, true)
		_, ok, err = s.Base(ctx, "other", "states/1")
		must(t, err)
		same(t, "another pipeline's base", ok, false)
		same(t, "has base", must1(s.HasBase(ctx, "demo", "states/1")), true)
		same(t, "has no base", must1(s.HasBase(ctx, "demo", "states/2")), false)
		files := []release.File{{SHA256: b.Files[0].SHA256, Name: "a_1_all.deb", Size: 3}, b.Files[2]}
		slices.SortFunc(files, func(x, y release.File) int { return bytes.Compare(x.SHA256[:], y.SHA256[:]) })
		same(t, "files", must1(s.Files(ctx)), files)
		same(t, "has file", must1(s.HasFile(ctx, sha256.Sum256([]byte("deb")))), true)
		same(t, "has no file", must1(s.HasFile(ctx, sha256.Sum256(nil))), false)
		move, ok, err := s.Move(ctx, "demo", 2)
		must(t, err)
		same(t, "move", move, b.Moves[1])
		same(t, "move is there", ok, true)
		_, ok, err = s.Move(ctx, "demo", 3)
		must(t, err)
		same(t, "move is not there", ok, false)
	}
}

func failedCommit(t *testing.T, s release.Store, _ func() release.Store) {
	ctx := t.Context()
	must(t, s.Commit(ctx, demo("demo")))
	for name, clash := range map[string]release.Batch{
		"pipeline":  {Pipelines: demo("demo").Pipelines},
		"component": {Components: demo("demo").Components},
		"move":      {Moves: demo("demo").Moves},
		"base":      {Bases: demo("demo").Bases},
	} {
		clash.Pipelines = append(demo("other").Pipelines, clash.Pipelines...)
		clash.Acts = demo("other").Acts
		if err := s.Commit(ctx, clash); err == nil {
			t.Errorf("a second %s of the same name was committed", name)
		}
		if n := len(must1(s.Pipelines(ctx))); n != 1 {
			t.Fatalf("after the clash of a %s there are %d pipelines, want 1", name, n)
		}
		if acts := must1(s.Acts(ctx, "other", 0)); len(acts) != 0 {
			t.Errorf("after the clash of a %s an act is left", name)
		}
	}
	named := release.Batch{Snapshots: []release.Snapshot{{ID: "1", Pipeline: "demo", State: state(1), By: "a", Created: day}}}
	must(t, s.Commit(ctx, named))
	if err := s.Commit(ctx, named); err == nil {
		t.Error("a second snapshot of the same id was committed")
	}
}

func standingReplaced(t *testing.T, s release.Store, _ func() release.Store) {
	ctx := t.Context()
	must(t, s.Commit(ctx, demo("demo")))
	canary := release.Standing{
		Stage: release.Stage{Pipeline: "demo", Name: "canary", Position: 1, Offer: release.Offer{State: state(1), Snapshot: "s"}, Since: day, By: "bob", Packages: 1, Standing: 7},
		Date:  day.Truncate(time.Second), ValidUntil: day.Add(time.Minute), Modified: day.Truncate(time.Second),
	}
	must(t, s.Commit(ctx, release.Batch{Standings: []release.Standing{canary}}))
	same(t, "standings", must1(s.Standings(ctx, "demo")), []release.Standing{demo("demo").Standings[1], canary})
}

func mirrorChanged(t *testing.T, s release.Store, again func() release.Store) {
	ctx := t.Context()
	b := demo("demo")
	before := &release.MirrorConfig{Suites: []release.MirrorSuite{{URL: "u", Suite: "trixie"}}, Packages: []string{"a"}}
	b.Components = append(b.Components, release.Component{Pipeline: "demo", Name: "debian", Kind: release.Mirror, Mirror: before, Created: day})
	must(t, s.Commit(ctx, b))
	after := &release.MirrorConfig{Suites: []release.MirrorSuite{{URL: "u", Suite: "forky", Priority: 3}}, All: true}
	must(t, s.Commit(ctx, release.Batch{Mirrors: []release.Component{{Pipeline: "demo", Name: "debian", Mirror: after}}}))
	for _, s := range []release.Store{s, again()} {
		changed := b.Components[1]
		changed.Mirror = after
		same(t, "components", must1(s.Pipelines(ctx))[0].Components, []release.Component{b.Components[0], changed})
	}
	for what, c := range map[string]release.Component{
		"an unknown mirror":  {Pipeline: "demo", Name: "other", Mirror: before},
		"a repository":       {Pipeline: "demo", Name: "apps", Mirror: before},
		"another pipeline's": {Pipeline: "other", Name: "debian", Mirror: before},
	} {
		clash := release.Batch{Mirrors: []release.Component{{Pipeline: "demo", Name: "debian", Mirror: before}, c}}
		if err := s.Commit(ctx, clash); err == nil {
			t.Errorf("%s was changed", what)
		}
		same(t, "the mirror after "+what, must1(s.Pipelines(ctx))[0].Components[1].Mirror, after)
	}
}

func orderAndLimits(t *testing.T, s release.Store, _ func() release.Store) {
	ctx := t.Context()
	must(t, s.Commit(ctx, demo("b")))
	must(t, s.Commit(ctx, demo("a")))
	pipelines := must1(s.Pipelines(ctx))
	same(t, "first pipeline", pipelines[0].Name, "a")
	for i := int64(2); i <= 12; i++ {
		stage := []string{"dev", "canary"}[i%2]
		must(t, s.Commit(ctx, release.Batch{
			Moves: []release.Move{{Seq: i, Pipeline: "a", Stage: stage, Kind: release.MovePublish, To: release.Offer{State: state(byte(i))}, At: day}},
			Acts:  []release.Act{{At: day, By: "ann", Verb: "move", Pipeline: "a", Object: fmt.Sprint(i)}},
			Snapshots: []release.Snapshot{{
				ID: day.Add(time.Duration(i) * time.Second).Format("20060102T150405Z"), Pipeline: "a", State: state(byte(i)), By: "ann", Created: day,
			}},
		}))
	}
	same(t, "newest move", must1(s.Moves(ctx, "a", "", 1))[0].Seq, int64(12))
	same(t, "moves of a stage", len(must1(s.Moves(ctx, "a", "canary", 0))), 5)
	same(t, "newest move of a stage", must1(s.Moves(ctx, "a", "canary", 2))[0].Seq, int64(11))
	same(t, "acts of all", len(must1(s.Acts(ctx, "", 0))), 13)
	same(t, "acts of a", len(must1(s.Acts(ctx, "a", 0))), 12)
	same(t, "newest act", must1(s.Acts(ctx, "a", 3))[0].Object, "12")
	list := must1(s.Snapshots(ctx, "a"))
	for i := range list[1:] {
		if list[i].ID >= list[i+1].ID {
			t.Errorf("snapshot %s comes before %s", list[i].ID, list[i+1].ID)
		}
	}
	same(t, "other pipeline's snapshots", len(must1(s.Snapshots(ctx, "b"))), 0)
}

func identities(t *testing.T, s release.Store, _ func() release.Store) {
	ctx := t.Context()
	must(t, s.Commit(ctx, demo("demo")))
	upload := func(version, content string) release.Accepted {
		sum := sha256.Sum256([]byte(content))
		a := release.Accepted{Pipeline: "demo", Component: "apps", Name: "a", Version: version, Architecture: "amd64", SHA256: sum, State: state(1), By: "ann", Via: "x", At: day}
		must(t, s.Commit(ctx, release.Batch{Files: []release.File{{SHA256: sum, Name: "a.deb"}}, Uploads: []release.Accepted{a}}))
		return a
	}
	upload("1", "one")
	newest := upload("1", "one")
	second := upload("2", "two")
	others := []snapshots.Ref{{Name: "a", Version: "1", Architecture: "arm64"}, {Name: "a", Version: "3", Architecture: "amd64"}, {Name: "b", Version: "1", Architecture: "amd64"}}
	for _, c := range []struct {
		pipeline string
		asked    []snapshots.Ref
		found    map[snapshots.Ref]release.Accepted
	}{
		{"demo", []snapshots.Ref{newest.Ref()}, map[snapshots.Ref]release.Accepted{newest.Ref(): newest}},
		{"demo", append(others, second.Ref(), newest.Ref(), second.Ref()), map[snapshots.Ref]release.Accepted{newest.Ref(): newest, second.Ref(): second}},
		{"demo", others, map[snapshots.Ref]release.Accepted{}},
		{"demo", nil, map[snapshots.Ref]release.Accepted{}},
		{"other", []snapshots.Ref{newest.Ref()}, map[snapshots.Ref]release.Accepted{}},
	} {
		same(t, fmt.Sprint(c.pipeline, c.asked), must1(s.Accepted(ctx, c.pipeline, c.asked...)), c.found)
	}
}

func changes(t *testing.T, s release.Store, again func() release.Store) {
	ctx := t.Context()
	one := must1(s.PutChange(ctx, release.Change{Kind: "check", Summary: "check", Status: release.Doing, By: "ann", Created: day}))
	two := must1(s.PutChange(ctx, release.Change{Kind: "mirror-update", Summary: "update debian", Pipeline: "demo", Subject: "debian", Status: release.Doing, By: "bob", Reason: "weekly", Created: day}))
	if one.ID == 0 || two.ID <= one.ID {
		t.Fatalf("ids are %d and %d, want them to grow from 1", one.ID, two.ID)
	}
	one.Status, one.Finished, one.Done, one.Total, one.Unit, one.Log, one.Error = release.Failed, day.Add(time.Second), 3, 4, "files", []string{"a", "b"}, "broken"
	same(t, "updated", must1(s.PutChange(ctx, one)), one)
	same(t, "changes", must1(again().Changes(ctx, 0)), []release.Change{two, one})
	same(t, "newest", must1(s.Changes(ctx, 1)), []release.Change{two})
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must1 is for calls that do not fail unless the store is broken.
func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}
