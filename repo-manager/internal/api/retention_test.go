package api

import (
	"net/http"
	"strings"
	"testing"

	"aptfleet/repo-manager/internal/release"
)

func TestRetentionRoutes(t *testing.T) {
	h, w, _ := newAPI(t)
	for _, c := range []struct {
		method, target, body, token string
		status                      int
		want                        string
	}{
		{"PATCH", "/api/v1/pipelines/demo", `{"keep_states":5}`, "admin", 200, `"retention":{"states":5,"days":30}`},
		{"PATCH", "/api/v1/pipelines/demo", `{"keep_days":0}`, "admin", 200, `"retention":{"states":100,"days":0}`},
		{"POST", "/api/v1/pipelines", `{"name":"x","retention":{"states":0,"days":3}}`, "admin", 201, `"retention":{"states":-1,"days":3}`}, // the engine refuses it
		{"POST", "/api/v1/pipelines/demo/snapshots/2026/pin", `{"reason":"line 3"}`, "releaser", 200, `"pin":{"by":"rita","reason":"line 3","at":"2026-11-20T12:00:00Z"}`},
		{"DELETE", "/api/v1/pipelines/demo/snapshots/2026/pin?reason=done", "", "releaser", 200, `"id":"2026"`},
		{"DELETE", "/api/v1/pipelines/demo/snapshots/2026?reason=too+many", "", "releaser", 200, `"id":"2026"`},
		{"DELETE", "/api/v1/pipelines/demo/snapshots/2026?dry-run=1", "", "releaser", 200, `"id":"2026"`},
		{"DELETE", "/api/v1/pipelines/demo/snapshots/2026?dry-run=perhaps", "", "releaser", 400, "dry-run"},
		{"POST", "/api/v1/gc", `{"reason":"full","dry_run":true}`, "admin", 202, `"kind":"gc"`},
		{"POST", "/api/v1/gc", "", "admin", 202, `"id":8`},
	} {
		rec := ask(t, h, c.method, c.target, c.body, bearer(c.token))
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%s %s: %d %s, want %d and %s", c.method, c.target, rec.Code, rec.Body, c.status, c.want)
		}
	}
	if got := strings.Join(w.deleted, ", "); got != "2026 too many false, 2026  true" {
		t.Errorf("deleted: %s", got)
	}
	if got := strings.Join(w.collected, ", "); got != "full true,  false" {
		t.Errorf("collected: %s", got)
	}
	w.err = &release.Error{Code: release.Locked, Text: "cannot start gc: change 7, started by ann, does the same"}
	if rec := ask(t, h, http.MethodPost, "/api/v1/gc", "", bearer("admin")); rec.Code != http.StatusLocked {
		t.Errorf("a second gc: %d", rec.Code)
	}
}
