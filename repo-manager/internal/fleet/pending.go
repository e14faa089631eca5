package fleet

import (
	"cmp"
	"container/list"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// MaxPending is how many enrolments wait for an operator at most.
const MaxPending = 1000

// pending holds the enrolments that wait, in memory: machines ask again. Where
// there are too many, the oldest of the network that has most of them goes, so
// that a stranger only pushes out strangers of its own network.
type pending struct {
	all      map[string]*waiting         // by KeyID
	networks map[netip.Prefix]*list.List // of *waiting, who asked longest ago first
}

type waiting struct {
	id        string
	enrolment protocol.Enrolment // without token and features
	network   netip.Prefix
	place     *list.Element // in its network
	address   string
	reason    string
	first     time.Time
	last      time.Time
}

// networkOf is what an address is counted under: a host cannot have more IPv4
// addresses than it was given, but all of an IPv6 network.
func networkOf(address string) netip.Prefix {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap()
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

func (p *pending) add(w *waiting) {
	if p.all == nil {
		p.all, p.networks = make(map[string]*waiting), make(map[netip.Prefix]*list.List)
	}
	if before := p.all[w.id]; before != nil {
		w.first = before.first
		p.remove(w.id)
	}
	network := p.networks[w.network]
	if network == nil {
		network = list.New()
		p.networks[w.network] = network
	}
	p.all[w.id], w.place = w, network.PushBack(w)
	if len(p.all) > MaxPending {
		p.remove(p.oldest())
	}
}

// oldest is who goes next.
func (p *pending) oldest() string {
	var most *list.List
	for _, network := range p.networks {
		if most == nil || network.Len() > most.Len() {
			most = network
		}
	}
	return most.Front().Value.(*waiting).id
}

func (p *pending) remove(id string) {
	w := p.all[id]
	if w == nil {
		return
	}
	delete(p.all, id)
	network := p.networks[w.network]
	if network.Remove(w.place); network.Len() == 0 {
		delete(p.networks, w.network)
	}
}

// wait notes an enrolment for an operator. The first time, watchers are told.
func (s *Service) wait(id string, e protocol.Enrolment, address, why string) {
	now := s.now()
	e.Token, e.Features = "", nil
	s.mu.Lock()
	isNew := s.pending.all[id] == nil
	s.pending.add(&waiting{id: id, enrolment: e, network: networkOf(address), address: address, reason: why, first: now, last: now})
	s.mu.Unlock()
	if isNew {
		s.Announce("enrolment", "", id)
	}
}

// Pending lists the enrolments that wait, oldest first.
func (s *Service) Pending(context.Context) []protocol.PendingEnrolment {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]protocol.PendingEnrolment, 0, len(s.pending.all))
	for id, w := range s.pending.all {
		e := w.enrolment
		one := protocol.PendingEnrolment{
			Key: id, Serial: e.Serial, Product: e.Product, Architecture: e.Architecture, Revision: e.Revision, Machine: e.Machine,
			Address: w.address, Reason: w.reason, First: w.first, Last: w.last,
		}
		if d := s.serials[e.Serial]; d != nil {
			one.Replaces = d.Name
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b protocol.PendingEnrolment) int {
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Key, b.Key))
	})
	return all
}

// findPending finds an enrolment by its key, a prefix of that, or its serial
// number.
func (s *Service) findPending(verb, which string) (string, *waiting, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if w := s.pending.all[which]; w != nil {
		return which, w, nil
	}
	var found []string
	for id, w := range s.pending.all {
		if w.enrolment.Serial == which || len(which) >= 4 && strings.HasPrefix(id, which) {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 1:
		return found[0], s.pending.all[found[0]], nil
	case 0:
		return "", nil, fail(release.NotFound, "repo-manager device pending; a machine that was forgotten asks again", "cannot %s %q: no enrolment with that key or serial number waits", verb, which)
	}
	slices.Sort(found)
	return "", nil, fail(release.Conflict, "name one by its key: "+words(found[:min(len(found), 4)]), "cannot %s %q: %d enrolments that wait have that serial number or key", verb, which, len(found))
}

// Accept makes a pending enrolment a device, or the key of the device that has
// its serial number.
func (s *Service) Accept(ctx context.Context, a release.Actor, which string, how protocol.Accept) (Device, error) {
	s.acts.Lock()
	defer s.acts.Unlock()
	id, w, err := s.findPending("accept", which)
	if err != nil {
		return Device{}, err
	}
	e := w.enrolment
	s.mu.RLock()
	owner := s.serials[e.Serial]
	s.mu.RUnlock()
	var d *device
	switch {
	case owner != nil && !how.Replace:
		return Device{}, fail(release.Conflict, "repo-manager device accept "+id+" --replace",
			"cannot accept %s: device %s has the serial number %s with another key, which would be worth nothing any more", id, owner.Name, e.Serial)
	case owner != nil:
		d, err = s.rekey(a, owner, spec{}, id, e, w.address, Batch{})
	case how.Replace:
		return Device{}, fail(release.Conflict, "leave --replace out", "cannot accept %s in place of another key: no device has the serial number %s", id, e.Serial)
	default:
		as := spec{name: how.Name, pipeline: how.Pipeline, product: how.Product, stage: how.Stage, modules: how.Modules}
		if as.product == "" {
			as.product = e.Product
		}
		if as.modules, err = s.checkSpec(ctx, "accept "+id, as); err != nil {
			return Device{}, err
		}
		e.Product = as.product // the operator knows better
		if why := s.mismatch(as, e); why != "" {
			return Device{}, fail(release.Refused, "", "cannot accept %s: %s", id, why)
		}
		batch := Batch{}
		if s.isRegistered(e.Serial) {
			batch.Unregistered = []string{e.Serial}
		}
		d, err = s.admit(a, as, id, e, w.address, batch)
	}
	if err != nil {
		return Device{}, err
	}
	return s.copyOf(d), nil
}

func (s *Service) isRegistered(serial string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.registrations[serial] != nil
}

// Refuse turns a pending enrolment away for good.
func (s *Service) Refuse(_ context.Context, a release.Actor, which, reason string) error {
	if err := mustHaveReason("refuse "+which, reason); err != nil {
		return err
	}
	s.acts.Lock()
	defer s.acts.Unlock()
	id, w, err := s.findPending("refuse", which)
	if err != nil {
		return err
	}
	r := Refusal{Key: id, Serial: w.enrolment.Serial, By: a.Name, Reason: reason, At: s.now()}
	batch := Batch{Refusals: []Refusal{r}, Acts: []release.Act{s.act(a, "refuse", "", "enrolment "+id, "serial number "+r.Serial+": "+reason)}}
	if err := s.writer.commit(batch); err != nil {
		return fmt.Errorf("cannot refuse %s: %w", id, err)
	}
	s.mu.Lock()
	s.refusals[id] = r
	s.pending.remove(id)
	s.mu.Unlock()
	s.Announce("enrolment", "", id)
	return nil
}

// Pardon lets a machine ask again that was refused, named by its key, a prefix
// of that, or its serial number.
func (s *Service) Pardon(_ context.Context, a release.Actor, which string) error {
	s.acts.Lock()
	defer s.acts.Unlock()
	s.mu.RLock()
	var found []Refusal
	for id, r := range s.refusals {
		if r.Serial == which || len(which) >= 4 && strings.HasPrefix(id, which) {
			found = append(found, r)
		}
	}
	s.mu.RUnlock()
	if len(found) != 1 {
		return fail(release.NotFound, "name it by its key", "cannot pardon %q: %d refused enrolments have that key or serial number", which, len(found))
	}
	r := found[0]
	batch := Batch{Pardoned: []string{r.Key}, Acts: []release.Act{s.act(a, "pardon", "", "enrolment "+r.Key, "serial number "+r.Serial)}}
	if err := s.writer.commit(batch); err != nil {
		return fmt.Errorf("cannot pardon %s: %w", r.Key, err)
	}
	s.mu.Lock()
	delete(s.refusals, r.Key)
	s.mu.Unlock()
	s.Announce("enrolment", "", r.Key)
	return nil
}

// mustHaveReason refuses an act without a reason, or with a novel.
func mustHaveReason(verb, reason string) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return fail(release.Invalid, "say why: somebody will want to know", "cannot %s: it needs a reason", verb)
	case len(reason) > 1000:
		return fail(release.Invalid, "", "cannot %s: the reason has %d bytes, at most 1000 are kept", verb, len(reason))
	}
	return nil
}
