package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
)

// What devices are answered: a status and a code that they tell apart, in JSON
// whatever they accept.
func TestDeviceAnswers(t *testing.T) {
	var logs bytes.Buffer
	w := &world{}
	h := NewDevice(w.config(&logs))
	signed := func(key string) string { return `{"payload":"e30=","key":"` + key + `","signature":""}` }
	for _, c := range []struct {
		path, body string
		status     int
		want       string
	}{
		{checkInsPath, signed("unchanged"), 204, ""},
		{checkInsPath, signed("changed"), 200, `"send_report":true`},
		{checkInsPath, signed("replayed"), 409, `"code":"replay","text":"it came before","session":7`},
		{checkInsPath, signed("retired"), 403, `"code":"retired"`},
		{checkInsPath, signed("bad_signature"), 401, `"code":"bad_signature"`},
		{checkInsPath, signed("unknown_device"), 401, `"code":"unknown_device"`},
		{checkInsPath, signed("unsupported"), 400, `"code":"unsupported"`},
		{checkInsPath, "", 400, `"code":"invalid"`},
		{checkInsPath, "{", 400, `"code":"invalid"`},
		{checkInsPath, `[]`, 400, `"code":"invalid"`},
		{checkInsPath, signed("x") + "{}", 400, `"code":"invalid"`},
		{checkInsPath, `{"payload":"%%%","key":"x"}`, 400, `"code":"invalid"`}, // no base64
		{checkInsPath, `{"payload":"` + strings.Repeat("A", protocol.MaxCheckIn) + `"}`, 413, `"code":"too-large"`},
		{enrolmentsPath, signed("known"), 200, `"status":"accepted","device":"bench"`},
		{enrolmentsPath, signed("unknown"), 202, `"status":"pending"`},
		{enrolmentsPath, signed("refused"), 403, `"code":"refused"`},
		{enrolmentsPath, strings.Repeat("[", 100_000), 400, `"code":"invalid"`},
		{enrolmentsPath, `{"payload":"` + strings.Repeat("A", protocol.MaxCheckIn) + `"}`, 413, `"code":"too-large"`},
	} {
		rec := ask(t, h, "POST", c.path, c.body)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.want) {
			t.Errorf("%s %.60s: %d %s, want %d with %s", c.path, c.body, rec.Code, rec.Body, c.status, c.want)
		}
		if rec.Code >= 400 && !json.Valid(rec.Body.Bytes()) {
			t.Errorf("%s %.60s: the error is no JSON: %s", c.path, c.body, rec.Body)
		}
	}
	if w.address != "192.0.2.1" { // that of httptest
		t.Errorf("the device is at %q", w.address)
	}
	if rec := ask(t, h, "GET", "/api/v1/pipelines", "", bearer("admin")); rec.Code != 404 {
		t.Errorf("the public listener serves the API: %d", rec.Code)
	}
	if rec := ask(t, h, "POST", "/device/v1/report", "{}", bearer("device")); rec.Code != 404 {
		t.Errorf("a report by token is answered with %d", rec.Code)
	}
}

// Ten thousand lines a second about nothing would be no log.
func TestUnchangedCheckInsAreNotLogged(t *testing.T) {
	var logs bytes.Buffer
	h := NewDevice((&world{}).config(&logs))
	ask(t, h, "POST", checkInsPath, `{"key":"unchanged"}`)
	if logs.Len() > 0 {
		t.Errorf("the log has %s", logs.String())
	}
	ask(t, h, "POST", checkInsPath, `{"key":"replayed"}`)
	if !strings.Contains(logs.String(), "status=409") {
		t.Errorf("the log has %q", logs.String())
	}
}

func TestDeviceFilters(t *testing.T) {
	h, w, _ := newAPI(t)
	rec := ask(t, h, "GET", "/api/v1/devices?pipeline=demo&product=gw&stage=dev&revision=r1&state=ok&snapshot=2026&package=openssl%3C%3C3", "", bearer("viewer"))
	want := protocol.DeviceFilter{Pipeline: "demo", Product: "gw", Stage: "dev", Revision: "r1", State: "ok", Snapshot: "2026", Package: "openssl<<3"}
	if rec.Code != 200 || strings.TrimSpace(rec.Body.String()) != "[]" || w.sifted != want {
		t.Errorf("%d %s, asked for %+v", rec.Code, rec.Body, w.sifted)
	}
}

func BenchmarkCheckIn(b *testing.B) {
	h := NewDevice((&world{}).config(io.Discard))
	body := `{"payload":"` + strings.Repeat("QUJD", 100) + `","key":"unchanged","signature":"QUJD"}`
	b.ReportAllocs()
	for b.Loop() {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest("POST", checkInsPath, strings.NewReader(body)))
		if rec.Code != 204 {
			b.Fatal(rec.Code)
		}
	}
}

// A serial number of a retired device is its name and what is configured for
// that: who registers it looks after that device, too.
func TestWhoRegistersARetiredDevice(t *testing.T) {
	h, w, _ := newAPI(t)
	for _, c := range []struct {
		who, serials string
		status       int
	}{
		{"gw-operator", `{"serial":"SN-1","pipeline":"demo","product":"gateway","stage":"dev"}`, 200},
		{"gw-operator", `{"serial":"SN-sensor","pipeline":"demo","product":"gateway","stage":"dev"}`, 403},
		{"gw-operator", `{"serial":"SN-1","pipeline":"demo","product":"gateway","stage":"dev"},{"serial":"SN-sensor","pipeline":"demo","product":"gateway","stage":"dev"}`, 403},
		{"operator", `{"serial":"SN-sensor","pipeline":"demo","product":"gateway","stage":"dev"}`, 200},
		{"manufacturing", `{"serial":"SN-sensor","pipeline":"demo","product":"gateway","stage":"dev"}`, 200},
	} {
		w.actors = nil
		rec := ask(t, h, "POST", "/api/v1/registrations", "["+c.serials+"]", bearer(c.who))
		if rec.Code != c.status || (len(w.actors) > 0) != (c.status == 200) {
			t.Errorf("%s registers %s: %d %s, %v", c.who, c.serials, rec.Code, rec.Body, w.actors)
		}
		if c.status == 403 && !strings.Contains(rec.Body.String(), "operator:demo/sensor") {
			t.Errorf("%s is told %s", c.who, rec.Body)
		}
	}
}
