package apt

import "testing"

// apt of Debian 13 finds the snapshots of a stage by the field Snapshots of
// its Release. It needs lists of the stage first; a fresh machine uses the
// snapshot's own base.
func TestAptSelectsASnapshotThroughItsStage(t *testing.T) {
	s := newServer(t)
	s.upload("demo-app", "1.0")
	first := s.snapshot()
	s.promote(first, "canary")
	s.upload("demo-app", "2.0")
	s.promote("dev", "canary")

	m := newMachine(t, "trixie", s, "demo/canary")
	m.update()
	m.wantCandidate("demo-app", "2.0")
	m.must("sed", "-i", "$ a Snapshot: "+first, "/etc/apt/sources.list.d/aptfleet.sources")
	m.update()
	m.wantCandidate("demo-app", "1.0")
	m.apt("install", "demo-app")
	m.wantInstalled("demo-app", "1.0")
	m.must("sed", "-i", "/^Snapshot: /d", "/etc/apt/sources.list.d/aptfleet.sources")
	m.update()
	m.apt("upgrade")
	m.wantInstalled("demo-app", "2.0")
}
