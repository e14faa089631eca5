package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

func closedStream() chan release.Event {
	c := make(chan release.Event)
	close(c)
	return c
}

// errorOf decodes an error in JSON.
func errorOf(t *testing.T, rec *httptest.ResponseRecorder) protocol.Error {
	t.Helper()
	var body protocol.ErrorBody
	if err := json.Unmarshal(rec.Body.Bytes(), &body); err != nil {
		t.Fatalf("%q is no error in JSON: %v", rec.Body, err)
	}
	return body.Error
}

func TestWaysToSayWhoAsks(t *testing.T) {
	const target = "/api/v1/pipelines/demo/snapshots"
	cookie := "Cookie: " + access.CookieName + "="
	for _, c := range []struct {
		name    string
		headers []string
		status  int
		by, via string
	}{
		{"bearer", []string{bearer("releaser")}, 201, "rita", "token:t"},
		{"lower case scheme", []string{"Authorization: bearer releaser"}, 201, "rita", "token:t"},
		{"basic password", []string{"Authorization: Basic eDpyZWxlYXNlcg=="}, 201, "rita", "token:t"}, // x:releaser
		{"another scheme", []string{"Authorization: Digest releaser"}, 401, "", ""},
		{"empty bearer", []string{"Authorization: Bearer "}, 401, "", ""},
		{"session", []string{cookie + "good", "X-CSRF-Token: csrf-of-good"}, 201, "ada", "session"},
		{"session without csrf", []string{cookie + "good"}, 403, "", ""},
		{"session with wrong csrf", []string{cookie + "good", "X-CSRF-Token: csrf-of-gooe"}, 403, "", ""},
		{"ended session", []string{cookie + "old", "X-CSRF-Token: csrf-of-good"}, 401, "", ""},
		{"wrong token, good session", []string{bearer("no"), cookie + "good", "X-CSRF-Token: csrf-of-good"}, 401, "", ""},
		{"nothing", nil, 401, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, w, _ := newAPI(t)
			rec := ask(t, h, "POST", target, "{}", c.headers...)
			if rec.Code != c.status {
				t.Fatalf("status %d, want %d: %s", rec.Code, c.status, rec.Body)
			}
			if c.status == 401 && rec.Header().Get("WWW-Authenticate") == "" {
				t.Error("401 without WWW-Authenticate")
			}
			switch {
			case c.by == "" && len(w.actors) > 0:
				t.Errorf("%v acted", w.actors)
			case c.by != "" && (len(w.actors) != 1 || w.actors[0] != release.Actor{Name: c.by, Via: c.via}):
				t.Errorf("acted: %v, want %s via %s", w.actors, c.by, c.via)
			}
		})
	}
	h, _, _ := newAPI(t)
	if rec := ask(t, h, "GET", target, "", cookie+"good"); rec.Code != 200 {
		t.Errorf("reading with a session needs no CSRF token: %d", rec.Code)
	}
}

func TestSocketPeer(t *testing.T) {
	h, w, _ := newAPI(t)
	r := httptest.NewRequest("POST", "/api/v1/pipelines/demo/snapshots", nil)
	peer := access.Identity{User: "root", Roles: []string{"admin"}, Via: "socket"}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r.WithContext(access.NewContext(r.Context(), peer)))
	if rec.Code != 201 || len(w.actors) != 1 || w.actors[0].Name != "root" {
		t.Errorf("%d by %v: %s", rec.Code, w.actors, rec.Body)
	}
	r.Header.Set("Authorization", "Bearer viewer")
	rec = httptest.NewRecorder()
	h.ServeHTTP(rec, r.WithContext(access.NewContext(r.Context(), peer)))
	if rec.Code != 403 {
		t.Errorf("a token on the socket decides: %d, want 403", rec.Code)
	}
}

func TestErrorsBecomeStatuses(t *testing.T) {
	for code, status := range map[release.Code]int{
		release.Invalid: 400, release.NotFound: 404, release.Conflict: 409, release.Refused: 422, release.TooLarge: 413,
		release.NoSpace: 507, release.Locked: 423, release.NoAccess: 401, release.Forbidden: 403,
		release.Unpublished: 503,
	} {
		h, w, _ := newAPI(t)
		w.err = fmt.Errorf("wrapped: %w", &release.Error{Code: code, Text: "cannot do it: \x1b[2Jno", Hint: "try\nthis"})
		rec := ask(t, h, "GET", "/api/v1/pipelines", "", bearer("viewer"), asJSON)
		if got := errorOf(t, rec); rec.Code != status || got != (protocol.Error{Code: string(code), Text: "cannot do it: \x1b[2Jno", Hint: "try\nthis"}) {
			t.Errorf("%s: %d %+v", code, rec.Code, got)
		}
		rec = ask(t, h, "GET", "/api/v1/pipelines", "", bearer("viewer"))
		if want := "cannot do it: \\x1b[2Jno\ntry\\nthis\n"; rec.Body.String() != want {
			t.Errorf("%s as text: %q, want %q", code, rec.Body, want)
		}
	}
}

func TestAFullDiskIsTold(t *testing.T) {
	h, w, _ := newAPI(t)
	w.err = fmt.Errorf("cannot store user ann: %w", syscall.ENOSPC)
	rec := ask(t, h, "GET", "/api/v1/pipelines", "", bearer("viewer"), asJSON)
	if got := errorOf(t, rec); rec.Code != 507 || got.Code != "no-space" || strings.Contains(got.Text, "user") {
		t.Errorf("%d %+v", rec.Code, got)
	}
}

func TestInternalErrorsStayInTheLog(t *testing.T) {
	h, w, logs := newAPI(t)
	w.err = errors.New("SELECT secret FROM /srv/data: broken")
	rec := ask(t, h, "GET", "/api/v1/pipelines", "", bearer("viewer"), asJSON, "X-Request-Id: run-7")
	if got := errorOf(t, rec); rec.Code != 500 || strings.Contains(rec.Body.String(), "SELECT") || !strings.Contains(got.Hint, "run-7") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	for _, want := range []string{"level=ERROR", "SELECT secret", "id=run-7", "user=vera", "status=500"} {
		if !strings.Contains(logs.String(), want) {
			t.Errorf("the log lacks %q: %s", want, logs)
		}
	}
}

func TestPanicIsOneFailedRequest(t *testing.T) {
	h, w, logs := newAPI(t)
	w.panics = true
	if rec := ask(t, h, "GET", "/api/v1/pipelines", "", bearer("viewer")); rec.Code != 500 {
		t.Errorf("status %d", rec.Code)
	}
	if !strings.Contains(logs.String(), "out of order") {
		t.Errorf("the log lacks the panic: %s", logs)
	}
}

func TestRequestIDs(t *testing.T) {
	h, _, _ := newAPI(t)
	for given, kept := range map[string]bool{"build-12.a_b": true, "": false, "two words": false, "x\ty": false, strings.Repeat("x", 65): false} {
		rec := ask(t, h, "GET", "/healthz", "", "X-Request-Id: "+given)
		if got := rec.Header().Get("X-Request-Id"); (got == given) != kept || got == "" {
			t.Errorf("given %q, answered %q", given, got)
		}
	}
}

func TestUnknownRoutes(t *testing.T) {
	h, _, _ := newAPI(t)
	if rec := ask(t, h, "GET", "/api/v1/nothing", "", asJSON); rec.Code != 404 || errorOf(t, rec).Code != "not-found" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if rec := ask(t, h, "PATCH", "/api/v1/pipelines", "", asJSON); rec.Code != 405 || rec.Header().Get("Allow") == "" {
		t.Errorf("%d, Allow %q", rec.Code, rec.Header().Get("Allow"))
	}
}

func TestBodies(t *testing.T) {
	h, _, _ := newAPI(t)
	const target = "/api/v1/users"
	for body, status := range map[string]int{
		`{"name":"a","roles":["viewer"]}`:    201,
		`{"name":"a","later":{"version":2}}`: 201,
		``:                                   201, // the service judges an empty name
		`{"name":`:                           400,
		`{"name":"a"} x`:                     400,
		`{"name":7}`:                         400,
		`[]`:                                 400,
		`{"name":"` + strings.Repeat("a", 5<<20) + `"`: 413,
	} {
		if rec := ask(t, h, "POST", target, body, bearer("admin")); rec.Code != status {
			t.Errorf("%.40s: %d, want %d: %s", body, rec.Code, status, rec.Body)
		}
	}
}

func TestListsAreNeverNull(t *testing.T) {
	h, _, _ := newAPI(t)
	for _, target := range []string{
		"/api/v1/changes", "/api/v1/users", "/api/v1/tokens", "/api/v1/devices",
		"/api/v1/pipelines/demo/packages", "/api/v1/pipelines/demo/stages/dev/history",
	} {
		if rec := ask(t, h, "GET", target, "", bearer("admin")); strings.TrimSpace(rec.Body.String()) != "[]" {
			t.Errorf("%s: %d %q", target, rec.Code, rec.Body)
		}
	}
}

func TestUpload(t *testing.T) {
	const target = "/api/v1/pipelines/demo/repositories/apps/packages"
	t.Run("new", func(t *testing.T) {
		h, w, _ := newAPI(t)
		rec := ask(t, h, "POST", target+"?name=hello.deb&allow-older=1", "bytes", bearer("uploader"))
		if rec.Code != 201 || string(w.received) != "bytes" || !w.older {
			t.Errorf("%d, received %q, allow older %v: %s", rec.Code, w.received, w.older, rec.Body)
		}
	})
	t.Run("already there", func(t *testing.T) {
		h, w, _ := newAPI(t)
		w.already = true
		if rec := ask(t, h, "POST", target, "bytes", bearer("uploader")); rec.Code != 200 || w.older {
			t.Errorf("%d, allow older %v", rec.Code, w.older)
		}
	})
	t.Run("announced too large", func(t *testing.T) {
		h, w, _ := newAPI(t)
		rec := ask(t, h, "POST", target+"?name=a%0Ab", strings.Repeat("x", 1<<20+1), bearer("uploader"))
		if rec.Code != 413 || w.received != nil || !strings.Contains(rec.Body.String(), `a\nb`) {
			t.Errorf("%d, received %d bytes: %q", rec.Code, len(w.received), rec.Body)
		}
	})
	t.Run("grows too large", func(t *testing.T) {
		h, _, _ := newAPI(t)
		r := httptest.NewRequest("POST", target, io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20+1))))
		r.ContentLength = -1
		r.Header.Set("Authorization", "Bearer uploader")
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != 413 {
			t.Errorf("%d %s", rec.Code, rec.Body)
		}
	})
	t.Run("bad question", func(t *testing.T) {
		h, w, _ := newAPI(t)
		if rec := ask(t, h, "POST", target+"?allow-older=perhaps", "bytes", bearer("uploader")); rec.Code != 400 || w.received != nil {
			t.Errorf("%d", rec.Code)
		}
	})
	for path, status := range map[string]int{
		"/api/v1/pipelines/demo/repositories/debian/packages":  422,
		"/api/v1/pipelines/demo/repositories/nothing/packages": 404,
		"/api/v1/pipelines/none/repositories/apps/packages":    404,
	} {
		h, w, _ := newAPI(t)
		if rec := ask(t, h, "POST", path, "bytes", bearer("admin")); rec.Code != status || w.received != nil {
			t.Errorf("%s: %d, want %d before the body is read", path, rec.Code, status)
		}
	}
}

// TestRestoreFile checks what is special about a file that comes back.
func TestRestoreFile(t *testing.T) {
	h, w, _ := newAPI(t)
	if rec := ask(t, h, "POST", "/api/v1/files?name=hello.deb", "bytes", bearer("admin")); rec.Code != 201 || string(w.received) != "bytes" {
		t.Errorf("%d, received %q: %s", rec.Code, w.received, rec.Body)
	}
	w.already = true
	if rec := ask(t, h, "POST", "/api/v1/files", "bytes", bearer("admin")); rec.Code != 200 {
		t.Errorf("%d", rec.Code)
	}
	if rec := ask(t, h, "POST", "/api/v1/files", strings.Repeat("x", 1<<20+1), bearer("admin")); rec.Code != 413 {
		t.Errorf("%d", rec.Code)
	}
}

// TestUploadStreams sends the second half of a body only after the server
// has seen the first: a server that collects bodies would never answer.
func TestUploadStreams(t *testing.T) {
	w := &world{}
	seen := make(chan struct{})
	w.receive = func(body io.Reader) error {
		half := make([]byte, 4)
		if _, err := io.ReadFull(body, half); err != nil {
			return err
		}
		close(seen)
		_, err := io.Copy(io.Discard, body)
		return err
	}
	server := httptest.NewServer(New(w.config(io.Discard)))
	defer server.Close()
	reader, writer := io.Pipe()
	go func() {
		_, err := writer.Write([]byte("half"))
		if err == nil {
			select {
			case <-seen:
				_, err = writer.Write([]byte("half"))
			case <-t.Context().Done():
				err = t.Context().Err()
			}
		}
		writer.CloseWithError(err)
	}()
	req, err := http.NewRequestWithContext(t.Context(), "POST", server.URL+"/api/v1/pipelines/demo/repositories/apps/packages", reader)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer uploader")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 201 {
		t.Errorf("status %d", resp.StatusCode)
	}
}

// TestSilentUploadEnds holds a body back for ever.
func TestSilentUploadEnds(t *testing.T) {
	w := &world{}
	ended := make(chan error, 1)
	w.receive = func(body io.Reader) error {
		_, err := io.Copy(io.Discard, body)
		ended <- err
		return &release.Error{Code: release.Invalid, Text: "cannot add it: the upload broke off"}
	}
	s := newServer(w.config(io.Discard))
	s.silence = 50 * time.Millisecond
	server := httptest.NewServer(s.handler(routes()))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /api/v1/pipelines/demo/repositories/apps/packages HTTP/1.1\r\nHost: x\r\n"+
		"Authorization: Bearer uploader\r\nContent-Length: 100\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the body ended with %v", err)
	}
}

func TestUploadNames(t *testing.T) {
	for given, want := range map[string]string{
		"": "the package", "a.deb": "a.deb", "\x1b[2J": `\x1b[2J`, strings.Repeat("ä", 200): strings.Repeat("ä", 127),
	} {
		if got := fileName(given); got != want {
			t.Errorf("%q becomes %q", given, got)
		}
	}
}

func TestAnswersAreNotKept(t *testing.T) {
	h, _, _ := newAPI(t)
	for _, target := range []string{"/api/v1/system", "/nothing"} {
		header := ask(t, h, "GET", target, "", bearer("viewer")).Header()
		if header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", target, header)
		}
	}
}

func TestPromote(t *testing.T) {
	const target = "/api/v1/pipelines/demo/stages/canary/promote"
	h, w, _ := newAPI(t)
	expect := snapshots.ID{9}
	rec := ask(t, h, "POST", target, `{"snapshot":"dev","reason":"tested","expect":"`+expect.String()+`","dry_run":true}`, bearer("canary-releaser"))
	if rec.Code != 200 || w.promoted != (protocol.Promote{Snapshot: "dev", Reason: "tested", DryRun: true}) || w.expect == nil || *w.expect != expect {
		t.Errorf("%d %+v expecting %v: %s", rec.Code, w.promoted, w.expect, rec.Body)
	}
	for body, status := range map[string]int{
		`{}`:                                400,
		`{"snapshot":"dev","expect":"f00"}`: 400,
		`{"snapshot":"dev"}`:                200,
	} {
		if rec := ask(t, h, "POST", target, body, bearer("releaser")); rec.Code != status {
			t.Errorf("%s: %d, want %d: %s", body, rec.Code, status, rec.Body)
		}
	}
	if w.expect != nil {
		t.Errorf("without expect the engine was told %v", w.expect)
	}
	if rec := ask(t, h, "POST", "/api/v1/pipelines/demo/stages/production/promote", `{"snapshot":"dev"}`, bearer("canary-releaser")); rec.Code != 403 ||
		!strings.Contains(rec.Body.String(), "releaser:demo/production") {
		t.Errorf("a stage of others: %d %s", rec.Code, rec.Body)
	}
}

func TestDiffNamesKinds(t *testing.T) {
	h, _, _ := newAPI(t)
	rec := ask(t, h, "GET", "/api/v1/pipelines/demo/diff?from=canary&to=dev", "", bearer("viewer"))
	var diff protocol.Diff
	if err := json.Unmarshal(rec.Body.Bytes(), &diff); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, d := range diff.Differences {
		kinds = append(kinds, d.Kind)
	}
	if got := strings.Join(kinds, " "); got != "new gone upgraded downgraded rebuilt relisted" {
		t.Errorf("kinds %s", got)
	}
	if diff.From != "" || diff.To != firstState.String() {
		t.Errorf("from %q to %q", diff.From, diff.To)
	}
	if rec := ask(t, h, "GET", "/api/v1/pipelines/demo/diff?from=canary", "", bearer("viewer")); rec.Code != 400 {
		t.Errorf("without to: %d", rec.Code)
	}
}

func TestSnapshotsTellTheirStages(t *testing.T) {
	h, _, _ := newAPI(t)
	rec := ask(t, h, "GET", "/api/v1/pipelines/demo/snapshots", "", bearer("viewer"))
	var all []protocol.Snapshot
	if err := json.Unmarshal(rec.Body.Bytes(), &all); err != nil || len(all) != 1 || strings.Join(all[0].Stages, ",") != "dev" {
		t.Errorf("%s: %v", rec.Body, err)
	}
}

func TestEscapedNames(t *testing.T) {
	h, _, _ := newAPI(t)
	rec := ask(t, h, "DELETE", "/api/v1/pipelines/demo/repositories/apps/packages/lib%2Fx?version=1%2B2%7E3", "", bearer("uploader"))
	var removed []protocol.Package
	if err := json.Unmarshal(rec.Body.Bytes(), &removed); err != nil || len(removed) != 1 || removed[0].Name != "lib/x" || removed[0].Version != "1+2~3" {
		t.Errorf("%d %s: %v", rec.Code, rec.Body, err)
	}
}

func TestEvents(t *testing.T) {
	w := &world{stream: make(chan release.Event, 1)}
	s := newServer(w.config(io.Discard))
	s.heartbeat = time.Millisecond
	server := httptest.NewServer(s.handler(routes()))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", server.URL+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer viewer")
	req.Header.Set("Last-Event-ID", "nonsense")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "text/event-stream") {
		t.Errorf("Content-Type %q", got)
	}
	lines := bufio.NewScanner(resp.Body)
	until := func(want string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == want {
				return
			}
		}
		t.Fatalf("the stream ended without %q: %v", want, lines.Err())
	}
	until(": still here")
	w.stream <- release.Event{Seq: 4, Kind: "stage", Pipeline: "demo", Subject: "canary", At: noon}
	until("id: 4")
	until("event: stage")
	until(`data: {"seq":4,"kind":"stage","pipeline":"demo","subject":"canary","at":"2026-11-20T12:00:00Z"}`)
	close(w.stream) // a reader that lags too far behind
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("the stream did not end in order: %v", err)
	}
}

func TestGuard(t *testing.T) {
	h := Guard([]string{"fleet.example"}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }))
	for _, c := range []struct {
		method, host, origin string
		status               int
	}{
		{"GET", "localhost:8081", "", 204},
		{"GET", "127.0.0.1:8081", "", 204},
		{"GET", "[::1]:8081", "", 204},
		{"GET", "192.0.2.7", "", 204},
		{"GET", "Fleet.Example.", "", 204},
		{"GET", "fleet.example:443", "", 204},
		{"GET", "evil.example", "", 421},
		{"GET", "localhost.evil.example", "", 421},
		{"GET", "127.0.0.1.evil.example:8081", "", 421},
		{"GET", "", "", 421},
		{"POST", "localhost:8081", "http://localhost:8081", 204},
		{"POST", "localhost:8081", "http://localhost:8082", 403},
		{"POST", "localhost:8081", "https://evil.example", 403},
		{"POST", "localhost:8081", "null", 403},
		{"GET", "localhost:8081", "https://evil.example", 204},
	} {
		r := httptest.NewRequest(c.method, "/", nil)
		r.Host = c.host
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != c.status {
			t.Errorf("%s of %q from %q: %d, want %d", c.method, c.host, c.origin, rec.Code, c.status)
		}
	}
}

func TestCheck(t *testing.T) {
	const usage = `"usage":{"pool":0,"indices":0,"superseded":0,"states":0,"chunks":0,"frames":0}}`
	const report = `{"files":3,"bytes":300,"findings":[],` + usage
	h, w, logs := newAPI(t)
	if rec := ask(t, h, "POST", "/api/v1/check", "", bearer("admin")); rec.Code != 200 || strings.TrimSpace(rec.Body.String()) != report {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	lines := "Accept: application/json, application/x-ndjson"
	// The second report of progress comes too soon after the first.
	want := `{"files":1,"bytes":100}` + "\n" + `{"files":3,"bytes":300,"report":` + report + "}\n"
	if rec := ask(t, h, "POST", "/api/v1/check", "", bearer("admin"), lines); rec.Code != 200 || rec.Body.String() != want {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	const repaired = `{"files":3,"bytes":300,"findings":[{"path":"a","reason":"is missing","repaired":"written again"},` +
		`{"path":"b","reason":"is missing","aside":"damaged/b","restore":"restore it","sha256":"00","needed_by":["demo/dev"]}],` + usage
	if rec := ask(t, h, "POST", "/api/v1/check?repair=1", "", bearer("admin")); rec.Code != 200 || strings.TrimSpace(rec.Body.String()) != repaired || w.actors[0].Name != "ada" {
		t.Errorf("%d %s by %v", rec.Code, rec.Body, w.actors)
	}
	if rec := ask(t, h, "POST", "/api/v1/check?repair=1", "", bearer("admin"), lines); !strings.HasSuffix(strings.TrimSpace(rec.Body.String()), `"report":`+repaired+"}") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	w.err = errors.New("disk on fire")
	rec := ask(t, h, "POST", "/api/v1/check", "", bearer("admin"), lines)
	if !strings.Contains(rec.Body.String(), `"error":{"code":"internal"`) || strings.Contains(rec.Body.String(), "fire") || !strings.Contains(logs.String(), "disk on fire") {
		t.Errorf("%s; log %s", rec.Body, logs)
	}
	if rec := ask(t, h, "POST", "/api/v1/check", "", bearer("viewer"), lines); rec.Code != 403 || errorOf(t, rec).Code != "forbidden" {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}

func TestSecretsAreShown(t *testing.T) {
	h, _, _ := newAPI(t)
	for target, want := range map[string]string{
		"/api/v1/tokens":           `"secret":"s3"`,
		"/api/v1/enrolment-tokens": `"token":"aft1_secret"`,
		"/api/v1/login-links":      `"url":"http://127.0.0.1:1/login/once"`,
	} {
		rec := ask(t, h, "POST", target, `{"user":"ada","name":"d"}`, bearer("admin"))
		if rec.Code != 201 || !bytes.Contains(rec.Body.Bytes(), []byte(want)) {
			t.Errorf("%s: %d %s", target, rec.Code, rec.Body)
		}
	}
}
