package api

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// Keyrings go in and never out; a change that leaves one out keeps it.
func TestSetMirrorKeepsKeyrings(t *testing.T) {
	h, w, _ := newAPI(t)
	const path = "/api/v1/pipelines/demo/mirrors/debian"
	for body, want := range map[string][]string{
		`{"suites":[{"url":"https://mirror.example/debian","suite":"trixie","components":["main"]}],"all":true}`:                                     {"known"},
		`{"suites":[{"url":"https://mirror.example/debian","suite":"trixie-updates","components":["main"]}],"packages":["a"]}`:                       {"known"},
		`{"suites":[{"url":"https://other.example/debian","suite":"trixie","components":["main"]}],"packages":["a"]}`:                                {"known"},
		`{"suites":[{"url":"https://other.example/debian","suite":"sid","components":["main"]}],"packages":["a"]}`:                                   {""},
		`{"suites":[{"url":"https://mirror.example/debian","suite":"trixie","keyring":"bmV3"},{"url":"https://x.example/debian","suite":"trixie"}]}`: {"new", "known"},
	} {
		rec := ask(t, h, "PUT", path, body, bearer("admin"))
		var keyrings []string
		for _, s := range w.mirror.Suites {
			keyrings = append(keyrings, string(s.Keyring))
		}
		if rec.Code != 200 || !reflect.DeepEqual(keyrings, want) || strings.Contains(rec.Body.String(), "keyring") {
			t.Errorf("%s: %d %s; keyrings %q, want %q", body, rec.Code, rec.Body, keyrings, want)
		}
	}
	w.mirror = release.MirrorConfig{}
	if rec := ask(t, h, "PUT", path+"?dry-run=1", `{"all":true}`, bearer("admin")); rec.Code != 200 || w.mirror.All {
		t.Errorf("a dry run: %d %s, sets %+v", rec.Code, rec.Body, w.mirror)
	}
	rec := ask(t, h, "GET", path, "", bearer("viewer"))
	if want := `{"name":"debian","kind":"mirror","mirror":{"suites":[{"url":"https://mirror.example/debian","suite":"trixie","components":["main"]}],"packages":["hello"]}}`; rec.Code != 200 || rec.Body.String() != want {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	for _, unknown := range []string{"nobody", "apps"} {
		for _, method := range []string{"GET", "PUT"} {
			if rec := ask(t, h, method, "/api/v1/pipelines/demo/mirrors/"+unknown, "{}", bearer("admin")); rec.Code != 404 {
				t.Errorf("%s of %s: %d %s", method, unknown, rec.Code, rec.Body)
			}
		}
	}
	if rec := ask(t, h, "PUT", path, "{}", bearer("releaser")); rec.Code != 403 {
		t.Errorf("a releaser sets it: %d", rec.Code)
	}
}

func TestUpdateMirror(t *testing.T) {
	h, w, _ := newAPI(t)
	for body, rebuilt := range map[string]bool{"": false, "{}": false, `{"allow_rebuilt":true}`: true} {
		w.rebuilt = !rebuilt
		rec := ask(t, h, "POST", "/api/v1/pipelines/demo/mirrors/debian/update", body, bearer("releaser"))
		if rec.Code != 202 || w.rebuilt != rebuilt {
			t.Errorf("%q: %d %s, rebuilt ones are taken: %v", body, rec.Code, rec.Body, w.rebuilt)
		}
	}
}

func TestDiffMirror(t *testing.T) {
	h, w, _ := newAPI(t)
	const path = "/api/v1/pipelines/demo/mirrors/debian/diff"
	rec := ask(t, h, "POST", path, "", bearer("releaser"))
	var diff protocol.MirrorDiff
	if err := json.Unmarshal(rec.Body.Bytes(), &diff); err != nil || rec.Code != 200 {
		t.Fatalf("%d %s: %v", rec.Code, rec.Body, err)
	}
	if len(diff.Differences) != 6 || diff.Packages != 3 || diff.Download != 100 || len(diff.Releases) != 1 || diff.Releases[0].Signer != "AB" {
		t.Errorf("%+v", diff)
	}
	lines := "Accept: application/json, application/x-ndjson"
	rec = ask(t, h, "POST", path, "", bearer("releaser"), lines)
	// What comes too soon after the first line is not told.
	first, last, _ := strings.Cut(rec.Body.String(), "\n")
	if first != `{"done":0,"total":10,"unit":"bytes"}` || !strings.HasPrefix(last, `{"done":10,"total":10,"unit":"bytes","diff":{"releases":[{`) {
		t.Errorf("%s\n%s", first, last)
	}
	w.err = &release.Error{Code: release.Upstream, Text: "cannot compare: it is gone"}
	if rec := ask(t, h, "POST", path, "", bearer("releaser"), "Accept: application/json"); rec.Code != 502 || errorOf(t, rec).Code != "upstream" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	w.err = errors.New("disk on fire")
	if rec := ask(t, h, "POST", path, "", bearer("releaser"), lines); !strings.Contains(rec.Body.String(), `"error":{"code":"internal"`) || strings.Contains(rec.Body.String(), "fire") {
		t.Errorf("%s", rec.Body)
	}
	if rec := ask(t, h, "POST", path, "", bearer("viewer"), lines); rec.Code != 403 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}
