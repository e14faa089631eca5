package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/order"
)

// Ten devices of two products and two hardware revisions run at once. Eight
// follow one stage, one has a stage of its own that offers a broken release,
// and one is held.
func TestTenDevicesRunAtOnce(t *testing.T) {
	if !order.Long() {
		t.Skip("long: make test-long runs it; in short runs there are devices of both products, four at once")
	}
	// Nothing runs beside it.
	s := newSite(t)
	var fleet []*fielded
	stage := ""
	for i := range 10 {
		fleet = append(fleet, newDevice(t, onSite(s), func(d *fielded) {
			if d.revision = "A1"; i%4 >= 2 {
				d.revision = "B2"
			}
			if i%2 == 1 {
				d.product = "board"
			}
			if i%4 == 1 {
				d.modules = []string{"lte"}
			}
			d.trial.Timeout = "5m" // ten systems start at once on few cores
			if stage == "" {
				stage = d.stage
			}
			if i < 9 {
				d.stage = stage
			}
			d.how = []belonging{byToken, bySerial}[i%3%2]
		}))
	}
	moved, held, broken := fleet[:8], fleet[8], fleet[9]

	began := time.Now()
	for _, d := range fleet {
		if err := d.PowerOn(); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range fleet {
		d.on()
	}
	times.add("ten devices: switched on until all are enrolled", time.Since(began))
	keys, machines := map[string]bool{}, map[string]bool{}
	for _, d := range fleet {
		known := d.known()
		keys[known.Key], machines[known.Where.Machine] = true, true
	}
	if len(keys) != len(fleet) || len(machines) != len(fleet) {
		t.Errorf("%d devices on %d machines have %d keys", len(fleet), len(machines), len(keys))
	}

	held.hold("somebody works on it")
	began = time.Now()
	moved[0].promote("2")
	broken.promote("unhealthy")
	for i, d := range moved {
		d.awaitCommit("2")
		if i == 0 {
			times.add("ten devices: promotion until the first that was looked at is committed", time.Since(began))
		}
	}
	times.add("ten devices: promotion until eight of them are committed", time.Since(began))
	broken.awaitRollback("unhealthy")
	times.add("ten devices: promotion until the broken release is gone again", time.Since(began))

	for _, d := range moved {
		d.runs("2", "demo-app")
		d.hasItsBOM("2")
		d.awaitKnown("that all is well", func(known protocol.Device) bool { return known.State == protocol.DeviceOK })
	}
	for _, d := range []*fielded{held, broken} {
		d.stays()
		d.runs("1", "demo-app")
	}
	broken.saysWhyNot("unhealthy", "the pump does not answer")
	broken.awaitKnown("what failed on it", func(known protocol.Device) bool { return known.State == protocol.DeviceFailed })
	// What operators ask for.
	for _, c := range []struct {
		of   protocol.DeviceFilter
		want []*fielded
	}{
		{protocol.DeviceFilter{State: protocol.DeviceOK}, moved},
		{protocol.DeviceFilter{State: protocol.DeviceHeld}, []*fielded{held}},
		{protocol.DeviceFilter{State: protocol.DeviceFailed}, []*fielded{broken}},
		{protocol.DeviceFilter{Stage: stage, Revision: "B2", Product: "board"}, []*fielded{fleet[3], fleet[7]}},
		{protocol.DeviceFilter{Package: "demo-app (<< 2.0)"}, []*fielded{held, broken}},
		{protocol.DeviceFilter{Package: "demo-modem (>= 2.0)"}, []*fielded{fleet[1], fleet[5]}},
	} {
		c.of.Pipeline = pipeline
		all, err := s.API.Devices(t.Context(), c.of)
		if err != nil {
			t.Fatal(err)
		}
		var got, want []string
		for _, d := range all {
			// The server is a copy of the world's, which has devices, too.
			if slices.ContainsFunc(fleet, func(f *fielded) bool { return f.name == d.Name }) {
				got = append(got, d.Name)
			}
		}
		for _, d := range c.want {
			want = append(want, d.name)
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("devices of %+v: %v, want %v", c.of, got, want)
		}
	}

	// The rest comes along, and then devices of one kind have equal packages.
	if _, err := s.API.UnholdDevice(t.Context(), held.name); err != nil {
		t.Fatal(err)
	}
	broken.promote("2")
	for _, d := range []*fielded{held, broken} {
		d.awaitCommit("2")
		d.hasItsBOM("2")
	}
	kinds := map[string][]string{}
	for _, d := range fleet {
		kind := fmt.Sprint(d.product, d.modules)
		if kinds[kind] == nil {
			kinds[kind] = d.packages()
		}
		if other := d.packages(); !slices.Equal(kinds[kind], other) {
			t.Errorf("two devices of %s differ:\n%s", kind, difference(kinds[kind], other))
		}
	}
	times.add("ten devices: promotion until all ten are on one release", time.Since(began))
}
