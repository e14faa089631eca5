package api

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/release"
)

// configured is the configuration.Service of a world.
type configured struct{ *world }

var (
	interval = configuration.Value{Type: configuration.Integer, JSON: "30", By: "otto", At: noon}
	apiToken = configuration.Value{Type: configuration.Secret, Sealed: []byte("canary-sealed"), By: "otto", At: noon}
)

func (w configured) Scopes(_ context.Context, pipeline, name string) ([]configuration.Found, error) {
	return []configuration.Found{{Scope: configuration.Scope{Pipeline: pipeline, Kind: configuration.OfStage, Name: "canary" + name}, Keys: 2}}, w.err
}
func (w configured) List(_ context.Context, s configuration.Scope) ([]configuration.Entry, error) {
	return []configuration.Entry{{Scope: s, Key: "api.token", Value: apiToken}, {Scope: s, Key: "interval", Value: interval}}, w.err
}
func (w configured) Effective(_ context.Context, pipeline, device string) ([]configuration.Effective, error) {
	stage := configuration.Scope{Pipeline: pipeline, Kind: configuration.OfStage, Name: "canary"}
	return []configuration.Effective{
		{Entry: configuration.Entry{Scope: stage, Key: "api.token", Value: apiToken}},
		{Entry: configuration.Entry{Key: "interval", Value: configuration.Value{Type: configuration.Integer, JSON: "30"}}, FromDefault: true},
		{Entry: configuration.Entry{Key: "url", Value: configuration.Value{Type: configuration.Secret}}, Missing: true},
	}, w.err
}
func (w configured) Set(_ context.Context, a release.Actor, s configuration.Scope, o configuration.Order) (configuration.Done, error) {
	w.composed = fmt.Sprint(s, " ", o.Key, " ", o.Type, " ", o.Value, " ", o.DryRun)
	return configuration.Done{Edit: configuration.Edit{Scope: s, Key: o.Key, Old: &apiToken, New: &interval}, Devices: 3}, w.act(a)
}
func (w configured) Unset(_ context.Context, a release.Actor, s configuration.Scope, key string, dryRun bool) (configuration.Done, error) {
	w.composed = fmt.Sprint(s, " ", key, " ", dryRun)
	return configuration.Done{Edit: configuration.Edit{Scope: s, Key: key, Old: &interval}}, w.act(a)
}
func (w configured) History(_ context.Context, s configuration.Scope, key string, limit int) ([]configuration.Edit, error) {
	return []configuration.Edit{{Scope: s, Key: key, Old: &interval, New: &apiToken, By: "otto", At: noon}, {Scope: s, Key: key, New: &interval, By: "otto", At: noon}}, w.err
}
func (w configured) Schema(_ context.Context, pipeline, product string) (configuration.Schema, error) {
	low := 1.0
	return configuration.Schema{Pipeline: pipeline, Product: product, By: "otto", At: noon, Fields: map[string]configuration.Field{
		"interval": {Type: configuration.Integer, Default: "30", Min: &low},
	}}, w.err
}
func (w configured) SetSchema(_ context.Context, a release.Actor, schema configuration.Schema, dryRun bool) (int, error) {
	w.composed = fmt.Sprint(schema.Pipeline, " ", schema.Product, " ", len(schema.Fields), schema.Fields == nil, schema.Fields["interval"].Default, " ", dryRun)
	return 3, w.act(a)
}
func (w configured) Readable(v configuration.Value) bool { return v.Type != configuration.Secret }

func TestConfiguration(t *testing.T) {
	h, w, _ := newAPI(t)
	const at = "/api/v1/pipelines/demo/config"
	for _, c := range []struct{ method, target, body, want, did string }{
		{http.MethodGet, at + "?name=x", "", `[{"kind":"stage","name":"canaryx","keys":2}]`, ""},
		{http.MethodGet, at + "/stage/canary", "", `[{"key":"api.token","type":"secret","by":"otto","at":"2026-11-20T12:00:00Z","unreadable":true},` +
			`{"key":"interval","type":"integer","value":30,"by":"otto","at":"2026-11-20T12:00:00Z"}]`, ""},
		{http.MethodGet, at + "/stage/canary/interval", "", `{"key":"interval","type":"integer","value":30,"by":"otto","at":"2026-11-20T12:00:00Z"}`, ""},
		{http.MethodGet, at + "/device/bench?effective=1", "", `[{"key":"api.token","type":"secret","from":"stage:canary","by":"otto","at":"2026-11-20T12:00:00Z","unreadable":true},` +
			`{"key":"interval","type":"integer","value":30,"from":"default"},{"key":"url","type":"secret","missing":true}]`, ""},
		{http.MethodPut, at + "/device/bench/interval", `{"value":30,"dry_run":true}`, `{"scope":"device:bench","key":"interval",` +
			`"old":{"key":"interval","type":"secret","by":"otto","at":"2026-11-20T12:00:00Z","unreadable":true},` +
			`"new":{"key":"interval","type":"integer","value":30,"by":"otto","at":"2026-11-20T12:00:00Z"},"devices":3}`, "device:bench interval  30 true"},
		{http.MethodPut, at + "/device/bench/mode", `{"value":"x","type":"string"}`, "", "device:bench mode string x false"},
		{http.MethodDelete, at + "/product/gateway/interval?dry-run=1", "", "", "product:gateway interval true"},
		{http.MethodGet, at + "/device/bench/interval/history", "", `[{"at":"2026-11-20T12:00:00Z","by":"otto","old":{"key":"interval","type":"integer","value":30},` +
			`"new":{"key":"interval","type":"secret"}},{"at":"2026-11-20T12:00:00Z","by":"otto","new":{"key":"interval","type":"integer","value":30}}]`, ""},
		{http.MethodGet, "/api/v1/pipelines/demo/config-schemas/gateway", "", `{"product":"gateway","keys":{"interval":{"type":"integer","default":30,"min":1}},"by":"otto","at":"2026-11-20T12:00:00Z"}`, ""},
		{http.MethodPut, "/api/v1/pipelines/demo/config-schemas/gateway?dry-run=1", `{"product":"gateway","keys":{"interval":{"type":"integer","default":"5"}}}`,
			`{"product":"gateway","keys":1,"devices":3}`, "demo gateway 1 false5 true"},
		{http.MethodPut, "/api/v1/pipelines/demo/config-schemas/gateway", `{"keys":{}}`, "", "demo gateway 0 false false"},
		{http.MethodDelete, "/api/v1/pipelines/demo/config-schemas/gateway", "", "", "demo gateway 0 true false"},
	} {
		w.composed = ""
		rec := ask(t, h, c.method, c.target, c.body, bearer("operator"), asJSON)
		if rec.Code != http.StatusOK || c.want != "" && strings.TrimSpace(rec.Body.String()) != c.want || w.composed != c.did {
			t.Errorf("%s %s: %d %s\nit did %q", c.method, c.target, rec.Code, rec.Body, w.composed)
		}
		if strings.Contains(rec.Body.String(), "canary-sealed") {
			t.Errorf("%s %s shows a secret: %s", c.method, c.target, rec.Body)
		}
	}
	for target, want := range map[string]int{
		at + "/stage/canary?effective=1":     http.StatusBadRequest,
		at + "/stage/canary/nothing":         http.StatusNotFound,
		at + "/device/bench?effective=maybe": http.StatusBadRequest,
	} {
		if rec := ask(t, h, http.MethodGet, target, "", bearer("viewer"), asJSON); rec.Code != want {
			t.Errorf("%s: %d, want %d", target, rec.Code, want)
		}
	}
	for _, body := range []string{`{}`, `{"product":"sensor","keys":{}}`, `{"keys":{"a":{"type":"integer","default":"x"}}}`} {
		if rec := ask(t, h, http.MethodPut, "/api/v1/pipelines/demo/config-schemas/gateway", body, bearer("admin"), asJSON); rec.Code != http.StatusBadRequest {
			t.Errorf("%s: %d %s", body, rec.Code, rec.Body)
		}
	}
}
