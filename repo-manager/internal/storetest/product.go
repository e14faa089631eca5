package storetest

import (
	"errors"
	"testing"

	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// ProductStore is a store of products, which belong to pipelines.
type ProductStore interface {
	product.Store
	release.Store
}

// Products runs the suite of product.Store. open returns an empty store.
func Products(t *testing.T, open func(t *testing.T) ProductStore) {
	gateway := product.Product{
		Pipeline: "demo", Name: "gateway", Architecture: "amd64", Packages: []string{"app", "ssh"}, Revisions: []string{"A1", "B2"},
		Modules: map[string][]string{"lte": {"modem", "ppp"}}, Recommends: true, Created: day,
	}
	bench := product.Product{Pipeline: "demo", Name: "bench", Architecture: "arm64", Packages: []string{"app"}, Created: day}
	prepared := func(t *testing.T) ProductStore {
		s := open(t)
		must(t, s.Commit(t.Context(), demo("demo")))
		must(t, s.CreateProduct(t.Context(), gateway, act("product gateway")))
		return s
	}
	t.Run("products", func(t *testing.T) {
		ctx, s := t.Context(), prepared(t)
		must(t, s.CreateProduct(ctx, bench, act("product bench")))
		if err := s.CreateProduct(ctx, bench, act("again")); !errors.Is(err, product.ErrExists) {
			t.Errorf("a second product bench: %v, want ErrExists", err)
		}
		nowhere := bench
		nowhere.Pipeline = "nowhere"
		if err := s.CreateProduct(ctx, nowhere, act("nowhere")); err == nil || errors.Is(err, product.ErrExists) {
			t.Errorf("a product of a pipeline that does not exist: %v", err)
		}
		same(t, "products", must1(s.Products(ctx)), []product.Product{bench, gateway})
		changed := bench
		changed.Packages = []string{"app", "other"}
		must(t, s.SetProduct(ctx, changed, act("change")))
		missing := bench
		missing.Name = "missing"
		if err := s.SetProduct(ctx, missing, act("change")); err == nil {
			t.Error("a product that does not exist was changed")
		}
		same(t, "changed", must1(s.Products(ctx)), []product.Product{changed, gateway})
		must(t, s.DeleteProduct(ctx, "demo", "gateway", act("delete")))
		same(t, "after deletion", must1(s.Products(ctx)), []product.Product{changed})
		acts := must1(s.Acts(ctx, "", 0))
		var objects []string
		for _, a := range acts {
			objects = append(objects, a.Object)
		}
		same(t, "acts", objects[:4], []string{"delete", "change", "product bench", "product gateway"})
	})
	t.Run("answers", func(t *testing.T) {
		ctx, s := t.Context(), prepared(t)
		bill := product.Answer{
			Pipeline: "demo", Question: [32]byte{1}, State: snapshots.ID{1}, Product: "gateway", Modules: []string{"lte"},
			SHA256: [32]byte{7}, Size: 5, Made: day, Text: []byte("bill\n"),
			Details: []product.Detail{
				{Component: "apps", Source: "app", SourceVersion: "1", Size: 10, Installed: 2048, Reason: product.Reason{Kind: product.ByName}, Needs: []int{1}},
				{Component: "debian", Source: "lib", SourceVersion: "2", Maintainer: "A", Reason: product.Reason{Kind: product.ByDependency, By: "app", Field: "Depends"}},
			},
		}
		verdict := product.Answer{
			Pipeline: "demo", Question: [32]byte{2}, State: snapshots.ID{2}, Product: "gateway", Made: day,
			Verdict: &product.Verdict{Summary: "no", Apt: "a\nb", Dose: "c"},
		}
		must(t, s.PutAnswer(ctx, bill))
		must(t, s.PutAnswer(ctx, verdict))
		stray := verdict
		stray.Product = "nothing"
		if err := s.PutAnswer(ctx, stray); err == nil {
			t.Error("an answer about a product that does not exist was stored")
		}
		short := bill
		short.Text, short.Details = nil, nil
		same(t, "answers", must1(s.Answers(ctx)), []product.Answer{short, verdict})
		for _, want := range []product.Answer{bill, verdict} {
			got, ok, err := s.Answer(ctx, "demo", want.Question)
			must(t, err)
			same(t, "there", ok, true)
			same(t, "answer", got, want)
		}
		_, ok, err := s.Answer(ctx, "demo", [32]byte{3})
		must(t, err)
		same(t, "an answer that was never given", ok, false)

		again := bill
		again.Text, again.SHA256 = []byte("other"), [32]byte{8}
		must(t, s.PutAnswer(ctx, again))
		got, _, err := s.Answer(ctx, "demo", bill.Question)
		must(t, err)
		same(t, "replaced", got, again)

		must(t, s.DropAnswers(ctx, "demo", []snapshots.ID{{1}, {9}}))
		must(t, s.DropAnswers(ctx, "demo", nil))
		same(t, "after a state went", must1(s.Answers(ctx)), []product.Answer{verdict})
		must(t, s.DeleteProduct(ctx, "demo", "gateway", act("delete")))
		same(t, "after the product went", len(must1(s.Answers(ctx))), 0)
	})
}
