package ui

import (
	"slices"

	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/product"
)

// billLine is one package of a bill of materials.
type billLine struct {
	Name, Version, Architecture string
	Size, Installed             string
	Reason                      string
	SHA256                      string
}

// billGroup is the packages that are in for the same kind of reason.
type billGroup struct {
	Title  string
	Anchor string
	Lines  []billLine
	Open   bool // shown at once
}

// billGroups are the kinds of reason, in the order of a reader's questions.
var billGroups = []struct {
	title, anchor string
	open          bool
	kinds         []product.ReasonKind
}{
	{"Named by the product", "named", true, []product.ReasonKind{product.ByName, product.ByModule}},
	{"By dependency", "needed", false, []product.ReasonKind{product.ByDependency, product.ByApt}},
	{"On every Debian system", "base", false, []product.ReasonKind{product.ByEssential, product.ByPriority}},
}

// newBill groups the packages of a bill of materials.
func newBill(b product.Bill) []billGroup {
	var groups []billGroup
	for _, kind := range billGroups {
		g := billGroup{Title: kind.title, Anchor: kind.anchor, Open: kind.open}
		for i, p := range b.Packages {
			d := b.Details[i]
			if !slices.Contains(kind.kinds, d.Reason.Kind) {
				continue
			}
			g.Lines = append(g.Lines, billLine{
				Name: p.Name, Version: p.Version, Architecture: p.Architecture, Size: size(d.Size), Installed: size(d.Installed),
				Reason: d.Reason.String(), SHA256: p.SHA256,
			})
		}
		if len(g.Lines) > 0 {
			groups = append(groups, g)
		}
	}
	return groups
}

// newBillDiff groups how two bills of materials differ, like a difference of
// states.
func newBillDiff(d product.Difference) diffView {
	var view diffView
	for _, kind := range diffKinds {
		group := diffGroup{Kind: kind}
		for _, c := range d.Changes {
			if kindOfChange(c) != kind.Name {
				continue
			}
			line := diffLine{Kind: kind, Component: c.Component, Name: c.Name}
			if c.Old != nil {
				line.Old, line.Architectures = c.Old.Version, c.Old.Architecture
			}
			if c.New != nil {
				line.New, line.Architectures = c.New.Version, c.New.Architecture
			}
			group.Lines = append(group.Lines, line)
		}
		if len(group.Lines) == 0 {
			continue
		}
		view.Total += len(group.Lines)
		for _, line := range group.Lines[:min(len(group.Lines), max(previewLines-len(view.Preview), 0))] {
			view.Preview = append(view.Preview, line)
		}
		view.Groups = append(view.Groups, group)
	}
	return view
}

// kindOfChange is kindOf for packages of bills.
func kindOfChange(c product.Change) string {
	switch {
	case c.Old == nil:
		return "new"
	case c.New == nil:
		return "gone"
	}
	switch order := deb.Compare(c.Old.Version, c.New.Version); {
	case order < 0:
		return "upgraded"
	case order > 0:
		return "downgraded"
	default:
		return "rebuilt"
	}
}
