package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// checkSpec refuses what no device can become, and returns the modules sorted.
func (s *Service) checkSpec(ctx context.Context, verb string, as spec) (modules []string, err error) {
	if as.name != "" && !validName.MatchString(as.name) {
		return nil, fail(release.Invalid, "", "cannot %s: %q is no name: a letter or digit, then those and . _ -, at most 64", verb, as.name)
	}
	if as.product == "" || as.stage == "" {
		return nil, fail(release.Invalid, "--product NAME --stage NAME", "cannot %s: it needs a product and a stage", verb)
	}
	if _, err := s.Releases.Offered(ctx, as.pipeline, as.stage); err != nil {
		return nil, err
	}
	modules = slices.Compact(slices.Sorted(slices.Values(as.modules)))
	if !validName.MatchString(as.product) {
		return nil, fail(release.Invalid, "repo-manager product list", "cannot %s: %q is no product", verb, as.product)
	}
	for _, m := range modules {
		if !validName.MatchString(m) {
			return nil, fail(release.Invalid, "", "cannot %s: %q is no module", verb, m)
		}
	}
	if s.Products == nil {
		return modules, nil
	}
	p, ok := s.Products.Product(as.pipeline, as.product)
	if !ok {
		return nil, fail(release.NotFound, "repo-manager product list", "cannot %s: pipeline %s has no product %q", verb, as.pipeline, as.product)
	}
	for _, m := range modules {
		if !slices.Contains(p.Modules, m) {
			return nil, fail(release.NotFound, "repo-manager product show "+as.product, "cannot %s: product %s has no module %q", verb, as.product, m)
		}
	}
	return modules, nil
}

// Register lets machines enrol by their serial numbers, once each: all of them,
// or none. One that is registered alike already is fine. Changed is false if
// all were.
func (s *Service) Register(ctx context.Context, a release.Actor, all []Registration) (changed bool, err error) {
	s.acts.Lock()
	defer s.acts.Unlock()
	var batch Batch
	serials, names := make(map[string]bool), make(map[string]bool) // of this list
	for _, r := range all {
		verb := fmt.Sprintf("register %q", r.Serial)
		if !isWord(r.Serial, 64) {
			return false, fail(release.Invalid, "", "cannot %s: a serial number is 1 to 64 printable characters without spaces", verb)
		}
		if r.Modules, err = s.checkSpec(ctx, verb, spec{name: r.Name, pipeline: r.Pipeline, product: r.Product, stage: r.Stage, modules: r.Modules}); err != nil {
			return false, err
		}
		if r.Revision != "" && !isWord(r.Revision, 64) {
			return false, fail(release.Invalid, "", "cannot %s: %q is no hardware revision", verb, r.Revision)
		}
		if serials[r.Serial] || r.Name != "" && names[r.Name] {
			return false, fail(release.Conflict, "", "cannot %s: the list has its serial number or its name %q twice", verb, r.Name)
		}
		serials[r.Serial], names[r.Name] = true, true
		isNew, err := s.mayRegister(verb, r)
		if err != nil {
			return false, err
		}
		if !isNew {
			continue
		}
		r.By, r.Created = a.Name, s.now()
		batch.Registrations = append(batch.Registrations, r)
		batch.Acts = append(batch.Acts, s.act(a, "register", r.Pipeline, "serial number "+r.Serial, "product "+r.Product+", stage "+r.Stage))
	}
	if len(batch.Registrations) == 0 {
		return false, nil
	}
	if err := s.writer.commit(batch); err != nil {
		return false, fmt.Errorf("cannot register serial numbers: %w", err)
	}
	s.mu.Lock()
	for _, r := range batch.Registrations {
		s.register(&r)
	}
	s.mu.Unlock()
	s.Announce("registration", batch.Registrations[0].Pipeline, batch.Registrations[0].Serial)
	return true, nil
}

// mayRegister refuses a serial number or a name that is taken.
func (s *Service) mayRegister(verb string, r Registration) (isNew bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if d := s.serials[r.Serial]; d != nil && d.Retired == nil {
		return false, fail(release.Conflict, "repo-manager device show "+d.Name, "cannot %s: device %s has that serial number", verb, d.Name)
	}
	if before := s.registrations[r.Serial]; before != nil {
		known := *before
		known.By, known.Created = r.By, r.Created
		if len(known.Modules) == 0 && len(r.Modules) == 0 {
			known.Modules = r.Modules
		}
		if reflect.DeepEqual(known, r) {
			return false, nil
		}
		return false, fail(release.Conflict, "repo-manager device unregister "+r.Serial, "cannot %s: it is registered otherwise, by %s", verb, before.By)
	}
	if r.Name == "" {
		return true, nil
	}
	if d := s.serials[r.Serial]; d != nil && d.Name != r.Name {
		return false, fail(release.Conflict, "leave --name out", "cannot %s: its machine was device %s, and keeps that name", verb, d.Name)
	}
	if d := s.devices[r.Name]; d != nil && d.Serial != r.Serial {
		return false, fail(release.Conflict, "repo-manager device show "+r.Name, "cannot %s: a device is called %s", verb, r.Name)
	}
	if serial, taken := s.promised[r.Name]; taken {
		return false, fail(release.Conflict, "", "cannot %s: the name %s is registered for serial number %s", verb, r.Name, serial)
	}
	return true, nil
}

// register and unregister keep memory. The caller holds s.mu.
func (s *Service) register(r *Registration) {
	s.registrations[r.Serial] = r
	if r.Name != "" {
		s.promised[r.Name] = r.Serial
	}
}

func (s *Service) unregister(serial string) {
	if r := s.registrations[serial]; r != nil {
		delete(s.promised, r.Name)
		delete(s.registrations, serial)
	}
}

// Unregister takes a registration back.
func (s *Service) Unregister(_ context.Context, a release.Actor, serial string) error {
	s.acts.Lock()
	defer s.acts.Unlock()
	s.mu.RLock()
	r := s.registrations[serial]
	s.mu.RUnlock()
	if r == nil {
		return fail(release.NotFound, "repo-manager device registered", "cannot unregister %q: that serial number is not registered", serial)
	}
	batch := Batch{Unregistered: []string{serial}, Acts: []release.Act{s.act(a, "unregister", r.Pipeline, "serial number "+serial, "")}}
	if err := s.writer.commit(batch); err != nil {
		return fmt.Errorf("cannot unregister %s: %w", serial, err)
	}
	s.mu.Lock()
	s.unregister(serial)
	s.mu.Unlock()
	s.Announce("registration", r.Pipeline, serial)
	return nil
}

// Registrations lists the serial numbers that may enrol, in their order.
func (s *Service) Registrations(context.Context) []Registration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]Registration, 0, len(s.registrations))
	for _, r := range s.registrations {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Registration) int { return cmp.Compare(a.Serial, b.Serial) })
	return all
}

const (
	// DefaultTokenLife is how long an enrolment token is good unless somebody
	// says otherwise, MaxTokenLife the longest.
	DefaultTokenLife = 24 * time.Hour
	MaxTokenLife     = 366 * 24 * time.Hour
	// MaxUses is how many machines one token lets in at most.
	MaxUses = 100_000
	// forgetTokens is how long after its end a token is still listed.
	forgetTokens = 30 * 24 * time.Hour
)

// ID names a token for people.
func (t EnrolToken) ID() string { return hex.EncodeToString(t.Hash[:6]) }

// CreateToken makes an enrolment token of t, of which Uses and Expires have
// defaults (one, and a day from now). Its text is in this answer and nowhere
// else.
func (s *Service) CreateToken(ctx context.Context, a release.Actor, t EnrolToken) (_ EnrolToken, text string, err error) {
	const verb = "create an enrolment token"
	t.Created, t.By = s.now(), a.Name
	t.Uses = cmp.Or(t.Uses, 1)
	if t.Expires.IsZero() {
		t.Expires = t.Created.Add(DefaultTokenLife)
	}
	t.Expires = t.Expires.UTC().Truncate(time.Microsecond)
	t.Left = t.Uses
	switch {
	case t.Uses < 1 || t.Uses > MaxUses:
		return t, "", fail(release.Invalid, "", "cannot %s: it is good for 1 to %d machines", verb, MaxUses)
	case !t.Expires.After(t.Created):
		return t, "", fail(release.Invalid, "", "cannot %s: it would have expired already", verb)
	case t.Expires.Sub(t.Created) > MaxTokenLife:
		return t, "", fail(release.Invalid, "", "cannot %s: it is good for a year at most", verb)
	case t.Serial != "" && !isWord(t.Serial, 64):
		return t, "", fail(release.Invalid, "", "cannot %s: %q is no serial number", verb, t.Serial)
	case t.Serial != "" && t.Uses > 1:
		return t, "", fail(release.Invalid, "", "cannot %s: one for a serial number has one use", verb)
	case len(t.Label) > 100 || strings.ContainsFunc(t.Label, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return t, "", fail(release.Invalid, "", "cannot %s: a label has at most 100 printable characters", verb)
	}
	if t.Modules, err = s.checkSpec(ctx, verb, spec{pipeline: t.Pipeline, product: t.Product, stage: t.Stage, modules: t.Modules}); err != nil {
		return t, "", err
	}
	secret := rand.Text()
	t.Hash = sha256.Sum256([]byte(secret))
	s.acts.Lock()
	defer s.acts.Unlock()
	batch := Batch{
		Tokens: []EnrolToken{t},
		Acts:   []release.Act{s.act(a, "create", t.Pipeline, "enrolment token "+t.ID(), fmt.Sprintf("product %s, stage %s, for %d machines until %s", t.Product, t.Stage, t.Uses, t.Expires.Format(time.RFC3339)))},
	}
	s.mu.RLock()
	for hash, old := range s.tokens {
		if t.Created.Sub(old.Expires) > forgetTokens {
			batch.Revoked = append(batch.Revoked, hash)
		}
	}
	s.mu.RUnlock()
	if err := s.writer.commit(batch); err != nil {
		return t, "", fmt.Errorf("cannot %s: %w", verb, err)
	}
	s.mu.Lock()
	s.tokens[t.Hash] = t
	for _, hash := range batch.Revoked {
		delete(s.tokens, hash)
	}
	s.mu.Unlock()
	text = TokenPrefix + secret
	if s.TokenSuffix != nil {
		text += s.TokenSuffix()
	}
	return t, text, nil
}

// Tokens lists the enrolment tokens, newest first; those that ended a while ago
// are forgotten.
func (s *Service) Tokens(context.Context) []EnrolToken {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]EnrolToken, 0, len(s.tokens))
	for _, t := range s.tokens {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b EnrolToken) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID(), b.ID())) })
	return all
}

// RevokeToken ends an enrolment token, named by its ID or a unique prefix.
func (s *Service) RevokeToken(_ context.Context, a release.Actor, id string) error {
	s.acts.Lock()
	defer s.acts.Unlock()
	var found []EnrolToken
	for _, t := range s.Tokens(context.Background()) {
		if id != "" && strings.HasPrefix(t.ID(), id) {
			found = append(found, t)
		}
	}
	if len(found) != 1 {
		return fail(release.NotFound, "repo-manager device token list", "cannot revoke enrolment token %q: %d have that id", id, len(found))
	}
	t := found[0]
	batch := Batch{Revoked: []Hash{t.Hash}, Acts: []release.Act{s.act(a, "revoke", t.Pipeline, "enrolment token "+t.ID(), t.Label)}}
	if err := s.writer.commit(batch); err != nil {
		return fmt.Errorf("cannot revoke enrolment token %s: %w", t.ID(), err)
	}
	s.mu.Lock()
	delete(s.tokens, t.Hash)
	s.mu.Unlock()
	return nil
}
