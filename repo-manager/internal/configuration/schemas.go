package configuration

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

func variable(key string) string { return protocol.ConfigVariable(key) }

// Schema returns the schema of a product; Fields is nil if it has none.
func (s *Service) Schema(ctx context.Context, pipeline, product string) (Schema, error) {
	if _, err := s.find(ctx, Scope{pipeline, OfProduct, product}); err != nil {
		return Schema{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if l := s.lines[pipeline]; l != nil {
		if schema, ok := l.schemas[product]; ok {
			return schema, nil
		}
	}
	return Schema{Pipeline: pipeline, Product: product}, nil
}

// SetSchema gives a product another schema, or none if there are no Fields. If
// values that are set do not fit it is Refused, with the list of them. It
// returns how many devices get a new revision.
func (s *Service) SetSchema(ctx context.Context, a release.Actor, schema Schema, dryRun bool) (int, error) {
	refuse := func(code release.Code, hint string, err error) (int, error) {
		return 0, &release.Error{Code: code, Text: fmt.Sprintf("cannot set the configuration schema of product %s: %v", schema.Product, err), Hint: hint}
	}
	place, err := s.find(ctx, Scope{schema.Pipeline, OfProduct, schema.Product})
	if err != nil {
		return 0, err
	}
	schema.Fields = maps.Clone(schema.Fields)
	if err := schema.prepare(); err != nil {
		return refuse(release.Invalid, "docs/architecture.md shows what a schema says", err)
	}
	schema.By, schema.At = a.Name, s.now()

	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.line(schema.Pipeline)
	for _, key := range slices.Sorted(maps.Keys(schema.Fields)) {
		if other := l.clash(key, schema.Product); other != "" {
			return refuse(release.Conflict, "", fmt.Errorf("%s would be %s in the environment file, as %s is", key, variable(key), other))
		}
	}
	if wrong := l.misfits(schema, place.members); len(wrong) > 0 {
		return refuse(release.Refused, "set or unset these first", fmt.Errorf("values do not fit: %s", shorten(wrong)))
	}
	n, err := s.changes(view{line: l, schema: &schema}, place.members)
	if err != nil {
		return refuse(release.Refused, "", err)
	}
	if dryRun {
		return n, nil
	}
	act := release.Act{
		At: schema.At, By: a.Name, Via: a.Via, Verb: "configure", Pipeline: schema.Pipeline, Object: "product " + schema.Product,
		Detail: fmt.Sprintf("a schema of %d keys", len(schema.Fields)),
	}
	if schema.Fields == nil {
		act.Detail = "no schema"
	}
	if err := s.config.Store.PutConfigSchema(ctx, schema, act); err != nil {
		return 0, fmt.Errorf("cannot set the configuration schema of product %s: %w", schema.Product, err)
	}
	if schema.Fields == nil {
		delete(l.schemas, schema.Product)
	} else {
		l.schemas[schema.Product] = schema
	}
	l.forget(place.Scope)
	s.config.Announce("config", schema.Pipeline, place.String())
	return n, nil
}

// misfits lists the values that a schema would not take: of its product, of the
// product's devices, and of stages as far as it has their keys.
func (l *line) misfits(schema Schema, members []Device) []string {
	if schema.Fields == nil {
		return nil
	}
	ours := map[Scope]bool{{schema.Pipeline, OfProduct, schema.Product}: true}
	for _, d := range members {
		ours[Scope{schema.Pipeline, OfDevice, d.Name}] = true
	}
	var wrong []string
	for scope, values := range l.values {
		if !ours[scope] && scope.Kind != OfStage {
			continue
		}
		for key, v := range values {
			f, known := schema.Fields[key]
			switch {
			case !known && scope.Kind != OfStage:
				wrong = append(wrong, fmt.Sprintf("%s of %s: there would be no such key", key, scope))
			case known:
				if err := f.Fits(v); err != nil {
					wrong = append(wrong, fmt.Sprintf("%s of %s: %v", key, scope, err))
				}
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}
