package ui

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/product"
)

// post sends a filled form as a user.
func post(h http.Handler, user, path string, form url.Values) *httptest.ResponseRecorder {
	form.Set("csrf", "csrf-of-session-of-"+user)
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.AddCookie(&http.Cookie{Name: access.CookieName, Value: "session-of-" + user})
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

// TestActsOnDevices sends every form and looks at what became of the device,
// and at the page to which the answer leads.
func TestActsOnDevices(t *testing.T) {
	w := newWorld()
	lines(w)
	w.signIn("otto")
	h := handler(t, w)
	show := func(name string) fleet.View {
		d, _, err := w.machines.Show(t.Context(), name)
		must(t, err)
		return d
	}
	production := w.stages["demo"][2].Offer.Snapshot
	for _, c := range []struct {
		device, act string
		form        url.Values
		is          func(d fleet.View) bool
		says        string
	}{
		{"gw-01", "hold", url.Values{"reason": {"a fair"}, "for": {"24h"}}, func(d fleet.View) bool {
			return d.Hold.By == "otto" && d.Hold.Until.Equal(w.clock().Add(24*time.Hour)) && d.State == protocol.DeviceHeld
		}, "gw-01 is held."},
		{"gw-01", "unhold", url.Values{}, func(d fleet.View) bool { return d.Hold == nil }, "gw-01 is not held any more."},
		{"gw-01", "pin", url.Values{"snapshot": {"canary"}, "reason": {"measure"}}, func(d fleet.View) bool {
			return d.Pin.Snapshot == w.stages["demo"][1].Offer.Snapshot && d.State == protocol.DeviceBehind
		}, "gw-01 is pinned to 2026"},
		{"gw-01", "pin", url.Values{"snapshot": {production}, "reason": {"measure"}}, func(d fleet.View) bool { return d.Pin.Snapshot == production }, "is pinned to " + production},
		{"gw-01", "unpin", url.Values{}, func(d fleet.View) bool { return d.Pin == nil }, "gw-01 follows its stage again."},
		{"gw-01", "assign", url.Values{"stage": {"canary"}}, func(d fleet.View) bool { return d.Stage == "canary" }, "gw-01 follows stage canary."},
		{"gw-copied", "resolve", url.Values{"keep": {hashOf("a second board")}}, func(d fleet.View) bool {
			return d.Clone == nil && d.Machine == hashOf("a second board")
		}, "One machine is gw-copied again."},
		{"gw-01", "retire", url.Values{"reason": {"lost"}}, func(d fleet.View) bool { return d.Retired.By == "otto" }, "gw-01 is retired."},
	} {
		path := "/pipelines/demo/devices/" + c.device
		c.form.Set("expect", standing(show(c.device)))
		rec := post(h, "otto", path+"/"+c.act, c.form)
		if rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != path+"?done="+c.act {
			t.Errorf("%s: %d, leads to %q\n%s", c.act, rec.Code, rec.Header().Get("Location"), rec.Body)
			continue
		}
		if d := show(c.device); !c.is(d) {
			t.Errorf("%s made it %+v", c.act, d)
		}
		if again := post(h, "otto", path+"/"+c.act, c.form); again.Code != http.StatusConflict && c.act != "resolve" && again.Code != http.StatusUnprocessableEntity {
			t.Errorf("%s once more, as it was reviewed, is answered with %d", c.act, again.Code)
		}
		w.signIn("vera")
		if page := get(h, rec.Header().Get("Location")); !strings.Contains(page.Body.String(), c.says) {
			t.Errorf("after %s the page does not say %q", c.act, c.says)
		}
	}
}

// TestBadForms: what cannot be done is shown with the form, and does nothing.
func TestBadForms(t *testing.T) {
	w := newWorld()
	lines(w)
	w.signIn("otto")
	h := handler(t, w)
	before, _, err := w.machines.Show(t.Context(), "gw-01")
	must(t, err)
	for _, c := range []struct {
		act    string
		form   url.Values
		status int
		says   string
	}{
		{"hold", url.Values{"reason": {" "}}, 400, "needs a reason"},
		{"hold", url.Values{"reason": {"x"}, "for": {"-1h"}}, 400, "that is past"},
		{"hold", url.Values{"reason": {"x"}, "for": {"a while"}}, 400, "a while"},
		{"hold", url.Values{"reason": {strings.Repeat("x", 1001)}}, 400, "at most 1000"},
		{"pin", url.Values{"reason": {"x"}}, 404, "Cannot find"},
		{"pin", url.Values{"reason": {"x"}, "snapshot": {"dev"}}, 400, "it is no snapshot yet"},
		{"assign", url.Values{"stage": {"nightly"}}, 404, "nightly"},
		{"assign", url.Values{}, 404, "Cannot find stage"},
		{"retire", url.Values{}, 400, "needs a reason"},
		{"resolve", url.Values{"keep": {"x"}}, 422, "one machine has the key"},
	} {
		c.form.Set("expect", standing(before))
		rec := post(h, "otto", "/pipelines/demo/devices/gw-01/"+c.act, c.form)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.says) {
			t.Errorf("%s %v: %d, want %d and %q\n%s", c.act, c.form, rec.Code, c.status, c.says, rec.Body)
		}
		sound(t, rec.Body.String())
	}
	if after, _, err := w.machines.Show(t.Context(), "gw-01"); err != nil || standing(after) != standing(before) {
		t.Errorf("a refused form made it %+v", after)
	}
}

// TestStandingTellsActsApart: whatever an act changes, a review of before is
// out of date; what the device says changes nothing.
func TestStandingTellsActsApart(t *testing.T) {
	w := newWorld()
	lines(w)
	t.Cleanup(w.machines.close)
	show := func() string {
		d, _, err := w.machines.Show(t.Context(), "gw-01")
		must(t, err)
		return standing(d)
	}
	seen := []string{show()}
	r := *w.report("demo", "canary", "2.0")
	w.machines.says("gw-01", r)
	if show() != seen[0] {
		t.Error("a report makes a review out of date")
	}
	for _, act := range []func() error{
		func() error { return second(w.machines.Hold(t.Context(), otto, "gw-01", "a", time.Time{})) },
		func() error { return second(w.machines.Hold(t.Context(), otto, "gw-01", "b", time.Time{})) },
		func() error {
			return second(w.machines.Hold(t.Context(), otto, "gw-01", "b", w.clock().Add(time.Hour)))
		},
		func() error { return second(w.machines.Assign(t.Context(), otto, "gw-01", "canary")) },
		func() error {
			return second(w.machines.Pin(t.Context(), otto, "gw-01", w.stages["demo"][2].Offer.Snapshot, "a"))
		},
		func() error { w.machines.speaks("gw-01", "another", "10.0.0.1", r); return nil },
		func() error { return second(w.machines.Retire(t.Context(), otto, "gw-01", "a")) },
	} {
		must(t, act())
		if is := show(); slices.Contains(seen, is) {
			t.Errorf("after act %d a review of before passes for one of now", len(seen))
		} else {
			seen = append(seen, is)
		}
	}
}

// TestDecideAboutMachines accepts, replaces and refuses machines that wait, and
// tries what a scoped operator may not.
func TestDecideAboutMachines(t *testing.T) {
	w := newWorld()
	waiting(w)
	w.products = append(w.products, product.Product{Pipeline: "demo", Name: "panel", Architecture: "amd64"})
	w.create("kiosk", "dev")
	w.machines.put(fleet.Device{Name: "k1", Pipeline: "kiosk", Stage: "dev", Serial: "K-1"})
	keys := map[string]string{}
	for _, serial := range []string{"SN-0200", "SN-0300", "K-1"} {
		keys[serial] = w.machines.waits(serial, "")
	}
	for _, user := range []string{"otto", "anna", "vera"} {
		w.signIn(user)
	}
	h := handler(t, w)
	form := func(serial string, more url.Values) (path string, _ url.Values) {
		for _, e := range w.machines.Pending(t.Context()) {
			if e.Serial == serial {
				more.Set("expect", asks(e))
				return "/pipelines/demo/enrolments/" + e.Key + "/", more
			}
		}
		t.Fatalf("%s does not wait", serial)
		return "", nil
	}
	send := func(user, act, serial string, more url.Values) *httptest.ResponseRecorder {
		path, filled := form(serial, more)
		return post(h, user, path+act, filled)
	}
	sensor := func() url.Values { return url.Values{"product": {"sensor"}, "stage": {"canary"}} }

	for name, c := range map[string]struct {
		rec    *httptest.ResponseRecorder
		status int
	}{
		"an operator of sensors accepts a panel":          {send("otto", "accept", "SN-0200", url.Values{"product": {"panel"}, "stage": {"canary"}}), 403},
		"an operator of sensors accepts what has no name": {send("otto", "accept", "SN-0200", url.Values{"stage": {"canary"}}), 403},
		"a viewer accepts":                                {send("vera", "accept", "SN-0200", sensor()), 403},
		"a viewer refuses":                                {send("vera", "refuse", "SN-0200", url.Values{"reason": {"x"}}), 403},
		"a device of another pipeline":                    {send("anna", "accept", "K-1", sensor()), 403},
		"a stage that is not there":                       {send("otto", "accept", "SN-0200", url.Values{"product": {"sensor"}, "stage": {"nightly"}}), 404},
		"a name that is taken":                            {send("otto", "accept", "SN-0200", url.Values{"product": {"sensor"}, "stage": {"canary"}, "name": {"gw-01"}}), 409},
		"no reason to refuse":                             {send("otto", "refuse", "SN-0200", url.Values{}), 400},
		"another machine than was looked at":              {post(h, "otto", "/pipelines/demo/enrolments/"+keys["SN-0200"]+"/accept", url.Values{"product": {"sensor"}, "stage": {"canary"}, "expect": {"x"}}), 409},
		"by a prefix of its key":                          {post(h, "otto", "/pipelines/demo/enrolments/"+keys["SN-0200"][:8]+"/accept", sensor()), 404},
		"a machine that nobody has seen":                  {post(h, "otto", "/pipelines/demo/enrolments/ffff/refuse", url.Values{"reason": {"x"}}), 404},
		"a module that the product has not":               {send("otto", "accept", "SN-0200", url.Values{"product": {"sensor"}, "stage": {"canary"}, "module": {"sensor/wings"}}), 404},
		"a product that the machine is not":               {send("anna", "accept", "SN-0100", url.Values{"product": {"panel"}, "stage": {"canary"}}), 303},
		"an operator of sensors replaces one":             {send("otto", "accept", "SN-0001", url.Values{}), 303},
		"one is refused":                                  {send("otto", "refuse", "SN-0300", url.Values{"reason": {"nobody knows it"}}), 303},
	} {
		if c.rec.Code != c.status {
			t.Errorf("%s: %d, want %d\n%s", name, c.rec.Code, c.status, c.rec.Body)
		}
	}
	d, _, err := w.machines.Show(t.Context(), "gw-01")
	must(t, err)
	if d.KeyID() != strangerKey("SN-0001") || d.Stage != "production" || !slices.Equal(d.Modules, []string{"lte"}) {
		t.Errorf("the device with a new key is %+v", d.Device)
	}
	var left []string
	for _, e := range w.machines.Pending(t.Context()) {
		left = append(left, e.Serial)
	}
	slices.Sort(left)
	if !slices.Equal(left, []string{"K-1", "SN-0200"}) {
		t.Errorf("%v still wait", left)
	}
	if rec := send("otto", "accept", "SN-0200", url.Values{"product": {"sensor"}, "stage": {"canary"}, "module": {"sensor/gps", "sensor/lte"}}); rec.Code != 303 || rec.Header().Get("Location") != "/pipelines/demo/devices/SN-0200?done=accepted" {
		t.Errorf("accepted: %d %s", rec.Code, rec.Header().Get("Location"))
	}
}

// TestDownloads: a bill of materials is sent as its bytes, and as CycloneDX.
func TestDownloads(t *testing.T) {
	w := newWorld()
	pending(w)
	w.signIn("vera")
	h := handler(t, w)
	o := w.stages["demo"][1].Offer
	b, err := w.BOM(t.Context(), "demo", "sensor", []string{"lte"}, o.State)
	must(t, err)
	rec := get(h, "/pipelines/demo/products/sensor/bom.txt?ref=canary&module=lte")
	if rec.Code != 200 || rec.Body.String() != string(b.Text) || rec.Header().Get("Content-Disposition") != `attachment; filename="sensor-`+o.Snapshot+`.bom"` {
		t.Errorf("as text: %d %v\n%s", rec.Code, rec.Header(), rec.Body)
	}
	rec = get(h, "/pipelines/demo/products/sensor/bom.cdx.json?ref="+o.State.String())
	if rec.Code != 200 || !strings.Contains(rec.Body.String(), `"CycloneDX"`) || !strings.HasPrefix(rec.Header().Get("Content-Type"), "application/vnd.cyclonedx+json") {
		t.Errorf("as CycloneDX: %d %v", rec.Code, rec.Header())
	}
	w.verdicts[o.State] = &product.Verdict{Summary: "demo-app needs demo-codec"}
	if rec := get(h, "/pipelines/demo/products/sensor/bom.txt?ref=canary"); rec.Code != http.StatusUnprocessableEntity || !strings.Contains(rec.Body.String(), "demo-codec") {
		t.Errorf("of what cannot be installed: %d", rec.Code)
	}
	if rec := get(h, "/pipelines/demo/products/sensor/bom.txt?ref=nowhere"); rec.Code != http.StatusNotFound {
		t.Errorf("of what is not there: %d", rec.Code)
	}
}
