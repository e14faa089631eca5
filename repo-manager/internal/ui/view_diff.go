package ui

import (
	"slices"
	"sort"
	"strconv"
	"strings"

	"aptfleet/internal/deb"
	"aptfleet/snapshots"
)

// Lists longer than this start folded, showing their first lines only.
const foldAfter = 12

// Lines of a promotion that the Pipeline page shows before the review.
const previewLines = 4

// diffKind is what happened to a package, in the words of the glossary of
// differences: new, gone, upgraded, downgraded, rebuilt, relisted.
type diffKind struct {
	Name string // also the CSS class
	Sign string // as the command line prints it
}

// The order is the order of a reviewer's questions: what gets better, what
// comes, what goes back, what goes away.
var diffKinds = []diffKind{
	{"upgraded", "↑"}, {"new", "+"}, {"downgraded", "↓"}, {"gone", "-"}, {"rebuilt", "≠"}, {"relisted", "≈"},
}

// diffLine is one package that differs, the same way in all Architectures.
type diffLine struct {
	Kind          diffKind
	Component     string
	Name          string
	Old, New      string // versions; "" if it was or is not there
	Architectures string // "amd64, arm64"
}

// diffGroup is all lines of one kind, cut into those always shown and those
// that unfold.
type diffGroup struct {
	Kind   diffKind
	Lines  []diffLine
	Folded []diffLine
}

// Count is the number of lines of the group.
func (g diffGroup) Count() int { return len(g.Lines) + len(g.Folded) }

// diffView is what separates two states, for the eye.
type diffView struct {
	Groups  []diffGroup
	Preview []diffLine // the first lines, over all groups
	Total   int
}

// More is the number of lines that Preview leaves out.
func (d diffView) More() int { return d.Total - len(d.Preview) }

// Summary counts by kind: "3 upgraded, 1 new".
func (d diffView) Summary() string {
	parts := make([]string, 0, len(d.Groups))
	for _, g := range d.Groups {
		parts = append(parts, strconv.Itoa(g.Count())+" "+g.Kind.Name)
	}
	return strings.Join(parts, ", ")
}

// newDiff groups differences by kind and joins equal ones of several
// architectures. The order is stable: what the pipeline's own repositories
// hold before what mirrors brought, then component, name, version.
func newDiff(differences []snapshots.Difference, mirrors map[string]bool) diffView {
	type key struct{ kind, component, name, old, new string }
	architectures := map[key][]string{}
	for _, d := range differences {
		k := key{component: d.Key.Component, name: d.Name, kind: kindOf(d)}
		var architecture string // "all" is one, though it differs in every index
		if d.Old != nil {
			k.old, architecture = d.Old.Version, d.Old.Architecture
		}
		if d.New != nil {
			k.new, architecture = d.New.Version, d.New.Architecture
		}
		if !slices.Contains(architectures[k], architecture) {
			architectures[k] = append(architectures[k], architecture)
		}
	}
	keys := make([]key, 0, len(architectures))
	for k := range architectures {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		a, b := keys[i], keys[j]
		if mirrors[a.component] != mirrors[b.component] {
			return mirrors[b.component]
		}
		if a.component != b.component {
			return a.component < b.component
		}
		if a.name != b.name {
			return a.name < b.name
		}
		return a.old+"\x00"+a.new < b.old+"\x00"+b.new
	})
	var view diffView
	for _, kind := range diffKinds {
		group := diffGroup{Kind: kind}
		for _, k := range keys {
			if k.kind != kind.Name {
				continue
			}
			list := architectures[k]
			sort.Strings(list)
			group.Lines = append(group.Lines, diffLine{
				Kind: kind, Component: k.component, Name: k.name,
				Old: k.old, New: k.new, Architectures: strings.Join(list, ", "),
			})
		}
		if len(group.Lines) == 0 {
			continue
		}
		view.Total += len(group.Lines)
		for _, line := range group.Lines {
			if len(view.Preview) < previewLines {
				view.Preview = append(view.Preview, line)
			}
		}
		if len(group.Lines) > foldAfter {
			group.Lines, group.Folded = group.Lines[:foldAfter], group.Lines[foldAfter:]
		}
		view.Groups = append(view.Groups, group)
	}
	return view
}

// kindOf compares versions the way dpkg does. The same version with other
// bytes is a rebuild, the same bytes with another entry are relisted.
func kindOf(d snapshots.Difference) string {
	switch {
	case d.Old == nil:
		return "new"
	case d.New == nil:
		return "gone"
	}
	switch c := deb.Compare(d.Old.Version, d.New.Version); {
	case c < 0:
		return "upgraded"
	case c > 0:
		return "downgraded"
	case d.Old.SHA256 == d.New.SHA256 && d.Old.Architecture == d.New.Architecture:
		return "relisted"
	default:
		return "rebuilt"
	}
}
