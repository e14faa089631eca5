package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// TokenPrefix begins the text of every enrolment token. A secret follows, and
// after "_" the fingerprint of the server's own authority, if it has one.
const TokenPrefix = "aft1_"

// secretOf is the secret in the text of a token.
func secretOf(token string) (string, bool) {
	rest, ok := strings.CutPrefix(token, TokenPrefix)
	secret, _, _ := strings.Cut(rest, "_")
	return secret, ok && secret != ""
}

var (
	validName         = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	validArchitecture = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
)

// spec is what a device becomes.
type spec struct {
	name, pipeline, product, stage, revision string
	modules                                  []string
}

// Enrol answers a machine that wants to become a device. Whoever has the key of
// a device gets the answer that the device got. A *Refused is for the machine.
func (s *Service) Enrol(ctx context.Context, signed protocol.Signed, address string) (protocol.Enrolled, error) {
	e, err := readEnrolment(signed)
	if err != nil {
		return protocol.Enrolled{}, err
	}
	if d, err := s.enrolled(signed.Key, e); d != nil || err != nil {
		return s.welcome(d, e, err)
	}
	why := ""
	if s.mayEnrol(e) {
		var d *device
		if d, why, err = s.admitByItself(ctx, signed.Key, e, address); d != nil || err != nil {
			return s.welcome(d, e, err)
		}
	} else {
		why = s.whyPending(e)
	}
	s.wait(signed.Key, e, address, why)
	return protocol.Enrolled{Status: protocol.EnrolmentPending, Reason: why, Time: s.now()}, nil
}

// readEnrolment reads and verifies an enrolment: the key is in it.
func readEnrolment(signed protocol.Signed) (e protocol.Enrolment, err error) {
	if err := otherVersion(signed.Payload); err != nil {
		return e, err
	}
	if err := json.Unmarshal(signed.Payload, &e); err != nil {
		return e, fail(release.Invalid, "", "cannot read the enrolment: %v", err)
	}
	if len(e.Key) != ed25519.PublicKeySize || signed.Key != protocol.KeyID(e.Key) {
		return e, refuse(protocol.CodeBadSignature, "cannot take the enrolment: it is not signed by the key in it")
	}
	if _, err := signed.Verify(e.Key, protocol.ForEnrolment); err != nil {
		return e, refuse(protocol.CodeBadSignature, "cannot take the enrolment: it is not signed by the key in it")
	}
	switch {
	case e.Version != protocol.DeviceProtocol:
		return e, refuse(protocol.CodeUnsupported, "cannot take the enrolment: it names no version of the device protocol")
	case len(e.Sealing) != 32:
		return e, fail(release.Invalid, "", "cannot take the enrolment: the sealing key has %d bytes, want 32", len(e.Sealing))
	case !isWord(e.Serial, 64):
		return e, fail(release.Invalid, "", "cannot take the enrolment: a serial number is 1 to 64 printable characters without spaces")
	case !validArchitecture.MatchString(e.Architecture):
		return e, fail(release.Invalid, "", "cannot take the enrolment: %.40q is no architecture", e.Architecture)
	case !isWord(e.Machine, 128), !isWord(e.Boot, 64):
		return e, fail(release.Invalid, "", "cannot take the enrolment: machine and boot are words of printable characters")
	case e.Revision != "" && !isWord(e.Revision, 64), e.Product != "" && !isWord(e.Product, 64), len(e.Token) > 512:
		return e, fail(release.Invalid, "", "cannot take the enrolment: product and revision are words of printable characters, at most 64")
	}
	return e, nil
}

// enrolled finds the device that has a key already, or why the key is refused.
func (s *Service) enrolled(id string, e protocol.Enrolment) (*device, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if old, ok := s.oldKeys[id]; ok {
		return nil, refuse(protocol.CodeRetired, "cannot enrol: device %s has another key: %s", old.Device, old.Reason)
	}
	if r, ok := s.refusals[id]; ok {
		return nil, refuse(protocol.CodeRefused, "cannot enrol: %s refused it: %s", r.By, r.Reason)
	}
	d := s.keys[id]
	switch {
	case d == nil:
		return nil, nil
	case d.Retired != nil:
		return nil, refuse(protocol.CodeRetired, "device %s is retired: %s", d.Name, d.Retired.Reason)
	case slices.Contains(d.Banned, e.Machine):
		return nil, refuse(protocol.CodeRetired, "the key of device %s belongs to another machine", d.Name)
	}
	return d, nil
}

// welcome is the answer to an accepted device.
func (s *Service) welcome(d *device, e protocol.Enrolment, err error) (protocol.Enrolled, error) {
	if err != nil {
		return protocol.Enrolled{}, err
	}
	accepted := s.copyOf(d)
	w, private := s.Welcome(accepted.Pipeline)
	w.Status, w.Device, w.Pipeline, w.Product, w.Time = protocol.EnrolmentAccepted, accepted.Name, accepted.Pipeline, accepted.Product, s.now()
	if private {
		w.Password = s.password(accepted.KeyID())
	}
	w.AssignmentKey = s.Key.Public().(ed25519.PublicKey)
	w.Features = slices.DeleteFunc(slices.Clone(w.Features), func(word string) bool { return !slices.Contains(e.Features, word) })
	return w, nil
}

// mayEnrol tells whether there is something by which a machine may be accepted
// without a person. It keeps strangers from waiting for each other.
func (s *Service) mayEnrol(e protocol.Enrolment) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.registrations[e.Serial] != nil {
		return true
	}
	secret, ok := secretOf(e.Token)
	if !ok {
		return false
	}
	_, ok = s.tokens[sha256.Sum256([]byte(secret))]
	return ok
}

// whyPending says why nothing admits a machine.
func (s *Service) whyPending(e protocol.Enrolment) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if d := s.serials[e.Serial]; d != nil && d.Retired == nil {
		return taken(d)
	}
	if e.Token != "" {
		return "its enrolment token is unknown: an operator decides"
	}
	return "its serial number is not registered, and it has no enrolment token: an operator decides"
}

func taken(d *device) string {
	return "device " + d.Name + " has this serial number and another key: an operator decides whether the key is replaced"
}

// elsewhere says why a token does not bring a retired device back as something
// else: its name, and what is configured for that, are of another product.
func elsewhere(d *device) string {
	return "device " + d.Name + " of product " + d.Product + ", which is retired, has this serial number: registering it lets it become another product's"
}

// admitByItself accepts a machine by its serial number or its token, or says
// why it must wait.
func (s *Service) admitByItself(ctx context.Context, id string, e protocol.Enrolment, address string) (d *device, why string, err error) {
	s.acts.Lock()
	defer s.acts.Unlock()
	if d, err := s.enrolled(id, e); d != nil || err != nil { // it asked twice at once
		return d, "", err
	}
	s.mu.RLock()
	registration, owner := s.registrations[e.Serial], s.serials[e.Serial]
	s.mu.RUnlock()
	if owner != nil && owner.Retired == nil {
		return nil, taken(owner), nil
	}
	var as spec
	var batch Batch
	actor := release.Actor{Name: "serial:" + e.Serial, Via: "registration"}
	if registration != nil {
		as = spec{registration.Name, registration.Pipeline, registration.Product, registration.Stage, registration.Revision, registration.Modules}
		batch.Unregistered = []string{e.Serial}
	} else {
		t, why := s.usable(e)
		if why == "" && owner != nil && (owner.Pipeline != t.Pipeline || owner.Product != t.Product) {
			why = elsewhere(owner)
		}
		if why != "" {
			return nil, why, nil
		}
		as = spec{pipeline: t.Pipeline, product: t.Product, stage: t.Stage, modules: t.Modules}
		actor.Via = "token:" + t.Label
		t.Left--
		batch.Tokens = []EnrolToken{t}
	}
	if why := s.mismatch(as, e); why != "" {
		return nil, why, nil
	}
	d, err = s.admit(actor, as, id, e, address, batch)
	return d, "", err
}

// usable finds the token of an enrolment, or says why it cannot be used.
func (s *Service) usable(e protocol.Enrolment) (t EnrolToken, why string) {
	secret, _ := secretOf(e.Token)
	s.mu.RLock()
	t, ok := s.tokens[sha256.Sum256([]byte(secret))]
	s.mu.RUnlock()
	switch {
	case !ok:
		why = "its enrolment token is unknown: an operator decides"
	case t.Left <= 0:
		why = "its enrolment token is used up: an operator decides"
	case !s.now().Before(t.Expires):
		why = "its enrolment token has expired: an operator decides"
	case t.Serial != "" && t.Serial != e.Serial:
		why = "its enrolment token is for another serial number: an operator decides"
	}
	return t, why
}

// mismatch says why a machine cannot be what it would become.
func (s *Service) mismatch(as spec, e protocol.Enrolment) string {
	if e.Product != "" && e.Product != as.product {
		return fmt.Sprintf("it takes itself for product %s and would become %s: an operator decides", e.Product, as.product)
	}
	if s.Products == nil {
		return ""
	}
	p, ok := s.Products.Product(as.pipeline, as.product)
	switch {
	case !ok:
		return "there is no product " + as.product + " any more: an operator decides"
	case p.Architecture != "" && p.Architecture != e.Architecture:
		return fmt.Sprintf("product %s is for %s, the machine is %s", as.product, p.Architecture, e.Architecture)
	}
	return ""
}

// admit makes a machine a device, or gives a retired device of its serial
// number its key. The caller holds s.acts; batch is committed with it.
func (s *Service) admit(actor release.Actor, as spec, id string, e protocol.Enrolment, address string, batch Batch) (*device, error) {
	s.mu.RLock()
	before := s.serials[e.Serial]
	s.mu.RUnlock()
	if before != nil {
		return s.rekey(actor, before, as, id, e, address, batch)
	}
	name, err := s.freeName(as.name, e.Serial, id)
	if err != nil {
		return nil, err
	}
	now := s.now()
	d := &device{Device: Device{
		Name: name, Pipeline: as.pipeline, Product: as.product, Stage: as.stage, Serial: e.Serial, Modules: as.modules,
		Revision: as.revision, Created: now,
	}}
	d.bind(e, address, s)
	batch.Acts = append(batch.Acts, s.act(actor, "enrol", d.Pipeline, "device "+d.Name, "serial number "+d.Serial+", key "+id))
	if err := s.commitDevice(d, batch); err != nil {
		return nil, fmt.Errorf("cannot enrol device %s: %w", d.Name, err)
	}
	s.mu.Lock()
	s.put(d)
	s.settle(id, batch)
	s.mu.Unlock()
	s.Announce("device", d.Pipeline, d.Name)
	return d, nil
}

// rekey gives a device another key, and what as says unless that is empty. The
// caller holds s.acts.
func (s *Service) rekey(actor release.Actor, d *device, as spec, id string, e protocol.Enrolment, address string, batch Batch) (*device, error) {
	d.busy.Lock()
	defer d.busy.Unlock()
	next := device{Device: d.Device}
	if as.product != "" {
		next.Pipeline, next.Product, next.Stage, next.Modules, next.Revision = as.pipeline, as.product, as.stage, as.modules, as.revision
		next.Hold, next.Pin = nil, nil
	}
	next.bind(e, address, s)
	old := OldKey{Key: d.Key, Device: d.Name, Reason: "it was enrolled anew", At: s.now()}
	batch.OldKeys = append(batch.OldKeys, old)
	batch.Acts = append(batch.Acts, s.act(actor, "enrol", d.Pipeline, "device "+d.Name, "key "+id+" in place of "+d.KeyID()))
	if err := s.commitDevice(&next, batch); err != nil {
		return nil, fmt.Errorf("cannot replace the key of device %s: %w", d.Name, err)
	}
	s.mu.Lock()
	delete(s.keys, d.KeyID())
	s.oldKeys[d.KeyID()] = old
	d.Device, d.inputs = next.Device, inputs{}
	s.put(d)
	s.settle(id, batch)
	s.mu.Unlock()
	s.Announce("device", d.Pipeline, d.Name)
	return d, nil
}

// bind makes a device that of an enrolment: nothing of an earlier machine is
// left but its history.
func (d *device) bind(e protocol.Enrolment, address string, s *Service) {
	now := s.now()
	d.Key, d.Sealing, d.Architecture, d.Machine = e.Key, e.Sealing, e.Architecture, e.Machine
	d.Banned, d.Retired, d.Enrolled = nil, nil, now
	d.Assigned = Assigned{}
	d.Contact = Contact{
		Events: d.Events,
		Boots:  []Boot{bootOf(e.Boot)},
		Where:  protocol.Sighting{Machine: e.Machine, Boot: e.Boot, Address: address, First: now, Last: now},
	}
}

// commitDevice makes all of a device durable.
func (s *Service) commitDevice(d *device, batch Batch) error {
	batch.Devices = append(batch.Devices, d.Device)
	batch.Contacts = append(batch.Contacts, ContactOf{Device: d.Name, Contact: d.Contact, Text: []byte{}})
	batch.Assigned = append(batch.Assigned, AssignedTo{d.Name, d.Assigned})
	return s.writer.commit(batch)
}

// settle forgets in memory what let a device in. The caller holds s.mu.
func (s *Service) settle(id string, batch Batch) {
	for _, serial := range batch.Unregistered {
		s.unregister(serial)
	}
	for _, t := range batch.Tokens {
		s.tokens[t.Hash] = t
	}
	s.pending.remove(id)
}

// freeName is the wanted name, or one made of the serial number. Nobody gets a
// name that a device has, or that is registered for another serial number.
func (s *Service) freeName(name, serial, id string) (string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if name != "" {
		if s.isTaken(name, serial) {
			return "", fail(release.Conflict, "repo-manager device list", "cannot call a device %s: the name is taken", name)
		}
		return name, nil
	}
	stem := strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-' {
			return c
		}
		return '-'
	}, serial)
	stem = strings.TrimLeft(stem[:min(len(stem), 31)], "._-")
	if len(serial) <= 31 && stem != "" && !s.isTaken(stem, serial) {
		return stem, nil
	}
	for _, length := range []int{6, len(id)} {
		if name := strings.TrimLeft(stem+"-"+id[:length], "-"); !s.isTaken(name, serial) {
			return name, nil
		}
	}
	return "", fail(release.Conflict, "repo-manager device register "+serial+" --name NAME", "cannot name the device of serial number %s: every name made of it is taken", serial)
}

// isTaken tells whether a machine with a serial number cannot have a name. The
// caller holds s.mu.
func (s *Service) isTaken(name, serial string) bool {
	owner, promised := s.promised[name]
	return s.devices[name] != nil || promised && owner != serial
}
