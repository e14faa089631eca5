package storetest

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/release"
)

// ConfigurationStore is a store of configuration, which belongs to pipelines.
type ConfigurationStore interface {
	configuration.Store
	release.Store
}

// Configuration runs the suite of configuration.Store. open returns an empty
// store, and a function that opens it again.
func Configuration(t *testing.T, open func(t *testing.T) (ConfigurationStore, func() ConfigurationStore)) {
	ctx := t.Context()
	s, again := open(t)
	must(t, s.Commit(ctx, demo("demo")))
	must(t, s.Commit(ctx, demo("other")))
	acts := len(must1(s.Acts(ctx, "", 0)))

	scope := func(pipeline string, kind configuration.Kind, name string) configuration.Scope {
		return configuration.Scope{Pipeline: pipeline, Kind: kind, Name: name}
	}
	gateway, bench := scope("demo", configuration.OfProduct, "gateway"), scope("demo", configuration.OfDevice, "bench")
	plain := func(text string) *configuration.Value {
		return &configuration.Value{Type: configuration.String, JSON: text, By: "ann", At: day}
	}
	secret := func(sealed string) *configuration.Value {
		return &configuration.Value{Type: configuration.Secret, Sealed: []byte(sealed), By: "bob", At: day.Add(time.Hour)}
	}
	at := day
	edit := func(s configuration.Scope, key string, old, new *configuration.Value) configuration.Edit {
		at = at.Add(time.Minute)
		return configuration.Edit{Scope: s, Key: key, Old: old, New: new, By: "ann", At: at}
	}
	edits := []configuration.Edit{
		edit(gateway, "a", nil, plain(`"1"`)),
		edit(gateway, "a", plain(`"1"`), plain(`"2"`)),
		edit(gateway, "a", plain(`"2"`), secret("x")),
		edit(gateway, "a", secret("x"), secret("y")),
		edit(bench, "a", nil, plain(`""`)),
		edit(scope("demo", configuration.OfStage, "bench"), "a", nil, plain(`"stage"`)),
		edit(scope("other", configuration.OfProduct, "gateway"), "a", nil, plain(`"other"`)),
		edit(gateway, "b", nil, plain(`true`)),
		edit(gateway, "b", plain(`true`), nil),
	}
	for _, e := range edits {
		must(t, s.EditConfig(ctx, e, act(e.Scope.String())))
	}
	if err := s.EditConfig(ctx, edit(scope("nowhere", configuration.OfProduct, "p"), "a", nil, plain(`"1"`)), act("x")); err == nil {
		t.Error("a value of a pipeline that does not exist was stored")
	}
	same(t, "acts", len(must1(s.Acts(ctx, "", 0))), acts+len(edits))

	min := 1.5
	schema := configuration.Schema{Pipeline: "demo", Product: "gateway", By: "ann", At: day, Fields: map[string]configuration.Field{
		"a": {Type: configuration.Number, Description: "d", Default: "2", Required: true, Min: &min},
		"b": {Type: configuration.Enum, Values: []string{"x", "y"}},
	}}
	none := configuration.Schema{Pipeline: "demo", Product: "sensor", By: "ann", At: day, Fields: map[string]configuration.Field{}}
	must(t, s.PutConfigSchema(ctx, none, act("schema")))
	must(t, s.PutConfigSchema(ctx, none, act("schema")))
	must(t, s.PutConfigSchema(ctx, schema, act("schema")))
	gone := schema
	gone.Product, gone.Fields = "sensor", nil
	must(t, s.PutConfigSchema(ctx, gone, act("schema")))
	none.Product = "strict" // no key at all, which is not the same as no schema
	must(t, s.PutConfigSchema(ctx, none, act("schema")))

	for _, s := range []ConfigurationStore{s, again()} {
		values := must1(s.ConfigValues(ctx))
		slices.SortFunc(values, func(a, b configuration.Entry) int {
			return cmp.Or(cmp.Compare(a.Scope.Pipeline, b.Scope.Pipeline), cmp.Compare(a.Scope.String(), b.Scope.String()))
		})
		same(t, "values", values, []configuration.Entry{
			{Scope: bench, Key: "a", Value: *plain(`""`)},
			{Scope: gateway, Key: "a", Value: *secret("y")},
			{Scope: scope("demo", configuration.OfStage, "bench"), Key: "a", Value: *plain(`"stage"`)},
			{Scope: scope("other", configuration.OfProduct, "gateway"), Key: "a", Value: *plain(`"other"`)},
		})
		schemas := must1(s.ConfigSchemas(ctx))
		slices.SortFunc(schemas, func(a, b configuration.Schema) int { return cmp.Compare(a.Product, b.Product) })
		same(t, "schemas", schemas, []configuration.Schema{schema, none})

		bare := func(v *configuration.Value) *configuration.Value {
			if v == nil {
				return nil
			}
			return &configuration.Value{Type: v.Type, JSON: v.JSON}
		}
		want := slices.Clone(edits[:4])
		slices.Reverse(want)
		for i := range want {
			want[i].Old, want[i].New = bare(want[i].Old), bare(want[i].New)
		}
		same(t, "history", must1(s.ConfigHistory(ctx, gateway, "a", 0)), want)
		same(t, "the newest of it", must1(s.ConfigHistory(ctx, gateway, "a", 2)), want[:2])
		same(t, "history of what is gone", len(must1(s.ConfigHistory(ctx, gateway, "b", 0))), 2)
		same(t, "history of nothing", len(must1(s.ConfigHistory(ctx, gateway, "c", 0))), 0)
	}
}
