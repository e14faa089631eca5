package ui

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
)

// readRoles reads testdata/roles.txt: who may, by "METHOD PATH".
func readRoles(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/roles.txt")
	if err != nil {
		t.Fatal(err)
	}
	groups, all := map[string][]string{}, map[string][]string{}
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
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if name, members, ok := strings.Cut(line, " = "); ok {
			groups[strings.TrimSpace(name)] = expand(members)
			continue
		}
		page, who, ok := strings.Cut(line, " : ")
		if !ok {
			t.Fatalf("testdata/roles.txt: cannot read %q", line)
		}
		all[page] = expand(who)
	}
	return all
}

// house is a server of pages with a real service of package access, for one
// request.
type house struct {
	*world
	access   *access.Service
	store    *storetest.Memory
	pages    http.Handler
	now      time.Time
	stranger string // key of a machine that waits
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{world: newWorld(), store: new(storetest.Memory), now: start}
	pending(h.world)
	for _, name := range []string{"held", "pinned", "cloned"} {
		h.device(name, "demo", h.report("demo", "production", "1.0"))
	}
	must1(h.machines.Hold(t.Context(), root, "held", "a fair", time.Time{}))
	must1(h.machines.Pin(t.Context(), root, "pinned", h.stages["demo"][1].Offer.Snapshot, "a measurement"))
	h.machines.speaks("cloned", "another", "10.0.3.99", *h.report("demo", "production", "1.0"))
	h.stranger = h.machines.waits("SN-0100", "sensor")
	t.Cleanup(h.machines.close)
	h.access = access.New(h.store, func() time.Time { return h.now })
	var err error
	h.pages, err = New(Config{Release: h.world, Access: h.access, Fleet: h.machines, Products: goods{h.world}, Configuration: h.world, Clock: h.clock, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var root = release.Actor{Name: "root", Via: "socket"}

// link makes a user with a role and a link that signs it in.
func (h *house) link(t *testing.T, name, role string) string {
	t.Helper()
	if _, err := h.access.CreateUser(t.Context(), root, name, []string{role}); err != nil {
		t.Fatal(err)
	}
	link, _, err := h.access.CreateLoginLink(t.Context(), root, name)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// cookie signs a new user with a role in.
func (h *house) cookie(t *testing.T, name, role string) string {
	t.Helper()
	cookie, _, err := h.access.Redeem(t.Context(), h.link(t, name, role), access.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}

// marks counts what acts leave behind: moves of stages, and what is recorded
// of people and devices.
func (h *house) marks(t *testing.T) int {
	t.Helper()
	acts, err := h.store.Acts(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	of, err := h.machines.store.Acts(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return len(h.moves) + len(acts) + len(of)
}

// form is a filled form of the page at path, but for its CSRF token.
func (h *house) form(path, link string) url.Values {
	if rest, ok := strings.CutPrefix(path, "/pipelines/demo/devices/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		d, _, err := h.machines.Show(context.Background(), name)
		orPanic(err)
		return url.Values{
			"expect": {standing(d)}, "reason": {"because"}, "stage": {"canary"}, "snapshot": {"production"}, "keep": {"another"},
		}
	}
	if strings.HasPrefix(path, "/pipelines/demo/enrolments/") {
		form := url.Values{"product": {"sensor"}, "stage": {"canary"}, "reason": {"unknown"}}
		for _, e := range h.machines.Pending(context.Background()) {
			form.Set("expect", asks(e))
		}
		return form
	}
	form := url.Values{"token": {link}, "snapshot": {"dev"}, "reason": {"because"}}
	stages := h.stages["demo"]
	form.Set("expect", stages[1].Offer.State.String())
	form.Set("reviewed", stages[0].Offer.State.String())
	if strings.HasSuffix(path, "/undo") {
		under := h.bySeq(h.bySeq(stages[1].Standing).Over)
		form.Set("reviewed", under.To.State.String())
	}
	return form
}

// ask sends one request and tells whether it did something.
func (h *house) ask(t *testing.T, method, path, link string, change func(r *http.Request, form url.Values)) (status int, acted bool) {
	t.Helper()
	// Streams end with their request: this one ends at once.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	form := h.form(path, link)
	r := httptest.NewRequest(method, strings.NewReplacer("LINK", link, "KEY", h.stranger).Replace(path), nil)
	change(r, form)
	if method != http.MethodGet {
		r.Body = io.NopCloser(strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	before := h.marks(t)
	rec := httptest.NewRecorder()
	h.pages.ServeHTTP(rec, r.WithContext(ctx))
	return rec.Code, h.marks(t) != before
}

// TestEveryRoleOnEveryPage walks all pages with every caller and compares who
// is let in with testdata/roles.txt.
func TestEveryRoleOnEveryPage(t *testing.T) {
	golden := readRoles(t)
	var callers []string
	for _, may := range golden {
		for _, name := range may {
			if name != "anyone" && !slices.Contains(callers, name) {
				callers = append(callers, name)
			}
		}
	}

	mux := http.NewServeMux()
	missing := map[string]bool{}
	for _, r := range (&server{assets: must1(newAssets())}).routes() {
		mux.HandleFunc(r.pattern, r.handle)
		missing[r.pattern] = true
	}
	for page := range golden {
		method, path, _ := strings.Cut(page, " ")
		_, pattern := mux.Handler(httptest.NewRequest(method, path, nil))
		delete(missing, pattern)
	}
	for pattern := range missing {
		t.Errorf("testdata/roles.txt does not say who may %s", pattern)
	}

	for page, may := range golden {
		method, path, _ := strings.Cut(page, " ")
		if may[0] == "anyone" {
			h := newHouse(t)
			if path == "/static/app.css" {
				path = must1(must1(newAssets()).url("app.css"))
			}
			status, acted := h.ask(t, method, path, h.link(t, "new", "viewer"), func(*http.Request, url.Values) {})
			if status >= 400 || acted != (method != http.MethodGet) {
				t.Errorf("%s by anybody: %d, and it did something: %v", page, status, acted)
			}
			continue
		}
		for _, role := range callers {
			h := newHouse(t)
			cookie := h.cookie(t, "user", role)
			signed := func(csrf string, more ...string) func(*http.Request, url.Values) {
				return func(r *http.Request, form url.Values) {
					r.AddCookie(&http.Cookie{Name: access.CookieName, Value: cookie})
					form.Set("csrf", csrf)
					for i := 0; i < len(more); i += 2 {
						r.Header.Set(more[i], more[i+1])
					}
				}
			}
			if method != http.MethodGet {
				for name, forged := range map[string]func(*http.Request, url.Values){
					"without CSRF token":         signed(""),
					"with another's CSRF token":  signed(access.CSRF("another")),
					"from another site":          signed(access.CSRF(cookie), "Sec-Fetch-Site", "cross-site"),
					"from another site, by name": signed(access.CSRF(cookie), "Origin", "https://evil.example"),
				} {
					if status, acted := h.ask(t, method, path, "", forged); status != http.StatusForbidden || acted {
						t.Errorf("%s by %s %s: %d, and it did something: %v", page, role, name, status, acted)
					}
				}
			}
			status, acted := h.ask(t, method, path, "", signed(access.CSRF(cookie)))
			if refused := status == 401 || status == 403 || status >= 500; refused == slices.Contains(may, role) {
				t.Errorf("%s by %s: %d", page, role, status)
			}
			if wants := method != http.MethodGet && slices.Contains(may, role) && path != "/nowhere"; acted != wants {
				t.Errorf("%s by %s, answered %d: it did something: %v", page, role, status, acted)
			}
		}
		for name, cookie := range map[string]func(h *house) string{
			"nobody":           func(*house) string { return "" },
			"a guessed cookie": func(*house) string { return "guessed" },
			"an expired session": func(h *house) string {
				cookie := h.cookie(t, "late", "admin")
				h.now = h.now.Add(access.SessionLife)
				return cookie
			},
			"an ended session": func(h *house) string {
				cookie := h.cookie(t, "gone", "admin")
				must(t, h.access.EndSession(t.Context(), cookie))
				return cookie
			},
			"a disabled user": func(h *house) string {
				cookie := h.cookie(t, "off", "admin")
				must1(h.access.SetUser(t.Context(), root, "off", access.UserChange{Disabled: new(true)}))
				return cookie
			},
			"a deleted user": func(h *house) string {
				cookie := h.cookie(t, "dead", "admin")
				must1(h.access.DeleteUser(t.Context(), root, "dead", false))
				return cookie
			},
		} {
			h := newHouse(t)
			secret := cookie(h)
			status, acted := h.ask(t, method, path, "", func(r *http.Request, form url.Values) {
				if secret != "" {
					r.AddCookie(&http.Cookie{Name: access.CookieName, Value: secret})
				}
				form.Set("csrf", access.CSRF(secret))
			})
			if status != http.StatusUnauthorized || acted {
				t.Errorf("%s by %s: %d, and it did something: %v", page, name, status, acted)
			}
		}
	}
}

// The walk plays GET and POST. A page with another method, or with all of them,
// would act unseen.
func TestEveryPageKeepsItsMethod(t *testing.T) {
	for _, r := range (&server{assets: must1(newAssets())}).routes() {
		if method, _, _ := strings.Cut(r.pattern, " "); method != http.MethodGet && method != http.MethodPost {
			t.Errorf("%s: pages answer to GET and POST", strconv.Quote(r.pattern))
		}
	}
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
