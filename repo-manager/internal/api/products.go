package api

import (
	"context"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/bom"
	"aptfleet/internal/deb"
	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Products is what the API needs of *product.Service; that type's comments hold
// the promises.
type Products interface {
	Products(ctx context.Context, pipeline string) ([]product.Product, error)
	Get(pipeline, product string) (product.Product, error)
	Devices(pipeline, product string) int
	Create(ctx context.Context, actor release.Actor, p product.Product) (product.Product, error)
	Set(ctx context.Context, actor release.Actor, pipeline, product string, change func(product.Product) product.Product) (product.Product, error)
	Delete(ctx context.Context, actor release.Actor, pipeline, product, reason string, dryRun bool) (product.Product, error)
	BOM(ctx context.Context, pipeline, product string, modules []string, state snapshots.ID) (product.Bill, error)
	Diff(ctx context.Context, pipeline, product string, modules []string, from, to snapshots.ID, news bool) (product.Difference, error)
}

func (s *server) toProduct(p product.Product) protocol.Product {
	return protocol.Product{
		Name: p.Name, Architecture: p.Architecture, Packages: append([]string{}, p.Packages...), Revisions: p.Revisions, Modules: p.Modules,
		Recommends: p.Recommends, Created: p.Created.UTC(), Devices: s.Products.Devices(p.Pipeline, p.Name),
	}
}

func listProducts(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	all, err := s.Products.Products(c.Request.Context(), c.Param("p"))
	return http.StatusOK, list(all, s.toProduct), err
}

func getProduct(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	if _, err := s.Releases.Pipeline(c.Request.Context(), c.Param("p")); err != nil {
		return 0, nil, err
	}
	p, err := s.Products.Get(c.Param("p"), c.Param("product"))
	return http.StatusOK, s.toProduct(p), err
}

func createProduct(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.Product
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	p, err := s.Products.Create(c.Request.Context(), who.Actor(), product.Product{
		Pipeline: c.Param("p"), Name: in.Name, Architecture: in.Architecture, Packages: in.Packages, Revisions: in.Revisions, Modules: in.Modules, Recommends: in.Recommends,
	})
	return http.StatusCreated, s.toProduct(p), err
}

func setProduct(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.SetProduct
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	p, err := s.Products.Set(c.Request.Context(), who.Actor(), c.Param("p"), c.Param("product"), func(p product.Product) product.Product {
		set(&p.Architecture, in.Architecture)
		set(&p.Packages, in.Packages)
		set(&p.Revisions, in.Revisions)
		set(&p.Modules, in.Modules)
		set(&p.Recommends, in.Recommends)
		return p
	})
	return http.StatusOK, s.toProduct(p), err
}

// set overwrites a value by one that was given.
func set[T any](old, given *T) {
	if given != nil {
		*old = *given
	}
}

// deleteProduct answers with what is gone or, with dry-run=1, could go.
func deleteProduct(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	dryRun, err := flag(c, "dry-run")
	if err != nil {
		return 0, nil, err
	}
	p, err := s.Products.Delete(c.Request.Context(), who.Actor(), c.Param("p"), c.Param("product"), c.Query("reason"), dryRun)
	return http.StatusOK, s.toProduct(p), err
}

// getBOM answers with a bill of materials, or a verdict; as text and as
// CycloneDX there are only bills.
func getBOM(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	ctx, pipeline, name := c.Request.Context(), c.Param("p"), c.Param("product")
	format := c.DefaultQuery("format", "json")
	if !slices.Contains([]string{"json", "text", "cyclonedx"}, format) {
		return 0, nil, invalid("", "cannot write the bill of materials as %s: want json, text or cyclonedx", printable(format))
	}
	p, err := s.Releases.Pipeline(ctx, pipeline)
	if err != nil {
		return 0, nil, err
	}
	offer, err := s.Releases.Resolve(ctx, pipeline, c.Query("ref"))
	if err != nil {
		return 0, nil, err
	}
	bill, err := s.Products.BOM(ctx, pipeline, name, c.QueryArray("module"), offer.State)
	if err != nil {
		return 0, nil, err
	}
	if format == "json" {
		return http.StatusOK, toBOM(bill, offer), nil
	}
	if bill.Verdict != nil {
		return 0, nil, &release.Error{
			Code: release.Refused, Text: "cannot write a bill of materials of " + name + ": it cannot be installed: " + bill.Verdict.Summary,
			Hint: "repo-manager product bom " + name + " state:" + stateText(offer.State),
		}
	}
	text, kind := bill.Text, "text/plain; charset=utf-8"
	if format == "cyclonedx" {
		kind = "application/vnd.cyclonedx+json; version=1.6"
		if text, err = bill.CycloneDX(p.Distribution); err != nil {
			return 0, nil, err
		}
	}
	c.Data(http.StatusOK, kind, text)
	return 0, nil, nil
}

func toBOM(b product.Bill, offer release.Offer) protocol.BOM {
	out := protocol.BOM{
		State: stateText(offer.State), Snapshot: offer.Snapshot, Product: b.Product, Modules: append([]string{}, b.Modules...), Architecture: b.Architecture,
		Recommends: b.Recommends, TopLevel: b.TopLevel, SHA256: b.SHA256, Size: b.Size, Download: b.Download(), Installed: b.Installed(),
		Packages: make([]protocol.BOMPackage, len(b.Packages)), Made: b.Made.UTC(),
	}
	if b.Verdict != nil {
		out.Verdict = &protocol.BOMVerdict{Summary: b.Verdict.Summary, Apt: b.Verdict.Apt, Dose: b.Verdict.Dose}
	}
	for i, p := range b.Packages {
		d := b.Details[i]
		out.Packages[i] = protocol.BOMPackage{
			Name: p.Name, Architecture: p.Architecture, Version: p.Version, SHA256: p.SHA256, Component: d.Component, Source: d.Source,
			Size: d.Size, Installed: d.Installed, Reason: d.Reason.String(), By: d.Reason.By,
		}
	}
	return out
}

func diffProduct(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	ctx, pipeline := c.Request.Context(), c.Param("p")
	changelogs, err := flag(c, "changelogs")
	if err != nil {
		return 0, nil, err
	}
	var states [2]snapshots.ID
	for i, side := range []string{"from", "to"} {
		if c.Query(side) == "" {
			return 0, nil, invalid("both take a snapshot's id, a stage's name or a state's id", "cannot compare: the query needs from and to")
		}
		offer, err := s.Releases.Resolve(ctx, pipeline, c.Query(side))
		if err != nil {
			return 0, nil, err
		}
		states[i] = offer.State
	}
	d, err := s.Products.Diff(ctx, pipeline, c.Param("product"), c.QueryArray("module"), states[0], states[1], changelogs)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, toProductDiff(d), nil
}

func toProductDiff(d product.Difference) protocol.ProductDiff {
	out := protocol.ProductDiff{
		From: d.From.State, To: d.To.State, Product: d.To.Product, Installed: d.To.Installed() - d.From.Installed(),
		Differences: list(d.Changes, toBOMDifference), Changelogs: list(d.News, toChangelog),
	}
	for _, c := range d.Changes {
		out.Download += c.Download
	}
	for _, n := range d.News {
		for _, e := range n.Entries {
			out.Bugs, out.CVEs = append(out.Bugs, e.Bugs...), append(out.CVEs, e.CVEs...)
		}
	}
	slices.Sort(out.Bugs)
	slices.Sort(out.CVEs)
	out.Bugs, out.CVEs = slices.Compact(out.Bugs), slices.Compact(out.CVEs)
	return out
}

func toBOMDifference(c product.Change) protocol.Difference {
	out := protocol.Difference{Component: c.Component, Name: c.Name}
	for _, p := range []*bom.Package{c.Old, c.New} {
		if p != nil {
			out.Architecture = p.Architecture
		}
	}
	switch {
	case c.Old == nil:
		out.Kind, out.New = "new", c.New.Version
		return out
	case c.New == nil:
		out.Kind, out.Old = "gone", c.Old.Version
		return out
	}
	out.Old, out.New = c.Old.Version, c.New.Version
	switch order := deb.Compare(c.Old.Version, c.New.Version); {
	case order < 0:
		out.Kind = "upgraded"
	case order > 0:
		out.Kind = "downgraded"
	default:
		out.Kind = "rebuilt"
	}
	return out
}

func toChangelog(n product.News) protocol.Changelog {
	return protocol.Changelog{
		Source: n.Source, Packages: n.Packages, Old: n.Old, New: n.New, Back: n.Back, Missing: n.Missing,
		Entries: list(n.Entries, func(e product.Entry) protocol.ChangelogEntry {
			return protocol.ChangelogEntry{Version: e.Version, Text: e.Text, Bugs: e.Bugs, CVEs: e.CVEs}
		}),
	}
}
