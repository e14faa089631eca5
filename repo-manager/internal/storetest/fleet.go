package storetest

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// FleetStore is a store of devices, which belong to pipelines.
type FleetStore interface {
	fleet.Store
	release.Store
}

// wholeDevice is a device of which every field is set.
func wholeDevice(name string, seed byte) fleet.Device {
	return fleet.Device{
		Name: name, Pipeline: "demo", Product: "gateway", Stage: "dev", Serial: "S-" + name, Modules: []string{"gps", "lte"},
		Key: keyOf(seed), Sealing: keyOf(seed + 100), Architecture: "amd64", Revision: "r2", Machine: "m-" + name, Banned: []string{"other"},
		Hold: &protocol.Hold{Reason: "fair", By: "ann", Until: day}, Pin: &fleet.Pin{Snapshot: "20261120T101500Z", Reason: "asked for", By: "bob", At: day},
		Retired: &protocol.Retired{Reason: "broken", By: "ann", At: day}, Created: day, Enrolled: day.Add(time.Second),
	}
}

// Fleet runs the suite of fleet.Store. open returns an empty store.
func Fleet(t *testing.T, open func(t *testing.T) FleetStore) {
	t.Run("devices", func(t *testing.T) { fleetDevices(t, open(t)) })
	t.Run("events", func(t *testing.T) { fleetEvents(t, open(t)) })
	t.Run("who may enrol", func(t *testing.T) { fleetAdmission(t, open(t)) })
	t.Run("all or nothing", func(t *testing.T) { fleetAllOrNothing(t, open(t)) })
}

func fleetDevices(t *testing.T, s FleetStore) {
	ctx := t.Context()
	must(t, s.Commit(ctx, demo("demo")))
	one, two := wholeDevice("one", 1), wholeDevice("two", 2)
	two.Hold, two.Pin, two.Retired, two.Modules, two.Banned = nil, nil, nil, nil, nil
	must(t, s.CommitFleet(ctx, fleet.Batch{Devices: []fleet.Device{two, one}, Acts: []release.Act{act("device")}}))
	same(t, "devices", must1(s.Fleet(ctx)).Devices, []fleet.Device{one, two})

	text := []byte(`{"follow":"production","phase":"IDLE","deployments":[{"id":1,"state":"abc","role":"booted"}]}`)
	report := must1(fleet.ParseReport(text))
	two.Contact = fleet.Contact{
		Session: 3, Sequence: 7, Boots: []fleet.Boot{{1}, {2}}, Where: protocol.Sighting{Machine: "m-two", Boot: "b", Address: "192.0.2.1", First: day, Last: day},
		Clone:  &protocol.Clone{Since: day, Why: "two", Machines: []protocol.Sighting{{Machine: "a"}}},
		Report: report, ReportHash: sha256.Sum256(text), Seen: day, Events: 5,
	}
	two.Assigned = fleet.Assigned{
		Counter: 1<<53 - 1, Content: "c", Modules: []string{"lte"},
		Release: &protocol.AssignedRelease{State: "s", Base: "demo/states/s", Components: []string{"apps"}, BOM: "b", BOMSize: 4},
	}
	must(t, s.CommitFleet(ctx, fleet.Batch{
		Contacts: []fleet.ContactOf{{Device: "two", Contact: two.Contact, Text: text}}, Assigned: []fleet.AssignedTo{{Device: "two", Assigned: two.Assigned}},
	}))
	same(t, "devices with contact", must1(s.Fleet(ctx)).Devices, []fleet.Device{one, two})

	// What operators do leaves contact and assignment as they are.
	two.Stage, two.Key = "canary", keyOf(3)
	must(t, s.CommitFleet(ctx, fleet.Batch{Devices: []fleet.Device{two}}))
	// A contact without a report leaves the report.
	two.Contact.Session, two.Contact.Clone = 4, nil
	must(t, s.CommitFleet(ctx, fleet.Batch{Contacts: []fleet.ContactOf{{Device: "two", Contact: fleet.Contact{
		Session: 4, Sequence: 7, Boots: two.Boots, Where: two.Where, Seen: day, Events: 5,
	}}}}))
	same(t, "changed devices", must1(s.Fleet(ctx)).Devices, []fleet.Device{one, two})
	// An empty one takes it away. Boots may be forgotten, too.
	two.Report, two.ReportHash, two.Boots = nil, [32]byte{}, nil
	must(t, s.CommitFleet(ctx, fleet.Batch{Contacts: []fleet.ContactOf{{Device: "two", Contact: two.Contact, Text: []byte{}}}}))
	same(t, "devices without a report", must1(s.Fleet(ctx)).Devices, []fleet.Device{one, two})
	same(t, "acts", must1(s.Acts(ctx, "", 0))[0], act("device"))
}

func fleetEvents(t *testing.T, s FleetStore) {
	ctx := t.Context()
	must(t, s.Commit(ctx, demo("demo")))
	must(t, s.CommitFleet(ctx, fleet.Batch{Devices: []fleet.Device{wholeDevice("one", 1), wholeDevice("two", 2)}}))
	var all []fleet.Event
	for n := range uint64(fleet.MaxEvents + 7) {
		e := fleet.Event{Device: "one", Number: n + 1, At: day, Text: fmt.Sprint("event ", n)}
		must(t, s.CommitFleet(ctx, fleet.Batch{Events: []fleet.Event{e}}))
		all = append([]fleet.Event{e}, all...)
	}
	same(t, "events", must1(s.Events(ctx, "one")), all[:fleet.MaxEvents])
	same(t, "no events", len(must1(s.Events(ctx, "two"))), 0)
}

func fleetAdmission(t *testing.T, s FleetStore) {
	ctx := t.Context()
	must(t, s.Commit(ctx, demo("demo")))
	must(t, s.CommitFleet(ctx, fleet.Batch{Devices: []fleet.Device{wholeDevice("one", 1)}}))
	b := fleet.Batch{
		Registrations: []fleet.Registration{
			{Serial: "S1", Name: "n", Pipeline: "demo", Product: "gateway", Stage: "dev", Modules: []string{"lte"}, Revision: "r1", By: "ann", Created: day},
			{Serial: "S2", Pipeline: "demo", Product: "gateway", Stage: "dev", By: "ann", Created: day},
		},
		Tokens: []fleet.EnrolToken{
			{Hash: fleet.Hash{1}, Pipeline: "demo", Product: "gateway", Stage: "dev", Modules: []string{"lte"}, Serial: "S", Label: "l", Uses: 3, Left: 2, By: "ann", Created: day, Expires: day},
			{Hash: fleet.Hash{2}, Pipeline: "demo", Product: "gateway", Stage: "dev", Uses: 1, Left: 1, By: "ann", Created: day, Expires: day},
		},
		Refusals: []fleet.Refusal{{Key: "aa", Serial: "S", By: "ann", Reason: "unknown", At: day}, {Key: "bb", Serial: "T", By: "ann", Reason: "unknown", At: day}},
		OldKeys:  []fleet.OldKey{{Key: keyOf(9), Device: "one", Reason: "anew", At: day}},
	}
	must(t, s.CommitFleet(ctx, b))
	stored := must1(s.Fleet(ctx))
	same(t, "registrations", stored.Registrations, b.Registrations)
	same(t, "tokens", stored.Tokens, b.Tokens)
	same(t, "refusals", stored.Refusals, b.Refusals)
	same(t, "old keys", stored.OldKeys, b.OldKeys)
	b.Tokens[0].Left, b.Registrations[0].Stage = 1, "canary"
	must(t, s.CommitFleet(ctx, fleet.Batch{
		Tokens: b.Tokens[:1], Registrations: b.Registrations[:1],
		Unregistered: []string{"S2", "absent"}, Revoked: []fleet.Hash{{2}, {7}}, Pardoned: []string{"bb", "absent"},
	}))
	stored = must1(s.Fleet(ctx))
	same(t, "registrations that are left", stored.Registrations, b.Registrations[:1])
	same(t, "tokens that are left", stored.Tokens, b.Tokens[:1])
	same(t, "refusals that are left", stored.Refusals, b.Refusals[:1])
}

func fleetAllOrNothing(t *testing.T, s FleetStore) {
	ctx := t.Context()
	must(t, s.Commit(ctx, demo("demo")))
	one := wholeDevice("one", 1)
	must(t, s.CommitFleet(ctx, fleet.Batch{Devices: []fleet.Device{one}}))
	astray := wholeDevice("two", 2)
	astray.Pipeline = "nowhere"
	thief := wholeDevice("two", 1) // the key of one
	for name, b := range map[string]fleet.Batch{
		"a pipeline that is not there":      {Devices: []fleet.Device{astray}},
		"a key that is taken":               {Devices: []fleet.Device{thief}},
		"a contact of a device that is not": {Contacts: []fleet.ContactOf{{Device: "two"}}},
		"an assignment of one":              {Assigned: []fleet.AssignedTo{{Device: "two"}}},
		"an event of one":                   {Events: []fleet.Event{{Device: "two", Number: 1, At: day}}},
	} {
		changed := one
		changed.Stage = "canary"
		b.Devices = append([]fleet.Device{changed}, b.Devices...)
		b.Refusals = []fleet.Refusal{{Key: "aa", At: day}}
		b.Acts = []release.Act{act("it")}
		if err := s.CommitFleet(ctx, b); err == nil {
			t.Errorf("%s was stored", name)
		}
		stored := must1(s.Fleet(ctx))
		same(t, name+": devices", stored.Devices, []fleet.Device{one})
		same(t, name+": refusals", len(stored.Refusals), 0)
	}
}
