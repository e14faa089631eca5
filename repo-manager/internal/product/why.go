package product

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"aptfleet/internal/bom"
	"aptfleet/internal/deb"
)

// member is a package of a bill while its details are found out.
type member struct {
	bom.Package
	component string
	stanza    deb.Stanza
	provides  []deb.Relation
}

// details tells of each package why it is in and what it needs. The members are
// those of the bill, sorted as its packages are.
func details(question bom.BOM, modules map[string][]string, members []member) ([]Detail, error) {
	byName := make(map[string][]int) // what a relation may mean: names and what is provided
	for i := range members {
		m := &members[i]
		groups, err := deb.ParseRelations(m.stanza.Get("Provides"))
		if err != nil {
			groups = nil // nobody can depend on what cannot be read
		}
		byName[m.Name] = append(byName[m.Name], i)
		for _, group := range groups {
			m.provides = append(m.provides, group...)
			for _, p := range group {
				byName[p.Name] = append(byName[p.Name], i)
			}
		}
	}
	all := make([]Detail, len(members))
	for i, m := range members {
		var err error
		if all[i], err = m.detail(); err != nil {
			return nil, fmt.Errorf("cannot read the stanza of %s: %w", m, err)
		}
	}
	edges, err := relations(question, members, byName)
	if err != nil {
		return nil, err
	}
	for i := range all {
		for _, e := range edges[i] {
			if !slices.Contains(all[i].Needs, e.to) {
				all[i].Needs = append(all[i].Needs, e.to)
			}
		}
		slices.Sort(all[i].Needs)
	}
	explain(all, members, edges, roots(question, modules, members))
	return all, nil
}

// detail is what the stanza says by itself.
func (m member) detail() (Detail, error) {
	d := Detail{Component: m.component, Maintainer: m.stanza.Get("Maintainer"), Reason: Reason{Kind: ByApt}}
	d.Source, d.SourceVersion = m.Name, m.Version
	if name, version, _ := strings.Cut(m.stanza.Get("Source"), " "); name != "" {
		d.Source = name
		if version = strings.Trim(strings.TrimSpace(version), "()"); version != "" {
			d.SourceVersion = version
		}
	}
	size, err := strconv.ParseInt(m.stanza.Get("Size"), 10, 64)
	if err != nil {
		return d, err
	}
	d.Size = size
	if text := m.stanza.Get("Installed-Size"); text != "" {
		kibibytes, err := strconv.ParseInt(text, 10, 53)
		if err != nil || kibibytes < 0 {
			return d, fmt.Errorf("%q is no Installed-Size", text)
		}
		d.Installed = kibibytes << 10
	}
	return d, nil
}

// edge is a relation of one package that another one of the bill meets.
type edge struct {
	to    int
	field string
}

// relations lists the edges of each member, in the order of their fields. Of a
// group of alternatives all that are there count.
func relations(question bom.BOM, members []member, byName map[string][]int) ([][]edge, error) {
	fields := []string{"Pre-Depends", "Depends"}
	if question.Recommends {
		fields = append(fields, "Recommends")
	}
	edges := make([][]edge, len(members))
	for i, m := range members {
		for _, field := range fields {
			groups, err := deb.ParseRelations(m.stanza.Get(field))
			if err != nil {
				return nil, fmt.Errorf("cannot read %s of %s: %w", field, m, err)
			}
			for _, group := range groups {
				for _, r := range group {
					for _, to := range byName[r.Name] {
						e := edge{to, field}
						if to != i && members[to].satisfies(r, question.Architecture) && !slices.Contains(edges[i], e) {
							edges[i] = append(edges[i], e)
						}
					}
				}
			}
		}
	}
	return edges, nil
}

// satisfies tells whether m is, or provides, what r asks for. A relation with a
// version is satisfied only by a Provides with a version (Policy 7.5).
func (m member) satisfies(r deb.Relation, architecture string) bool {
	if !r.Concerns(architecture) {
		return false
	}
	if m.Name == r.Name && deb.Satisfies(m.Version, r.Op, r.Version) {
		return true
	}
	return slices.ContainsFunc(m.provides, func(p deb.Relation) bool {
		return p.Name == r.Name && (r.Op == "" || p.Op == "=" && deb.Satisfies(p.Version, r.Op, r.Version))
	})
}

// root is a member that is in for its own sake.
type root struct {
	at     int
	reason Reason
}

// roots lists what was asked for and what every system has; a package that is
// there for several reasons comes first with the one that people chose.
func roots(question bom.BOM, modules map[string][]string, members []member) []root {
	var named, essential, required []root
	for i, m := range members {
		reason := Reason{Kind: ByName}
		if slices.Contains(question.TopLevel, m.Name) {
			// What a module brings and the product has anyway is top-level.
			for _, module := range question.Modules {
				if slices.Contains(modules[module], m.Name) {
					reason = Reason{Kind: ByModule, Module: module}
					break
				}
			}
			if slices.Contains(modules[""], m.Name) {
				reason = Reason{Kind: ByName}
			}
			named = append(named, root{i, reason})
		}
		if m.stanza.Get("Essential") == "yes" {
			essential = append(essential, root{i, Reason{Kind: ByEssential}})
		}
		if m.stanza.Get("Priority") == "required" {
			required = append(required, root{i, Reason{Kind: ByPriority}})
		}
	}
	return slices.Concat(named, essential, required)
}

// explain walks from the roots along the relations, so that each package is
// reached by as few steps as there can be.
func explain(all []Detail, members []member, edges [][]edge, roots []root) {
	seen := make([]bool, len(members))
	var queue []int
	for _, r := range roots {
		if !seen[r.at] {
			seen[r.at] = true
			all[r.at].Reason = r.reason
			queue = append(queue, r.at)
		}
	}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, e := range edges[at] {
			if !seen[e.to] {
				seen[e.to] = true
				all[e.to].Reason = Reason{Kind: ByDependency, By: members[at].Name, Field: e.field}
				queue = append(queue, e.to)
			}
		}
	}
}
