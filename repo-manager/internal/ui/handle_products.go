package ui

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
)

// productQuery says of which state and modules the bill of materials of a
// product is shown.
type productQuery struct {
	Ref     string // stage, snapshot or state; "": what the last stage offers that offers anything
	Modules []string
}

// productURL is the address of a product.
func productURL(pipeline, name string, q productQuery) string {
	return pipelineURL(pipeline) + "/products/" + url.PathEscape(name) + q.encode()
}

func (q productQuery) encode() string {
	values := url.Values{}
	if q.Ref != "" {
		values.Set("ref", q.Ref)
	}
	if len(q.Modules) > 0 {
		values["module"] = q.Modules
	}
	if len(values) == 0 {
		return ""
	}
	return "?" + values.Encode()
}

// productsView lists the products of a pipeline.
type productsView struct {
	frame
	Pipeline string
	Products []productLine
}

// productLine is one product with how it stands in each stage.
type productLine struct {
	Name         string
	URL          string
	Architecture string
	Packages     string
	Modules      string
	Devices      int
	DevicesURL   string
	Stages       []stageBill
}

// stageBill is how far the bill of materials of a product in what a stage
// offers is.
type stageBill struct {
	Stage  string
	URL    string
	Word   string // "ready", "being computed", "cannot be installed", "nothing offered"
	Class  string
	Reason string
}

// products lists the products of a pipeline, with what each stage has for them.
func (s *server) products(w http.ResponseWriter, r *http.Request, v visitor) error {
	b, err := s.look(r.Context(), r.PathValue("p"))
	if err != nil {
		return err
	}
	all, err := s.Products.Products(r.Context(), b.Name)
	if err != nil {
		return err
	}
	view := productsView{frame: s.frame(v, b.Name, "Products"), Pipeline: b.Name}
	view.section("Products")
	view.Events, view.Live = pipelineURL(b.Name)+"/events", "replace"
	for _, p := range all {
		line := productLine{
			Name: p.Name, URL: productURL(b.Name, p.Name, productQuery{}), Architecture: p.Architecture, Packages: strings.Join(p.Packages, ", "),
			Modules: strings.Join(slices.Sorted(maps.Keys(p.Modules)), ", "), Devices: s.Products.Devices(b.Name, p.Name),
			DevicesURL: devicesURL(b.Name, deviceFilter{Product: p.Name}),
		}
		for _, stage := range b.stages {
			line.Stages = append(line.Stages, s.stageBill(b, p, stage))
		}
		view.Products = append(view.Products, line)
	}
	s.render(w, http.StatusOK, "products", view)
	return nil
}

func (s *server) stageBill(b board, p product.Product, stage release.Stage) stageBill {
	line := stageBill{Stage: stage.Name, URL: productURL(b.Name, p.Name, productQuery{Ref: stage.Name})}
	if stage.Offer.State.IsZero() {
		line.Word, line.Class = "nothing offered", "idle"
		return line
	}
	_, status, reason := s.Products.Lookup(b.Name, p.Name, nil, stage.Offer.State)
	line.Word, line.Class = billWord(status)
	if status == product.Failed {
		line.Reason = reason
	}
	return line
}

// billWord words how far a bill of materials is, with its CSS class.
func billWord(status product.Status) (word, class string) {
	switch status {
	case product.Computed:
		return "can be installed", "good"
	case product.Failed:
		return "cannot be installed", "bad"
	}
	return "being computed", "busy"
}

// productView is one product, with its bill of materials in a state.
type productView struct {
	frame
	Pipeline     string
	Name         string
	Architecture string
	Recommends   bool
	Packages     []string
	Revisions    string
	Modules      []moduleView
	Created      moment
	Devices      int
	DevicesURL   string
	Stages       []choice
	Ref          string
	Chosen       offer
	Nothing      string // why there is no bill to show
	Computing    bool
	Waits        string // what the bill waits for
	Verdict      *product.Verdict
	Bill         []billGroup
	Count        int
	Download     string
	Installed    string
	SHA256       string
	Made         moment
	Text         string // link
	CycloneDX    string // link
	Action       string
	Command      string
}

// moduleView is a module of a product.
type moduleView struct {
	Name     string
	Packages string
	Chosen   bool
}

// product shows one product and what it is in a state, as far as that is known.
func (s *server) product(w http.ResponseWriter, r *http.Request, v visitor) error {
	ctx := r.Context()
	b, err := s.look(ctx, r.PathValue("p"))
	if err != nil {
		return err
	}
	p, err := s.Products.Get(b.Name, r.PathValue("product"))
	if err != nil {
		return err
	}
	q := productQuery{Ref: r.URL.Query().Get("ref"), Modules: r.URL.Query()["module"]}
	if q.Ref == "" {
		q.Ref = b.last()
	}
	view := productView{
		frame: s.frame(v, b.Name, "Product "+p.Name), Pipeline: b.Name, Name: p.Name, Architecture: p.Architecture, Recommends: p.Recommends,
		Packages: p.Packages, Revisions: strings.Join(p.Revisions, ", "), Created: at(s.Clock(), p.Created),
		Devices: s.Products.Devices(b.Name, p.Name), DevicesURL: devicesURL(b.Name, deviceFilter{Product: p.Name}),
		Ref: q.Ref, Action: productURL(b.Name, p.Name, productQuery{}), Command: "repo-manager product set " + p.Name + " --pipeline " + b.Name,
	}
	view.section("Products")
	view.Crumbs = append(view.Crumbs, crumb{Name: "Products", URL: pipelineURL(b.Name) + "/products"}, crumb{Name: p.Name, URL: view.Action, Here: true})
	view.Events, view.Live = pipelineURL(b.Name)+"/events", "replace"
	for _, m := range slices.Sorted(maps.Keys(p.Modules)) {
		view.Modules = append(view.Modules, moduleView{Name: m, Packages: strings.Join(p.Modules[m], ", "), Chosen: slices.Contains(q.Modules, m)})
	}
	view.Stages = choices(q.Ref, b.Stages...)
	if !slices.Contains(b.Stages, q.Ref) && q.Ref != "" {
		view.Stages = append(view.Stages, choice{Value: q.Ref, Text: offer{Snapshot: q.Ref}.String(), Chosen: true})
	}
	if q.Ref == "" {
		view.Nothing = "No stage of this pipeline offers anything yet."
		s.render(w, http.StatusOK, "product", view)
		return nil
	}
	o, err := s.Release.Resolve(ctx, b.Name, q.Ref)
	if err != nil {
		return err
	}
	if view.Chosen = offerOf(o); view.Chosen.None() {
		view.Nothing = q.Ref + " offers nothing yet."
		s.render(w, http.StatusOK, "product", view)
		return nil
	}
	if err := view.bill(ctx, s, p, q.Modules, o); err != nil {
		return err
	}
	s.render(w, http.StatusOK, "product", view)
	return nil
}

// last is the last stage that offers anything, or "".
func (b board) last() string {
	for _, stage := range slices.Backward(b.stages) {
		if !stage.Offer.State.IsZero() {
			return stage.Name
		}
	}
	return ""
}

// bill fills in the bill of materials, if it is computed; nobody waits for it
// here.
func (view *productView) bill(ctx context.Context, s *server, p product.Product, modules []string, o release.Offer) error {
	_, status, waits := s.Products.Lookup(p.Pipeline, p.Name, modules, o.State)
	if status == product.Computing {
		view.Computing, view.Waits = true, sentence(waits)
		return nil
	}
	b, err := s.Products.BOM(ctx, p.Pipeline, p.Name, modules, o.State)
	if err != nil {
		return err
	}
	view.Made = at(s.Clock(), b.Made)
	if view.Verdict = b.Verdict; view.Verdict != nil {
		return nil
	}
	view.Bill, view.Count, view.SHA256 = newBill(b), len(b.Packages), b.SHA256
	view.Download, view.Installed = size(b.Download()), size(b.Installed())
	fixed := productQuery{Ref: o.State.String(), Modules: modules}
	base := productURL(p.Pipeline, p.Name, productQuery{})
	view.Text, view.CycloneDX = base+"/bom.txt"+fixed.encode(), base+"/bom.cdx.json"+fixed.encode()
	return nil
}

// download sends a bill of materials as a file, and waits until it is
// computed.
func (s *server) download(suffix, kind string, write func(b product.Bill, distribution string) ([]byte, error)) page {
	return func(w http.ResponseWriter, r *http.Request, _ visitor) error {
		ctx, pipeline, name := r.Context(), r.PathValue("p"), r.PathValue("product")
		p, err := s.Release.Pipeline(ctx, pipeline)
		if err != nil {
			return err
		}
		o, err := s.Release.Resolve(ctx, pipeline, r.URL.Query().Get("ref"))
		if err != nil {
			return err
		}
		b, err := s.Products.BOM(ctx, pipeline, name, r.URL.Query()["module"], o.State)
		if err != nil {
			return err
		}
		if b.Verdict != nil {
			return &release.Error{Code: release.Refused, Text: fmt.Sprintf("cannot write a bill of materials of %s: it cannot be installed: %s", name, b.Verdict.Summary)}
		}
		text, err := write(b, p.Distribution)
		if err != nil {
			return err
		}
		file := fmt.Sprintf("%s-%s%s", name, cmp.Or(o.Snapshot, o.State.String()[:12]), suffix)
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", file))
		if _, err := w.Write(text); err != nil {
			s.Log.Debug("cannot send a bill of materials", "error", err) // the browser went away
		}
		return nil
	}
}

// downloads are the forms in which a bill of materials is sent, by the last
// part of their address.
func (s *server) downloads() map[string]page {
	return map[string]page{
		"bom.txt": s.download(".bom", "text/plain; charset=utf-8", func(b product.Bill, _ string) ([]byte, error) { return b.Text, nil }),
		"bom.cdx.json": s.download(".cdx.json", "application/vnd.cyclonedx+json; version=1.6", func(b product.Bill, distribution string) ([]byte, error) {
			return b.CycloneDX(distribution)
		}),
	}
}

// productChange is what a promotion changes for the devices of a product.
type productChange struct {
	Name      string // with modules
	Anchor    string
	URL       string // the product in what the stage would offer
	Devices   int
	Computing bool
	Verdict   string // why it cannot be installed there; devices stay on what they have
	First     bool   // what the stage offers now has no bill to compare with
	Summary   string
	Download  string
	Preview   []diffLine
	More      int
}

// Products with modules that a review compares; the command line has the rest.
const reviewProducts = 12

// productChanges says what a move of a stage changes for each product, as far
// as that is computed.
func (s *server) productChanges(ctx context.Context, b board, stage release.Stage, to release.Offer) (list []productChange, more int, err error) {
	all, err := s.Products.Products(ctx, b.Name)
	if err != nil {
		return nil, 0, err
	}
	kinds := s.Fleet.Kinds(ctx, b.Name, stage.Name)
	for _, p := range all { // those without devices can fail, too
		if !slices.ContainsFunc(kinds, func(k fleet.Kind) bool { return k.Product == p.Name }) {
			kinds = append(kinds, fleet.Kind{Product: p.Name})
		}
	}
	for i, k := range kinds {
		if _, ok := find(all, k.Product); !ok {
			continue // deleted
		}
		if len(list) == reviewProducts {
			more++
			continue
		}
		c, err := s.productChange(ctx, b, stage.Offer, to, k)
		if err != nil {
			return nil, 0, err
		}
		c.Anchor = fmt.Sprintf("product-%d", i+1)
		list = append(list, c)
	}
	return list, more, nil
}

func find(all []product.Product, name string) (product.Product, bool) {
	i := slices.IndexFunc(all, func(p product.Product) bool { return p.Name == name })
	if i < 0 {
		return product.Product{}, false
	}
	return all[i], true
}

func (s *server) productChange(ctx context.Context, b board, from, to release.Offer, k fleet.Kind) (productChange, error) {
	c := productChange{
		Name: modulesWord(k.Product, k.Modules), Devices: k.Devices,
		URL: productURL(b.Name, k.Product, productQuery{Ref: offerOf(to).Ref(), Modules: k.Modules}),
	}
	ready, status, reason := s.Products.Lookup(b.Name, k.Product, k.Modules, to.State)
	switch status {
	case product.Computing:
		c.Computing = true
		return c, nil
	case product.Failed:
		c.Verdict = reason
		return c, nil
	}
	if from.State.IsZero() {
		c.First = true
		return c, nil
	}
	switch before, status, _ := s.Products.Lookup(b.Name, k.Product, k.Modules, from.State); {
	case status == product.Computing:
		c.Computing = true
		return c, nil
	case status == product.Failed:
		c.First = true
		return c, nil
	case before.SHA256 == ready.SHA256:
		return c, nil
	}
	d, err := s.Products.Diff(ctx, b.Name, k.Product, k.Modules, from.State, to.State, false)
	var known *release.Error
	switch {
	case errors.As(err, &known): // gc took one of them just now
		c.Computing = true
		return c, nil
	case err != nil:
		return c, err
	}
	diff := newBillDiff(d)
	c.Summary, c.Preview, c.More = diff.Summary(), diff.Preview, diff.More()
	var bytes int64
	for _, change := range d.Changes {
		bytes += change.Download
	}
	c.Download = size(bytes)
	return c, nil
}
