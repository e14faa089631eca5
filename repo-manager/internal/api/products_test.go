package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/product"
)

func TestBOMInEveryFormat(t *testing.T) {
	h, w, _ := newAPI(t)
	const path = "/api/v1/pipelines/demo/products/gateway/bom?ref=dev&module=lte"
	w.bill = product.Bill{
		BOM:     bom.BOM{State: strings.Repeat("01", 32), Product: "gateway", Architecture: "amd64", Packages: []bom.Package{{Name: "app", Architecture: "all", Version: "1", SHA256: strings.Repeat("0a", 32)}}},
		SHA256:  strings.Repeat("c7", 32),
		Text:    []byte("the text\n"),
		Details: []product.Detail{{Size: 10, Installed: 2048, Reason: product.Reason{Kind: product.ByDependency, By: "lib", Field: "Depends"}}},
	}
	rec := ask(t, h, http.MethodGet, path, "", bearer("viewer"))
	var b protocol.BOM
	if err := json.Unmarshal(rec.Body.Bytes(), &b); err != nil || rec.Code != 200 {
		t.Fatalf("%d %s: %v", rec.Code, rec.Body, err)
	}
	if b.Download != 10 || b.Installed != 2048 || b.Packages[0].Reason != "needed by lib (Depends)" || b.Packages[0].By != "lib" || b.State != stateText(firstState) {
		t.Errorf("%+v", b)
	}
	for format, want := range map[string]struct{ kind, text string }{
		"text":      {"text/plain; charset=utf-8", "the text\n"},
		"cyclonedx": {"application/vnd.cyclonedx+json; version=1.6", "pkg:deb/debian/app@1?arch=all&distro=trixie"},
	} {
		rec := ask(t, h, http.MethodGet, path+"&format="+format, "", bearer("viewer"))
		if rec.Code != 200 || rec.Header().Get("Content-Type") != want.kind || !strings.Contains(rec.Body.String(), want.text) {
			t.Errorf("%s: %d %s %s", format, rec.Code, rec.Header().Get("Content-Type"), rec.Body)
		}
	}
	if rec := ask(t, h, http.MethodGet, path+"&format=xml", "", bearer("viewer")); rec.Code != 400 {
		t.Errorf("an unknown format: %d %s", rec.Code, rec.Body)
	}
	// A verdict is an answer, but no text.
	w.bill = product.Bill{Verdict: &product.Verdict{Summary: "broken", Apt: "app", Dose: "dose"}}
	if rec := ask(t, h, http.MethodGet, path, "", bearer("viewer")); rec.Code != 200 || !strings.Contains(rec.Body.String(), `"verdict":{"summary":"broken","apt":"app","dose":"dose"}`) {
		t.Errorf("a verdict: %d %s", rec.Code, rec.Body)
	}
	if rec := ask(t, h, http.MethodGet, path+"&format=text", "", bearer("viewer")); rec.Code != 422 || !strings.Contains(rec.Body.String(), "broken") {
		t.Errorf("a verdict as text: %d %s", rec.Code, rec.Body)
	}
}

// What a change does not name stays as it is.
func TestSetProduct(t *testing.T) {
	h, w, _ := newAPI(t)
	const path = "/api/v1/pipelines/demo/products/gateway"
	for body, want := range map[string]string{
		`{}`:                            `"packages":["app"],"recommends":false`,
		`{"recommends":true}`:           `"packages":["app"],"recommends":true`,
		`{"packages":["x1","y1"]}`:      `"packages":["x1","y1"],"recommends":false`,
		`{"modules":{"lte":["modem"]}}`: `"modules":{"lte":["modem"]}`,
	} {
		if rec := ask(t, h, http.MethodPatch, path, body, bearer("releaser")); rec.Code != 200 || !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%s: %d %s", body, rec.Code, rec.Body)
		}
	}
	if len(w.actors) != 4 || w.actors[0].Name != "rita" {
		t.Errorf("acted: %v", w.actors)
	}
	if rec := ask(t, h, http.MethodPatch, path, `{}`, bearer("operator")); rec.Code != 403 {
		t.Errorf("an operator changes a product: %d", rec.Code)
	}
	if rec := ask(t, h, http.MethodGet, path+"/diff?from=dev", "", bearer("viewer")); rec.Code != 400 {
		t.Errorf("a comparison with nothing: %d", rec.Code)
	}
}
