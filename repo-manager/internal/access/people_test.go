package access_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
)

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"30m": 30 * time.Minute, "12h": 12 * time.Hour, "90d": 90 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "36500d": 36500 * 24 * time.Hour,
		"": 0, "0d": 0, "90": 0, "-1d": 0, "1.5d": 0, "1y": 0, "1d1h": 0, " 1d": 0, "999999w": 0, "99999999999d": 0, "٣d": 0,
	} {
		if got, ok := access.Span(text); got != want || ok != (want != 0) {
			t.Errorf("Span(%q) = %s, %v, want %s", text, got, ok, want)
		}
	}
}

func TestTokensExpire(t *testing.T) {
	s, _, clock := newService(t)
	ctx := t.Context()
	must1(s.CreateUser(ctx, root, "ci", []string{"uploader"}))
	start := clock.now
	for text, want := range map[string]time.Time{
		"":                          start.Add(365 * 24 * time.Hour),
		"90d":                       start.Add(90 * 24 * time.Hour),
		"never":                     {},
		"2027-01-31T12:00:00Z":      time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC),
		"2027-01-31T12:00:00+01:00": time.Date(2027, 1, 31, 11, 0, 0, 0, time.UTC),
	} {
		if token, err := s.CreateToken(ctx, root, access.NewToken{User: "ci", Expires: text}); err != nil || !token.Expires.Equal(want) {
			t.Errorf("a token for %q expires at %s, %v, want %s", text, token.Expires, err, want)
		}
	}
	for _, bad := range []string{"tomorrow", "90", "0d", "2027-01-31", "2026-11-20T10:00:00Z", "1999-01-01T00:00:00Z"} {
		if _, err := s.CreateToken(ctx, root, access.NewToken{User: "ci", Expires: bad}); release.CodeOf(err) != release.Invalid {
			t.Errorf("a token that expires %q: %v", bad, err)
		}
	}
	token := must1(s.CreateToken(ctx, root, access.NewToken{User: "ci", Label: "build", Expires: "1h"}))
	clock.now = token.Expires.Add(-time.Microsecond)
	must1(s.ByToken(ctx, token.Secret))
	clock.now = token.Expires
	_, err := s.ByToken(ctx, token.Secret)
	var told *release.Error
	if !errors.As(err, &told) || told.Code != release.NoAccess || told.Text != "cannot act as ci: the token build expired at 2026-11-20T11:00:00Z" ||
		told.Hint != "an admin makes another with: repo-manager token create ci --role uploader" {
		t.Errorf("an expired token: %+v", told)
	}
	if !slices.ContainsFunc(must1(s.Tokens(ctx)), func(other access.Token) bool { return other.ID == token.ID }) {
		t.Error("a token that expired just now is not listed")
	}
}

// A token has what its user has now, from one request to the next.
func TestTokensFollowTheirUser(t *testing.T) {
	s, _, _ := newService(t)
	ctx := t.Context()
	must1(s.CreateUser(ctx, root, "ann", []string{"releaser", "uploader:demo"}))
	token := must1(s.CreateToken(ctx, root, access.NewToken{User: "ann"}))
	for _, c := range []struct{ now, has string }{
		{"releaser:demo/canary uploader:demo", "releaser:demo/canary uploader:demo"},
		{"admin", "releaser uploader:demo"},
		{"operator:demo", "viewer:demo"},
		{"operator releaser:demo", "releaser:demo viewer uploader:demo"},
	} {
		must1(s.SetUser(ctx, root, "ann", access.UserChange{Roles: strings.Fields(c.now)}))
		id := must1(s.ByToken(ctx, token.Secret))
		for _, role := range []string{"viewer", "releaser", "uploader", "operator", "admin"} {
			for _, scope := range []string{"", "demo", "demo/canary", "other"} {
				want := access.Allows(strings.Fields(c.now), role, scope) && access.Allows([]string{"releaser", "uploader:demo"}, role, scope)
				if access.Allows(id.Roles, role, scope) != want {
					t.Errorf("the user has %s, the token %q: as %s in %q want %v", c.now, id.Roles, role, scope, want)
				}
			}
		}
	}
}

func TestUsersChange(t *testing.T) {
	s, store, clock := newService(t)
	ctx := t.Context()
	must1(s.CreateUser(ctx, root, "ann", []string{"admin"}))
	must1(s.CreateUser(ctx, root, "bob", []string{"viewer"}))
	token := must1(s.CreateToken(ctx, root, access.NewToken{User: "ann"}))
	signIn := func(name string) string {
		t.Helper()
		link, _, err := s.CreateLoginLink(ctx, root, name)
		must(t, err)
		cookie, _, err := s.Redeem(ctx, link, access.Origin{Address: "10.0.0.7", Browser: "Firefox"})
		must(t, err)
		return cookie
	}
	cookie, other := signIn("ann"), signIn("bob")
	unused, _, err := s.CreateLoginLink(ctx, root, "ann")
	must(t, err)

	acts := func() int { return len(must1(store.Acts(ctx, "", 0))) }
	before := acts()
	if out := must1(s.SetUser(ctx, root, "ann", access.UserChange{Roles: []string{"admin"}, Disabled: new(false)})); acts() != before || out.NoAdmin {
		t.Errorf("a change of nothing: %+v, %d acts", out, acts()-before)
	}
	for name, change := range map[string]access.UserChange{"no role": {Roles: []string{}}, "what is none": {Roles: []string{"king"}}} {
		if _, err := s.SetUser(ctx, root, "ann", change); release.CodeOf(err) != release.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.SetUser(ctx, root, "eve", access.UserChange{Roles: []string{"viewer"}}); release.CodeOf(err) != release.NotFound {
		t.Errorf("a change of nobody: %v", err)
	}

	clock.now = clock.now.Add(time.Minute)
	out := must1(s.SetUser(ctx, root, "ann", access.UserChange{Disabled: new(true)}))
	if out.Ended != (access.Ended{Tokens: 1, Sessions: 1}) || !out.NoAdmin || !out.User.Disabled.Equal(clock.now) {
		t.Errorf("disabling the last admin: %+v", out)
	}
	if _, err := s.ByToken(ctx, token.Secret); release.CodeOf(err) != release.NoAccess || !strings.Contains(err.Error(), "ann: the user is disabled") {
		t.Errorf("a token of a disabled user: %v", err)
	}
	if _, _, err := s.BySession(ctx, cookie); release.CodeOf(err) != release.NoAccess {
		t.Errorf("a session of a disabled user: %v", err)
	}
	if _, _, err := s.Redeem(ctx, unused, access.Origin{}); release.CodeOf(err) != release.NoAccess {
		t.Errorf("a link of a disabled user: %v", err)
	}
	if _, _, err := s.CreateLoginLink(ctx, root, "ann"); release.CodeOf(err) != release.Refused {
		t.Errorf("a new link of a disabled user: %v", err)
	}
	if _, err := s.CreateToken(ctx, root, access.NewToken{User: "ann"}); release.CodeOf(err) != release.Refused {
		t.Errorf("a new token of a disabled user: %v", err)
	}
	if _, _, err := s.BySession(ctx, other); err != nil {
		t.Errorf("bob's session ended with ann's: %v", err)
	}

	out = must1(s.SetUser(ctx, root, "ann", access.UserChange{Disabled: new(false), Roles: []string{"admin", "viewer"}}))
	if !out.User.Disabled.IsZero() || out.NoAdmin || len(out.User.Roles) != 2 {
		t.Errorf("enabled again: %+v", out)
	}
	must1(s.ByToken(ctx, token.Secret))
	if _, _, err := s.BySession(ctx, cookie); release.CodeOf(err) != release.NoAccess {
		t.Errorf("a session came back: %v", err)
	}

	signIn("ann")
	before = acts()
	would := must1(s.DeleteUser(ctx, root, "ann", true))
	if acts() != before {
		t.Error("a dry run is recorded")
	}
	done := must1(s.DeleteUser(ctx, root, "ann", false))
	if done.Ended != (access.Ended{Tokens: 1, Sessions: 1}) || would.Ended != done.Ended || !done.NoAdmin || !would.NoAdmin || done.User.Name != "ann" {
		t.Errorf("deleting the last admin: %+v, announced as %+v", done, would)
	}
	if _, err := s.ByToken(ctx, token.Secret); release.CodeOf(err) != release.NoAccess {
		t.Errorf("a token of a deleted user: %v", err)
	}
	if _, err := s.DeleteUser(ctx, root, "ann", false); release.CodeOf(err) != release.NotFound {
		t.Errorf("a user deleted twice: %v", err)
	}
	must1(s.CreateUser(ctx, root, "ann", []string{"viewer"}))
	if len(must1(s.Tokens(ctx))) != 0 {
		t.Error("a new user of that name has the old one's tokens")
	}
	var verbs []string
	for _, a := range must1(store.Acts(ctx, "", 0)) {
		if a.Object == "user ann" {
			verbs = append(verbs, a.Verb)
		}
	}
	if got := strings.Join(verbs, " "); got != "create delete enable disable create" {
		t.Errorf("the audit trail of ann has %s", got)
	}
}

func TestNoAdminIsLeft(t *testing.T) {
	s, _, _ := newService(t)
	ctx := t.Context()
	for _, name := range []string{"ann", "bob", "cy"} {
		must1(s.CreateUser(ctx, root, name, []string{"admin"}))
	}
	must1(s.SetUser(ctx, root, "cy", access.UserChange{Disabled: new(true)}))
	if out := must1(s.SetUser(ctx, root, "bob", access.UserChange{Roles: []string{"viewer"}})); out.NoAdmin {
		t.Error("ann is an admin")
	}
	if out := must1(s.SetUser(ctx, root, "ann", access.UserChange{Roles: []string{"viewer"}})); !out.NoAdmin {
		t.Error("cy, who is disabled, counts as an admin")
	}
	if out := must1(s.DeleteUser(ctx, root, "bob", false)); out.NoAdmin {
		t.Error("bob was no admin and is blamed")
	}
}

// Two changes of one user at a time are both made.
func TestUsersChangeAtOnce(t *testing.T) {
	s, _, _ := newService(t)
	ctx := t.Context()
	for range 100 {
		must1(s.CreateUser(ctx, root, "ann", []string{"viewer"}))
		var both sync.WaitGroup
		for _, change := range []access.UserChange{{Roles: []string{"releaser"}}, {Disabled: new(true)}} {
			both.Go(func() { must1(s.SetUser(ctx, root, "ann", change)) })
		}
		both.Wait()
		if u := must1(s.User(ctx, "ann")); u.Disabled.IsZero() || u.Roles[0] != "releaser" {
			t.Fatalf("one change undid the other: %+v", u)
		}
		must1(s.DeleteUser(ctx, root, "ann", false))
	}
}

func TestSessionsAreListed(t *testing.T) {
	s, _, clock := newService(t)
	ctx := t.Context()
	must1(s.CreateUser(ctx, root, "ann", []string{"viewer"}))
	must1(s.CreateUser(ctx, root, "bob", []string{"viewer"}))
	var cookies []string
	for _, name := range []string{"ann", "ann", "bob"} {
		link, _, err := s.CreateLoginLink(ctx, root, name)
		must(t, err)
		cookie, _, err := s.Redeem(ctx, link, access.Origin{Address: "10.0.0.7", Browser: "Firefox on Linux"})
		must(t, err)
		cookies = append(cookies, cookie)
		clock.now = clock.now.Add(time.Hour)
	}
	id, _, err := s.BySession(ctx, cookies[1])
	must(t, err)
	sessions := must1(s.SessionsOf(ctx, "ann"))
	if len(sessions) != 2 || sessions[1].ID != id.Session || !sessions[1].Seen.Equal(clock.now) || !sessions[0].Seen.IsZero() ||
		sessions[0].From.String() != "10.0.0.7, Firefox on Linux" || sessions[0].Expires.Sub(sessions[0].Created) != access.SessionLife {
		t.Errorf("sessions of ann: %+v", sessions)
	}
	must(t, s.EndSessionByID(ctx, root, id.Session))
	if _, _, err := s.BySession(ctx, cookies[1]); release.CodeOf(err) != release.NoAccess {
		t.Errorf("a session that was ended: %v", err)
	}
	if err := s.EndSessionByID(ctx, root, id.Session); release.CodeOf(err) != release.NotFound {
		t.Errorf("a session ended twice: %v", err)
	}
	if n, err := s.EndSessionsOf(ctx, root, "ann"); n != 1 || err != nil {
		t.Errorf("%d sessions of ann ended, %v", n, err)
	}
	if n, err := s.EndSessionsOf(ctx, root, "ann"); n != 0 || err != nil {
		t.Errorf("%d more sessions of ann ended, %v", n, err)
	}
	if _, err := s.EndSessionsOf(ctx, root, "eve"); release.CodeOf(err) != release.NotFound {
		t.Errorf("sessions of nobody: %v", err)
	}
	if _, _, err := s.BySession(ctx, cookies[2]); err != nil {
		t.Errorf("bob's session: %v", err)
	}
	clock.now = clock.now.Add(access.SessionLife)
	if all := must1(s.Sessions(ctx)); len(all) != 0 {
		t.Errorf("expired sessions are listed: %+v", all)
	}
}

// counting counts the writes of a store, and can refuse them.
type counting struct {
	*storetest.Memory
	writes int
	err    error
}

func (c *counting) PutUse(ctx context.Context, tokens, sessions map[int64]time.Time) error {
	c.writes++
	if c.err != nil {
		return c.err
	}
	return c.Memory.PutUse(ctx, tokens, sessions)
}

// A use costs no write; what was used is stored together, once, and a store
// that fails is asked again.
func TestUseIsStoredNowAndThen(t *testing.T) {
	store, c := &counting{Memory: new(storetest.Memory)}, &clock{time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)}
	s := access.New(store, c.Now)
	ctx := t.Context()
	must1(s.CreateUser(ctx, root, "ci", []string{"viewer"}))
	token := must1(s.CreateToken(ctx, root, access.NewToken{User: "ci"}))
	must1(s.CreateToken(ctx, root, access.NewToken{User: "ci"}))
	for range 1000 {
		c.now = c.now.Add(time.Millisecond)
		must1(s.ByToken(ctx, token.Secret))
	}
	if tokens := must1(s.Tokens(ctx)); !tokens[0].Used.Equal(c.now) || !tokens[1].Used.IsZero() {
		t.Errorf("before anything is stored: %+v", tokens)
	}
	if store.writes != 0 {
		t.Fatalf("%d writes for requests", store.writes)
	}
	store.err = errors.New("disk full")
	if err := s.FlushUse(ctx); err == nil {
		t.Error("nothing was stored, and nobody told")
	}
	store.err = nil
	must(t, s.FlushUse(ctx))
	must(t, s.FlushUse(ctx)) // nothing to do
	if store.writes != 2 {
		t.Errorf("%d writes, want 2", store.writes)
	}
	again := access.New(store, c.Now)
	if tokens := must1(again.Tokens(ctx)); !tokens[0].Used.Equal(c.now) || !tokens[1].Used.IsZero() {
		t.Errorf("after a restart: %+v", tokens)
	}
	c.now = c.now.Add(-time.Hour) // the clock was set back
	must1(again.ByToken(ctx, token.Secret))
	if tokens := must1(again.Tokens(ctx)); tokens[0].Used.Before(c.now.Add(time.Hour)) {
		t.Errorf("the last use went back: %+v", tokens[0])
	}
}

func TestBrowserName(t *testing.T) {
	for agent, want := range map[string]string{
		"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0":                                                                  "Firefox on Linux",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36":                         "Chrome on Windows",
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0":           "Edge on Windows",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15":                   "Safari on macOS",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1": "Safari on iPhone",
		"Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36":                            "Chrome on Android",
		"curl/8.14.1": "curl/8.14.1", "": "", strings.Repeat("é", 500): strings.Repeat("é", 40), "bad\xffbytes": "badbytes",
	} {
		if got := access.BrowserName(agent); got != want {
			t.Errorf("BrowserName(%q) = %q, want %q", agent, got, want)
		}
	}
}
