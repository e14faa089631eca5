package fleet_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// TestSurveyAgreesWithList: counts, pages and filters are those of the list that
// judges every device by itself, whatever is asked for.
func TestSurveyAgreesWithList(t *testing.T) {
	w := newWorld(t)
	two := w.snapshots[snapshot2]
	for i := range 40 {
		product, stage := "gateway", []string{"dev", "canary", "production", "empty"}[i%4]
		d := w.device(fmt.Sprintf("SN-%02d", i), product, stage)
		name := d.Enrolled.Device
		if i%7 == 0 {
			continue // it never reports
		}
		running(d, []*release.Published{w.snapshots[snapshot1], two}[i%2])
		switch i % 5 {
		case 1:
			d.Report.Health = &protocol.Health{Reason: "it burns"}
		case 2:
			d.Report.Failed = []protocol.Failure{{State: two.State.String(), Reason: "it crashed", At: w.now}}
		}
		w.checkIn(d)
		switch i % 9 {
		case 1:
			must1(w.Hold(t.Context(), op, name, "a fair", time.Time{}))
		case 2:
			must1(w.Pin(t.Context(), op, name, snapshot1, "a measurement"))
		case 3:
			must1(w.Retire(t.Context(), op, name, "lost"))
		case 4:
			must1(w.Set(t.Context(), op, name, nil, &[]string{"lte"}))
		case 5:
			d.Machine = "another"
			d.Restart(true)
			w.checkIn(d)
		}
		if i == 20 {
			w.pass(2 * fleet.SilentAfter)
		}
	}
	filters := []protocol.DeviceFilter{{}, {Product: "gateway"}, {Product: "panel"}, {Stage: "canary"}, {Stage: "nightly"}, {Snapshot: snapshot1[:6]}, {Snapshot: snapshot2}, {Revision: "r1"}, {Package: "openssl<<3"}}
	for _, is := range fleet.States {
		filters = append(filters, protocol.DeviceFilter{State: is}, protocol.DeviceFilter{State: is, Stage: "production"})
	}
	seen := make(map[string]bool)
	for _, f := range filters {
		f.Pipeline = "demo"
		listed := must1(w.List(t.Context(), f))
		counts := must1(w.Survey(t.Context(), fleet.Query{DeviceFilter: f})).Counts
		whole := f
		whole.State = ""
		stages := make(fleet.Counts)
		for _, v := range must1(w.List(t.Context(), whole)) {
			stages[v.State]++
			seen[v.State] = true
		}
		if fmt.Sprint(counts) != fmt.Sprint(stages) {
			t.Errorf("%+v: counts %v, the list has %v", f, counts, stages)
		}
		if f.State == "" {
			listed = slices.DeleteFunc(listed, func(v fleet.View) bool { return v.State == protocol.DeviceRetired })
		}
		slices.SortStableFunc(listed, func(a, b fleet.View) int {
			return slices.Index(fleet.States, a.State) - slices.Index(fleet.States, b.State)
		})
		var paged []string
		for from := 0; ; from += 3 {
			s := must1(w.Survey(t.Context(), fleet.Query{DeviceFilter: f, From: from, Limit: 3}))
			if s.Total != len(listed) {
				t.Errorf("%+v: %d in all, the list has %d", f, s.Total, len(listed))
			}
			if len(s.Views) == 0 {
				break
			}
			for _, v := range s.Views {
				paged = append(paged, v.Name+" "+v.State+" "+v.WhyNot)
			}
		}
		var want []string
		for _, v := range listed {
			want = append(want, v.Name+" "+v.State+" "+v.WhyNot)
		}
		if !slices.Equal(paged, want) {
			t.Errorf("%+v:\n%q\nthe list has\n%q", f, paged, want)
		}
	}
	if len(seen) != len(fleet.States) {
		t.Errorf("the devices are in %d of %d states", len(seen), len(fleet.States))
	}

	text := must1(w.Survey(t.Context(), fleet.Query{DeviceFilter: protocol.DeviceFilter{Pipeline: "demo"}, Text: "sn-1"}))
	if n := text.Counts; len(n) == 0 {
		t.Errorf("nothing is found by a part of a serial number")
	}
	kinds := w.Kinds(t.Context(), "demo", "production")
	n := 0
	for _, k := range kinds {
		n += k.Devices
	}
	living := must1(w.Survey(t.Context(), fleet.Query{DeviceFilter: protocol.DeviceFilter{Pipeline: "demo", Stage: "production"}})).Total
	if len(kinds) != 2 || n != living {
		t.Errorf("kinds %+v of %d devices", kinds, living)
	}
}

// TestSurveyDoesNotWaitForBills: what is being computed is counted apart.
func TestSurveyDoesNotWaitForBills(t *testing.T) {
	w := newWorld(t)
	for _, serial := range []string{"SN-1", "SN-2", "SN-3"} {
		d := w.device(serial, "gateway", "production")
		running(d, w.snapshots[snapshot1])
		if serial == "SN-3" {
			running(d, published(9, "20261122T101500Z"))
		}
		w.checkIn(d)
	}
	q := fleet.Query{DeviceFilter: protocol.DeviceFilter{Pipeline: "demo", Package: "openssl<<3"}, Limit: 10}
	if s := must1(w.Survey(t.Context(), q)); s.Total != 2 || s.Unknown != 1 {
		t.Errorf("%d have it and %d are not known, want 2 and 1", s.Total, s.Unknown)
	}
}

// of100000 is a fleet of that size, of which a few are in trouble.
func of100000(b *testing.B) *fleet.Service {
	const size = 100_000
	offer := published(1, snapshot1)
	report := func(i int) *protocol.Report {
		p := offer
		if i%1000 == 0 {
			p = published(2, snapshot2)
		}
		text := must1(json.Marshal(protocol.Report{
			Follow: "assignment", Phase: "IDLE", Wanted: offer.State.String(), WantedName: snapshot1, Revision: "B2", Updater: "0.4.0",
			Health: &protocol.Health{OK: i%5000 != 0}, FreeBytes: 12_000_000_000,
			Deployments: []protocol.Deployment{{ID: 4, State: p.State.String(), Snapshot: p.Snapshot, Role: "booted", Version: "2.0"}, {ID: 3, State: snapshots.ID{7}.String(), Role: "rollback", Version: "1.0"}},
		}))
		return must1(fleet.ParseReport(text))
	}
	now := time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC)
	stored := large{devices: make([]fleet.Device, size)}
	for i := range stored.devices {
		key := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
		stored.devices[i] = fleet.Device{
			Name: fmt.Sprintf("gw-%06d", i), Serial: fmt.Sprintf("SN-%06d", i), Pipeline: "demo", Product: "gateway", Stage: []string{"production", "canary"}[i%20/19],
			Key: key[:], Architecture: "amd64", Contact: fleet.Contact{Report: report(i), Seen: now},
		}
	}
	w := &world{offers: map[string]*release.Published{"production": offer, "canary": offer}, snapshots: map[string]*release.Published{snapshot1: offer}, boms: map[string]bom{}, products: map[string]fleet.Product{}}
	s := must1(fleet.Open(b.Context(), fleet.Config{
		Store: stored, Releases: w, Products: w, BOMs: w, Packages: w, Announce: func(string, string, string) {}, Clock: func() time.Time { return now }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}))
	b.Cleanup(func() { _ = s.Close() })
	return s
}

// large is a store that was filled before.
type large struct {
	fleet.Store
	devices []fleet.Device
}

func (l large) Fleet(context.Context) (fleet.Stored, error) {
	return fleet.Stored{Devices: l.devices}, nil
}

func BenchmarkSurvey100000(b *testing.B) {
	s := of100000(b)
	for name, q := range map[string]fleet.Query{
		"all":     {Limit: 100},
		"search":  {Limit: 100, Text: "sn-0999"},
		"package": {Limit: 100, DeviceFilter: protocol.DeviceFilter{Package: "openssl<<3"}},
		"page":    {Limit: 100, From: 90_000},
	} {
		q.Pipeline = "demo"
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				must1(s.Survey(b.Context(), q))
			}
		})
	}
	b.Run("kinds", func(b *testing.B) {
		for b.Loop() {
			s.Kinds(b.Context(), "demo", "production")
		}
	})
}
