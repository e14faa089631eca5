package update

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/archive"
	"aptfleet/device-updater/internal/assignment"
	"aptfleet/device-updater/internal/servertest"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

// assignments are Assignments that a test gives.
type assignments struct {
	a       *protocol.Assignment
	against string
	refused *assignment.Refusal
}

func (o *assignments) Current() (*protocol.Assignment, string) { return o.a, o.against }
func (o *assignments) Refuse(r *assignment.Refusal)            { o.refused = r }

// following is a Source that follows assignments, and its server.
func following(t *testing.T) (*Source, *assignments, *servertest.Server) {
	t.Helper()
	web := servertest.Start(t, false)
	keyring := filepath.Join(t.TempDir(), "key.asc")
	if err := os.WriteFile(keyring, []byte(web.Certificate), 0o644); err != nil {
		t.Fatal(err)
	}
	records, err := OpenRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := &assignments{}
	return &Source{
		Client:      &archive.Client{HTTP: archive.NewHTTP(http.DefaultTransport, web.URL, archive.Access{}), URL: web.URL, Keyring: keyring, Clock: time.Now},
		Assignments: o, Architecture: "amd64", Records: records, SetClock: func(time.Time) error { return nil },
	}, o, web
}

// bill is the bill of materials of a state.
func bill(state string) bom.BOM {
	return bom.BOM{
		State: state, Product: servertest.Product, Architecture: "amd64", TopLevel: []string{"app"},
		Packages: []bom.Package{{Name: "app", Architecture: "all", Version: "1", SHA256: strings.Repeat("1", 64)}},
	}
}

func assign(t *testing.T, o *assignments, web *servertest.Server, list bom.BOM, state string) *protocol.AssignedRelease {
	t.Helper()
	release := web.Publish(t, state, list.Encode())
	o.a = &protocol.Assignment{Version: 1, Pipeline: servertest.Pipeline, Product: servertest.Product, Release: release}
	return release
}

var stateA, stateB = strings.Repeat("a", 64), strings.Repeat("b", 64)

// TestAnAssignedReleaseIsOffered when both keys agree about it, and costs one
// look at the archive.
func TestAnAssignedReleaseIsOffered(t *testing.T) {
	s, o, web := following(t)
	release := assign(t, o, web, bill(stateA), stateA)
	for range 3 {
		offer, err := s.Offer(t.Context())
		if err != nil || offer.State != stateA || offer.Against != "" || offer.BOM == nil || len(offer.BOM.Packages) != 1 || offer.BOM.TopLevel[0] != "app" {
			t.Fatalf("%+v, %v", offer, err)
		}
	}
	if want := "/" + release.Base + "/dists/trixie/InRelease /demo/boms/" + release.BOM; strings.Join(web.Requests, " ") != want {
		t.Errorf("it asked for %v", web.Requests)
	}
	// A restart has the bill of materials already.
	again, _, _ := following(t)
	again.Client, again.Records, again.Assignments, web.Requests = s.Client, s.Records, o, nil
	if offer, err := again.Offer(t.Context()); err != nil || offer.BOM == nil || len(web.Requests) != 1 {
		t.Errorf("%+v, %v after %v", offer, err, web.Requests)
	}
	// Another release takes its place, also of the bill.
	second := assign(t, o, web, bill(stateB), stateB)
	if offer, err := s.Offer(t.Context()); err != nil || offer.State != stateB || offer.BOM.State != stateB {
		t.Errorf("%+v, %v", offer, err)
	}
	kept, err := os.ReadDir(s.Records.path(bomDir))
	if err != nil || len(kept) != 1 || kept[0].Name() != second.BOM {
		t.Errorf("kept %v, %v", kept, err)
	}
	// The plan of a release that is not offered any more is not made.
	if _, err := s.Plan(t.Context(), Offer{State: stateA}, t.TempDir(), Deployment{}); err == nil {
		t.Error("it would still install the first one")
	}
}

// TestAnAssignedReleaseIsPlanned by apt, from the base that is assigned and
// with the device's password.
func TestAnAssignedReleaseIsPlanned(t *testing.T) {
	s, o, web := following(t)
	web.Password = "secret"
	s.Access = archive.Access{User: "dev-1", Password: "secret"}
	s.Client.HTTP = archive.NewHTTP(http.DefaultTransport, web.URL, s.Access)
	s.Dir = filepath.Join(t.TempDir(), "apt")
	release := assign(t, o, web, bill(stateA), stateA)
	offer, err := s.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root := emptyRoot(t)
	plan, err := s.Plan(t.Context(), offer, root, Deployment{})
	if err != nil {
		t.Fatal(err)
	}
	if len(plan.List) != 1 || plan.List[0].String() != offer.BOM.Packages[0].String() || plan.List[0].SHA256 != offer.BOM.Packages[0].SHA256 {
		t.Errorf("%+v, and the bill of materials says %+v", plan.List, offer.BOM.Packages)
	}
	for _, path := range web.Requests {
		if !strings.HasPrefix(path, "/"+release.Base+"/") && !strings.HasPrefix(path, "/demo/boms/") {
			t.Errorf("it asked for %s", path)
		}
	}
	// What a device that never updated runs was not assigned: without its bill of
	// materials all packages would have to leave.
	var refused *Refused
	if plan, err := s.Plan(t.Context(), Offer{State: stateA, Booted: true}, root, Deployment{State: stateA}); !errors.As(err, &refused) {
		t.Errorf("without a bill of materials it plans %+v, %v", plan, err)
	}
}

func TestNothingIsOffered(t *testing.T) {
	s, o, web := following(t)
	for _, c := range []struct {
		a       *protocol.Assignment
		against string
		want    string
	}{
		{nil, "it waits for an operator", "it waits for an operator"},
		{&protocol.Assignment{Wait: "the gate waits"}, "", "the gate waits"},
		{&protocol.Assignment{}, "", "no release for this device"},
		{&protocol.Assignment{Wait: "the gate waits"}, "it is held: fair", "it is held: fair"},
	} {
		o.a, o.against = c.a, c.against
		offer, err := s.Offer(t.Context())
		if err != nil || offer.State != "" || !strings.Contains(offer.Against, c.want) {
			t.Errorf("%+v: %+v, %v", c, offer, err)
		}
	}
	// A hold names the release and fetches nothing.
	assign(t, o, web, bill(stateA), stateA)
	o.against = "it is held: fair"
	offer, err := s.Offer(t.Context())
	if err != nil || offer.State != stateA || offer.Against != o.against || offer.BOM != nil || len(web.Requests) > 0 {
		t.Errorf("%+v, %v after %v", offer, err, web.Requests)
	}
	// One that came after the release was fetched keeps what is known.
	o.against = ""
	if _, err := s.Offer(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.against = "it is held: fair"
	if offer, err := s.Offer(t.Context()); err != nil || offer.BOM == nil || offer.Against == "" {
		t.Errorf("%+v, %v", offer, err)
	}
}

// TestSwapped: what an assignment names is exactly that, or nothing; and it is
// said which of the two it was.
func TestSwapped(t *testing.T) {
	encode := func(change func(*bom.BOM)) []byte {
		list := bill(stateA)
		change(&list)
		return list.Encode()
	}
	for _, c := range []struct {
		name string
		swap func(*servertest.Server, *protocol.AssignedRelease)
		want assignment.Reason // "": an error that is no refusal
	}{
		{"the Release of the same state, signed anew", func(web *servertest.Server, r *protocol.AssignedRelease) {
			text := strings.Replace(string(web.Files[r.Base+"/dists/trixie/Release"]), "Origin: Aptfleet", "Origin: Other", 1)
			signed, err := web.Archive.ClearSign([]byte(text), time.Now().Add(-time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			web.Files[r.Base+"/dists/trixie/InRelease"] = signed
		}, assignment.Release},
		{"the Release of another state", func(web *servertest.Server, r *protocol.AssignedRelease) {
			other := web.Publish(t, stateB, encode(func(*bom.BOM) {}))
			web.Files[r.Base+"/dists/trixie/InRelease"] = web.Files[other.Base+"/dists/trixie/InRelease"]
		}, assignment.Release},
		{"a changed byte in the Release", func(web *servertest.Server, r *protocol.AssignedRelease) {
			path := r.Base + "/dists/trixie/InRelease"
			web.Files[path] = bytes.Replace(web.Files[path], []byte("Origin"), []byte("origin"), 1)
		}, assignment.Release},
		{"a Release that the archive key did not sign", func(web *servertest.Server, r *protocol.AssignedRelease) {
			other := servertest.Start(t, false)
			signed, err := other.Archive.ClearSign(web.Files[r.Base+"/dists/trixie/Release"], time.Now().Add(-time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			web.Files[r.Base+"/dists/trixie/InRelease"] = signed
		}, assignment.Release},
		{"no Release", func(web *servertest.Server, r *protocol.AssignedRelease) {
			delete(web.Files, r.Base+"/dists/trixie/InRelease")
		}, ""},
		{"a bill with another version", func(web *servertest.Server, r *protocol.AssignedRelease) {
			web.Files["demo/boms/"+r.BOM] = encode(func(b *bom.BOM) { b.Packages[0].Version = "2" })
		}, assignment.BOM},
		{"half a bill", func(web *servertest.Server, r *protocol.AssignedRelease) {
			web.Files["demo/boms/"+r.BOM] = web.Files["demo/boms/"+r.BOM][:100]
		}, assignment.BOM},
		{"a bill that is larger than was said", func(web *servertest.Server, r *protocol.AssignedRelease) {
			web.Files["demo/boms/"+r.BOM] = append(web.Files["demo/boms/"+r.BOM], '\n')
		}, ""},
		{"no bill", func(web *servertest.Server, r *protocol.AssignedRelease) { delete(web.Files, "demo/boms/"+r.BOM) }, ""},
		{"a bill of another state, by the server itself", func(web *servertest.Server, r *protocol.AssignedRelease) {
			*r = *web.Publish(t, stateA, encode(func(b *bom.BOM) { b.State = stateB }))
		}, assignment.BOM},
		{"a bill of another product, by the server itself", func(web *servertest.Server, r *protocol.AssignedRelease) {
			*r = *web.Publish(t, stateA, encode(func(b *bom.BOM) { b.Product = "camera" }))
		}, assignment.BOM},
		{"a bill for another architecture, by the server itself", func(web *servertest.Server, r *protocol.AssignedRelease) {
			*r = *web.Publish(t, stateA, encode(func(b *bom.BOM) { b.Architecture = "arm64" }))
		}, assignment.BOM},
		{"a bill that is none, by the server itself", func(web *servertest.Server, r *protocol.AssignedRelease) {
			*r = *web.Publish(t, stateA, []byte("Aptfleet-BOM: 2\n"))
		}, assignment.BOM},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, o, web := following(t)
			release := assign(t, o, web, bill(stateA), stateA)
			c.swap(web, release)
			offer, err := s.Offer(t.Context())
			if err == nil {
				t.Fatalf("it is offered: %+v", offer)
			}
			var refusal *assignment.Refusal
			if errors.As(err, &refusal) != (c.want != "") || refusal != nil && refusal.Reason != c.want || refusal != o.refused {
				t.Errorf("want %q, got %v; it was remembered as %v", c.want, err, o.refused)
			}
			if kept, err := os.ReadDir(s.Records.path(bomDir)); err == nil && len(kept) > 0 {
				t.Errorf("kept %v", kept)
			}
			// As soon as it is right it is taken.
			assign(t, o, web, bill(stateA), stateA)
			if offer, err := s.Offer(t.Context()); err != nil || offer.BOM == nil || o.refused != nil {
				t.Errorf("afterwards: %+v, %v, %v", offer, err, o.refused)
			}
		})
	}
}

// TestAKeptBillIsHashedAgain: the disk may have lost it half.
func TestAKeptBillIsHashedAgain(t *testing.T) {
	s, o, web := following(t)
	release := assign(t, o, web, bill(stateA), stateA)
	if _, err := s.Offer(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := s.Records.path(filepath.Join(bomDir, release.BOM))
	if err := os.Truncate(path, 50); err != nil {
		t.Fatal(err)
	}
	s.assigned = nil
	if offer, err := s.Offer(t.Context()); err != nil || len(offer.BOM.Packages) != 1 {
		t.Errorf("%+v, %v", offer, err)
	}
	if text, err := os.ReadFile(path); err != nil || bom.Sum(text) != release.BOM {
		t.Errorf("it was not mended: %d bytes, %v", len(text), err)
	}
}

// TestAPrivateArchive is read with the device's password, which goes nowhere
// else.
func TestAPrivateArchive(t *testing.T) {
	s, o, web := following(t)
	web.Password = "secret"
	assign(t, o, web, bill(stateA), stateA)
	if _, err := s.Offer(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("without a password: %v", err)
	}
	s.Client.HTTP = archive.NewHTTP(http.DefaultTransport, web.URL, archive.Access{User: "dev-1", Password: "secret"})
	if offer, err := s.Offer(t.Context()); err != nil || offer.BOM == nil {
		t.Errorf("%+v, %v", offer, err)
	}
	elsewhere := servertest.Start(t, false)
	elsewhere.Lie = func(w http.ResponseWriter, r *http.Request) bool {
		t.Errorf("it went to another host, as %q", r.Header.Get("Authorization"))
		return false
	}
	web.Lie = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
		return true
	}
	s.assigned = nil
	if _, err := s.Offer(t.Context()); err == nil || !strings.Contains(err.Error(), "redirects to") {
		t.Errorf("a redirect: %v", err)
	}
}

// TestAMachineThatMayBeginNothing stays as it is and says why.
func TestAMachineThatMayBeginNothing(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.against = "it is held: fair"
	w.offered = "new"
	m, done := w.machine()
	defer done()
	var refused *Refused
	if err := m.Update(t.Context(), Options{}); !errors.As(err, &refused) || refused.Reason != w.against {
		t.Errorf("%v", err)
	}
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil {
		t.Errorf("nobody asked: %v", err)
	}
	if _, err := m.Preview(t.Context()); !errors.As(err, &refused) || refused.Reason != w.against {
		t.Errorf("what it would change: %v", err)
	}
	if s := m.Status(); s.WhyNot != w.against || s.LastError != "" || s.Wanted != "new" {
		t.Errorf("%+v", s)
	}
	w.offered = "old" // which runs
	if err := m.Update(t.Context(), Options{}); err != nil || m.Status().WhyNot != "" {
		t.Errorf("%v, %+v", err, m.Status())
	}
	w.offered, w.against = "", "it waits for an operator to accept serial SN1"
	if err := m.Update(t.Context(), Options{Patient: true}); err != nil || m.Status().WhyNot != w.against {
		t.Errorf("%v, %+v", err, m.Status())
	}
	if changes, err := m.Preview(t.Context()); !errors.As(err, &refused) || refused.Reason != w.against {
		t.Errorf("%v, %v", changes, err)
	}
	if got, committed := w.release(); got != "old" || !committed || len(w.trees) != 1 {
		t.Errorf("it runs %s, %v", got, w.trees)
	}
}

// TestAnotherAssignmentWhileItStages: what is staged is not booted any more.
func TestAnotherAssignmentWhileItStages(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.offered, w.list = "new", &bom.BOM{TopLevel: []string{"app"}}
	w.atDownload = func() { w.offered = "newer" }
	if wasCut, err := w.session(true); wasCut || err == nil || w.rebooting {
		t.Errorf("%v, rebooting %v", err, w.rebooting)
	}
	w.atDownload = nil
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got, committed := w.release(); got != "newer" || !committed || w.boots != 2 {
		t.Errorf("it runs %s after %d boots", got, w.boots)
	}
}

// TestAHoldThatComesWhileItStages leaves it staged; taken off, it goes on.
func TestAHoldThatComesWhileItStages(t *testing.T) {
	w := newWorld(t)
	w.powerOn()
	w.offered, w.list = "new", &bom.BOM{TopLevel: []string{"app"}}
	w.atDownload = func() { w.against = "it is held: fair" }
	wasCut, err := w.session(true)
	var refused *Refused
	if wasCut || !errors.As(err, &refused) || w.rebooting {
		t.Errorf("%v, rebooting %v", err, w.rebooting)
	}
	w.against, w.atDownload = "", nil
	if err := w.settle(); err != nil {
		t.Fatal(err)
	}
	if got, committed := w.release(); got != "new" || !committed {
		t.Errorf("it runs %s", got)
	}
	if n := strings.Count(strings.Join(w.steps, "\n"), "install begins"); n != 1 {
		t.Errorf("it was installed %d times", n)
	}
}
