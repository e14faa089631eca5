package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

func TestComposing(t *testing.T) {
	const base = "/api/v1/pipelines/demo/snapshots/"
	for _, row := range []struct{ act, body, want string }{
		{"merge", `{"states":["a","b"]}`, "merge [a b] 0 []"},
		{"merge", `{"states":["a","b"],"on_conflict":"refuse"}`, "merge [a b] 0 []"},
		{"merge", `{"states":["a","b"],"on_conflict":"latest","note":"n","labels":["l"]}`, "merge [a b] 1n[l]"},
		{"merge", `{"states":["a","b","c"],"on_conflict":"first"}`, "merge [a b c] 2[]"},
		{"pick", `{"base":"a","from":"b","names":["p","q"]}`, "pick ab[p q] false[]"},
		{"pick", `{"base":"a","from":"b","names":["p"],"dependencies":true}`, "pick ab[p] true[]"},
		{"filter", `{"query":"p, q"}`, "filter p, q[]"},
	} {
		h, w, _ := newAPI(t)
		rec := ask(t, h, "POST", base+row.act, row.body, bearer("releaser"))
		if rec.Code != http.StatusCreated || strings.ReplaceAll(w.composed, " ", "") != strings.ReplaceAll(row.want, " ", "") {
			t.Errorf("%s %s: %d, made %q, want %q", row.act, row.body, rec.Code, w.composed, row.want)
		}
		var made protocol.Composed
		if err := json.Unmarshal(rec.Body.Bytes(), &made); err != nil || made.Snapshot == nil || made.Snapshot.By != "rita" || made.Packages != 7 || made.State != firstState.String() {
			t.Errorf("%s answers %s: %v", row.act, rec.Body, err)
		}
		for _, want := range []string{`"versions":[["2","1"],[],["3"]],"taken":2`, `"unmet":[{"package":"p=1:all","architecture":"amd64","relation":"q | r"}]`, `"differences":[]`} {
			if !strings.Contains(rec.Body.String(), want) {
				t.Errorf("%s answers %s, want %s in it", row.act, rec.Body, want)
			}
		}
		rec = ask(t, h, "POST", base+row.act, strings.TrimSuffix(row.body, "}")+`,"dry_run":true}`, bearer("releaser"))
		if rec.Code != http.StatusOK || strings.Contains(rec.Body.String(), `"snapshot"`) {
			t.Errorf("a dry run of %s: %d %s", row.act, rec.Code, rec.Body)
		}
		w.err = &release.Error{Code: release.Conflict, Text: "cannot do it"}
		if rec := ask(t, h, "POST", base+row.act, row.body, bearer("releaser")); rec.Code != http.StatusConflict {
			t.Errorf("%s: a conflict is %d", row.act, rec.Code)
		}
	}
	h, _, _ := newAPI(t)
	for _, row := range []struct{ act, body string }{
		{"merge", `{"states":["a","b"],"on_conflict":"coin"}`}, {"merge", `[]`}, {"pick", `{"from":"b"}`}, {"pick", `{"base":"b"}`}, {"pick", "x"}, {"filter", "x"},
	} {
		if rec := ask(t, h, "POST", base+row.act, row.body, bearer("releaser")); rec.Code != http.StatusBadRequest {
			t.Errorf("%s %s: %d %s", row.act, row.body, rec.Code, rec.Body)
		}
	}
	h, w, _ := newAPI(t)
	if rec := ask(t, h, "GET", "/api/v1/pipelines/demo/packages?query=a%2C+%21b", "", bearer("viewer")); rec.Code != 200 || w.filter.Query != "a, !b" {
		t.Errorf("%d, filter %+v", rec.Code, w.filter)
	}
}
