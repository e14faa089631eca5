package configuration

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// Config is what a Service works with.
type Config struct {
	Store    Store
	Vault    *Vault
	Pipeline func(ctx context.Context, name string) (release.Pipeline, error) // fails if there is none
	Products func(ctx context.Context, pipeline string) ([]string, error)     // nil: a product is whatever has a name
	Devices  Devices
	Announce func(kind, pipeline, subject string) // tells watchers
	Clock    func() time.Time
}

// Service knows the configuration of all devices, in memory. Its methods may be
// called concurrently.
type Service struct {
	config Config

	mu    sync.RWMutex
	lines map[string]*line
}

// Open reads the configuration from the store.
func Open(ctx context.Context, config Config) (*Service, error) {
	s := &Service{config: config, lines: make(map[string]*line)}
	values, err := config.Store.ConfigValues(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	for _, e := range values {
		s.line(e.Scope.Pipeline).set(e.Scope, e.Key, &e.Value)
	}
	schemas, err := config.Store.ConfigSchemas(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	for _, schema := range schemas {
		// What an earlier program took must not keep this one from starting.
		schema.bad = schema.prepare()
		s.line(schema.Pipeline).schemas[schema.Product] = schema
	}
	return s, nil
}

// Unreadable lists the secrets that no key of the server opens, as
// "scope key".
func (s *Service) Unreadable() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []string
	for _, l := range s.lines {
		for scope, values := range l.values {
			for key, v := range values {
				if v.Type == Secret && !s.config.Vault.readable(v.Sealed) {
					all = append(all, scope.String()+" "+key)
				}
			}
		}
	}
	slices.Sort(all)
	return all
}

// line is the configuration of a pipeline. Who calls holds the lock.
func (s *Service) line(pipeline string) *line {
	l := s.lines[pipeline]
	if l == nil {
		l = &line{
			values: make(map[Scope]map[string]Value), types: make(map[string]map[Type]int), schemas: make(map[string]Schema),
			classes: make(map[class]*effective), devices: make(map[string]own),
		}
		s.lines[pipeline] = l
	}
	return l
}

// with returns the values of a scope with a key changed; nil removes it.
func (l *line) with(s Scope, key string, v *Value) map[string]Value {
	values := make(map[string]Value, len(l.values[s])+1)
	maps.Copy(values, l.values[s])
	if v == nil {
		delete(values, key)
	} else {
		values[key] = *v
	}
	return values
}

func (l *line) set(s Scope, key string, v *Value) {
	if old, ok := l.values[s][key]; ok {
		l.count(key, old.Type, -1)
		delete(l.values[s], key)
	}
	if v != nil {
		if l.values[s] == nil {
			l.values[s] = make(map[string]Value)
		}
		l.values[s][key] = *v
		l.count(key, v.Type, 1)
	}
	if len(l.values[s]) == 0 {
		delete(l.values, s)
	}
	l.forget(s)
}

func (l *line) count(key string, t Type, n int) {
	if l.types[key] == nil {
		l.types[key] = make(map[Type]int)
	}
	if l.types[key][t] += n; l.types[key][t] == 0 {
		delete(l.types[key], t)
	}
	if len(l.types[key]) == 0 {
		delete(l.types, key)
	}
}

func (s *Service) now() time.Time { return s.config.Clock().UTC().Truncate(time.Microsecond) }

// Order is what Set is to do.
type Order struct {
	Key    string
	Type   Type // "": that of the schema, else the one that the key has here or elsewhere, else String
	Value  any  // a scalar; a text is read as the type
	DryRun bool
}

// Done is what Set and Unset did, or would do.
type Done struct {
	Edit
	Devices   int  // that get a new revision
	Unchanged bool // it was so before
}

// Set sets a key of a scope. What no device of the scope could have is
// Refused, with the rule that it breaks; the text of an error never has a
// value in it.
func (s *Service) Set(ctx context.Context, a release.Actor, scope Scope, o Order) (Done, error) {
	refuse := func(code release.Code, hint, format string, args ...any) (Done, error) {
		return Done{}, &release.Error{Code: code, Text: fmt.Sprintf("cannot set %.80s of %.80s: ", o.Key, scope) + fmt.Sprintf(format, args...), Hint: hint}
	}
	if err := protocol.CheckConfigKey(o.Key); err != nil {
		return Done{}, &release.Error{Code: release.Invalid, Text: "cannot set a key of " + scope.String() + ": " + err.Error()}
	}
	place, err := s.find(ctx, scope)
	if err != nil {
		return Done{}, err
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.line(scope.Pipeline)
	fields, err := l.fields(place, o.Key)
	if err != nil {
		return refuse(release.Refused, "repo-manager config schema show PRODUCT lists the keys", "%v", err)
	}
	t := o.Type
	if t == "" {
		t = l.typeOf(scope, o.Key, fields)
		if t == Secret {
			return refuse(release.Refused, "give it with --secret, on standard input or with --file", "it is a secret and does not belong on a command line")
		}
	}
	if other := l.clash(o.Key, ""); other != "" {
		return refuse(release.Conflict, "", "%s would be %s in the environment file, too", other, protocol.ConfigVariable(o.Key))
	}
	if t == Enum && len(fields) == 0 {
		return refuse(release.Invalid, "repo-manager config schema set gives a product one", "only a schema makes a key an enum")
	}
	text, err := Read(t, o.Value)
	if err != nil {
		return refuse(release.Invalid, "", "%v", err)
	}
	v := Value{Type: t, JSON: text, By: a.Name, At: s.now()}
	if t == Secret {
		plain, _ := o.Value.(string) // Read takes nothing else
		v.JSON, v.Sealed = "", s.config.Vault.seal(scope, o.Key, []byte(plain))
	}
	for _, f := range fields {
		if err := f.Fits(v); err != nil {
			return refuse(release.Refused, "repo-manager config schema show "+f.product, "product %s: %v", f.product, err)
		}
	}
	return s.edit(ctx, a, place, o.Key, &v, o.DryRun)
}

// Unset removes a key from a scope. One that is not set there is NotFound.
func (s *Service) Unset(ctx context.Context, a release.Actor, scope Scope, key string, dryRun bool) (Done, error) {
	place, err := s.find(ctx, scope)
	if err != nil {
		return Done{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.line(scope.Pipeline).values[scope][key]; !ok {
		return Done{}, notSet(scope, key)
	}
	return s.edit(ctx, a, place, key, nil, dryRun)
}

func notSet(scope Scope, key string) error {
	return &release.Error{
		Code: release.NotFound, Text: fmt.Sprintf("cannot find %.80q of %s: it is not set there", key, scope),
		Hint: "repo-manager config list " + scope.String(),
	}
}

// edit stores a change, unless it is none or only tried. Who calls holds the
// lock.
func (s *Service) edit(ctx context.Context, a release.Actor, place place, key string, v *Value, dryRun bool) (Done, error) {
	scope := place.Scope
	l := s.line(scope.Pipeline)
	done := Done{Edit: Edit{Scope: scope, Key: key, New: v, By: a.Name, At: s.now()}}
	if old, ok := l.values[scope][key]; ok {
		done.Old = &old
	}
	if done.Old.same(v) {
		done.New, done.Unchanged = done.Old, true
		return done, nil
	}
	verb := "set"
	if v == nil {
		verb = "unset"
	}
	values := l.with(scope, key, v)
	size := 0
	for key, v := range values {
		size += len(key) + v.size()
	}
	var err error
	if len(values) > protocol.MaxConfigKeys || size > protocol.MaxConfigTotal {
		err = fmt.Errorf("%d keys with %d bytes are more than the %d keys or %d bytes that there may be", len(values), size, protocol.MaxConfigKeys, protocol.MaxConfigTotal)
	} else {
		done.Devices, err = s.changes(view{line: l, scope: scope, values: values}, place.members)
	}
	if err != nil && v != nil {
		return Done{}, &release.Error{Code: release.Refused, Text: fmt.Sprintf("cannot %s %s of %s: %v", verb, key, scope, err)}
	}
	if dryRun {
		return done, nil
	}
	act := release.Act{
		At: done.At, By: a.Name, Via: a.Via, Verb: "configure", Pipeline: scope.Pipeline, Object: string(scope.Kind) + " " + scope.Name,
		Detail: fmt.Sprintf("%s: %s → %s", key, done.Old.text(), v.text()),
	}
	if err := s.config.Store.EditConfig(ctx, done.Edit, act); err != nil {
		return Done{}, fmt.Errorf("cannot %s %s of %s: %w", verb, key, scope, err)
	}
	l.set(scope, key, v)
	s.config.Announce("config", scope.Pipeline, scope.String())
	return done, nil
}

// List lists what is set for a scope, by key.
func (s *Service) List(ctx context.Context, scope Scope) ([]Entry, error) {
	if _, err := s.find(ctx, scope); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []Entry
	if l := s.lines[scope.Pipeline]; l != nil {
		for key, v := range l.values[scope] {
			all = append(all, Entry{Scope: scope, Key: key, Value: v})
		}
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Key, b.Key) })
	return all, nil
}

// Readable reports whether a value can be delivered: a secret whose key the
// server has lost cannot.
func (s *Service) Readable(v Value) bool {
	return v.Type != Secret || s.config.Vault.readable(v.Sealed)
}

// Effective lists what a device is configured with, by key, and why it is not
// delivered, if it is not.
func (s *Service) Effective(ctx context.Context, pipeline, device string) ([]Effective, error) {
	place, err := s.find(ctx, Scope{pipeline, OfDevice, device})
	if err != nil {
		return nil, err
	}
	if len(place.members) == 0 {
		return nil, notThere(place.Scope)
	}
	return slices.Clone(s.of(place.members[0]).entries), nil
}

// History lists the edits of a key of a scope, newest first.
func (s *Service) History(ctx context.Context, scope Scope, key string, limit int) ([]Edit, error) {
	if _, err := s.find(ctx, scope); err != nil {
		return nil, err
	}
	return s.config.Store.ConfigHistory(ctx, scope, key, limit)
}
