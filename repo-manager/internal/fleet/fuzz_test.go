package fleet_test

import (
	"crypto/ed25519"
	"encoding/json"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/test/rig"
)

// Whatever a device signs, the server answers: nothing that it says makes an
// internal error, and what is refused changes nothing.
func FuzzCheckIn(f *testing.F) {
	for _, text := range []string{
		`{"version":1,"session":1,"sequence":1,"boot":"b","machine":"m","report_hash":"` + strings.Repeat("0", 64) + `"}`,
		`{"version":1,"session":9007199254740991,"sequence":1,"boot":"b","machine":"m","report_hash":"` + protocol.ReportHash([]byte(`{}`)) + `","report":{}}`,
		`{"version":2}`, `{"version":"1"}`, `[]`, `null`, `{`, `{"session":-1}`, `{"report":[[[[]]]]}`, "\x00",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		w := newWorld(t)
		d := w.device("SN-1", "gateway", "dev")
		before := must1(w.Device(t.Context(), "SN-1"))
		_, err := w.send(protocol.Sign(d.Key, protocol.ForCheckIn, text))
		if err != nil && code(err) == "" {
			t.Fatalf("%q: %v", text, err)
		}
		after := must1(w.Device(t.Context(), "SN-1"))
		if err != nil && (after.Session != before.Session || after.Counter != before.Counter || after.Clone != nil) {
			t.Fatalf("%q was refused and changed the device: %+v", text, after)
		}
		if err == nil && (after.Session > protocol.MaxNumber || len(after.Where.Machine) > 128) {
			t.Fatalf("%q made the device %+v", text, after)
		}
		w.restart() // what is stored can be read
	})
}

func FuzzEnrolment(f *testing.F) {
	d := must1(rig.NewDevice("SN-1"))
	f.Add(must1(d.Enrolment("")).Payload)
	for _, text := range []string{`{"version":1}`, `{"version":2}`, `null`, `[]`, `{"key":"AA=="}`, `{"key":7}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		w := newWorld(t)
		var e protocol.Enrolment
		if json.Unmarshal(text, &e) == nil { // with the right key: what else is in it?
			e.Key = ed25519.PrivateKey(d.Key).Public().(ed25519.PublicKey)
			text = must1(json.Marshal(e))
		}
		answer, err := w.Enrol(t.Context(), protocol.Sign(d.Key, protocol.ForEnrolment, text), "192.0.2.1")
		if err != nil && code(err) == "" || err == nil && answer.Status != protocol.EnrolmentPending {
			t.Fatalf("%q: %+v, %v", text, answer, err)
		}
	})
}

// What was stored as a report can be read again, whatever it was.
func FuzzReport(f *testing.F) {
	f.Add([]byte(`{"follow":"dev","deployments":[{"id":1}],"failed":[{"at":"2026-11-20T10:00:00Z"}],"health":{},"features":["a"]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := fleet.ParseReport(text)
		if err != nil {
			return
		}
		again, err := fleet.ParseReport(must1(json.Marshal(r)))
		if err != nil || string(must1(json.Marshal(again))) != string(must1(json.Marshal(r))) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
