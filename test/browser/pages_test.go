package browser

import (
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/browser/webdriver"
	"aptfleet/test/rig"
)

// window is a browser of one test.
type window struct {
	*webdriver.Browser
	t   *testing.T
	ctx context.Context
}

// open opens a browser for the time of a test.
func open(t *testing.T, o webdriver.Options) *window {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	o.Profile = t.TempDir()
	browser, err := shared.driver.Open(ctx, o)
	must(t, err)
	t.Cleanup(func() {
		defer cancel()
		must(t, browser.Close(ctx))
	})
	return &window{browser, t, ctx}
}

var (
	wide   = webdriver.Options{Width: 1280, Height: 900}
	narrow = webdriver.Options{Width: 390, Height: 844}
)

// shows waits until an element contains a text.
func (w *window) shows(css, text string) {
	w.t.Helper()
	must(w.t, w.WaitText(w.ctx, css, text))
}

func (w *window) click(css string) {
	w.t.Helper()
	must(w.t, w.Click(w.ctx, css))
}

// signIn follows a one-time link.
func (w *window) signIn(link, user string) {
	w.t.Helper()
	must(w.t, w.Go(w.ctx, link))
	w.shows("main button", "Sign in as "+user)
	w.click("main button")
	w.shows(".who", "Signed in as "+user)
}

// sound checks what holds on every page, and keeps a screenshot if somebody
// wants it.
func (w *window) sound(name string) {
	w.t.Helper()
	var widths struct{ Scroll, Client int }
	must(w.t, w.Script(w.ctx, `const e = document.documentElement; return {scroll: e.scrollWidth, client: e.clientWidth};`, &widths))
	if widths.Scroll > widths.Client {
		w.t.Errorf("%s: %d pixels in a window of %d", name, widths.Scroll, widths.Client)
	}
	lines, err := w.Console(w.ctx)
	must(w.t, err)
	for _, line := range lines {
		if !strings.Contains(line, "status of 4") { // chromium reports the pages that we want to be errors
			w.t.Errorf("%s: the console says %s", name, line)
		}
	}
	if dir := os.Getenv("APTFLEET_ARTIFACTS"); dir != "" {
		dir = filepath.Join(dir, "browser")
		must(w.t, os.MkdirAll(dir, 0o755), w.SaveScreenshot(w.ctx, filepath.Join(dir, name+".png")))
	}
}

// running is the report of a device that runs what a stage offers.
func running(s protocol.Stage, version string) protocol.Report {
	return protocol.Report{
		Follow: s.Name, Phase: "IDLE", Wanted: s.State, WantedName: s.Snapshot,
		Deployments: []protocol.Deployment{{ID: 1, State: s.State, Snapshot: s.Snapshot, Role: "booted", Version: version}},
	}
}

// TestFirstVisit follows an empty server to its first promotion, by the
// browser alone where the browser can do it.
func TestFirstVisit(t *testing.T) {
	s := newServer(t)
	w := open(t, wide)
	must(t, w.Go(w.ctx, s.Admin+"/"))
	w.shows("h1", "Please sign in")
	w.shows("main pre", "repo-manager login-link")

	link := s.link("anna")
	for range 2 { // a link that is only looked at stays good
		answer, err := http.Get(link)
		must(t, err)
		must(t, answer.Body.Close())
	}
	w.signIn(link, "anna")
	w.shows("h1", "Pipeline demo")
	w.shows("#connection", "Live")
	w.sound("first-visit")

	s.upload("demo-app", "1.0")
	w.shows("#stage-dev", "demo-app 1.0")
	w.shows("#moves li", "demo-app 1.0 (amd64) into apps")
	w.shows("#board", "The next promotion:")
	w.click("#canary-review")
	w.shows("h1", "Promote to canary")
	w.shows("main", "canary offers nothing yet")
	must(t, w.Type(w.ctx, "#reason", "the first"))
	w.click("main form button")
	w.shows("#notice", "canary now offers")
	if c := s.stage("canary"); c.State != s.stage("dev").State || c.Snapshot == "" || c.By != "anna" || c.Reason != "the first" {
		t.Errorf("canary offers %+v", c)
	}
	w.sound("first-promotion")

	must(t, w.Go(w.ctx, link))
	w.shows("h1", "This link does not work any more")
}

// TestPromoteWithoutScript promotes and takes back by clicks alone, narrow.
func TestPromoteWithoutScript(t *testing.T) {
	s := newServer(t)
	s.upload("demo-app", "1.0")
	s.promote("dev", "canary", "start")
	s.promote("canary", "production", "start")
	s.enrol("demo")(running(s.stage("production"), "1.0"))
	first := s.stage("production")
	s.upload("demo-app", "2.0")
	s.upload("demo-tools", "0.3")
	s.promote("dev", "canary", "try version 2")

	o := narrow
	o.NoScript = true
	w := open(t, o)
	w.signIn(s.link("anna"), "anna")
	w.shows("#board", "1 upgraded, 1 new")
	w.shows("#device-demo .badge", "ok")
	w.sound("pending-narrow")
	w.click("#production-review")
	w.shows("h1", "Promote to production")
	w.shows("table", "demo-app")
	w.shows(".moving", "demo")
	w.sound("review-narrow")
	w.click("main form button")
	w.shows("#notice", "production now offers "+s.stage("canary").Snapshot)
	w.shows("#device-demo", "it has not looked since this was offered")
	w.shows("#stage-production", "1 behind")
	w.sound("promoted-narrow")
	w.click("#notice a")
	w.shows("h1", "Undo the last move of production")
	w.shows("#diff-downgraded", "1 downgraded")
	w.click("main form button")
	w.shows("#notice", "production now offers "+first.Snapshot)
	if now := s.stage("production"); now.State != first.State || now.By != "anna" {
		t.Errorf("after the undo production offers %+v, want what it offered first, %+v", now, first)
	}
}

// TestFollowsOthers keeps a page open while other clients promote and a
// device updates, fails and says why.
func TestFollowsOthers(t *testing.T) {
	s := newServer(t)
	s.upload("demo-app", "1.0")
	s.promote("dev", "canary", "start")
	s.promote("canary", "production", "start")
	report := s.enrol("demo")
	r := running(s.stage("production"), "1.0")
	report(r)
	s.upload("demo-app", "2.0")
	s.promote("dev", "canary", "try version 2")

	w := open(t, wide)
	w.signIn(s.link("anna"), "anna")
	w.shows("#connection", "Live")
	must(t, w.Script(w.ctx, `window.loadedOnce = true`, nil))
	s.promote("canary", "production", "from a script")
	w.shows("#stage-production", "from a script")
	w.shows("#device-demo .badge", "behind")

	now := s.stage("production")
	r.Wanted, r.WantedName, r.Phase, r.Progress = now.State, now.Snapshot, "INSTALL", "unpacking demo-app"
	report(r)
	w.shows("#device-demo", "unpacking demo-app")
	w.shows("#device-demo .steps .now", "Install")
	w.sound("updating-wide")
	r.Phase, r.Progress = "IDLE", ""
	r.Failed = []protocol.Failure{{State: now.State, Snapshot: now.Snapshot, Reason: "health check 10-demo-app: connection refused", At: time.Now()}}
	report(r)
	w.shows("#device-demo .why", "health check 10-demo-app: connection refused")
	w.shows("#stage-production .count.bad", "1 failed")
	var once bool
	must(t, w.Script(w.ctx, `return window.loadedOnce === true`, &once))
	if !once {
		t.Error("the page was loaded anew instead of following")
	}
	w.sound("went-back-wide")
}

// TestMachineBecomesDevice follows a machine from its first word to the release
// that it should have, as an operator sees it; meanwhile apt computes what that
// is.
func TestMachineBecomesDevice(t *testing.T) {
	s := newServer(t)
	s.upload("demo-app", "1.0")
	s.promote("dev", "production", "start")
	s.product()
	o := narrow
	w := open(t, o)
	w.signIn(s.link("anna"), "anna")
	w.click(".sections li:nth-child(2) a")
	w.shows("main", "No device yet")
	w.sound("no-device-narrow")

	machine, err := rig.NewDevice("SN-0042")
	must(t, err)
	if _, err := machine.Enrol(t.Context(), s.Public, ""); err != nil || machine.Enrolled.Status != protocol.EnrolmentPending {
		t.Fatalf("a stranger is answered %+v, %v", machine.Enrolled, err)
	}
	w.shows("main .notice", "1 machine waits")
	w.click("main .notice a")
	w.shows("h1", "Waiting machines")
	w.click("tbody .button")
	w.shows("h1", "Accept machine SN-0042?")
	must(t, w.Type(w.ctx, "#name", "gw-1"))
	w.sound("accept-narrow")
	w.click(".act form button")
	w.shows("#notice", "gw-1 is a device now")
	w.shows("h2", "It has never reported")

	if _, err := machine.Enrol(t.Context(), s.Public, ""); err != nil || machine.Enrolled.Device != "gw-1" {
		t.Fatalf("the accepted machine is answered %+v, %v", machine.Enrolled, err)
	}
	r := running(s.stage("production"), "1.0")
	r.Health = &protocol.Health{OK: true}
	machine.Report = r
	_, err = machine.CheckIn(t.Context(), s.Public)
	must(t, err)
	w.shows("h2", "It runs what it should.")
	w.shows("#events", "is healthy")
	w.sound("device-narrow")

	w.click("main .more a")
	w.shows("h1", "Product demo")
	w.shows("#bill-named", "Named by the product: 1")
	w.sound("product-narrow")
	must(t, w.Go(w.ctx, s.Admin+"/pipelines/demo/devices?package="+url.QueryEscape("demo-app<<2")))
	w.shows("tbody", "gw-1")
	must(t, w.Go(w.ctx, s.Admin+"/pipelines/demo/devices?package="+url.QueryEscape("demo-app>>2")))
	w.shows("main", "No device fits.")
}

// TestRestart stops the server under an open page and starts it again: the
// stream of events does not keep it from ending, the session stays, and the
// page finds back by itself.
func TestRestart(t *testing.T) {
	s := newServer(t)
	s.upload("demo-app", "1.0")
	w := open(t, wide)
	w.signIn(s.link("anna"), "anna")
	w.shows("#connection", "Live")
	s.restart(func() { w.shows("#connection", "Reconnecting…") })
	s.upload("demo-app", "2.0")
	w.shows("#connection", "Live")
	w.shows("#stage-dev", "demo-app 2.0")
}

// TestOvertaken sends a review that somebody else overtook.
func TestOvertaken(t *testing.T) {
	s := newServer(t)
	s.upload("demo-app", "1.0")
	s.promote("dev", "production", "start")
	s.upload("demo-app", "2.0")
	s.promote("dev", "canary", "try version 2")

	o := narrow
	o.NoScript = true
	w := open(t, o)
	w.signIn(s.link("anna"), "anna")
	w.click("#production-review")
	w.shows("h1", "Promote to production")
	s.upload("demo-app", "3.0")
	overtaken := s.promote("dev", "production", "in a hurry")
	w.click("main form button")
	w.shows("h1", "Something moved meanwhile")
	w.shows("main", overtaken.ToSnapshot)
	w.sound("overtaken-narrow")
	if now := s.stage("production"); now.State != overtaken.ToState {
		t.Errorf("production offers %s though its review was overtaken", now.State)
	}
	w.click("main a.button")
	w.shows("#diff-downgraded", "1 downgraded")
}

// TestNotAllowed tries what nobody may: to act without a session, with that
// of a viewer, without a token, from another site, for another host.
func TestNotAllowed(t *testing.T) {
	s := newServer(t)
	s.upload("demo-app", "1.0")
	act := s.Admin + "/pipelines/demo/stages/canary/promote"
	jar, err := cookiejar.New(nil)
	must(t, err)
	browser := &http.Client{Jar: jar}
	send := func(form url.Values, header ...string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, act, strings.NewReader(form.Encode()))
		must(t, err)
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(header); i += 2 {
			if header[i] == "Host" {
				request.Host = header[i+1]
			}
			request.Header.Set(header[i], header[i+1])
		}
		answer, err := browser.Do(request)
		must(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		must(t, err)
		return answer.StatusCode, string(body)
	}
	form := url.Values{"snapshot": {"dev"}, "reviewed": {s.stage("dev").State}, "expect": {""}}
	if status, _ := send(form); status != http.StatusUnauthorized {
		t.Errorf("an anonymous POST is answered with %d, want 401", status)
	}
	if status, _ := send(form, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); status != http.StatusForbidden && status != http.StatusUnauthorized {
		t.Errorf("a POST of another site is answered with %d", status)
	}

	csrf := map[string]string{}
	for _, user := range []string{"vera", "anna"} {
		link, err := url.Parse(s.link(user))
		must(t, err)
		answer, err := browser.PostForm(s.Admin+"/login", url.Values{"token": {link.Query().Get("token")}})
		must(t, err)
		page, err := io.ReadAll(answer.Body)
		must(t, err, answer.Body.Close())
		_, rest, _ := strings.Cut(string(page), `name="csrf" value="`)
		csrf[user], _, _ = strings.Cut(rest, `"`)
		if csrf[user] == "" {
			t.Fatalf("no token for %s on the page that follows the login:\n%s", user, page)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'self'", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
		} {
			if !strings.HasPrefix(answer.Header.Get(name), want) {
				t.Errorf("header %s is %q", name, answer.Header.Get(name))
			}
		}
		if user == "vera" {
			form.Set("csrf", csrf["vera"])
			if status, page := send(form); status != http.StatusForbidden || !strings.Contains(page, "vera may look") {
				t.Errorf("a viewer's promotion is answered with %d", status)
			}
		}
	}
	if status, _ := send(form); status != http.StatusForbidden {
		t.Errorf("the token of another session is answered with %d, want 403", status)
	}
	form.Set("csrf", csrf["anna"])
	if status, _ := send(form, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site"); status != http.StatusForbidden {
		t.Errorf("a POST of another site with everything right is answered with %d, want 403", status)
	}
	if status, _ := send(form, "Host", "evil.example"); status != http.StatusMisdirectedRequest {
		t.Errorf("a POST for another host is answered with %d, want 421", status)
	}
	if canary := s.stage("canary"); canary.State != "" {
		t.Fatalf("canary offers %s: one of these was obeyed", canary.State)
	}
	if status, _ := send(form); status != http.StatusOK { // after its redirect
		t.Errorf("the same with everything right is answered with %d", status)
	}
	if canary := s.stage("canary"); canary.By != "anna" {
		t.Errorf("canary was moved by %q, want anna", canary.By)
	}
}
