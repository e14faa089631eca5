package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"aptfleet/internal/protocol"
)

// serve starts a server and returns a client of it with the token "secret".
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	c, err := New(Options{Server: server.URL + "/", Token: "secret", UserAgent: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRequests compares what each method asks for with the API's routes.
func TestRequests(t *testing.T) {
	ctx := t.Context()
	for _, c := range []struct {
		want string // method, escaped path and query, body
		call func(*Client) error
	}{
		{"GET /api/v1/system", func(c *Client) error { _, err := c.System(ctx); return err }},
		{"GET /api/v1/key", func(c *Client) error { _, err := c.Key(ctx); return err }},
		{"GET /api/v1/pipelines/a%2Fb", func(c *Client) error { _, err := c.Pipeline(ctx, "a/b"); return err }},
		{`POST /api/v1/pipelines {"name":"p","distribution":"trixie","architectures":["amd64"],"stages":null,"created":"0001-01-01T00:00:00Z"}`, func(c *Client) error {
			_, err := c.CreatePipeline(ctx, protocol.Pipeline{Name: "p", Distribution: "trixie", Architectures: []string{"amd64"}})
			return err
		}},
		{`POST /api/v1/pipelines/p/repositories {"name":"apps","kind":"repository","keep":3}`, func(c *Client) error {
			_, err := c.CreateRepository(ctx, "p", "apps", 3)
			return err
		}},
		{`POST /api/v1/pipelines/p/mirrors {"name":"debian","kind":"mirror","mirror":{"suites":[{"url":"u","suite":"s","components":["main"]}],"packages":["a"]}}`, func(c *Client) error {
			_, err := c.CreateMirror(ctx, "p", "debian", protocol.Mirror{
				Suites: []protocol.MirrorSuite{{URL: "u", Suite: "s", Components: []string{"main"}}}, Packages: []string{"a"},
			})
			return err
		}},
		{`POST /api/v1/pipelines/p/mirrors/debian/update {"allow_rebuilt":true}`, func(c *Client) error {
			_, err := c.UpdateMirror(ctx, "p", "debian", protocol.MirrorUpdate{AllowRebuilt: true})
			return err
		}},
		{"GET /api/v1/pipelines/p/mirrors/debian", func(c *Client) error { _, err := c.Mirror(ctx, "p", "debian"); return err }},
		{`PUT /api/v1/pipelines/p/mirrors/debian {"suites":null,"filter":"nginx","filter_deps":true}`, func(c *Client) error {
			_, err := c.SetMirror(ctx, "p", "debian", protocol.Mirror{Filter: "nginx", FilterDeps: true}, false)
			return err
		}},
		{`PUT /api/v1/pipelines/p/mirrors/debian?dry-run=1 {"suites":null,"all":true}`, func(c *Client) error {
			_, err := c.SetMirror(ctx, "p", "debian", protocol.Mirror{All: true}, true)
			return err
		}},
		{"POST /api/v1/pipelines/p/repositories/apps/packages?allow-older=1&name=x+y.deb bytes", func(c *Client) error {
			_, err := c.Upload(ctx, "p", "apps", File{Name: "x y.deb", Body: strings.NewReader("bytes"), Size: 5, AllowOlder: true})
			return err
		}},
		{"POST /api/v1/pipelines/p/repositories/apps/uploads?allow-older=1 " + strings.Repeat("\x00", 1024), func(c *Client) error {
			_, err := c.UploadAll(ctx, "p", "apps", func(func(string, []byte) bool) {}, true)
			return err
		}},
		{"DELETE /api/v1/pipelines/p/repositories/apps/packages/hello?version=1%3A2%2B3~4", func(c *Client) error {
			_, err := c.Remove(ctx, "p", "apps", "hello", "1:2+3~4")
			return err
		}},
		{"GET /api/v1/pipelines/p/packages?component=apps&limit=5&name=hello&query=%21a%2C+b&ref=dev", func(c *Client) error {
			_, err := c.Packages(ctx, "p", PackageQuery{Ref: "dev", Component: "apps", Name: "hello", Query: "!a, b", Limit: 5})
			return err
		}},
		{"GET /api/v1/pipelines/p/packages", func(c *Client) error { _, err := c.Packages(ctx, "p", PackageQuery{}); return err }},
		{`POST /api/v1/pipelines/p/snapshots {"note":"n"}`, func(c *Client) error {
			_, err := c.CreateSnapshot(ctx, "p", protocol.NewSnapshot{Note: "n"})
			return err
		}},
		{`POST /api/v1/pipelines/p/snapshots/merge {"states":["a","b"],"on_conflict":"latest"}`, func(c *Client) error {
			_, err := c.Merge(ctx, "p", protocol.Merge{States: []string{"a", "b"}, OnConflict: "latest"})
			return err
		}},
		{`POST /api/v1/pipelines/p/snapshots/pick {"base":"a","from":"b","names":["hello"],"dependencies":true,"dry_run":true}`, func(c *Client) error {
			_, err := c.Pick(ctx, "p", protocol.Pick{Base: "a", From: "b", Names: []string{"hello"}, Dependencies: true, DryRun: true})
			return err
		}},
		{`POST /api/v1/pipelines/p/snapshots/filter {"from":"a","query":"hello"}`, func(c *Client) error {
			_, err := c.Filter(ctx, "p", protocol.Filter{From: "a", Query: "hello"})
			return err
		}},
		{"GET /api/v1/pipelines/p/snapshots", func(c *Client) error { _, err := c.Snapshots(ctx, "p"); return err }},
		{"GET /api/v1/pipelines/p/snapshots/2026", func(c *Client) error { _, err := c.Snapshot(ctx, "p", "2026"); return err }},
		{"GET /api/v1/pipelines/p/diff?from=a&to=b", func(c *Client) error { _, err := c.Diff(ctx, "p", "a", "b"); return err }},
		{"GET /api/v1/pipelines/p/stages", func(c *Client) error { _, err := c.Stages(ctx, "p"); return err }},
		{"GET /api/v1/pipelines/p/stages/dev", func(c *Client) error { _, err := c.Stage(ctx, "p", "dev"); return err }},
		{"GET /api/v1/pipelines/p/stages/dev/history", func(c *Client) error { _, err := c.History(ctx, "p", "dev"); return err }},
		{`POST /api/v1/pipelines/p/stages/canary/promote {"snapshot":"dev","reason":"r"}`, func(c *Client) error {
			_, err := c.Promote(ctx, "p", "canary", protocol.Promote{Snapshot: "dev", Reason: "r"})
			return err
		}},
		{`POST /api/v1/pipelines/p/stages/canary/undo {"expect":"e"}`, func(c *Client) error {
			_, err := c.Undo(ctx, "p", "canary", protocol.Promote{Expect: "e"})
			return err
		}},
		{"GET /api/v1/changes", func(c *Client) error { _, err := c.Changes(ctx); return err }},
		{"POST /api/v1/changes/7/abort", func(c *Client) error { _, err := c.AbortChange(ctx, 7); return err }},
		{"GET /api/v1/users", func(c *Client) error { _, err := c.Users(ctx); return err }},
		{`POST /api/v1/users {"name":"u","roles":["viewer"],"created":"0001-01-01T00:00:00Z"}`, func(c *Client) error {
			_, err := c.CreateUser(ctx, "u", []string{"viewer"})
			return err
		}},
		{"GET /api/v1/me", func(c *Client) error { _, err := c.WhoAmI(ctx); return err }},
		{"GET /api/v1/users/a%2Fb", func(c *Client) error { _, err := c.User(ctx, "a/b"); return err }},
		{`PATCH /api/v1/users/u {"roles":["viewer"]}`, func(c *Client) error {
			_, err := c.SetUser(ctx, "u", protocol.SetUser{Roles: []string{"viewer"}})
			return err
		}},
		{`PATCH /api/v1/users/u {"disabled":false}`, func(c *Client) error {
			_, err := c.SetUser(ctx, "u", protocol.SetUser{Disabled: new(false)})
			return err
		}},
		{"DELETE /api/v1/users/u", func(c *Client) error { _, err := c.DeleteUser(ctx, "u", false); return err }},
		{"DELETE /api/v1/users/u?dry-run=1", func(c *Client) error { _, err := c.DeleteUser(ctx, "u", true); return err }},
		{"GET /api/v1/sessions", func(c *Client) error { _, err := c.Sessions(ctx); return err }},
		{"DELETE /api/v1/sessions/3", func(c *Client) error { return c.EndSession(ctx, 3) }},
		{"DELETE /api/v1/sessions?user=u", func(c *Client) error { _, err := c.EndSessions(ctx, "u"); return err }},
		{"GET /api/v1/acts", func(c *Client) error { _, err := c.Acts(ctx, ActFilter{}); return err }},
		{"GET /api/v1/acts?limit=5&pipeline=p&since=2026-11-20T11%3A00%3A00Z&user=u", func(c *Client) error {
			since := time.Date(2026, 11, 20, 12, 0, 0, 0, time.FixedZone("", 3600))
			_, err := c.Acts(ctx, ActFilter{User: "u", Pipeline: "p", Since: since, Limit: 5})
			return err
		}},
		{"GET /api/v1/tokens", func(c *Client) error { _, err := c.Tokens(ctx); return err }},
		{`POST /api/v1/tokens {"user":"u","label":"l","expires":"90d"}`, func(c *Client) error {
			_, err := c.CreateToken(ctx, protocol.NewToken{User: "u", Label: "l", Expires: "90d"})
			return err
		}},
		{"DELETE /api/v1/tokens/3", func(c *Client) error { return c.RevokeToken(ctx, 3) }},
		{`POST /api/v1/login-links {"user":"u","url":"","expires":"0001-01-01T00:00:00Z"}`, func(c *Client) error {
			_, err := c.CreateLoginLink(ctx, "u")
			return err
		}},
		{"GET /api/v1/devices", func(c *Client) error { _, err := c.Devices(ctx, protocol.DeviceFilter{}); return err }},
		{"GET /api/v1/devices?package=openssl%3C%3C3&state=failed", func(c *Client) error {
			_, err := c.Devices(ctx, protocol.DeviceFilter{State: "failed", Package: "openssl<<3"})
			return err
		}},
		{"GET /api/v1/devices/bench", func(c *Client) error { _, err := c.Device(ctx, "bench"); return err }},
		{`PATCH /api/v1/devices/bench {"revision":"r2"}`, func(c *Client) error {
			revision := "r2"
			_, err := c.SetDevice(ctx, "bench", protocol.SetDevice{Revision: &revision})
			return err
		}},
		{`POST /api/v1/devices/bench/assign {"stage":"canary"}`, func(c *Client) error { _, err := c.AssignDevice(ctx, "bench", "canary"); return err }},
		{`POST /api/v1/devices/bench/hold {"reason":"fair"}`, func(c *Client) error {
			_, err := c.HoldDevice(ctx, "bench", protocol.Hold{Reason: "fair"})
			return err
		}},
		{"DELETE /api/v1/devices/bench/hold", func(c *Client) error { _, err := c.UnholdDevice(ctx, "bench"); return err }},
		{`POST /api/v1/devices/bench/pin {"snapshot":"2026","reason":"r"}`, func(c *Client) error {
			_, err := c.PinDevice(ctx, "bench", protocol.PinDevice{Snapshot: "2026", Reason: "r"})
			return err
		}},
		{"DELETE /api/v1/devices/bench/pin", func(c *Client) error { _, err := c.UnpinDevice(ctx, "bench"); return err }},
		{`POST /api/v1/devices/bench/retire {"reason":"stolen"}`, func(c *Client) error { _, err := c.RetireDevice(ctx, "bench", "stolen"); return err }},
		{`POST /api/v1/devices/bench/resolve {"keep":"m"}`, func(c *Client) error { _, err := c.ResolveDevice(ctx, "bench", "m"); return err }},
		{"GET /api/v1/registrations", func(c *Client) error { _, err := c.Registrations(ctx); return err }},
		{`POST /api/v1/registrations [{"serial":"SN","pipeline":"p","product":"gw","stage":"dev"}]`, func(c *Client) error {
			_, err := c.Register(ctx, []protocol.Registration{{Serial: "SN", Pipeline: "p", Product: "gw", Stage: "dev"}})
			return err
		}},
		{"DELETE /api/v1/registrations/a%2Fb", func(c *Client) error { return c.Unregister(ctx, "a/b") }},
		{"GET /api/v1/enrolment-tokens", func(c *Client) error { _, err := c.EnrolmentTokens(ctx); return err }},
		{"DELETE /api/v1/enrolment-tokens/5e0b", func(c *Client) error { return c.RevokeEnrolmentToken(ctx, "5e0b") }},
		{"GET /api/v1/enrolments", func(c *Client) error { _, err := c.Enrolments(ctx); return err }},
		{`POST /api/v1/enrolments/SN/accept {"product":"gw","stage":"dev"}`, func(c *Client) error {
			_, err := c.AcceptEnrolment(ctx, "SN", protocol.Accept{Product: "gw", Stage: "dev"})
			return err
		}},
		{"DELETE /api/v1/enrolments/5e0b/refuse", func(c *Client) error { return c.PardonEnrolment(ctx, "5e0b") }},
		{`POST /api/v1/enrolments/5e0b/refuse {"reason":"r"}`, func(c *Client) error { return c.RefuseEnrolment(ctx, "5e0b", "r") }},
	} {
		t.Run(c.want, func(t *testing.T) {
			var got string
			client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				got = strings.TrimSpace(r.Method + " " + r.RequestURI + " " + string(body))
				if r.Header.Get("Authorization") != "Bearer secret" || r.Header.Get("Accept") != "application/json" || r.Header.Get("User-Agent") != "test" {
					t.Errorf("headers %v", r.Header)
				}
				_, err = io.WriteString(w, "null") // decodes into lists and values alike
				if err != nil {
					t.Error(err)
				}
			})
			if err := c.call(client); err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("asked for\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// code is that of an Error, or "".
func code(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   Error
		exit   int
	}{
		{409, `{"error":{"code":"conflict","text":"cannot promote: it moved","hint":"look"}}`, Error{409, "conflict", "cannot promote: it moved", "look"}, 1},
		{422, `{"error":{"code":"refused","text":"no"}}`, Error{422, "refused", "no", ""}, 3},
		{401, `{"error":{"code":"no-access","text":"no"}}`, Error{401, "no-access", "no", ""}, 5},
		{403, `{"error":{"code":"forbidden","text":"no"}}`, Error{403, "forbidden", "no", ""}, 5},
		{423, `{"error":{"code":"locked","text":"no"}}`, Error{423, "locked", "no", ""}, 11},
	} {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			fmt.Fprint(w, c.body)
		})
		_, err := client.System(t.Context())
		var got *Error
		if !errors.As(err, &got) || *got != c.want || got.ExitCode() != c.exit || got.NextStep() != c.want.Hint || got.ErrorCode() != c.want.Code {
			t.Errorf("%d: %+v, exit %d", c.status, got, got.ExitCode())
		}
	}
	for _, status := range []int{301, 502} {
		client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			fmt.Fprint(w, "<html>a proxy</html>")
		})
		_, err := client.System(t.Context())
		var got *Error
		if !errors.As(err, &got) || got.Status != status || got.Code != "http" || got.Hint == "" {
			t.Errorf("foreign answer %d: %v", status, err)
		}
	}
}

func TestBadAnswer(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{") })
	if _, err := client.System(t.Context()); err == nil || !strings.Contains(err.Error(), "cannot read the answer") {
		t.Errorf("half an answer: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{}, {Server: "https://a.example", Socket: "/run/s"}, {Server: "a.example"}, {Server: "ftp://a.example"},
		{Server: "https://"}, {Server: "https://u:p@a.example"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("the error shows a password: %v", err)
		}
	}
}

func TestSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c, err := New(Options{Socket: path})
	if err != nil {
		t.Fatal(err)
	}
	var away *Unreachable
	if _, err = c.System(t.Context()); !errors.As(err, &away) || !strings.Contains(away.NextStep(), "repo-manager serve") || away.ExitCode() != 1 {
		t.Errorf("no socket: %v", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"product":%q}`, r.Host)
	})}
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	if got, err := c.System(t.Context()); err != nil || got.Product != "localhost" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// TestUploadAsksFirst checks that a refused upload costs no bytes: the
// server answers before it wants the body.
func TestUploadAsksFirst(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":{"code":"forbidden","text":"no"}}`)
	})
	var sent atomic.Int64
	_, err := client.Upload(t.Context(), "p", "apps", File{Name: "x.deb", Size: 1 << 30, Body: readerFunc(func(b []byte) (int, error) {
		sent.Add(int64(len(b)))
		return len(b), nil
	})})
	if code(err) != codeForbidden {
		t.Errorf("error %v", err)
	}
	if sent.Load() != 0 {
		t.Errorf("%d bytes were read of a refused upload", sent.Load())
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestCancel(t *testing.T) {
	began := make(chan struct{})
	release := make(chan struct{})
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-release
	})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if _, err := client.System(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestCheck(t *testing.T) {
	answer := `{"files":1,"bytes":10}` + "\n" + `{"files":2,"bytes":20}` + "\n"
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Accept"), "application/x-ndjson") {
			t.Errorf("Accept %q", r.Header.Get("Accept"))
		}
		fmt.Fprint(w, answer)
	})
	var seen []int64
	each := func(files, bytes int64) { seen = append(seen, files, bytes) }
	if _, err := client.Check(t.Context(), each); !errors.Is(err, io.EOF) || fmt.Sprint(seen) != "[1 10 2 20]" {
		t.Errorf("an answer that breaks off: %v, seen %v", err, seen)
	}
	answer += `{"files":3,"bytes":30,"report":{"files":3,"bytes":30,"findings":[{"path":"p","reason":"r"}]}}`
	if got, err := client.Check(t.Context(), nil); err != nil || got.Files != 3 || len(got.Findings) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	answer = `{"files":1,"bytes":10,"error":{"code":"locked","text":"no"}}`
	if _, err := client.Check(t.Context(), nil); code(err) != codeLocked {
		t.Errorf("error %v", err)
	}
}

func TestDiffMirror(t *testing.T) {
	answer := `{"done":1,"total":10,"unit":"bytes"}` + "\n"
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/pipelines/p/mirrors/debian/diff" || !strings.Contains(r.Header.Get("Accept"), "application/x-ndjson") {
			t.Errorf("%s, Accept %q", r.URL.Path, r.Header.Get("Accept"))
		}
		fmt.Fprint(w, answer)
	})
	var seen []string
	each := func(done, total int64, unit string) { seen = append(seen, fmt.Sprint(done, total, unit)) }
	if _, err := client.DiffMirror(t.Context(), "p", "debian", each); !errors.Is(err, io.EOF) || fmt.Sprint(seen) != "[1 10bytes]" {
		t.Errorf("an answer that breaks off: %v, seen %v", err, seen)
	}
	answer += `{"done":10,"total":10,"unit":"bytes","diff":{"packages":3,"differences":[{"kind":"new"}]}}`
	if got, err := client.DiffMirror(t.Context(), "p", "debian", nil); err != nil || got.Packages != 3 || len(got.Differences) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	answer = `{"done":1,"total":10,"unit":"bytes","error":{"code":"upstream","text":"no"}}`
	if _, err := client.DiffMirror(t.Context(), "p", "debian", nil); code(err) != "upstream" {
		t.Errorf("error %v", err)
	}
}

func TestWait(t *testing.T) {
	var looks atomic.Int64
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := looks.Add(1)
		status := "doing"
		if n >= 3 {
			status = "done"
		}
		if err := json.NewEncoder(w).Encode(protocol.Change{ID: 7, Status: status, Done: n}); err != nil {
			t.Error(err)
		}
	})
	var seen []int64
	change, err := client.Wait(t.Context(), 7, func(c protocol.Change) { seen = append(seen, c.Done) })
	if err != nil || change.Status != "done" || fmt.Sprint(seen) != "[1 2 3]" {
		t.Errorf("%+v, seen %v: %v", change, seen, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	looks.Store(-1000)
	_, err = client.Wait(ctx, 7, func(protocol.Change) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

func TestEvents(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "text/event-stream" {
			t.Errorf("Accept %q", r.Header.Get("Accept"))
		}
		fmt.Fprint(w, ": hello\n\nid: 1\nevent: stage\ndata: {\"seq\":1,\ndata: \"kind\":\"stage\"}\n\n: still here\n\ndata:{\"seq\":2}\n\n")
	})
	var got []protocol.Event
	ready := false
	err := client.Events(t.Context(), func() { ready = true }, func(e protocol.Event) error {
		got = append(got, e)
		return nil
	})
	if !errors.Is(err, io.EOF) || !ready || len(got) != 2 || got[0].Kind != "stage" || got[1].Seq != 2 {
		t.Errorf("%+v, ready %v: %v", got, ready, err)
	}
	enough := errors.New("enough")
	if err := client.Events(t.Context(), nil, func(protocol.Event) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("stopped by the caller: %v", err)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
