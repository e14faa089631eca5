package product

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"aptfleet/internal/bom"
	"aptfleet/internal/deb"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Change is a package that two bills have differently. Old or New is nil where
// it comes or goes.
type Change struct {
	Name      string
	Old, New  *bom.Package
	Component string // where the new one is from; of one that goes, where it was
	Reason    Reason // why the new one is in; why the old one was
	Download  int64  // of the new one, bytes
	source    string
	versions  [2]string // of the source package, old and new
}

// News is what the changelog of a source package says about the way from one
// bill to another.
type News struct {
	Source   string
	Packages []string // of both bills, by name
	Old, New string   // versions of the source package
	Entries  []Entry  // newest first; of a way back, what is lost
	Back     bool     // New is lower
	Missing  string   // why there are no entries; "": there are
}

// Difference is how two bills of one product differ.
type Difference struct {
	From, To Bill
	Changes  []Change // by name
	News     []News   // by source, if it was asked for
}

// Diff compares the bills of a product with modules in two states, and computes
// what is not computed yet. With news it reads the changelogs of what changed.
// The error about a verdict is Refused.
func (s *Service) Diff(ctx context.Context, pipeline, product string, modules []string, from, to snapshots.ID, news bool) (Difference, error) {
	var d Difference
	for _, side := range []struct {
		state snapshots.ID
		into  *Bill
	}{{from, &d.From}, {to, &d.To}} {
		b, err := s.BOM(ctx, pipeline, product, modules, side.state)
		if err != nil {
			return Difference{}, err
		}
		if b.Verdict != nil {
			return Difference{}, &release.Error{
				Code: release.Refused, Text: fmt.Sprintf("cannot compare bills of materials: %s cannot be installed in state %s: %s", product, side.state, b.Verdict.Summary),
				Hint: fmt.Sprintf("repo-manager product bom %s state:%s", product, side.state),
			}
		}
		*side.into = b
	}
	d.Changes = changes(d.From, d.To)
	if news {
		var err error
		if d.News, err = s.news(ctx, d.Changes); err != nil {
			return Difference{}, err
		}
	}
	return d, nil
}

// changes pairs packages by name and what dpkg counts as one architecture.
func changes(from, to Bill) []Change {
	type slot struct{ name, architecture string }
	at := func(b Bill, p bom.Package) slot {
		if p.Architecture == "all" {
			return slot{p.Name, b.Architecture}
		}
		return slot{p.Name, p.Architecture}
	}
	old := make(map[slot]int)
	for i, p := range from.Packages {
		old[at(from, p)] = i
	}
	var all []Change
	for i := range to.Packages {
		p, d := &to.Packages[i], to.Details[i]
		c := Change{Name: p.Name, New: p, Component: d.Component, Reason: d.Reason, Download: d.Size, source: d.Source, versions: [2]string{"", d.SourceVersion}}
		if j, ok := old[at(to, *p)]; ok {
			delete(old, at(to, *p))
			if from.Packages[j] == *p {
				continue
			}
			c.Old = &from.Packages[j]
			if before := from.Details[j]; before.Source == d.Source {
				c.versions[0] = before.SourceVersion
			}
		}
		all = append(all, c)
	}
	for _, j := range old {
		d := from.Details[j]
		all = append(all, Change{Name: from.Packages[j].Name, Old: &from.Packages[j], Component: d.Component, Reason: d.Reason, source: d.Source, versions: [2]string{d.SourceVersion, ""}})
	}
	slices.SortFunc(all, func(a, b Change) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// news reads changelogs, one for all packages of a source that took the same
// step.
func (s *Service) news(ctx context.Context, changed []Change) ([]News, error) {
	type step struct{ source, old, new string }
	groups := make(map[step][]Change)
	for _, c := range changed {
		if c.Old == nil || c.New == nil || c.versions[0] == "" || c.versions[0] == c.versions[1] {
			continue
		}
		at := step{c.source, c.versions[0], c.versions[1]}
		groups[at] = append(groups[at], c)
	}
	var all []News
	for at, group := range groups {
		n := News{Source: at.source, Old: at.old, New: at.new, Back: deb.Compare(at.old, at.new) > 0}
		for _, c := range group {
			n.Packages = append(n.Packages, c.Name)
		}
		for _, c := range group {
			// The higher version tells of the lower one.
			p, low, high := c.New, at.old, at.new
			if n.Back {
				p, low, high = c.Old, at.new, at.old
			}
			entries, err := s.changelog(ctx, *p)
			var format *deb.FormatError
			switch {
			case ctx.Err() != nil:
				return nil, context.Cause(ctx)
			case errors.Is(err, fs.ErrNotExist):
				n.Missing = "the pool has lost " + p.String()
			case errors.As(err, &format):
				n.Missing = p.String() + " cannot be read: " + err.Error()
			case err != nil:
				n.Missing = "the changelog of " + p.String() + " cannot be read: " + err.Error()
			case len(entries) == 0:
				n.Missing = "its packages have no changelog"
			default:
				if n.Entries = between(entries, low, high); len(n.Entries) == 0 {
					n.Missing = "its changelog has nothing between the two"
				}
			}
			if len(n.Entries) > 0 {
				n.Missing = ""
				break
			}
		}
		all = append(all, n)
	}
	slices.SortFunc(all, func(a, b News) int { return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.New, b.New)) })
	return all, nil
}

func (s *Service) changelog(ctx context.Context, p bom.Package) ([]Entry, error) {
	var sum [32]byte
	if _, err := hex.Decode(sum[:], []byte(p.SHA256)); err != nil {
		return nil, err
	}
	return s.changelogs.of(ctx, sum, p.Name, p.Version, p.Architecture)
}
