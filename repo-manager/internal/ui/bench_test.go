package ui

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/fleet"
)

// filled is a store in which a fleet was before.
type filled struct {
	fleet.Store
	devices []fleet.Device
}

func (f filled) Fleet(context.Context) (fleet.Stored, error) {
	return fleet.Stored{Devices: f.devices}, nil
}

func (f filled) Events(context.Context, string) ([]fleet.Event, error) { return nil, nil }

// crowd is a world with so many devices, one of a thousand of which is behind.
func crowd(n int) *world {
	w := newWorld()
	pending(w)
	w.machines.close()
	w.machines.service = nil
	right, wrong := w.report("demo", "production", "1.0"), w.report("demo", "canary", "2.0")
	store := filled{devices: make([]fleet.Device, n)}
	for i := range store.devices {
		r := right
		if i%1000 == 0 {
			r = wrong
		}
		key := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
		store.devices[i] = fleet.Device{
			Name: fmt.Sprintf("gw-%06d", i), Serial: fmt.Sprintf("SN-%06d", i), Pipeline: "demo", Product: "sensor", Stage: "production",
			Key: key[:], Architecture: "amd64", Contact: fleet.Contact{Report: must1(fleet.ParseReport(must1(json.Marshal(r)))), Seen: w.now},
		}
	}
	w.machines.from = store
	w.signIn("vera")
	return w
}

// TestLargeFleet: however many devices there are, a page has so many of them.
func TestLargeFleet(t *testing.T) {
	h := handler(t, crowd(20_000))
	for _, path := range []string{
		"/pipelines/demo", "/pipelines/demo/devices", "/pipelines/demo/devices?from=19950", "/pipelines/demo/devices?state=ok&q=gw-01", "/pipelines/demo/stages/production",
		"/pipelines/demo/stages/production/promote?snapshot=canary", "/pipelines/demo/products",
	} {
		rec := get(h, path)
		if rec.Code != http.StatusOK || rec.Body.Len() > 200_000 {
			t.Errorf("%s is answered with %d and %d bytes", path, rec.Code, rec.Body.Len())
		}
	}
}

// get asks as vera, of a world in which she is signed in.
func get(h http.Handler, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", path, nil)
	r.AddCookie(&http.Cookie{Name: access.CookieName, Value: "session-of-vera"})
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

// BenchmarkPages has 100,000 devices.
func BenchmarkPages(b *testing.B) {
	h := handler(b, crowd(100_000))
	for _, path := range []string{
		"/pipelines/demo", "/pipelines/demo/devices", "/pipelines/demo/devices?q=gw-0999", "/pipelines/demo/devices?package=demo-app=1.0", "/pipelines/demo/devices/gw-050000",
		"/pipelines/demo/stages/production", "/pipelines/demo/stages/production/promote?snapshot=canary",
	} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				if rec := get(h, path); rec.Code != http.StatusOK {
					b.Fatal(rec.Code)
				}
			}
		})
	}
}
