package product

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"aptfleet/internal/bom"
	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// short is a relation as people type it, without the parentheses of Debian
// Policy 7.1.
var short = regexp.MustCompile(`^\s*([a-z0-9][a-z0-9.+-]*)\s*(<<|<=|>=|>>|=)\s*([^()\s|,]+)\s*$`)

// Has tells whether what a product with modules is in a state satisfies a
// relation, such as "openssl (<< 3.0.15)" or, for short, "openssl<<3.0.15". By
// name alone: what a package provides does not count. What cannot be installed
// satisfies nothing. The bill of materials is the one with that SHA-256, if there
// is one, whatever the product and its modules are now; else it is computed if
// need be. A state that the pipeline does not keep is NotFound.
func (s *Service) Has(ctx context.Context, pipeline, product string, modules []string, state snapshots.ID, sha256, relation string) (bool, error) {
	text := relation
	if m := short.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("%s (%s %s)", m[1], m[2], m[3])
	}
	groups, err := deb.ParseRelations(text)
	if err != nil || len(groups) == 0 {
		return false, &release.Error{
			Code: release.Invalid, Text: fmt.Sprintf("cannot look for %q: it is no relation of packages", relation), Hint: "for example 'openssl<<3.0.15', or 'openssl (<< 3.0.15) | libssl3'",
		}
	}
	b, err := s.named(ctx, pipeline, product, modules, state, sha256)
	if err != nil {
		return false, err
	}
	for _, alternatives := range groups {
		if !slices.ContainsFunc(alternatives, func(r deb.Relation) bool {
			return r.Concerns(b.Architecture) && slices.ContainsFunc(b.Packages, func(p bom.Package) bool {
				return p.Name == r.Name && (r.Op == "" || deb.Satisfies(p.Version, r.Op, r.Version))
			})
		}) {
			return false, nil
		}
	}
	return true, nil
}

// named is the bill of materials with a SHA-256, or, if there is none, that of the
// product as it is now.
func (s *Service) named(ctx context.Context, pipeline, product string, modules []string, state snapshots.ID, sha256 string) (Bill, error) {
	for _, e := range s.settled() {
		if e.key.pipeline == pipeline && e.product == product && e.state == state && e.status == Computed && e.ready.SHA256 == sha256 {
			return s.bill(ctx, e.key, product)
		}
	}
	kept, err := s.config.States(ctx, pipeline)
	switch {
	case err != nil:
		return Bill{}, err
	case !slices.Contains(kept, state):
		return Bill{}, gone(product)
	}
	return s.BOM(ctx, pipeline, product, modules, state)
}
