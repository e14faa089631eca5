package api

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
)

// expectation is a line of testdata/roles.txt.
type expectation struct {
	public       bool
	method, path string
	body         string
	may, hidden  []string
}

func (e expectation) String() string {
	return strings.TrimSpace(e.method + " " + e.path + " " + e.body)
}

// is tells whether the line is about a route of the table.
func (e expectation) is(public bool, r route) bool {
	have, want := strings.Split(e.path, "/"), strings.Split(r.path, "/")
	return e.public == public && e.method == r.method && slices.EqualFunc(have, want, func(have, want string) bool {
		return have == want || strings.HasPrefix(want, ":")
	})
}

// readExpectations reads testdata/roles.txt.
func readExpectations(t *testing.T) []expectation {
	t.Helper()
	text, err := os.ReadFile("testdata/roles.txt")
	if err != nil {
		t.Fatal(err)
	}
	groups := map[string][]string{}
	expand := func(words string) (callers []string) {
		for word := range strings.FieldsSeq(words) {
			if members, ok := groups[word]; ok {
				callers = append(callers, members...)
				continue
			}
			callers = append(callers, word)
		}
		return callers
	}
	var all []expectation
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if name, members, ok := strings.Cut(line, " = "); ok {
			groups[strings.TrimSpace(name)] = expand(members)
			continue
		}
		route, who, ok := strings.Cut(line, " : ")
		if !ok {
			t.Fatalf("testdata/roles.txt: cannot read %q", line)
		}
		var e expectation
		route, e.public = strings.CutPrefix(route, "public ")
		e.method, route, _ = strings.Cut(route, " ")
		e.path, e.body, _ = strings.Cut(route, " ")
		may, hidden, _ := strings.Cut(who, " ; hidden ")
		e.may, e.hidden = expand(may), expand(hidden)
		all = append(all, e)
	}
	return all
}

// callers are requests of everybody who ever asks: each adds to a request what
// tells who it is from.
type callers struct {
	roles  map[string]func(*http.Request) // by the names of testdata/roles.txt
	never  map[string]func(*http.Request) // let in nowhere, and what the answer says of why
	lost   func(*http.Request)            // a token whose user has none of its roles any more
	socket func(*http.Request)
	cookie func(*http.Request) // an admin's session
	csrf   func(*http.Request) // with its CSRF token
}

// newCallers makes them all known to a service of package access.
func newCallers(t *testing.T) (*access.Service, callers) {
	t.Helper()
	ctx, root := t.Context(), release.Actor{Name: "root", Via: "socket"}
	now := noon
	s := access.New(new(storetest.Memory), func() time.Time { return now })
	user := func(name string, roles ...string) {
		t.Helper()
		if _, err := s.CreateUser(ctx, root, name, roles); err != nil {
			t.Fatal(err)
		}
	}
	token := func(user, expires string) func(*http.Request) {
		t.Helper()
		made, err := s.CreateToken(ctx, root, access.NewToken{User: user, Expires: expires})
		if err != nil {
			t.Fatal(err)
		}
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+made.Secret) }
	}
	set := func(user string, change access.UserChange) {
		t.Helper()
		if _, err := s.SetUser(ctx, root, user, change); err != nil {
			t.Fatal(err)
		}
	}
	c := callers{roles: map[string]func(*http.Request){}, never: map[string]func(*http.Request){
		"cannot tell who is asking: the request has no token": func(*http.Request) {},
		"the token is unknown or was revoked":                 func(r *http.Request) { r.Header.Set("Authorization", "Bearer guessed") },
		"the session has ended":                               func(r *http.Request) { r.Header.Set("Cookie", access.CookieName+"=guessed") },
	}}
	for i, role := range []string{
		"viewer", "viewer:demo", "viewer:other",
		"uploader", "uploader:demo", "uploader:demo/apps", "uploader:demo/tools", "uploader:other",
		"releaser", "releaser:demo", "releaser:demo/canary", "releaser:demo/production", "releaser:other",
		"manufacturing", "manufacturing:demo", "manufacturing:other",
		"operator", "operator:demo", "operator:demo/sensor", "operator:other", "admin",
	} {
		name := fmt.Sprint("user", i)
		user(name, role)
		c.roles[role] = token(name, "never")
	}
	user("once", "admin")
	c.roles["once-admin"] = token("once", "")
	set("once", access.UserChange{Roles: []string{"viewer:demo"}})
	user("late", "admin")
	c.never["cannot act as late: the token late expired at 2026-11-20T13:00:00Z"] = token("late", "1h")
	user("off", "admin")
	c.never["cannot act as off: the user is disabled"] = token("off", "never")
	set("off", access.UserChange{Disabled: new(true)})
	user("gone", "admin")
	c.never["token is unknown or was revoked"] = token("gone", "never")
	if _, err := s.DeleteUser(ctx, root, "gone", false); err != nil {
		t.Fatal(err)
	}
	user("lost", "uploader:other", "releaser:other")
	c.lost = token("lost", "never")
	set("lost", access.UserChange{Roles: []string{"operator:demo"}})
	now = noon.Add(2 * time.Hour)

	user("ada", "admin")
	link, _, err := s.CreateLoginLink(ctx, root, "ada")
	if err != nil {
		t.Fatal(err)
	}
	cookie, _, err := s.Redeem(ctx, link, access.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	c.cookie = func(r *http.Request) { r.Header.Set("Cookie", access.CookieName+"="+cookie) }
	c.csrf = func(r *http.Request) { c.cookie(r); r.Header.Set(csrfHeader, access.CSRF(cookie)) }
	c.socket = func(r *http.Request) { *r = *r.WithContext(access.NewContext(r.Context(), access.Peer(0))) }
	return s, c
}

// people is the Access of a world with real callers: it knows them, and what
// they do to users is done to the world.
type people struct {
	*world
	known *access.Service
}

func (p people) ByToken(ctx context.Context, secret string) (access.Identity, error) {
	return p.known.ByToken(ctx, secret)
}

func (p people) BySession(ctx context.Context, cookie string) (access.Identity, string, error) {
	return p.known.BySession(ctx, cookie)
}

// TestEveryRoleOnEveryRoute walks both tables with every caller and compares
// who is let in with testdata/roles.txt. Who is not, does nothing; and a GET
// never does.
func TestEveryRoleOnEveryRoute(t *testing.T) {
	var logs bytes.Buffer
	w := &world{stream: closedStream()}
	known, callers := newCallers(t)
	config := w.config(&logs)
	config.Access = people{w, known}
	doors := map[bool]http.Handler{false: New(config), true: NewDevice(config)}
	tables := map[bool][]route{false: routes(), true: deviceRoutes()}

	expectations := readExpectations(t)
	for public, table := range tables {
		for _, r := range table {
			if !slices.ContainsFunc(expectations, func(e expectation) bool { return e.is(public, r) }) {
				t.Errorf("testdata/roles.txt does not say who may %s %s", r.method, r.path)
			}
		}
	}
	for _, e := range expectations {
		if !slices.ContainsFunc(tables[e.public], func(r route) bool { return e.is(e.public, r) }) {
			t.Errorf("testdata/roles.txt has %s, which is not served", e)
			continue
		}
		body := e.body
		if body == "" {
			body = "{}"
		}
		// played asks as somebody and tells what the answer was, and whether
		// anything was done.
		played := func(as func(*http.Request)) (rec *httptest.ResponseRecorder, acted bool) {
			r := httptest.NewRequest(e.method, e.path, strings.NewReader(body))
			as(r)
			rec = httptest.NewRecorder()
			before := len(w.actors)
			doors[e.public].ServeHTTP(rec, r)
			return rec, len(w.actors) != before
		}
		expect := func(who string, as func(*http.Request), want int, says string) {
			t.Helper()
			rec, acted := played(as)
			switch {
			case want == http.StatusOK && (rec.Code == 401 || rec.Code == 403 || rec.Code == 404 || rec.Code == 405 || rec.Code >= 500):
				t.Errorf("%s by %s: %d %s", e, who, rec.Code, rec.Body)
			case want != http.StatusOK && rec.Code != want:
				t.Errorf("%s by %s: %d, want %d", e, who, rec.Code, want)
			case want != http.StatusOK && !strings.Contains(rec.Body.String(), says):
				t.Errorf("%s by %s does not say %q: %s", e, who, says, rec.Body)
			}
			if acted && (want != http.StatusOK || safe(e.method)) {
				t.Errorf("%s by %s, answered %d, did something", e, who, rec.Code)
			}
		}
		switch e.may[0] {
		case "anyone":
			expect("nobody", func(*http.Request) {}, http.StatusOK, "")
			continue
		case "device":
			// What a device sends is signed; a token of somebody else's is worth
			// nothing, and who sends none is told so.
			body = `{"payload":"e30=","key":"unknown_device","signature":""}`
			if strings.HasSuffix(e.path, "enrolments") {
				body = `{"payload":"e30=","key":"refused","signature":""}`
			}
			for name, as := range callers.roles {
				want := http.StatusUnauthorized
				if strings.HasSuffix(e.path, "enrolments") {
					want = http.StatusForbidden
				}
				expect(name, as, want, `"error"`)
			}
			continue
		}
		for name, as := range callers.roles {
			switch {
			case slices.Contains(e.may, name):
				expect(name, as, http.StatusOK, "")
			case slices.Contains(e.hidden, name):
				expect(name, as, http.StatusNotFound, "there is none of that")
			default:
				expect(name, as, http.StatusForbidden, " is missing")
			}
		}
		for why, as := range callers.never {
			expect("who is told "+why, as, http.StatusUnauthorized, why)
		}
		lost := http.StatusForbidden
		if len(e.hidden) > 0 {
			lost = http.StatusNotFound
		}
		expect("a token without roles", callers.lost, lost, "")
		expect("the socket", callers.socket, http.StatusOK, "")
		expect("an admin's session", callers.csrf, http.StatusOK, "")
		if safe(e.method) {
			expect("an admin's cookie", callers.cookie, http.StatusOK, "")
		} else {
			expect("an admin's cookie alone", callers.cookie, http.StatusForbidden, csrfHeader)
		}
		for _, name := range append(slices.Clone(e.may), e.hidden...) {
			if callers.roles[name] == nil {
				t.Errorf("testdata/roles.txt lets %s in, which the test does not play: it knows %v", name, slices.Sorted(maps.Keys(callers.roles)))
			}
		}
	}
}
