package update

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"aptfleet/device-updater/internal/archive"
	"aptfleet/device-updater/internal/assignment"
	"aptfleet/internal/atomicfile"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

// Assignments are what a server assigns: an assignment.Store.
type Assignments interface {
	// Current returns the accepted assignment, nil for none, and why nothing
	// may be begun on its behalf.
	Current() (a *protocol.Assignment, against string)
	// Refuse remembers that what it names is not what it should be; nil
	// forgets that.
	Refuse(r *assignment.Refusal)
}

// assigned is a release that was assigned, after all that it names was fetched
// and verified.
type assigned struct {
	release protocol.AssignedRelease
	bom     bom.BOM
	refusal *assignment.Refusal // what is wrong with its packages, as far as it is known
}

// offerAssigned returns what is assigned. Both keys must agree: the assignment names
// the text of the release, and the archive key has signed it. The network is
// asked once for each release.
func (s *Source) offerAssigned(ctx context.Context) (Offer, error) {
	a, against := s.Assignments.Current()
	switch {
	case a == nil:
		return Offer{Against: against}, nil
	case a.Release == nil && against == "":
		against = a.Wait
		fallthrough
	case a.Release == nil:
		if against == "" {
			against = "the server has no release for this device"
		}
		return Offer{Against: against}, nil
	}
	offer := Offer{
		State: a.Release.State, Snapshot: a.Release.Snapshot, Against: against,
		Origin: &Origin{Base: a.Release.Base, Distribution: a.Release.Distribution, Components: a.Release.Components},
	}
	here := s.assigned != nil && same(s.assigned.release, *a.Release) && s.offer.State == a.Release.State
	if against != "" && !here {
		// What is not here is fetched when it may be begun.
		if list, err := s.keptBill(*a); err == nil {
			offer.BOM = &list
		}
		return offer, nil
	}
	if !here {
		now, err := s.fetchAssigned(ctx, *a)
		var refusal *assignment.Refusal
		if errors.As(err, &refusal) {
			s.Assignments.Refuse(refusal)
		}
		if err != nil {
			return Offer{}, err
		}
		s.assigned, s.private = now, nil
	}
	s.Assignments.Refuse(s.assigned.refusal)
	list := s.assigned.bom
	offer.BOM = &list
	return offer, nil
}

// judgePackages remembers what planning says about the packages of an assigned
// release.
func (s *Source) judgePackages(o Offer, err error) {
	if s.assigned == nil || o.Booted {
		return
	}
	var untrusted *archive.Error
	switch {
	case errors.As(err, &untrusted) && untrusted.Kind == archive.Package:
		s.assigned.refusal = assignment.Refuse(assignment.Package, "%v", untrusted.Err)
	case err == nil:
		s.assigned.refusal = nil
	default:
		return
	}
	s.Assignments.Refuse(s.assigned.refusal)
}

// Held returns why an operator wants this device to stay as it is; "" if
// nobody does.
func (s *Source) Held() string {
	if s.Assignments == nil {
		return ""
	}
	if a, against := s.Assignments.Current(); a != nil && a.Hold != nil {
		return against
	}
	return ""
}

func same(a, b protocol.AssignedRelease) bool {
	return a.Release == b.Release && a.BOM == b.BOM && a.Base == b.Base && a.Distribution == b.Distribution && fmt.Sprint(a.Components) == fmt.Sprint(b.Components)
}

// fetchAssigned fetches the texts that an assignment names. What is not what
// it should be is a *assignment.Refusal.
func (s *Source) fetchAssigned(ctx context.Context, a protocol.Assignment) (*assigned, error) {
	r := *a.Release
	client := *s.Client
	client.Distribution = r.Distribution
	offer, err := s.ask(ctx, &client, r.Base)
	var untrusted *archive.Error
	switch {
	case errors.As(err, &untrusted) && untrusted.Kind == archive.Tampered:
		return nil, assignment.Refuse(assignment.Release, "%v", err)
	case err != nil:
		return nil, err
	case offer.Release != r.Release:
		return nil, assignment.Refuse(assignment.Release, "the Release of %s has the SHA-256 %s, not %s", r.Base, offer.Release, r.Release)
	case offer.State != r.State:
		return nil, assignment.Refuse(assignment.Release, "the Release of %s is of state %s, not %s", r.Base, offer.State, r.State)
	}
	list, err := s.bill(ctx, a)
	if err != nil {
		return nil, err
	}
	return &assigned{release: r, bom: list}, nil
}

// bomDir keeps the bill of materials that is followed, under its SHA-256.
const bomDir = "boms"

// bill returns the bill of materials that an assignment names: the one that is
// here, or the archive's.
func (s *Source) bill(ctx context.Context, a protocol.Assignment) (bom.BOM, error) {
	if list, err := s.keptBill(a); err == nil {
		return list, nil
	}
	text, err := s.Client.File(ctx, a.Pipeline+"/boms/"+a.Release.BOM, a.Release.BOMSize)
	if err != nil {
		return bom.BOM{}, err
	}
	list, refusal := judgeBill(text, a, s.Architecture)
	if refusal != nil {
		return bom.BOM{}, refusal
	}
	return list, s.keepBill(a.Release.BOM, text)
}

// keptBill returns it if it is here and whole.
func (s *Source) keptBill(a protocol.Assignment) (bom.BOM, error) {
	text, err := os.ReadFile(s.Records.path(filepath.Join(bomDir, a.Release.BOM)))
	if err != nil {
		return bom.BOM{}, err
	}
	list, refusal := judgeBill(text, a, s.Architecture)
	if refusal != nil {
		return bom.BOM{}, refusal
	}
	return list, nil
}

func judgeBill(text []byte, a protocol.Assignment, architecture string) (bom.BOM, *assignment.Refusal) {
	if sum := bom.Sum(text); sum != a.Release.BOM {
		return bom.BOM{}, assignment.Refuse(assignment.BOM, "the bill of materials has the SHA-256 %s, not %s", sum, a.Release.BOM)
	}
	list, err := bom.Decode(text)
	switch {
	case err != nil:
		return bom.BOM{}, assignment.Refuse(assignment.BOM, "%v", err)
	case list.State != a.Release.State:
		return bom.BOM{}, assignment.Refuse(assignment.BOM, "the bill of materials is of state %s, not %s", list.State, a.Release.State)
	case list.Architecture != architecture:
		return bom.BOM{}, assignment.Refuse(assignment.BOM, "the bill of materials is for %s, and this device is %s", list.Architecture, architecture)
	case list.Product != a.Product:
		return bom.BOM{}, assignment.Refuse(assignment.BOM, "the bill of materials is of product %q, not %q", list.Product, a.Product)
	}
	return list, nil
}

// keepBill keeps one bill of materials and drops the others.
func (s *Source) keepBill(name string, text []byte) error {
	dir := s.Records.path(bomDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("cannot keep bill of materials: %w", err)
	}
	others, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot keep bill of materials: %w", err)
	}
	for _, other := range others {
		if err := os.Remove(filepath.Join(dir, other.Name())); err != nil {
			return fmt.Errorf("cannot drop old bill of materials: %w", err)
		}
	}
	if err := atomicfile.Write(filepath.Join(dir, name), text, 0o600); err != nil {
		return fmt.Errorf("cannot keep bill of materials: %w", err)
	}
	return nil
}
