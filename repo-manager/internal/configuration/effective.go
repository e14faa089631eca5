package configuration

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"

	"aptfleet/internal/protocol"
	"aptfleet/internal/seal"
)

// line is the configuration of one pipeline.
type line struct {
	values  map[Scope]map[string]Value
	types   map[string]map[Type]int // of each key, in how many scopes
	schemas map[string]Schema       // by product

	// What was worked out, until something changes: most devices have no values
	// of their own and share what their product and stage have.
	classes map[class]*effective
	devices map[string]own
}

type class struct{ product, stage string }

// own is the configuration of a device with values of its own.
type own struct {
	class
	*effective
}

// effective is what devices are configured with.
type effective struct {
	entries  []Effective // by key
	values   map[string]any
	revision string // "" if err is not nil
	err      error  // why it is not delivered
	large    bool   // because it is too large
}

// Effective is a key of a device: its value, and the scope that it comes from.
type Effective struct {
	Entry
	FromDefault bool // of the schema: there is no scope
	Missing     bool // the schema requires it and nobody set it
}

// view is a line with one thing changed, to look at what would follow.
type view struct {
	*line
	scope  Scope
	values map[string]Value // of scope, instead of the line's; nil: nothing is changed
	schema *Schema          // instead of the line's of its product; nil: nothing is changed
}

func (v view) of(s Scope) map[string]Value {
	if v.values != nil && s == v.scope {
		return v.values
	}
	return v.line.values[s]
}

func (v view) schemaOf(product string) Schema {
	if v.schema != nil && v.schema.Product == product {
		return *v.schema
	}
	return v.schemas[product]
}

// work puts a device's configuration together.
func (v view) work(d Device, vault *Vault) *effective {
	schema := v.schemaOf(d.Product)
	fields := schema.Fields
	found := make(map[string]Effective)
	var wrong []string
	if schema.bad != nil {
		wrong = append(wrong, fmt.Sprintf("the schema of product %s must be set again: %v", d.Product, schema.bad))
	}
	for _, scope := range d.scopes() {
		for key, value := range v.of(scope) {
			if fields != nil && fields[key].Type == "" {
				continue // of a stage that other products are in, too
			}
			found[key] = Effective{Entry: Entry{Scope: scope, Key: key, Value: value}}
		}
	}
	for key, f := range fields {
		e, ok := found[key]
		switch {
		case ok:
			if err := f.Fits(e.Value); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s of %s: %v", key, e.Scope, err))
			}
		case f.Default != "":
			found[key] = Effective{Entry: Entry{Key: key, Value: f.value()}, FromDefault: true}
		case f.Required:
			found[key] = Effective{Entry: Entry{Key: key, Value: Value{Type: f.Type}}, Missing: true}
			wrong = append(wrong, fmt.Sprintf("%s is required and not set", key))
		}
	}
	e := &effective{values: make(map[string]any)}
	size := 0
	sum := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(found)) {
		entry := found[key]
		e.entries = append(e.entries, entry)
		size += len(key) + entry.size()
		switch {
		case entry.Missing:
			continue
		case entry.Type != Secret:
			e.values[key] = entry.Any()
		case !vault.readable(entry.Sealed):
			wrong = append(wrong, fmt.Sprintf("%s of %s cannot be read any more: it must be set again", key, entry.Scope))
		}
		enter(sum, key, entry.Value)
	}
	if e.large = len(found) > protocol.MaxConfigKeys || size > protocol.MaxConfigTotal; e.large {
		wrong = append(wrong, fmt.Sprintf("%d keys with %d bytes are more than the %d keys or %d bytes that a device may have",
			len(found), size, protocol.MaxConfigKeys, protocol.MaxConfigTotal))
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		e.err = errors.New(shorten(wrong))
		return e
	}
	e.revision = hex.EncodeToString(sum.Sum(nil)[:16])
	return e
}

// enter adds a key to the hash that a revision is. JSON has no line feed.
func enter(sum hash.Hash, key string, v Value) {
	// A hash takes everything.
	if v.Type == Secret {
		_, _ = fmt.Fprintf(sum, "%s*%x\n", key, v.Sealed)
	} else {
		_, _ = io.WriteString(sum, key+"="+v.JSON+"\n")
	}
}

// known returns what was worked out for a device, if it still holds.
func (l *line) known(d Device) *effective {
	c := class{d.Product, d.Stage}
	if len(l.values[Scope{d.Pipeline, OfDevice, d.Name}]) == 0 {
		return l.classes[c]
	}
	if o := l.devices[d.Name]; o.class == c {
		return o.effective
	}
	return nil
}

// keep remembers what was worked out for a device.
func (l *line) keep(d Device, e *effective) {
	c := class{d.Product, d.Stage}
	if len(l.values[Scope{d.Pipeline, OfDevice, d.Name}]) == 0 {
		l.classes[c] = e
	} else {
		l.devices[d.Name] = own{c, e}
	}
}

// forget drops what was worked out with a scope's values.
func (l *line) forget(s Scope) {
	if s.Kind == OfDevice {
		delete(l.devices, s.Name)
		return
	}
	within := func(c class) bool {
		return s.Kind == OfProduct && c.product == s.Name || s.Kind == OfStage && c.stage == s.Name
	}
	maps.DeleteFunc(l.classes, func(c class, _ *effective) bool { return within(c) })
	maps.DeleteFunc(l.devices, func(_ string, o own) bool { return within(o.class) })
}

// of returns what a device is configured with.
func (s *Service) of(d Device) *effective {
	s.mu.RLock()
	l := s.lines[d.Pipeline]
	if l != nil {
		if e := l.known(d); e != nil {
			s.mu.RUnlock()
			return e
		}
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.worked(s.line(d.Pipeline), d)
}

// worked is of for who holds the lock.
func (s *Service) worked(l *line, d Device) *effective {
	e := l.known(d)
	if e == nil {
		e = view{line: l}.work(d, s.config.Vault)
		l.keep(d, e)
	}
	return e
}

// Revision identifies what a device is configured with: it changes with every
// value, secrets included, and a restart does not change it. While For has an
// error it is "", with that error. It comes from memory and is cheap.
func (s *Service) Revision(d Device) (string, error) {
	e := s.of(d)
	if e.err != nil {
		return "", notWhole(d, e.err)
	}
	return e.revision, nil
}

func notWhole(d Device, err error) error {
	return fmt.Errorf("cannot configure device %s: %w", d.Name, err)
}

// For returns the configuration of a device with its secrets encrypted to its
// key, or an error that says, without a secret, why it is not complete: then
// the device is to keep the one that it has.
func (s *Service) For(d Device) (*protocol.AssignedConfig, error) {
	e := s.of(d)
	if e.err != nil {
		return nil, notWhole(d, e.err)
	}
	out := &protocol.AssignedConfig{Revision: e.revision, Values: maps.Clone(e.values)}
	for _, entry := range e.entries {
		if entry.Type != Secret {
			continue
		}
		secret, err := s.config.Vault.open(entry.Scope, entry.Key, entry.Sealed)
		if err != nil {
			return nil, fmt.Errorf("cannot configure device %s: %s of %s: %w", d.Name, entry.Key, entry.Scope, err)
		}
		sealed, err := seal.Seal(d.Sealing, d.Name, entry.Key, secret)
		if err != nil {
			return nil, notWhole(d, err)
		}
		if out.Secrets == nil {
			out.Secrets = make(map[string][]byte)
		}
		out.Secrets[entry.Key] = sealed
	}
	return out, nil
}

// changes counts the devices of a scope whose revision a change makes another,
// and returns an error if it would make what some of them have too large. Who
// calls holds the lock.
func (s *Service) changes(v view, members []Device) (n int, err error) {
	var large []string
	look := func(d Device, devices int) {
		before, after := s.worked(v.line, d), v.work(d, s.config.Vault)
		if after.revision != "" && after.revision != before.revision {
			n += devices
		}
		if after.large && !before.large {
			large = append(large, fmt.Sprintf("device %s: %v", d.Name, after.err))
		}
	}
	// Devices without values of their own are alike within their class.
	alike := make(map[class]int)
	examples := make(map[class]Device)
	for _, d := range members {
		own := Scope{d.Pipeline, OfDevice, d.Name}
		if own == v.scope || len(v.line.values[own]) > 0 {
			look(d, 1)
			continue
		}
		c := class{d.Product, d.Stage}
		if alike[c]++; alike[c] == 1 {
			examples[c] = d
		}
	}
	for c, devices := range alike {
		look(examples[c], devices)
	}
	if len(large) > 0 {
		slices.Sort(large)
		return 0, errors.New(shorten(large))
	}
	return n, nil
}
