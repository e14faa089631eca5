package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// inputs is what the content of an assignment follows from, besides what
// operators say of the device: acts on it forget them. Equal inputs give equal
// content.
type inputs struct {
	known    bool
	revision string // of the hardware
	offer    *release.Published
	bom      string
	size     int64
	pending  bool   // bom is being made
	wait     string // why nothing else can be given
	hold     *protocol.Hold
	config   string // its revision
	lacks    string // why it is not configured just now
}

// assignment is what a device should have, before it is signed.
type assignment struct {
	Assigned
	inputs
	body *protocol.Assignment // nil: not made, because nothing changed
}

// decide says what a device should have now, and under which counter. report
// is the newest one. The caller holds d.busy.
func (s *Service) decide(ctx context.Context, d *device, report *protocol.Report, in protocol.CheckIn, now time.Time) *assignment {
	found, err := s.inputsOf(ctx, d, report, now)
	if err != nil {
		// It passes: nobody has to be told anything else because of it.
		s.Log.Error("cannot tell what a device should run", "device", d.Name, "error", err)
		return nil
	}
	a := &assignment{Assigned: d.Assigned, inputs: found}
	if a.inputs != d.inputs {
		a.body = s.body(d, a)
		a.Content = a.body.Content()
	}
	switch {
	case a.Content != d.Content, in.Counter >= d.Counter && in.Assignment != a.Content:
		a.Counter = max(d.Counter, in.Counter) + 1
	case in.Counter > d.Counter:
		// It is what the device has, from a server that knew more than this one.
		a.Counter = in.Counter
	}
	return a
}

// inputsOf looks everything up, in constant time. What keeps a device waiting is
// no error.
func (s *Service) inputsOf(ctx context.Context, d *device, report *protocol.Report, now time.Time) (inputs, error) {
	in := inputs{known: true, revision: d.Revision}
	if in.revision == "" && report != nil {
		in.revision = report.Revision
	}
	if h := d.Hold; h != nil && (h.Until.IsZero() || now.Before(h.Until)) {
		in.hold = h
	}
	if s.Configs != nil {
		revision, err := s.Configs.Revision(&d.Device)
		if in.config = revision; err != nil {
			in.lacks = err.Error()
		}
	}
	if in.wait = s.unfit(d, in.revision); in.wait != "" {
		return in, nil
	}
	var err error
	if in.offer, err = s.target(ctx, &d.Device); err != nil {
		in.wait = err.Error()
		if release.CodeOf(err) == "" {
			return in, err
		}
		return in, nil
	}
	if in.offer == nil {
		in.wait = "stage " + d.Stage + " offers nothing yet"
		return in, nil
	}
	if s.BOMs == nil {
		in.wait = "this server makes no bills of materials"
		return in, nil
	}
	sum, size, status, reason := s.BOMs.Lookup(d.Pipeline, d.Product, d.Modules, in.offer.State.String())
	switch status {
	case BOMReady:
		in.bom, in.size = sum, size
	case BOMFailed:
		in.wait = fmt.Sprintf("product %s cannot be installed from %s: %s", d.Product, offerName(in.offer), reason)
	default:
		in.pending = true
		in.wait = "the bill of materials of product " + d.Product + " in " + offerName(in.offer) + " is being made"
	}
	return in, nil
}

// target is what a device should run: its pin, or what its stage offers; nil:
// nothing yet.
func (s *Service) target(ctx context.Context, d *Device) (*release.Published, error) {
	if d.Pin != nil {
		return s.Releases.PublishedSnapshot(ctx, d.Pipeline, d.Pin.Snapshot)
	}
	return s.Releases.Offered(ctx, d.Pipeline, d.Stage)
}

// unfit says why no release of its product is for a device; "": one may be.
func (s *Service) unfit(d *device, revision string) string {
	if s.Products == nil {
		return "this server has no products yet"
	}
	p, ok := s.Products.Product(d.Pipeline, d.Product)
	switch {
	case !ok:
		return "there is no product " + d.Product + " any more"
	case p.Architecture != "" && p.Architecture != d.Architecture:
		return fmt.Sprintf("product %s is for %s, the device is %s", d.Product, p.Architecture, d.Architecture)
	case len(p.Revisions) > 0 && revision == "":
		return fmt.Sprintf("product %s is for the hardware revisions %s, and the device does not say which it has", d.Product, words(p.Revisions))
	case len(p.Revisions) > 0 && !slices.Contains(p.Revisions, revision):
		return fmt.Sprintf("product %s does not support hardware revision %s, only %s", d.Product, revision, words(p.Revisions))
	}
	return ""
}

func offerName(p *release.Published) string {
	if p.Snapshot != "" {
		return "snapshot " + p.Snapshot
	}
	return "state " + p.State.String()[:12]
}

// body makes what an assignment says, without counter and times. It also
// settles a.Release: while the next release cannot be given, the device keeps
// the last one.
func (s *Service) body(d *device, a *assignment) *protocol.Assignment {
	a.Release, a.Modules = d.Release, d.Assigned.Modules
	wait := a.wait
	switch {
	case wait == "":
		a.Release = s.given.release(a.inputs, d.Pin != nil)
		a.Modules = d.Modules
	case a.pending && d.Release != nil && d.Release.Base == a.offer.Base && slices.Equal(d.Assigned.Modules, d.Modules):
		wait = "" // it has that very release; only this server does not know its BOM again yet
	}
	body := &protocol.Assignment{
		Version: protocol.DeviceProtocol, Device: d.Name, Key: d.KeyID(), Pipeline: d.Pipeline, Product: d.Product, Stage: d.Stage,
		Release: a.Release, Wait: wait, Hold: a.hold,
	}
	if s.Configs != nil {
		c, err := s.Configs.For(&d.Device)
		switch {
		case err != nil:
			body.Wait = both(body.Wait, err.Error())
		case err == nil && c != nil:
			body.Config = c
			a.config = c.Revision
		}
	}
	return body
}

// both joins two sentences, of which either may be missing.
func both(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// given holds the releases that devices were given, each once.
type given struct {
	mu  sync.Mutex
	all map[givenKey]*protocol.AssignedRelease
}

type givenKey struct {
	offer  *release.Published
	bom    string
	pinned bool
}

// maxGiven bounds how many releases are held for sharing.
const maxGiven = 10_000

func (g *given) release(in inputs, pinned bool) *protocol.AssignedRelease {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := givenKey{in.offer, in.bom, pinned}
	if r := g.all[key]; r != nil {
		return r
	}
	if g.all == nil || len(g.all) >= maxGiven {
		g.all = make(map[givenKey]*protocol.AssignedRelease)
	}
	r := &protocol.AssignedRelease{
		State: in.offer.State.String(), Snapshot: in.offer.Snapshot, Base: in.offer.Base, Distribution: in.offer.Distribution,
		Components: in.offer.Components, Release: in.offer.Release, BOM: in.bom, BOMSize: in.size, Pinned: pinned,
	}
	g.all[key] = r
	return r
}

// isNews tells whether a device has to be sent an assignment: it has another
// one, or its own has less than half of its life left.
func (a *assignment) isNews(in protocol.CheckIn, now time.Time) bool {
	return in.Counter != a.Counter || in.Assignment != a.Content || in.Expires.Sub(now) < protocol.AssignmentLife/2
}

// sign makes the message. It is nil if the configuration changed just now: the
// next check-in finds that out.
func (s *Service) sign(d *device, a *assignment, now time.Time) (*protocol.Signed, error) {
	if a.body == nil {
		again := *a
		if a.body = s.body(d, &again); a.body.Content() != a.Content {
			return nil, nil
		}
	}
	body := *a.body
	body.Counter, body.Issued, body.Expires = a.Counter, now, now.Add(protocol.AssignmentLife)
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("cannot write the assignment of device %s: %w", d.Name, err)
	}
	signed := protocol.Sign(s.Key, protocol.ForAssignment, text)
	return &signed, nil
}
