package api

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// Lists show what their reader may read, and never null.
func TestListsShowWhatMayBeRead(t *testing.T) {
	w := &world{
		others:  []release.Pipeline{{Name: "kiosk"}},
		changes: []release.Change{{ID: 1, Pipeline: "demo"}, {ID: 2, Pipeline: "kiosk"}, {ID: 3}},
		devices: []fleet.Device{{Name: "bench", Pipeline: "demo"}, {Name: "kiosk-1", Pipeline: "kiosk"}},
	}
	known, callers := newCallers(t)
	config := w.config(io.Discard)
	config.Access = people{w, known}
	h := New(config)
	for _, c := range []struct{ path, all, demo, other string }{
		{"/api/v1/pipelines", "demo kiosk", "demo", ""},
		{"/api/v1/devices", "bench kiosk-1", "bench", ""},
		{"/api/v1/changes", "1 2 3", "1", ""},
	} {
		for caller, want := range map[string]string{
			"viewer": c.all, "releaser": c.all, "admin": c.all, "viewer:demo": c.demo, "uploader:demo/apps": c.demo,
			"operator:demo/sensor": c.demo, "once-admin": c.demo, "viewer:other": c.other, "manufacturing:other": c.other,
		} {
			r := httptest.NewRequest(http.MethodGet, c.path, nil)
			callers.roles[caller](r)
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, r)
			var list []struct {
				ID   json.Number `json:"id"`
				Name string      `json:"name"`
			}
			if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil || list == nil {
				t.Fatalf("%s by %s: %s, %v", c.path, caller, rec.Body, err)
			}
			var got []string
			for _, one := range list {
				got = append(got, one.Name+one.ID.String())
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s shows %s %v, want %s", c.path, caller, got, want)
			}
		}
	}
}

// A name that holds a slash, or climbs, is not taken apart into a scope.
func TestScopesAreNotForged(t *testing.T) {
	w := &world{stream: closedStream()}
	known, callers := newCallers(t)
	config := w.config(io.Discard)
	config.Access = people{w, known}
	h := New(config)
	for _, c := range []struct{ caller, method, path, body string }{
		{"uploader:demo/apps", "POST", "/api/v1/pipelines/demo/repositories/apps%2F..%2Ftools/packages", ""},
		{"uploader:demo/apps", "POST", "/api/v1/pipelines/demo%2Fapps/repositories/tools/packages", ""},
		{"uploader:demo/apps", "POST", "/api/v1/pipelines/demo/repositories/apps%2Ftools/packages", ""},
		{"uploader:demo/apps", "POST", "/api/v1/pipelines/demo/repositories/Apps/packages", ""},
		{"releaser:demo/canary", "POST", "/api/v1/pipelines/demo%2Fcanary/snapshots", `{}`},
		{"releaser:demo/canary", "POST", "/api/v1/pipelines/demo/stages/canary%2F/promote", `{"snapshot":"dev"}`},
		{"viewer:demo", "GET", "/api/v1/pipelines/demo%2F..%2Fkiosk", ""},
		{"operator:demo/sensor", "POST", "/api/v1/enrolment-tokens", `{"name":"x","pipeline":"demo"}`},
		{"operator:demo/sensor", "POST", "/api/v1/enrolment-tokens", `{"name":"x","pipeline":"demo","product":"gateway"}`},
		{"operator:demo/sensor", "POST", "/api/v1/enrolment-tokens", `{"name":"x","pipeline":"demo","product":7}`},
		{"operator:demo/sensor", "POST", "/api/v1/enrolment-tokens", `{"name":"x","pipeline":"demo/sensor"}`},
		{"operator:demo", "POST", "/api/v1/enrolment-tokens", `{"name":"x","pipeline":"demo","pipeline":"kiosk"}`},
		{"operator:demo", "POST", "/api/v1/enrolment-tokens", `{"name":"x","pipeline":"demo","PIPELINE":"kiosk"}`},
		{"operator:demo", "POST", "/api/v1/enrolment-tokens", `{"name":"x","pipeline":["demo"]}`},
		{"operator:demo", "POST", "/api/v1/enrolment-tokens", `{"name":"x","pipeline":"kiosk"}{"pipeline":"demo"}`},
		{"operator:demo", "POST", "/api/v1/enrolment-tokens", `{"name":"x","pipeline":null}`},
		{"operator:demo", "POST", "/api/v1/enrolment-tokens", ``},
		{"operator:demo", "POST", "/api/v1/enrolment-tokens?pipeline=demo", `{"name":"x","pipeline":"kiosk"}`},
	} {
		r := httptest.NewRequest(c.method, c.path, strings.NewReader(c.body))
		callers.roles[c.caller](r)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code < 400 || rec.Code >= 500 || len(w.actors) != 0 {
			t.Errorf("%s %s %s by %s: %d %s; acts %v", c.method, c.path, c.body, c.caller, rec.Code, rec.Body, w.actors)
			w.actors = nil
		}
	}
}

// An event stream carries what its reader may read, and ends when the reader
// is somebody no more.
func TestEventsOfWhoMayReadThem(t *testing.T) {
	w := &world{stream: make(chan release.Event, 3)}
	known, _ := newCallers(t)
	root := release.Actor{Name: "root"}
	if _, err := known.CreateUser(t.Context(), root, "vera", []string{"viewer:demo"}); err != nil {
		t.Fatal(err)
	}
	token, err := known.CreateToken(t.Context(), root, access.NewToken{User: "vera"})
	if err != nil {
		t.Fatal(err)
	}
	config := w.config(io.Discard)
	config.Access = people{w, known}
	s := newServer(config)
	s.heartbeat = 10 * time.Millisecond
	server := httptest.NewServer(s.handler(routes()))
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Secret)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	w.stream <- release.Event{Seq: 1, Kind: "stage", Pipeline: "kiosk", Subject: "secret"}
	w.stream <- release.Event{Seq: 2, Kind: "gc", Subject: "all"}
	w.stream <- release.Event{Seq: 3, Kind: "stage", Pipeline: "demo", Subject: "canary"}
	var ids []string
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			ids = append(ids, id)
			if _, err := known.SetUser(t.Context(), root, "vera", access.UserChange{Disabled: new(true)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := lines.Err(); err != nil || strings.Join(ids, " ") != "3" {
		t.Errorf("the stream had the events %v and ended with %v", ids, err)
	}
}
