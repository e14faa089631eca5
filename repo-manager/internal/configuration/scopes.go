package configuration

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"aptfleet/repo-manager/internal/release"
)

// place is a scope with the devices that take values from it, as they are now.
type place struct {
	Scope
	members   []Device
	products  []string // of the pipeline; nil if nobody knows
	ofProduct string   // the product of a device's scope, or the scope's own
}

// find looks a scope up. One that is not there, and has no values left from
// when it was, is NotFound. Who calls holds no lock: others are asked.
func (s *Service) find(ctx context.Context, scope Scope) (place, error) {
	p := place{Scope: scope}
	if err := scope.check(); err != nil {
		return p, err
	}
	pipeline, err := s.config.Pipeline(ctx, scope.Pipeline)
	if err != nil {
		return p, err
	}
	if s.config.Products != nil {
		if p.products, err = s.config.Products(ctx, scope.Pipeline); err != nil {
			return p, err
		}
	}
	there := false
	switch scope.Kind {
	case OfProduct:
		p.ofProduct = scope.Name
		there = s.config.Products == nil || slices.Contains(p.products, scope.Name)
	case OfStage:
		there = slices.Contains(pipeline.Stages, scope.Name)
	case OfDevice:
		d, ok, err := s.config.Devices.Find(ctx, scope.Name)
		if err != nil {
			return p, err
		}
		if there = ok && d.Pipeline == scope.Pipeline; there {
			p.members, p.ofProduct = []Device{d}, d.Product
		}
	}
	if !there && !s.has(scope) {
		return p, notThere(scope)
	}
	if scope.Kind == OfDevice {
		return p, nil
	}
	p.members, err = s.within(ctx, scope)
	return p, err
}

// within collects the devices that take values from a scope.
func (s *Service) within(ctx context.Context, scope Scope) ([]Device, error) {
	all, err := s.config.Devices.All(ctx, scope.Pipeline)
	if err != nil {
		return nil, err
	}
	var members []Device
	for d := range all {
		if d.within(scope) {
			members = append(members, d)
		}
	}
	return members, nil
}

func (s *Service) has(scope Scope) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.lines[scope.Pipeline]
	return l != nil && len(l.values[scope]) > 0
}

func notThere(scope Scope) error {
	hints := map[Kind]string{OfProduct: "repo-manager product list", OfStage: "repo-manager stage list", OfDevice: "repo-manager device list"}
	return &release.Error{
		Code: release.NotFound, Text: fmt.Sprintf("cannot find %s %q: pipeline %s has none of that name", scope.Kind, scope.Name, scope.Pipeline),
		Hint: hints[scope.Kind],
	}
}

// field is what the schema of a product says about a key.
type field struct {
	Field
	product string
}

// fields returns what the schemas that matter to a scope say about a key: that
// of its product, or for a stage those of all products that have the key. A key
// that no device could have is an error.
func (l *line) fields(p place, key string) ([]field, error) {
	if p.Kind != OfStage {
		schema, ok := l.schemas[p.ofProduct]
		if !ok {
			return nil, nil
		}
		f, ok := schema.Fields[key]
		if !ok {
			return nil, fmt.Errorf("product %s has no such key%s", p.ofProduct, near(key, schema))
		}
		return []field{{f, p.ofProduct}}, nil
	}
	var all []field
	free := len(l.schemas) == 0 || p.products == nil
	for _, product := range p.products {
		free = free || l.schemas[product].Fields == nil
	}
	for _, product := range slices.Sorted(maps.Keys(l.schemas)) {
		if f, ok := l.schemas[product].Fields[key]; ok {
			all = append(all, field{f, product})
		}
	}
	if len(all) == 0 && !free {
		return nil, fmt.Errorf("no product of pipeline %s has such a key", p.Pipeline)
	}
	return all, nil
}

// near suggests a key of a schema that may have been meant.
func near(key string, s Schema) string {
	bare := func(k string) string { return strings.NewReplacer(".", "", "_", "", "-", "").Replace(k) }
	for _, k := range slices.Sorted(maps.Keys(s.Fields)) {
		if bare(k) == bare(key) {
			return "; it has " + k
		}
	}
	return ""
}

// typeOf is the type of a key that nobody gave one: of the schemas, else the one
// that it has in this scope, else the one that it has wherever it is set.
func (l *line) typeOf(s Scope, key string, fields []field) Type {
	if len(fields) > 0 {
		return fields[0].Type
	}
	if v, ok := l.values[s][key]; ok && v.Type != Enum {
		return v.Type
	}
	types := l.types[key]
	if types[Secret] > 0 {
		return Secret
	}
	if len(types) == 1 && types[Enum] == 0 {
		for t := range types {
			return t
		}
	}
	return String
}

// clash returns a key of the pipeline that has the same name as another in the
// environment file, or "". Schemas of the given product do not count.
func (l *line) clash(key, except string) string {
	name := variable(key)
	for product, schema := range l.schemas {
		if product == except {
			continue
		}
		for k := range schema.Fields {
			if k != key && variable(k) == name {
				return k
			}
		}
	}
	for k := range l.types {
		if k != key && variable(k) == name {
			return k
		}
	}
	return ""
}

// Found is a scope with the number of keys that are set for it.
type Found struct {
	Scope
	Keys int
}

// Scopes lists the scopes of a pipeline that have values; with a name all that
// have that name, with or without values.
func (s *Service) Scopes(ctx context.Context, pipeline, name string) ([]Found, error) {
	if _, err := s.config.Pipeline(ctx, pipeline); err != nil {
		return nil, err
	}
	var all []Found
	if name != "" {
		for _, kind := range Kinds {
			scope := Scope{pipeline, kind, name}
			if kind == OfProduct && s.config.Products == nil && !s.has(scope) && !s.hasSchema(scope) {
				continue // any name would do
			}
			if _, err := s.find(ctx, scope); err == nil {
				all = append(all, Found{Scope: scope})
			} else if code := release.CodeOf(err); code != release.NotFound && code != release.Invalid {
				return nil, err
			}
		}
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.lines[pipeline]
	if l == nil {
		return all, nil
	}
	for i := range all {
		all[i].Keys = len(l.values[all[i].Scope])
	}
	if name == "" {
		for scope, values := range l.values {
			all = append(all, Found{scope, len(values)})
		}
		slices.SortFunc(all, func(a, b Found) int {
			return cmp.Or(slices.Index(Kinds, a.Kind)-slices.Index(Kinds, b.Kind), cmp.Compare(a.Name, b.Name))
		})
	}
	return all, nil
}

func (s *Service) hasSchema(scope Scope) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.lines[scope.Pipeline]
	return l != nil && l.schemas[scope.Name].Fields != nil
}
