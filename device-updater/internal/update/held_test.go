package update

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/archive"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

// TestAHoldIsForPeopleToo: who stands at a held device may look, and changes
// nothing.
func TestAHoldIsForPeopleToo(t *testing.T) {
	deb := tryDeb(t, "app", "1~local")
	w := newWorld(t)
	w.powerOn()
	w.held = "it is held by vera: fair"
	w.against = w.held
	for _, ask := range []func(*Machine) error{tries(deb), rejoins} {
		w.asked = ask
		_, err := w.session(true)
		var refused *Refused
		if !errors.As(err, &refused) || !strings.HasSuffix(refused.Reason, ": "+w.held) || !strings.Contains(refused.Hint, "repo-manager device unhold") {
			t.Errorf("%v", err)
		}
	}
	if got := consistent(t, w); got != "old" || len(w.local()) > 0 || w.boots > 1 {
		t.Errorf("it runs %s, keeps %v", got, w.local())
	}
	m, done := w.machine()
	defer done()
	if changes, err := m.PreviewTry(t.Context(), []string{deb}); err != nil || len(changes) == 0 {
		t.Errorf("what it would change: %v, %v", changes, err)
	}
	if _, err := m.PreviewRejoin(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAHoldThatComesWhileATryStages leaves it staged; the next one goes on.
func TestAHoldThatComesWhileATryStages(t *testing.T) {
	deb := tryDeb(t, "app", "1~local")
	w := newWorld(t)
	w.powerOn()
	w.asked = tries(deb)
	w.atDownload = func() { w.held = "it is held: fair" }
	_, err := w.session(true)
	var refused *Refused
	if !errors.As(err, &refused) || w.rebooting {
		t.Errorf("%v, rebooting %v", err, w.rebooting)
	}
	w.held, w.atDownload = "", nil
	w.asked = tries(deb)
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got := consistent(t, w); got != "old+app 1~local" {
		t.Errorf("it runs %s", got)
	}
	if n := strings.Count(strings.Join(w.steps, "\n"), "install begins"); n != 1 {
		t.Errorf("it was installed %d times", n)
	}
}

// TestTryWithoutAValidAssignment: what the server has not renewed says nothing
// about the release that is booted, and nothing for another one.
func TestTryWithoutAValidAssignment(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.against, w.offered = "its assignment expired", "new"
	for _, step := range []struct {
		ask  func(*Machine) error
		want string
	}{{tries(tryDeb(t, "app", "1~local")), "old+app 1~local"}, {rejoins, "old"}} {
		w.asked = step.ask
		for range 2 {
			var refused *Refused
			if err := w.settle(); err != nil && !errors.As(err, &refused) {
				t.Fatal(err)
			}
		}
		if got := consistent(t, w); got != step.want {
			t.Errorf("it runs %s, want %s", got, step.want)
		}
	}
}

// TestAPackageThatTheIndexLacks is a refusal, and stays one until another bill
// of materials comes.
func TestAPackageThatTheIndexLacks(t *testing.T) {
	s, o, web := following(t)
	s.Dir = filepath.Join(t.TempDir(), "apt")
	state := strings.Repeat("a", 64)
	list := bill(state)
	list.Packages[0].SHA256 = strings.Repeat("2", 64)
	o.a = nil
	assign(t, o, web, list, state)
	offer, err := s.Offer(t.Context())
	if err != nil || o.refused != nil {
		t.Fatalf("%v, refused %v", err, o.refused)
	}
	var untrusted *archive.Error
	if _, err := s.Plan(t.Context(), offer, t.TempDir(), Deployment{}); !errors.As(err, &untrusted) || untrusted.Kind != archive.Package {
		t.Errorf("%v", err)
	}
	for range 2 {
		if _, err := s.Offer(t.Context()); err != nil || o.refused == nil || o.refused.Reason != "package" || !strings.Contains(o.refused.Error(), "app:all=1 has SHA-256 1111") {
			t.Errorf("%v, refused %v", err, o.refused)
		}
	}
	assign(t, o, web, bill(state), state)
	if offer, err = s.Offer(t.Context()); err != nil || o.refused != nil {
		t.Errorf("%v, refused %v", err, o.refused)
	}
	root := emptyRoot(t)
	plan, err := s.Plan(t.Context(), offer, root, Deployment{})
	if err != nil || o.refused != nil || len(plan.Fetch) != 1 || plan.Fetch[0].SHA256 != bill(state).Packages[0].SHA256 {
		t.Errorf("%+v, %v, refused %v", plan, err, o.refused)
	}
}

// TestTheBootedReleaseIsWhereItWas: what is assigned now does not say where the
// packages of the booted release lie.
func TestTheBootedReleaseIsWhereItWas(t *testing.T) {
	s, o, web := following(t)
	s.Dir = filepath.Join(t.TempDir(), "apt")
	before, after := strings.Repeat("a", 64), strings.Repeat("b", 64)
	assign(t, o, web, bill(before), before)
	offer, err := s.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	booted := Deployment{ID: 1, State: before, BOM: offer.bomText(), Origin: offer.Origin}
	assign(t, o, web, bill(after), after)
	if _, err := s.Offer(t.Context()); err != nil {
		t.Fatal(err)
	}
	release, err := booted.release()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.open(t.Context(), release); err != nil {
		t.Fatal(err)
	}
	if list, err := s.list(t.Context(), release); err != nil || len(list) != 1 || s.opened != before {
		t.Errorf("%v, %v", list, err)
	}
	booted.Origin = nil // of the factory
	if release, err = booted.release(); err != nil {
		t.Fatal(err)
	}
	s.private = nil
	var refused *Refused
	if err := s.open(t.Context(), release); !errors.As(err, &refused) {
		t.Errorf("%v", err)
	}
}

func TestHeld(t *testing.T) {
	s, o, _ := following(t)
	o.a, o.against = &protocol.Assignment{}, "its assignment expired"
	if why := s.Held(); why != "" {
		t.Errorf("%q is no hold", why)
	}
	o.a.Hold, o.against = &protocol.Hold{Reason: "fair"}, "it is held: fair"
	if why := s.Held(); why != o.against {
		t.Errorf("%q", why)
	}
	s.Assignments = nil
	if why := s.Held(); why != "" {
		t.Errorf("without a server: %q", why)
	}
}

// TestAnotherBillForTheSameState: modules of a product may change where its
// state does not.
func TestAnotherBillForTheSameState(t *testing.T) {
	w := newWorld(t)
	w.compares = true
	w.powerOn()
	one, two := bom.BOM{State: strings.Repeat("a", 64), Product: "gateway", TopLevel: []string{"app"}}, bom.BOM{State: strings.Repeat("a", 64), Product: "gateway", TopLevel: []string{"app", "gps"}}
	w.offered, w.list = "new", &one
	w.atDownload = func() { w.list = &two }
	if _, err := w.session(true); err == nil || w.rebooting {
		t.Errorf("%v, rebooting %v", err, w.rebooting)
	}
	w.atDownload = nil
	for range 2 {
		if err := w.settle(); err != nil {
			t.Fatal(err)
		}
	}
	m, done := w.machine()
	defer done()
	d, err := m.Records.Deployment(w.current)
	if err != nil || d.BOM != string(two.Encode()) || len(d.TopLevel) != 2 || m.Journal.Last().Phase != journal.Idle {
		t.Errorf("%+v, %v", d, err)
	}
	// The same packages by another bill are recorded, not installed.
	begun := strings.Count(strings.Join(w.steps, "\n"), "install begins")
	w.list = &one
	if err := m.Update(t.Context(), Options{}); err != nil {
		t.Fatal(err)
	}
	if d, err = m.Records.Deployment(w.current); err != nil || d.BOM != string(one.Encode()) || strings.Count(strings.Join(w.steps, "\n"), "install begins") != begun {
		t.Errorf("%+v, %v", d, err)
	}
}
