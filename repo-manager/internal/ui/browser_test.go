package ui

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"aptfleet/test/browser/webdriver"
)

// gallery serves every story at /story/NAME, with the static files, and a
// stream of events that stays silent.
func gallery(t *testing.T) *httptest.Server {
	static := handler(t, newWorld())
	mux := http.NewServeMux()
	mux.Handle("/static/", static)
	mux.HandleFunc("/pipelines/{p}/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		<-r.Context().Done()
	})
	for _, s := range stories() {
		mux.HandleFunc("/story/"+s.name, func(w http.ResponseWriter, r *http.Request) {
			told := show(t, s)
			for key, values := range told.Header() {
				w.Header()[key] = values
			}
			// A browser that fetches the page again, as the script does on an event,
			// leaves the answer alone when it goes on to another page.
			if _, err := w.Write(told.Body.Bytes()); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Error(err)
			}
		})
	}
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server
}

// artefacts is where screenshots go, below the directory that
// APTFLEET_ARTIFACTS names; "" if nobody wants them.
func artefacts(t *testing.T) string {
	dir := os.Getenv("APTFLEET_ARTIFACTS")
	if dir == "" {
		return ""
	}
	dir = filepath.Join(dir, "ui")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, o webdriver.Options) (*webdriver.Browser, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	driver, err := webdriver.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	o.Profile = t.TempDir()
	t.Cleanup(func() {
		if err := driver.Stop(); err != nil {
			t.Error(err)
		}
	})
	browser, err := driver.Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := browser.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return browser, ctx
}

// must fails the test on the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestGallery looks at every story in chromium, wide and light, narrow and
// dark: nothing overflows sideways, nothing is reported on the console, every
// text stands out from what is behind it.
func TestGallery(t *testing.T) {
	server := gallery(t)
	dir := artefacts(t)
	for _, look := range []struct {
		name    string
		options webdriver.Options
	}{
		{"wide", webdriver.Options{Width: 1280, Height: 900}},
		{"narrow-dark", webdriver.Options{Width: 390, Height: 844, Dark: true}},
	} {
		t.Run(look.name, func(t *testing.T) {
			browser, ctx := open(t, look.options)
			for _, s := range stories() {
				must(t, browser.Go(ctx, server.URL+"/story/"+s.name))
				quiet(t, ctx, browser, s.name)
				var poor []string
				must(t, browser.Script(ctx, contrastScript, &poor))
				if len(poor) > 0 {
					t.Errorf("%s has text of too little contrast: %s", s.name, strings.Join(poor, "\n"))
				}
				if dir != "" {
					must(t, browser.SaveScreenshot(ctx, filepath.Join(dir, s.name+"-"+look.name+".png")))
				}
			}
		})
	}
}

// quiet checks that the page is no wider than the window and that the console
// has nothing to say: no failed load, no violation of the policy, no error.
func quiet(t *testing.T, ctx context.Context, browser *webdriver.Browser, page string) {
	t.Helper()
	var wide []string
	must(t, browser.Script(ctx, `
		const limit = document.documentElement.clientWidth;
		if (document.documentElement.scrollWidth <= limit) return [];
		return [...document.querySelectorAll("*")].filter(n => n.getBoundingClientRect().right > limit + 1).map(n => n.outerHTML.slice(0, 120));`, &wide))
	if len(wide) > 0 {
		t.Errorf("%s is wider than the window: %s", page, strings.Join(wide, "\n"))
	}
	lines, err := browser.Console(ctx)
	must(t, err)
	if len(lines) > 0 {
		t.Errorf("%s: the console says %s", page, strings.Join(lines, "\n"))
	}
}

// serve serves a world as repo-manager would.
func serve(t *testing.T, w *world) string {
	ctx, cancel := context.WithCancel(context.Background())
	server := httptest.NewUnstartedServer(handler(t, w))
	server.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	server.Start()
	t.Cleanup(server.Close)
	t.Cleanup(cancel) // before Close, which waits for streams
	return server.URL
}

// signIn opens a one-time link and presses its button.
func signIn(t *testing.T, ctx context.Context, browser *webdriver.Browser, url string) {
	t.Helper()
	must(t,
		browser.Go(ctx, url+"/login?token=tok-anna"),
		browser.Click(ctx, "main button"),
		browser.WaitText(ctx, ".who", "Signed in as anna"))
}

// TestPromoteWithoutScript goes the whole way of a release manager in a
// narrow browser that runs no script.
func TestPromoteWithoutScript(t *testing.T) {
	w := newWorld()
	pending(w)
	url := serve(t, w)
	browser, ctx := open(t, webdriver.Options{Width: 390, Height: 844, NoScript: true})
	signIn(t, ctx, browser, url)
	cookies, err := browser.Cookies(ctx)
	must(t, err)
	if len(cookies) != 1 || !cookies[0].HTTPOnly || cookies[0].SameSite != "Lax" {
		t.Errorf("cookies %+v, want one that is HttpOnly and SameSite=Lax", cookies)
	}
	if text, err := browser.Text(ctx, "#connection"); err != nil || text != "" {
		t.Errorf("the page says it is %q (%v) though no script may run", text, err)
	}

	must(t,
		browser.Click(ctx, "#production-review"),
		browser.WaitText(ctx, "h1", "Promote to production"),
		browser.Type(ctx, "#reason", "worked on canary for a day"),
		browser.Click(ctx, "main form button"),
		browser.WaitText(ctx, "#notice", "production now offers 20261120T104040Z"),
		browser.WaitText(ctx, "#moves li", "worked on canary for a day"))
	stages, err := w.Stages(ctx, "demo")
	must(t, err)
	if s := stages[2]; s.Offer != stages[1].Offer || s.By != "anna" || s.Reason != "worked on canary for a day" {
		t.Errorf("production offers %v by %s because %q", s.Offer, s.By, s.Reason)
	}

	// Reloading the answer of a form must not send it again.
	before := len(w.moves)
	here, err := browser.URL(ctx)
	must(t, err, browser.Go(ctx, here))
	if len(w.moves) != before {
		t.Error("loading the page after the promotion promoted again")
	}

	must(t,
		browser.Click(ctx, "#notice a"),
		browser.WaitText(ctx, "h1", "Undo the last move of production"),
		browser.Click(ctx, "main form button"),
		browser.WaitText(ctx, "#notice", "production now offers 20261120T101800Z"),
		browser.Click(ctx, ".who button"),
		browser.WaitText(ctx, "h1", "Please sign in"),
		browser.Go(ctx, url+"/pipelines/demo"),
		browser.WaitText(ctx, "h1", "Please sign in"),
		browser.Go(ctx, url+"/login?token=tok-anna"),
		browser.WaitText(ctx, "h1", "This link does not work any more"))
}

// TestLive watches the pipeline page while others act: it follows by itself
// and keeps what the person opened and where they are.
func TestLive(t *testing.T) {
	w := newWorld()
	pending(w)
	for i := range 20 { // so that there is something to unfold
		w.publish("demo", "ci", fmt.Sprintf("demo-tools 0.3.%d (amd64) into apps", i), with("apps/demo-app=2.1~rc1", "apps/demo-device=1", fmt.Sprintf("apps/demo-tools=0.3.%d", i))...)
	}
	url := serve(t, w)
	browser, ctx := open(t, webdriver.Options{Width: 1280, Height: 900})
	signIn(t, ctx, browser, url)
	must(t,
		browser.WaitText(ctx, "#connection", "Live"),
		browser.Click(ctx, "#older summary"),
		browser.Script(ctx, `window.loadedOnce = true; document.getElementById("canary-review").focus();`, nil))

	// Times of many ages, outside of what a live update replaces.
	ages := []time.Duration{-time.Minute, 2 * time.Second, 14 * time.Second, 55 * time.Second, 61 * time.Second, 59*time.Minute + 40*time.Second, time.Hour, 23 * time.Hour, 24 * time.Hour, 50 * time.Hour}
	seconds := make([]float64, len(ages))
	for i, age := range ages {
		seconds[i] = age.Seconds()
	}
	must(t, browser.Script(ctx, `
		for (const age of arguments[0]) {
			const e = document.createElement("time");
			e.className = "probe";
			e.dateTime = new Date(Date.now() - age * 1000).toISOString();
			document.querySelector("header").append(e);
		}`, nil, seconds))

	w.promoted("demo", "canary", "production", "bert", "from the command line")
	must(t,
		browser.WaitText(ctx, "#moves li", "production was promoted to 20261120T104040Z"),
		browser.WaitText(ctx, "#stage-production", "bert"))
	var kept struct {
		Loaded, Open  bool
		Focus, Spoken string
	}
	must(t, browser.Script(ctx, `return {
		loaded: window.loadedOnce === true,
		open: document.getElementById("older").open,
		focus: document.activeElement.id,
		spoken: document.getElementById("announce").textContent,
	};`, &kept))
	if !kept.Loaded || !kept.Open || kept.Focus != "canary-review" || !strings.Contains(kept.Spoken, "production was promoted") {
		t.Errorf("after a live update: %+v", kept)
	}

	r := w.report("demo", "production", "1.0")
	r.Phase, r.Progress = "DOWNLOAD", "12 of 40 packages"
	w.device("demo", "demo", r)
	must(t, browser.WaitText(ctx, "#device-demo", "12 of 40 packages"))

	// Script words ages as the server does: it has ticked once when none is empty.
	must(t, webdriver.Wait(ctx, func() (bool, string, error) {
		var told []string
		err := browser.Script(ctx, `return [...document.querySelectorAll(".probe")].map(e => e.textContent)`, &told)
		return len(told) == len(ages) && !slices.Contains(told, ""), strings.Join(told, ", "), err
	}))
	var told []string
	must(t, browser.Script(ctx, `return [...document.querySelectorAll(".probe")].map(e => e.textContent)`, &told))
	for i, age := range ages {
		if later := ago(age + 10*time.Second); told[i] != ago(age) && told[i] != later { // it ticked a few seconds later
			t.Errorf("script says %q of an age of %s, the server %q", told[i], age, ago(age))
		}
	}
	quiet(t, ctx, browser, "the live page")
}

// TestMovedMeanwhile reviews a promotion that somebody else overtakes: the
// page says so at once where script runs, and the server refuses in any case.
func TestMovedMeanwhile(t *testing.T) {
	w := newWorld()
	pending(w)
	url := serve(t, w)
	browser, ctx := open(t, webdriver.Options{Width: 390, Height: 844})
	signIn(t, ctx, browser, url)
	must(t,
		browser.Click(ctx, "#canary-review"),
		browser.WaitText(ctx, "#connection", "Live"),
		browser.Type(ctx, "#reason", "half a sen"))
	w.publish("demo", "ci", "demo-app 2.1 (amd64) into apps", with("apps/demo-app=2.1")...)
	must(t, browser.WaitText(ctx, "#stale", "Something moved since you opened this page"))
	var typed string
	must(t, browser.Script(ctx, `return document.getElementById("reason").value`, &typed))
	if typed != "half a sen" {
		t.Errorf("the reason under way became %q", typed)
	}
	must(t,
		browser.Click(ctx, "main form button"),
		browser.WaitText(ctx, "h1", "Something moved meanwhile"))
	stages, err := w.Stages(ctx, "demo")
	must(t, err)
	if stages[1].By != "bert" {
		t.Errorf("canary was moved by %s", stages[1].By)
	}
	must(t,
		browser.Click(ctx, "main a.button"),
		browser.WaitText(ctx, "h1", "Promote to canary"),
		browser.WaitText(ctx, "#diff-upgraded", "1 upgraded"))
	must(t, browser.Script(ctx, `return document.getElementById("reason").value`, &typed))
	if typed != "half a sen" {
		t.Errorf("the fresh review begins with the reason %q", typed)
	}
	must(t,
		browser.Click(ctx, "main form button"),
		browser.WaitText(ctx, "#notice", "canary now offers"))
}

// TestAccessible asks the browser what assistive technology is told.
func TestAccessible(t *testing.T) {
	server := gallery(t)
	browser, ctx := open(t, webdriver.Options{Width: 1280, Height: 900})
	for _, c := range []struct{ story, css, role, label string }{
		{"pending", "header", "banner", ""},
		{"pending", "nav", "navigation", "Where you are"},
		{"pending", "main", "main", ""},
		{"pending", "h1", "heading", "Pipeline demo"},
		{"pending", "#board", "list", ""},
		{"pending", "section:has(#board)", "region", "Stages"},
		{"pending", "#production-review", "link", "Review promotion to production"},
		{"pending", "#stage-canary .stage-links a", "link", "History of canary"},
		{"pending", "#stage-canary .contents", "list", "What canary offers"},
		{"pending", ".who button", "button", "Sign out"},
		{"pending", ".sections", "navigation", "Parts of the pipeline"},
		{"devices", ".states", "navigation", "States"},
		{"devices", ".search", "form", "Search devices"},
		{"devices", "#q", "searchbox", "Name or serial number"},
		{"devices", "#product", "combobox", "Product"},
		{"devices", "#package", "textbox", "Runs a package"},
		{"devices", "table", "table", "Devices of pipeline demo, worst first"},
		{"devices", "#device-gw-ill th", "rowheader", ""},
		{"devices-second-page", "main section nav", "navigation", "Pages of the list"},
		{"device", "#config table", "table", "What gw-02 is configured with"},
		{"device", ".acts li:last-child a", "link", "Retire…"},
		{"act-hold", "#for", "combobox", "How long"},
		{"act-hold-without-reason", ".act [role=alert]", "alert", ""},
		{"act-pin", "#snapshot", "combobox", "Snapshot (an id or the beginning of one, or a stage for what it offers now)"},
		{"act-resolve", "fieldset", "group", "The machine that is gw-copied"},
		{"accept", "#product", "combobox", "Product (for good)"},
		{"accept", "fieldset", "group", "Modules that it has"},
		{"accept", "#module-1", "checkbox", "lte of sensor"},
		{"waiting", "tbody .button", "link", "Decide… about SN-0100"},
		{"product", "#bom table", "table", "Named by the product"},
		{"on-trial", ".steps", "list", "Progress of the update"},
		{"review", "#reason", "textbox", "Why (optional; stays in the history)"},
		{"review", ".act button", "button", "Promote to production"},
		{"review", "table", "table", "Packages that are upgraded"},
		{"review", "tbody th", "rowheader", "demo-app"},
		{"review", "thead th", "columnheader", "Package"},
		{"change-under-way", "progress", "progressbar", "Update mirror debian"},
		{"after-promotion", "#notice", "status", ""},
		{"sign-in", "main button", "button", "Sign in as anna"},
	} {
		must(t, browser.Go(ctx, server.URL+"/story/"+c.story))
		role, err := browser.Role(ctx, c.css)
		must(t, err)
		label, err := browser.Label(ctx, c.css)
		must(t, err)
		if role != c.role || c.label != "" && label != c.label {
			t.Errorf("%s: %s is a %q called %q, want %q called %q", c.story, c.css, role, label, c.role, c.label)
		}
	}

	// The keyboard reaches the content first, and then sees where it is.
	must(t, browser.Go(ctx, server.URL+"/story/pending"), browser.Type(ctx, "body", "\ue004"))
	var focused struct {
		Text  string
		Width string
	}
	must(t, browser.Script(ctx, `const e = document.activeElement; return {text: e.textContent, width: getComputedStyle(e).outlineWidth};`, &focused))
	if focused.Text != "Skip to content" || focused.Width != "3px" {
		t.Errorf("the first Tab leads to %+v, want the visible link to the content", focused)
	}
}

// TestOperateWithoutScript goes the whole way of an operator in a narrow
// browser that runs no script: a machine is accepted, found, held, released,
// and its copy is told apart.
func TestOperateWithoutScript(t *testing.T) {
	w := newWorld()
	waiting(w)
	url := serve(t, w)
	browser, ctx := open(t, webdriver.Options{Width: 390, Height: 844, NoScript: true})
	signIn(t, ctx, browser, url)
	must(t,
		browser.Click(ctx, ".sections li:nth-child(2) a"),
		browser.WaitText(ctx, "h1", "Devices"),
		browser.Click(ctx, "main .notice a"),
		browser.WaitText(ctx, "h1", "Waiting machines"),
		browser.Click(ctx, "tbody tr .button"),
		browser.WaitText(ctx, "h1", "Accept machine SN-0100?"),
		browser.Click(ctx, "#module-1"),
		browser.Type(ctx, "#name", "hall-7"),
		browser.Click(ctx, ".act form button"),
		browser.WaitText(ctx, "#notice", "hall-7 is a device now."),
		browser.WaitText(ctx, "main", "SN-0100"))
	d, _, err := w.machines.Show(ctx, "hall-7")
	must(t, err)
	if d.Stage != "production" || d.Product != "sensor" || !slices.Equal(d.Modules, []string{"lte"}) || len(w.machines.Pending(ctx)) != 1 {
		t.Errorf("the machine became %+v", d.Device)
	}

	must(t,
		browser.Click(ctx, ".crumbs li:nth-child(2) a"),
		browser.Type(ctx, "#q", "hall"),
		browser.Click(ctx, ".search button"),
		browser.WaitText(ctx, "main", "1 device"),
		browser.Click(ctx, "tbody th a"),
		browser.WaitText(ctx, "h1", "Device hall-7"),
		browser.Click(ctx, ".acts li:first-child a"),
		browser.WaitText(ctx, "h1", "Hold hall-7"),
		browser.Type(ctx, "#reason", "the hall is painted"),
		browser.Click(ctx, ".act form button"),
		browser.WaitText(ctx, "#notice", "hall-7 is held."),
		browser.WaitText(ctx, ".device .hold", "by anna until it is taken off: the hall is painted"),
		browser.Click(ctx, ".acts li:nth-child(2) a"),
		browser.WaitText(ctx, "h1", "Take the hold off hall-7"),
		browser.Click(ctx, ".act form button"),
		browser.WaitText(ctx, "#notice", "not held any more"),

		browser.Go(ctx, url+"/pipelines/demo/devices/gw-copied"),
		browser.Click(ctx, ".acts li:first-child a"),
		browser.WaitText(ctx, "h1", "Which machine is gw-copied?"),
		browser.Click(ctx, "#keep-0"),
		browser.Click(ctx, ".act form button"),
		browser.WaitText(ctx, "#notice", "One machine is gw-copied again."))
	if d, _, err = w.machines.Show(ctx, "gw-copied"); err != nil || d.Clone != nil || d.Machine != hashOf("machine of gw-copied") || len(d.Banned) != 1 {
		t.Errorf("gw-copied is machine %s, clone %+v, banned %v, %v", d.Machine, d.Clone, d.Banned, err)
	}
	quiet(t, ctx, browser, "the operator's last page")
}

// TestDevicesLive keeps the list open while a device reports and somebody else
// holds another; a review of that one says at once that it is out of date.
func TestDevicesLive(t *testing.T) {
	w := newWorld()
	lines(w)
	url := serve(t, w)
	browser, ctx := open(t, webdriver.Options{Width: 1280, Height: 900})
	signIn(t, ctx, browser, url)
	must(t,
		browser.Go(ctx, url+"/pipelines/demo/devices"),
		browser.WaitText(ctx, "#connection", "Live"),
		browser.Script(ctx, `window.loadedOnce = true; document.getElementById("q").value = "half a na";`, nil))
	r := *w.report("demo", "canary", "2.0")
	w.machines.says("gw-lab", r)
	must(t,
		browser.WaitText(ctx, "#device-gw-lab .badge", "ok"),
		browser.WaitText(ctx, ".states", "4 ok"))
	var kept struct {
		Loaded bool
		Typed  string
	}
	must(t, browser.Script(ctx, `return {loaded: window.loadedOnce === true, typed: document.getElementById("q").value};`, &kept))
	if !kept.Loaded || kept.Typed != "half a na" {
		t.Errorf("after a live update: %+v", kept)
	}
	must(t,
		browser.Go(ctx, url+"/pipelines/demo/devices/gw-01/retire"),
		browser.WaitText(ctx, "#connection", "Live"),
		browser.Type(ctx, "#reason", "half a sen"))
	must1(w.machines.Hold(ctx, otto, "gw-01", "wait for me", time.Time{}))
	must(t,
		browser.WaitText(ctx, "#stale", "changed since you opened this page"),
		browser.Click(ctx, ".act form button"),
		browser.WaitText(ctx, "h1", "Something moved meanwhile"),
		browser.Click(ctx, "main a.button"),
		browser.WaitText(ctx, ".hold", "wait for me"))
	if d, _, err := w.machines.Show(ctx, "gw-01"); err != nil || d.Retired != nil {
		t.Errorf("gw-01 was retired although it had changed: %v", err)
	}
}

// contrastScript lists the texts whose contrast is below 4.5:1, by the formulas
// of WCAG 2.1 (relative luminance, contrast ratio).
const contrastScript = `
	const parse = (c) => c.match(/[\d.]+/g).map(Number);
	const luminance = ([r, g, b]) => {
		const [R, G, B] = [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
		return 0.2126 * R + 0.7152 * G + 0.0722 * B;
	};
	const ground = (e) => {
		for (; e; e = e.parentElement) {
			const c = parse(getComputedStyle(e).backgroundColor);
			if (c.length < 4 || c[3] === 1) return c;
		}
		return [255, 255, 255];
	};
	const poor = [];
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	while (walker.nextNode()) {
		const e = walker.currentNode.parentElement;
		if (!walker.currentNode.textContent.trim() || e.closest(".unseen, [hidden], script")) continue;
		const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))];
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < 4.5) poor.push(ratio.toFixed(2) + ": " + walker.currentNode.textContent.trim());
	}
	return poor;`
