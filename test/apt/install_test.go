package apt

import (
	"testing"
)

func TestInstallUpgradeAndDowngrade(t *testing.T) {
	onEach(t, func(t *testing.T, suite string) {
		s := newServer(t)
		s.upload("demo-lib", "1:1.0-1")
		s.upload("demo-app", "1.0~rc1", "Depends: demo-lib (>= 1:1.0)")
		first := s.snapshot()
		s.promote(first, "canary")
		s.promote("canary", "production")

		machines := map[string]*machine{}
		for _, base := range []string{"demo/dev", "demo/canary", "demo/production", "demo/snapshots/" + first} {
			m := newMachine(t, suite, s, base)
			m.update()
			m.apt("install", "demo-app")
			m.wantInstalled("demo-app", "1.0~rc1")
			m.wantInstalled("demo-lib", "1:1.0-1")
			machines[base] = m
		}

		s.upload("demo-app", "1.0", "Depends: demo-lib (>= 1:1.0)")
		second := s.snapshot()
		s.promote(second, "canary")

		for base, want := range map[string]string{
			"demo/dev": "1.0", "demo/canary": "1.0", "demo/production": "1.0~rc1", "demo/snapshots/" + first: "1.0~rc1",
		} {
			m := machines[base]
			m.update()
			m.apt("upgrade")
			m.wantInstalled("demo-app", want)
		}

		// dev keeps two versions: an older one can be asked for.
		dev := machines["demo/dev"]
		dev.apt("install", "--allow-downgrades", "demo-app=1.0~rc1")
		dev.wantInstalled("demo-app", "1.0~rc1")
		dev.apt("upgrade")
		dev.wantInstalled("demo-app", "1.0")

		// From one snapshot to the next and back, by the base alone.
		pinned := machines["demo/snapshots/"+first]
		pinned.follow(s, "demo/snapshots/"+second)
		pinned.update()
		pinned.apt("upgrade")
		pinned.wantInstalled("demo-app", "1.0")
		pinned.prefer(1001)
		pinned.follow(s, "demo/snapshots/"+first)
		pinned.update()
		pinned.apt("dist-upgrade", "--allow-downgrades")
		pinned.wantInstalled("demo-app", "1.0~rc1")

		// A stage that goes back takes its machines along.
		s.undo("canary")
		canary := machines["demo/canary"]
		canary.prefer(1001)
		canary.update()
		canary.apt("dist-upgrade", "--allow-downgrades")
		canary.wantInstalled("demo-app", "1.0~rc1")
	})
}

// apt keeps its lists when a Release is not newer, and compares whole
// seconds: an undo right after a promotion must still be seen.
func TestAnUndoReachesMachinesWithNewerLists(t *testing.T) {
	onEach(t, func(t *testing.T, suite string) {
		s := newServer(t)
		s.upload("demo-app", "1.0")
		first := s.snapshot()
		s.upload("demo-app", "2.0")
		second := s.snapshot()
		s.promote(first, "canary")
		m := newMachine(t, suite, s, "demo/canary")
		m.update()
		m.wantCandidate("demo-app", "1.0")
		for range 3 {
			s.promote(second, "canary")
			m.update()
			m.wantCandidate("demo-app", "2.0")
			s.undo("canary")
			m.update()
			m.wantCandidate("demo-app", "1.0")
		}
	})
}

func TestTheLastOfThreePublicationsIsSeen(t *testing.T) {
	onEach(t, func(t *testing.T, suite string) {
		s := newServer(t)
		s.upload("demo-app", "1.0")
		m := newMachine(t, suite, s, "demo/dev")
		m.update()
		for _, version := range []string{"1.1", "1.2", "1.3"} {
			s.upload("demo-app", version)
		}
		m.update()
		m.wantCandidate("demo-app", "1.3")
		// And each of them, by one who asks in between.
		for _, version := range []string{"1.4", "1.5", "1.6"} {
			s.upload("demo-app", version)
			m.update()
			m.wantCandidate("demo-app", version)
		}
	})
}
