package api

import (
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/release"
)

func TestSetUser(t *testing.T) {
	h, w, _ := newAPI(t)
	rec := ask(t, h, "PATCH", "/api/v1/users/ci", `{"roles":["viewer"],"disabled":false}`, bearer("admin"))
	if want := `{"name":"ci","roles":["viewer"],"created":"2026-11-20T12:00:00Z","ended_tokens":2,"ended_sessions":1,"no_admin":true}`; strings.TrimSpace(rec.Body.String()) != want {
		t.Errorf("%d %s, want %s", rec.Code, rec.Body, want)
	}
	if w.changed.Disabled == nil || *w.changed.Disabled || len(w.changed.Roles) != 1 {
		t.Errorf("the change is %+v", w.changed)
	}
	ask(t, h, "PATCH", "/api/v1/users/ci", `{}`, bearer("admin"))
	if w.changed.Disabled != nil || w.changed.Roles != nil {
		t.Errorf("a change of nothing is %+v", w.changed)
	}
	before := len(w.actors)
	if rec := ask(t, h, "DELETE", "/api/v1/users/ci?dry-run=1", "", bearer("admin")); rec.Code != 200 || len(w.actors) != before {
		t.Errorf("a dry run: %d, acts %v", rec.Code, w.actors)
	}
}

func TestActs(t *testing.T) {
	h, w, _ := newAPI(t)
	rec := ask(t, h, "GET", "/api/v1/acts?user=ada&pipeline=demo&since=2026-11-20T13:00:00%2B01:00&limit=7", "", bearer("admin"))
	if want := `[{"at":"2026-11-20T12:00:00Z","by":"ada","via":"socket","verb":"promote","pipeline":"demo","object":"stage canary","detail":"fine"}]`; strings.TrimSpace(rec.Body.String()) != want {
		t.Errorf("%d %s, want %s", rec.Code, rec.Body, want)
	}
	since := w.sought.Since
	if w.sought.Since = (time.Time{}); w.sought != (release.ActFilter{By: "ada", Pipeline: "demo", Limit: 7}) || !since.Equal(noon) {
		t.Errorf("sought %+v since %s", w.sought, since)
	}
	if ask(t, h, "GET", "/api/v1/acts", "", bearer("admin")); w.sought != (release.ActFilter{Limit: fewActs}) {
		t.Errorf("unasked: %+v", w.sought)
	}
	for _, bad := range []string{"limit=0", "limit=-1", "limit=x", "limit=10001", "since=7d", "since=yesterday"} {
		if rec := ask(t, h, "GET", "/api/v1/acts?"+bad, "", bearer("admin")); rec.Code != 400 {
			t.Errorf("%s: %d", bad, rec.Code)
		}
	}
}

// Who stopped a change is on record.
func TestAbortIsRecorded(t *testing.T) {
	h, w, _ := newAPI(t)
	if rec := ask(t, h, "POST", "/api/v1/changes/7/abort", "", bearer("releaser")); rec.Code != 200 || !strings.HasPrefix(w.recorded, "abort change 7") || w.actors[0].Name != "rita" {
		t.Errorf("%d, recorded %q by %v", rec.Code, w.recorded, w.actors)
	}
}

func TestEndSessions(t *testing.T) {
	h, _, _ := newAPI(t)
	if rec := ask(t, h, "DELETE", "/api/v1/sessions?user=ann", "", bearer("admin")); strings.TrimSpace(rec.Body.String()) != `{"ended":2}` {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := ask(t, h, "DELETE", "/api/v1/sessions", "", bearer("admin")); rec.Code != 400 {
		t.Errorf("of nobody: %d", rec.Code)
	}
}
