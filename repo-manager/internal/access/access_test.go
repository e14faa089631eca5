package access_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
)

var root = release.Actor{Name: "root", Via: "socket"}

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func newService(t *testing.T) (*access.Service, *storetest.Memory, *clock) {
	t.Helper()
	store, c := new(storetest.Memory), &clock{time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)}
	return access.New(store, c.Now), store, c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAllows(t *testing.T) {
	for _, c := range []struct {
		roles       string
		role, scope string
		want        bool
	}{
		{"", "viewer", "", false},
		{"viewer", "viewer", "demo/apps", true},
		{"viewer", "viewer", "", true},
		{"viewer:demo", "viewer", "demo/apps", true},
		{"viewer:demo", "viewer", "demo2", false},
		{"viewer:demo", "viewer", "", false},
		{"uploader:demo/apps", "viewer", "demo/tools", true},
		{"uploader:demo/apps", "viewer", "other", false},
		{"releaser", "viewer", "", true},
		{"manufacturing:demo", "manufacturing", "demo", true},
		{"manufacturing:demo", "manufacturing", "demo/sensor", true},
		{"manufacturing:demo", "operator", "demo", false},
		{"operator:demo/sensor", "operator", "demo/sensor", true},
		{"operator:demo/sensor", "operator", "demo/gateway", false},
		{"operator:demo/sensor", "operator", "demo", false},
		{"admin:demo", "uploader", "demo", false}, // no role
		{"viewer", "uploader", "demo/apps", false},
		{"uploader", "uploader", "demo/apps", true},
		{"uploader:demo", "uploader", "demo/apps", true},
		{"uploader:demo", "uploader", "demo", true},
		{"uploader:demo", "uploader", "demo2/apps", false},
		{"uploader:demo/apps", "uploader", "demo/apps", true},
		{"uploader:demo/apps", "uploader", "demo/apps2", false},
		{"uploader:demo/apps", "uploader", "demo", false},
		{"uploader:demo/apps", "uploader", "", false},
		{"uploader:demo/apps", "releaser", "demo/apps", false},
		{"releaser:demo/canary operator", "operator", "", true},
		{"admin", "uploader", "demo/apps", true},
		{"admin", "admin", "", true},
		{"operator releaser uploader viewer", "admin", "", false},
	} {
		if got := access.Allows(strings.Fields(c.roles), c.role, c.scope); got != c.want {
			t.Errorf("Allows(%q, %s, %s) = %v", c.roles, c.role, c.scope, got)
		}
	}
}

func TestTokens(t *testing.T) {
	s, store, _ := newService(t)
	ctx := t.Context()
	_, err := s.CreateUser(ctx, root, "ci", []string{"uploader:demo", "viewer"})
	must(t, err)
	if _, err := s.CreateUser(ctx, root, "ci", []string{"viewer"}); release.CodeOf(err) != release.Conflict {
		t.Errorf("a second user ci: %v", err)
	}
	for _, bad := range []struct {
		name  string
		roles []string
	}{{"", []string{"viewer"}}, {"a\x1bb", []string{"viewer"}}, {"x", nil}, {"x", []string{"king"}}, {"x", []string{"viewer:demo/apps"}}, {"x", []string{"admin:demo"}}, {"x", []string{"manufacturing:demo/sensor"}}, {"x", []string{"uploader:../x"}}} {
		if _, err := s.CreateUser(ctx, root, bad.name, bad.roles); release.CodeOf(err) != release.Invalid {
			t.Errorf("user %q with roles %q: %v", bad.name, bad.roles, err)
		}
	}
	narrow, err := s.CreateToken(ctx, root, access.NewToken{User: "ci", Label: "build", Roles: []string{"uploader:demo/apps"}})
	must(t, err)
	whole, err := s.CreateToken(ctx, root, access.NewToken{User: "ci"})
	must(t, err)
	if _, err := s.CreateToken(ctx, root, access.NewToken{User: "ci", Roles: []string{"admin"}}); release.CodeOf(err) != release.Refused {
		t.Errorf("a token with more than its user has: %v", err)
	}
	if _, err := s.CreateToken(ctx, root, access.NewToken{User: "eve"}); release.CodeOf(err) != release.NotFound {
		t.Errorf("a token of nobody: %v", err)
	}
	if len(narrow.Secret) < 43 || narrow.Secret == whole.Secret {
		t.Errorf("secrets are %q and %q", narrow.Secret, whole.Secret)
	}
	id, err := s.ByToken(ctx, narrow.Secret)
	must(t, err)
	if id.User != "ci" || id.Via != "token:build" || len(id.Roles) != 1 {
		t.Errorf("the token is of %+v", id)
	}
	for _, secret := range []string{"", "x", narrow.Secret + "x", narrow.Secret[1:]} {
		if _, err := s.ByToken(ctx, secret); release.CodeOf(err) != release.NoAccess {
			t.Errorf("secret %q: %v", secret, err)
		}
	}
	tokens, err := s.Tokens(ctx)
	must(t, err)
	for _, token := range tokens {
		if token.Secret != "" {
			t.Error("a list of tokens shows a secret")
		}
	}
	must(t, s.RevokeToken(ctx, root, narrow.ID))
	if _, err := s.ByToken(ctx, narrow.Secret); release.CodeOf(err) != release.NoAccess {
		t.Errorf("a revoked token: %v", err)
	}
	if err := s.RevokeToken(ctx, root, narrow.ID); release.CodeOf(err) != release.NotFound {
		t.Errorf("a token revoked twice: %v", err)
	}
	acts, err := store.Acts(ctx, "", 0)
	must(t, err)
	if len(acts) != 4 {
		t.Errorf("%d acts are recorded, want 4: %+v", len(acts), acts)
	}
}

func TestSessions(t *testing.T) {
	s, _, clock := newService(t)
	ctx := t.Context()
	_, err := s.CreateUser(ctx, root, "ann", []string{"releaser"})
	must(t, err)
	link, _, err := s.CreateLoginLink(ctx, root, "ann")
	must(t, err)
	for range 2 { // looking does not use it up
		if user, err := s.LinkUser(ctx, link); err != nil || user != "ann" {
			t.Fatalf("the link is for %q, %v", user, err)
		}
	}
	cookie, expires, err := s.Redeem(ctx, link, access.Origin{})
	must(t, err)
	if _, _, err := s.Redeem(ctx, link, access.Origin{}); release.CodeOf(err) != release.NoAccess {
		t.Errorf("a link used twice: %v", err)
	}
	id, csrf, err := s.BySession(ctx, cookie)
	must(t, err)
	if id.User != "ann" || id.Via != "session" || csrf == "" || csrf != access.CSRF(cookie) || strings.Contains(csrf, cookie) {
		t.Errorf("the session is of %+v with the CSRF token %q", id, csrf)
	}
	clock.now = expires
	if _, _, err := s.BySession(ctx, cookie); release.CodeOf(err) != release.NoAccess {
		t.Errorf("an expired session: %v", err)
	}
	late, lateExpires, err := s.CreateLoginLink(ctx, root, "ann")
	must(t, err)
	clock.now = lateExpires
	if _, _, err := s.Redeem(ctx, late, access.Origin{}); release.CodeOf(err) != release.NoAccess {
		t.Errorf("an expired link: %v", err)
	}
	if _, _, err := s.CreateLoginLink(ctx, root, "eve"); release.CodeOf(err) != release.NotFound {
		t.Errorf("a link for nobody: %v", err)
	}
	link, _, err = s.CreateLoginLink(ctx, root, "ann")
	must(t, err)
	cookie, _, err = s.Redeem(ctx, link, access.Origin{})
	must(t, err)
	must(t, s.EndSession(ctx, cookie))
	if _, _, err := s.BySession(ctx, cookie); release.CodeOf(err) != release.NoAccess {
		t.Errorf("an ended session: %v", err)
	}
}

// The kernel names who is at the other end of the Unix socket, and nobody at
// the end of a TCP connection.
func TestPeer(t *testing.T) {
	names := make(chan string, 1)
	ask := func(network, address string) string {
		listener, err := net.Listen(network, address)
		must(t, err)
		server := &http.Server{ConnContext: access.ConnContext, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			id, ok := access.FromContext(r.Context())
			if !ok {
				names <- "nobody"
				return
			}
			names <- id.User + " " + id.Via + " " + strings.Join(id.Roles, ",")
		})}
		stopped := make(chan error)
		go func() { stopped <- server.Serve(listener) }()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, listener.Addr().String())
		}}}
		resp, err := client.Get("http://server/")
		must(t, err)
		must(t, resp.Body.Close())
		must(t, server.Close())
		<-stopped
		return <-names
	}
	want := access.Peer(uint32(os.Getuid())).User + " socket admin"
	if got := ask("unix", filepath.Join(t.TempDir(), "s")); got != want {
		t.Errorf("at the Unix socket is %q, want %q", got, want)
	}
	if got := ask("tcp", "127.0.0.1:0"); got != "nobody" {
		t.Errorf("at the TCP port is %q", got)
	}
	if got := access.Peer(4_000_000_000).User; got != "uid:4000000000" {
		t.Errorf("a user id without name is %q", got)
	}
}
