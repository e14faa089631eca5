package product_test

import (
	"testing"

	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// What a product has is asked by relations; of an earlier definition, by the
// SHA-256 of its bill.
func TestHas(t *testing.T) {
	w := newWorld(t).run()
	state := w.state(pkg{"app 1:2.0-1", "Depends: lib\nProvides: virtual\n"}, pkg{"lib 1", ""}, pkg{"other 1", ""}, pkg{"broken 1", "Depends: nothing\n"})
	w.create(product.Product{Name: "gateway", Packages: []string{"app"}, Modules: map[string][]string{"more": {"other"}}})
	w.create(product.Product{Name: "broken", Packages: []string{"broken"}})
	ask := func(name, sha256, relation string, modules ...string) string {
		t.Helper()
		yes, err := w.Has(t.Context(), "demo", name, modules, state, sha256, relation)
		switch {
		case err != nil:
			return string(release.CodeOf(err))
		case yes:
			return "yes"
		}
		return "no"
	}
	for _, c := range []struct{ relation, want string }{
		{"app", "yes"}, {"app<<1:2.0-2", "yes"}, {"app (<< 1:2.0-1)", "no"}, {"app >= 1:2", "yes"}, {"app=1:2.0-1", "yes"},
		{"lib | nothing", "yes"}, {"lib, other", "no"}, {"other", "no"}, {"virtual", "no"},
		{"", "invalid"}, {"app<<", "invalid"}, {"App", "invalid"}, {"app ? 1", "invalid"},
	} {
		if got := ask("gateway", "", c.relation); got != c.want {
			t.Errorf("%q: %s, want %s", c.relation, got, c.want)
		}
	}
	if got := ask("gateway", "", "other", "more"); got != "yes" {
		t.Errorf("with the module: %s", got)
	}
	if got := ask("broken", "", "broken"); got != "no" {
		t.Errorf("what cannot be installed: %s", got)
	}
	for what, got := range map[string]string{"a product": ask("nobody", "", "app"), "a module": ask("gateway", "", "app", "warp")} {
		if got != string(release.NotFound) {
			t.Errorf("%s that does not exist: %s", what, got)
		}
	}

	// Of a definition that is gone.
	old, more := w.bom("gateway", state).SHA256, w.bom("gateway", state, "more").SHA256
	_, err := w.Set(t.Context(), actor, "demo", "gateway", func(p product.Product) product.Product {
		p.Packages, p.Modules = []string{"other"}, nil
		return p
	})
	must(t, err)
	for _, c := range []struct{ sha256, relation, want string }{
		{old, "app", "yes"}, {old, "other", "no"}, {more, "other", "yes"}, {"", "app", "no"}, {"", "other", "yes"}, {"of nothing", "app", "no"},
	} {
		if got := ask("gateway", c.sha256, c.relation); got != c.want {
			t.Errorf("%.8s, %s: %s, want %s", c.sha256, c.relation, got, c.want)
		}
	}
	if got := ask("broken", old, "app"); got != "no" {
		t.Errorf("the bill of another product: %s", got)
	}

	// A state that is not the pipeline's is not looked into, though it is there.
	w.kept = nil
	if got := ask("gateway", old, "app"); got != "yes" {
		t.Errorf("a bill whose state is gone: %s", got)
	}
	foreign, err := snapshots.New(t.Context(), w.chunks, []snapshots.Key{{Component: "secret", Architecture: "amd64"}})
	must(t, err)
	if _, err := w.Has(t.Context(), "demo", "gateway", nil, foreign.ID(), "", "app"); release.CodeOf(err) != release.NotFound {
		t.Errorf("a state of another pipeline: %v", err)
	}
	if b := w.told(); len(b) == 0 || b[len(b)-1].State == foreign.ID() {
		t.Errorf("it was computed: %+v", b)
	}
}
