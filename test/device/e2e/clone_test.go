package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
)

// machine is the hash of the hardware as the device sees it.
func (d *fielded) machine() string {
	d.t.Helper()
	out, err := d.Exec(d.patient(), "device-updater", "identity", "--json")
	var who struct{ Machine string }
	if err == nil {
		err = json.Unmarshal([]byte(out), &who)
	}
	if err != nil || who.Machine == "" {
		d.t.Fatalf("cannot tell the machine: %v: %s", err, out)
	}
	return who.Machine
}

// A card is copied, with the identity on it, and put into a second board.
func TestACopiedCardIsFoundOutAndGetsNothingUntilSomebodyDecides(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	d.on()
	d.off()
	twin := *d
	twin.clone(d.Machine, d.name+"-twin")
	both := []*fielded{d, &twin}
	for _, x := range both {
		x.on()
	}
	known := d.awaitKnown("both machines", func(known protocol.Device) bool { return known.Clone != nil && len(known.Clone.Machines) > 1 })
	for _, x := range both {
		if machine := x.machine(); !slices.ContainsFunc(known.Clone.Machines, func(s protocol.Sighting) bool { return s.Machine == machine }) {
			t.Errorf("the server does not show machine %s of %s: %+v", machine, x.Name(), known.Clone.Machines)
		}
	}
	if known.State != protocol.DeviceClone {
		t.Errorf("the device is %s, want %s", known.State, protocol.DeviceClone)
	}
	d.promote("2")
	for _, x := range both {
		x.stays()
		x.runs("1", "demo-app")
	}

	if _, err := d.site.API.ResolveDevice(t.Context(), d.name, d.machine()); err != nil {
		t.Fatal(err)
	}
	d.awaitCommit("2")
	d.hasItsBOM("2")
	twin.await("that it is retired", func() bool { return twin.server().Code == protocol.CodeRetired })
	if said := twin.server().Error; !strings.Contains(said, "belongs to another machine") {
		t.Errorf("the copy is told: %s", said)
	}
	twin.stays()
	twin.runs("1", "demo-app")
	d.awaitKnown("that all is well", func(known protocol.Device) bool { return known.State == protocol.DeviceOK })
}
