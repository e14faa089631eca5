package api

import (
	"context"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// fakeFleet is the fleet.Service of a world. Of devices it knows every name.
type fakeFleet struct{ *world }

func (f fakeFleet) Enrol(_ context.Context, signed protocol.Signed, address string) (protocol.Enrolled, error) {
	f.address = address
	switch signed.Key {
	case "known":
		return protocol.Enrolled{Status: protocol.EnrolmentAccepted, Device: "bench", Time: noon}, f.err
	case "refused":
		return protocol.Enrolled{}, &fleet.Refused{Code: protocol.CodeRefused, Text: "none of ours"}
	}
	return protocol.Enrolled{Status: protocol.EnrolmentPending, Reason: "an operator decides", Time: noon}, f.err
}

func (f fakeFleet) CheckIn(_ context.Context, signed protocol.Signed, address string) (*protocol.CheckedIn, error) {
	f.address = address
	switch signed.Key {
	case "unchanged":
		return nil, f.err
	case "replayed":
		return nil, &fleet.Refused{Code: protocol.CodeReplay, Text: "it came before", Session: 7}
	case "retired", "bad_signature", "unknown_device", "unsupported":
		return nil, &fleet.Refused{Code: signed.Key, Text: "no"}
	}
	return &protocol.CheckedIn{SendReport: true, Time: noon}, f.err
}

func (f fakeFleet) List(_ context.Context, filter protocol.DeviceFilter) ([]fleet.View, error) {
	f.sifted = filter
	var all []fleet.View
	for _, d := range f.devices {
		all = append(all, fleet.View{Device: d})
	}
	return all, f.err
}

func (f fakeFleet) Show(_ context.Context, name string) (fleet.View, []fleet.Event, error) {
	return fleet.View{Device: fleet.Device{Name: name, Created: noon}, State: protocol.DeviceOK}, []fleet.Event{{Device: name, At: noon, Text: "runs"}}, f.err
}

func (f fakeFleet) Device(_ context.Context, name string) (fleet.Device, error) {
	return fleet.Device{Name: name, Pipeline: "demo", Product: "sensor", Created: noon}, f.err
}

// BySerial knows one device, of product sensor.
func (f fakeFleet) BySerial(ctx context.Context, serial string) (fleet.Device, bool) {
	d, _ := f.Device(ctx, "bench")
	return d, serial == "SN-sensor"
}

func (f fakeFleet) did(a release.Actor, name string) (fleet.Device, error) {
	return fleet.Device{Name: name, Created: noon}, f.act(a)
}

func (f fakeFleet) Assign(_ context.Context, a release.Actor, name, _ string) (fleet.Device, error) {
	return f.did(a, name)
}

func (f fakeFleet) Hold(_ context.Context, a release.Actor, name, _ string, _ time.Time) (fleet.Device, error) {
	return f.did(a, name)
}

func (f fakeFleet) Unhold(_ context.Context, a release.Actor, name string) (fleet.Device, error) {
	return f.did(a, name)
}

func (f fakeFleet) Pin(_ context.Context, a release.Actor, name, _, _ string) (fleet.Device, error) {
	return f.did(a, name)
}

func (f fakeFleet) Unpin(_ context.Context, a release.Actor, name string) (fleet.Device, error) {
	return f.did(a, name)
}

func (f fakeFleet) Set(_ context.Context, a release.Actor, name string, _ *string, _ *[]string) (fleet.Device, error) {
	return f.did(a, name)
}

func (f fakeFleet) Retire(_ context.Context, a release.Actor, name, _ string) (fleet.Device, error) {
	return f.did(a, name)
}

func (f fakeFleet) Resolve(_ context.Context, a release.Actor, name, _ string) (fleet.Device, error) {
	return f.did(a, name)
}

func (f fakeFleet) Register(_ context.Context, a release.Actor, all []fleet.Registration) (bool, error) {
	return len(all) > 1, f.act(a)
}

func (f fakeFleet) Unregister(_ context.Context, a release.Actor, _ string) error { return f.act(a) }

func (f fakeFleet) Registrations(context.Context) []fleet.Registration {
	return []fleet.Registration{{Serial: "SN-1", Pipeline: "demo", Product: "sensor"}, {Serial: "SN-2", Pipeline: "other", Product: "sensor"}}
}

func (f fakeFleet) CreateToken(_ context.Context, a release.Actor, t fleet.EnrolToken) (fleet.EnrolToken, string, error) {
	return t, "aft1_secret", f.act(a)
}

func (f fakeFleet) Tokens(context.Context) []fleet.EnrolToken {
	return []fleet.EnrolToken{{Pipeline: "demo", Product: "sensor"}, {Pipeline: "other", Product: "sensor", Hash: fleet.Hash{1}}}
}

func (f fakeFleet) RevokeToken(_ context.Context, a release.Actor, _ string) error { return f.act(a) }

func (f fakeFleet) Pending(context.Context) []protocol.PendingEnrolment {
	return []protocol.PendingEnrolment{}
}

func (f fakeFleet) Accept(_ context.Context, a release.Actor, which string, _ protocol.Accept) (fleet.Device, error) {
	return f.did(a, which)
}

func (f fakeFleet) Refuse(_ context.Context, a release.Actor, _, _ string) error { return f.act(a) }

func (f fakeFleet) Pardon(_ context.Context, a release.Actor, _ string) error { return f.act(a) }
