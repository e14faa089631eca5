package apt

import (
	"testing"

	"aptfleet/internal/protocol"
)

// A second pipeline mirrors a stage of the first: what Aptfleet publishes is
// an upstream like any other, and what it mirrors is installed by apt with
// the upstream out of reach.
func TestAMirrorIsInstalledFrom(t *testing.T) {
	upstream := newServer(t)
	upstream.upload("demo-lib", "1:1.0-1")
	upstream.upload("demo-extra", "1.0")
	upstream.upload("demo-app", "1.0", "Depends: demo-lib (>= 1:1.0) | demo-extra")
	upstream.upload("unrelated", "1.0")
	upstream.promote(upstream.snapshot(), "canary")

	s := newServer(t)
	ctx := t.Context()
	if _, err := s.API.CreateMirror(ctx, pipeline, "base", protocol.Mirror{
		Suites: []protocol.MirrorSuite{{
			URL: upstream.public + "/demo/canary", Suite: distribution, Components: []string{component}, Keyring: upstream.download("archive-keyring.asc"),
		}},
		Packages: []string{"demo-app"},
	}); err != nil {
		t.Fatal(err)
	}
	update := func() protocol.Change {
		t.Helper()
		change, err := s.API.UpdateMirror(ctx, pipeline, "base", protocol.MirrorUpdate{})
		if err != nil {
			t.Fatal(err)
		}
		if change, err = s.API.Wait(ctx, change.ID, nil); err != nil {
			t.Fatal(err)
		}
		return change
	}
	if change := update(); change.Status != "done" || change.Done != change.Total || change.Unit != "bytes" {
		t.Fatalf("the update is %+v", change)
	}
	first := s.stage("dev").State
	if change := update(); change.Status != "done" || s.stage("dev").State != first {
		t.Fatalf("the same upstream gives state %s instead of %s (%+v)", s.stage("dev").State, first, change)
	}
	snapshot := s.snapshot()

	// A lying upstream changes nothing.
	upstream.upload("demo-app", "2.0", "Depends: demo-lib (>= 1:1.0)")
	upstream.promote("dev", "canary")
	for _, path := range upstream.files("pool/*/*/demo-app_2.0_all.deb") {
		spoil(t, path, func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
	}
	if change := update(); change.Status != "failed" || s.stage("dev").State != first {
		t.Fatalf("after a lie of upstream dev offers %s, before %s (%+v)", s.stage("dev").State, first, change)
	}
	upstream.stop()

	onEach(t, func(t *testing.T, suite string) {
		m := newMachine(t, suite, s, "demo/snapshots/"+snapshot)
		m.write("/etc/apt/sources.list.d/aptfleet.sources", []byte("Types: deb\nURIs: "+s.public+"/demo/snapshots/"+snapshot+"\n"+
			"Suites: "+distribution+"\nComponents: base\nSigned-By: "+keyring+"\n"))
		m.update()
		m.apt("install", "demo-app")
		m.wantInstalled("demo-app", "1.0")
		m.wantInstalled("demo-lib", "1:1.0-1")
		m.wantCandidate("unrelated", "")
	})
	if out, code := s.tool("check"); code != 0 {
		t.Errorf("check exits %d:\n%s", code, out)
	}
}
