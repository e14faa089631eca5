package storetest

import (
	"crypto/sha256"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// mended tries Mend and what it needs: rows are replaced or added, others stay,
// order is kept.
func mended(t *testing.T, s release.Store, again func() release.Store) {
	ctx := t.Context()
	same(t, "an empty store is whole", len(must1(s.Integrity(ctx))), 0)
	b := demo("demo")
	b.Snapshots = []release.Snapshot{{ID: "20261120T101500Z", Pipeline: "demo", State: state(1), By: "ann", Created: day}}
	b.Bases = append(b.Bases, release.Base{Pipeline: "demo", Dir: "states/2", State: state(2), Text: []byte("2"), InRelease: []byte("2"), Signature: []byte("2")})
	sum := sha256.Sum256([]byte("deb"))
	b.Files = []release.File{{SHA256: sum, Name: "a_1_all.deb", Size: 3}}
	b.Uploads = []release.Accepted{{Pipeline: "demo", Component: "apps", Name: "a", Version: "1", Architecture: "all", SHA256: sum, Size: 3, State: state(1), By: "ann", Via: "x", At: day}}
	must(t, s.Commit(ctx, b))
	same(t, "uploads", must1(s.Uploads(ctx)), b.Uploads)

	pipeline := release.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"arm64"}, Stages: []string{"dev", "canary"}, Created: day.Add(time.Hour)}
	component := release.Component{Pipeline: "demo", Name: "apps", Kind: release.Repository, Keep: 7, Created: day}
	added := release.Component{Pipeline: "demo", Name: "debian", Kind: release.Mirror, Created: day, Mirror: &release.MirrorConfig{Suites: []release.MirrorSuite{{URL: "https://mirror.example/debian"}}}}
	other := release.Snapshot{ID: "20261120T101500Z", Pipeline: "demo", State: state(3), Labels: []string{"x"}, Note: "n", By: "bob", Created: day, Packages: 4}
	late := release.Snapshot{ID: "20261120T101501Z", Pipeline: "demo", State: state(4), By: "bob", Created: day}
	standing := release.Standing{Stage: release.Stage{Pipeline: "demo", Name: "dev", Offer: release.Offer{State: state(9)}, Since: day, Packages: 1, Standing: 5}, Date: day.Truncate(time.Second)}
	base := release.Base{Pipeline: "demo", Dir: "states/1", State: state(5), Text: []byte("t"), InRelease: []byte("i"), Signature: []byte("g")}
	fresh := release.Base{Pipeline: "demo", Dir: "states/6", State: state(6), Text: []byte("t"), InRelease: []byte("i"), Signature: []byte("g")}
	act := release.Act{At: day, By: "ann", Via: "socket", Verb: "repair", Object: "archive"}
	must(t, s.Mend(ctx, release.Mending{
		Lookups: true, Pipelines: []release.Pipeline{pipeline}, Components: []release.Component{component, added},
		Snapshots: []release.Snapshot{other, late}, Standings: []release.Standing{standing}, Bases: []release.Base{base, fresh},
		Files: []release.File{{Path: "/x", SHA256: sum, Name: "b.deb", Size: 4}, {SHA256: sha256.Sum256(nil), Name: "c.deb"}}, Acts: []release.Act{act},
	}))
	for _, s := range []release.Store{s, again()} {
		pipeline.Components = []release.Component{component, added}
		same(t, "pipelines", must1(s.Pipelines(ctx)), []release.Pipeline{pipeline})
		same(t, "snapshots", must1(s.Snapshots(ctx, "demo")), []release.Snapshot{other, late})
		same(t, "standings", must1(s.Standings(ctx, "demo")), []release.Standing{standing, b.Standings[0]})
		same(t, "bases", must1(s.Bases(ctx, "demo")), []release.Base{base, b.Bases[1], fresh})
		same(t, "files", len(must1(s.Files(ctx))), 2)
		same(t, "moves", must1(s.Moves(ctx, "demo", "", 0)), b.Moves)
		same(t, "acts", must1(s.Acts(ctx, "", 0)), []release.Act{act, b.Acts[0]})
		same(t, "integrity", len(must1(s.Integrity(ctx))), 0)
	}
	must(t, s.Mend(ctx, release.Mending{Drop: []release.RowName{
		{Table: "snapshots", Pipeline: "demo", Key: late.ID}, {Table: "stages", Pipeline: "demo", Key: "canary"},
		{Table: "bases", Pipeline: "demo", Key: "states/6"}, {Table: "files", SHA256: sha256.Sum256(nil)},
		{Table: "files", SHA256: sha256.Sum256([]byte("never there"))},
	}}))
	same(t, "snapshots", must1(s.Snapshots(ctx, "demo")), []release.Snapshot{other})
	same(t, "standings", must1(s.Standings(ctx, "demo")), []release.Standing{standing})
	same(t, "bases", must1(s.Bases(ctx, "demo")), []release.Base{base, b.Bases[1]})
	same(t, "files", must1(s.Files(ctx)), []release.File{{SHA256: sum, Name: "b.deb", Size: 4}})
}
