package product

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/bom"
	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Product is what one kind of device installs. Its lists are sorted and have
// nothing twice.
type Product struct {
	Pipeline     string
	Name         string              // see bom.ValidName
	Architecture string              // one that the pipeline declares
	Packages     []string            // top-level packages; all else comes by dependency
	Revisions    []string            // hardware revisions that there are, in free words
	Modules      map[string][]string // more top-level packages, for devices that have the module
	Recommends   bool                // recommended packages count
	Created      time.Time
}

// Bounds of a definition.
const (
	maxTopLevel  = 2000
	maxModules   = 64
	maxRevisions = 64
	maxRevision  = 64 // bytes
)

// normal returns p with sorted lists of their own.
func (p Product) normal() Product {
	p.Packages = sorted(p.Packages)
	p.Revisions = sorted(p.Revisions)
	modules := make(map[string][]string, len(p.Modules))
	for name, packages := range p.Modules {
		modules[name] = sorted(packages)
	}
	p.Modules = modules
	return p
}

func sorted(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }

// check refuses what cannot be a product of the pipeline.
func (p Product) check(verb string, of release.Pipeline) error {
	refuse := func(hint, format string, args ...any) error {
		return &release.Error{
			Code: release.Invalid, Text: fmt.Sprintf("cannot %s product %q: ", verb, p.Name) + fmt.Sprintf(format, args...), Hint: hint,
		}
	}
	const form = "a name is a lower-case letter or digit, then those and . + -, at most 64"
	count := len(p.Packages)
	for _, packages := range p.Modules {
		count += len(packages)
	}
	switch {
	case !bom.ValidName(p.Name):
		return refuse("", form)
	case !slices.Contains(of.Architectures, p.Architecture):
		return refuse("", "pipeline %s is for %s, not for %q", of.Name, strings.Join(of.Architectures, ", "), p.Architecture)
	case len(p.Packages) == 0:
		return refuse("name the packages that must be there with --package; their dependencies follow", "it has no packages")
	case count > maxTopLevel:
		return refuse("dependencies follow by themselves: name a package that depends on the others", "%d top-level packages are more than %d", count, maxTopLevel)
	case len(p.Modules) > maxModules:
		return refuse("", "%d modules are more than %d", len(p.Modules), maxModules)
	case len(p.Revisions) > maxRevisions:
		return refuse("", "%d hardware revisions are more than %d", len(p.Revisions), maxRevisions)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Modules)) {
		if !bom.ValidName(name) {
			return refuse(form, "%q cannot be the name of a module", name)
		}
		if len(p.Modules[name]) == 0 {
			return refuse("--module "+name+"=PACKAGE,…", "module %s has no packages", name)
		}
	}
	for _, name := range p.topLevel(slices.Sorted(maps.Keys(p.Modules))) {
		if err := deb.ValidPackageName(name); err != nil {
			return refuse("give names of packages, without versions", "%q cannot be a package: %v", name, err)
		}
	}
	for _, r := range p.Revisions {
		if r == "" || len(r) > maxRevision || strings.ContainsFunc(r, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
			return refuse("", "%q cannot be a hardware revision: it is one word of at most %d bytes", r, maxRevision)
		}
	}
	return nil
}

// topLevel is what is asked for with modules that the product has.
func (p Product) topLevel(modules []string) []string {
	all := slices.Clone(p.Packages)
	for _, m := range modules {
		all = append(all, p.Modules[m]...)
	}
	return sorted(all)
}

// without returns the first of modules that the product does not have, or "".
func (p Product) without(modules []string) string {
	for _, m := range modules {
		if _, ok := p.Modules[m]; !ok {
			return m
		}
	}
	return ""
}

// question is what a bill of materials answers: one without packages.
func (p Product) question(modules []string, state snapshots.ID) bom.BOM {
	return bom.BOM{
		State: state.String(), Product: p.Name, Architecture: p.Architecture,
		Modules: modules, TopLevel: p.topLevel(modules), Recommends: p.Recommends,
	}
}
