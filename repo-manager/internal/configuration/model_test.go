package configuration_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/configuration"
)

func roundTrip(t testing.TB, c *protocol.AssignedConfig) *protocol.AssignedConfig {
	t.Helper()
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	back := new(protocol.AssignedConfig)
	if err := json.Unmarshal(raw, back); err != nil {
		t.Fatal(err)
	}
	return back
}

// TestMemoryIsTheStore: whatever was set in whatever order, what is remembered
// is what a new start works out, and what plain precedence says.
func TestMemoryIsTheStore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		scopes := []string{"product:gateway", "product:sensor", "stage:production", "stage:canary", "device:gw-1", "device:gw-2", "device:s-1", "device:bare"}
		model := make(map[string]map[string]string)
		ask := func() (all []string) {
			for _, name := range []string{"gw-1", "gw-2", "s-1", "bare"} {
				d := w.devices[name]
				c, err := w.For(d)
				if err != nil {
					rt.Fatal(err)
				}
				want := make(map[string]any)
				for _, at := range []string{"product:" + d.Product, "stage:" + d.Stage, "device:" + name} {
					for key, value := range model[at] {
						want[key] = value
					}
				}
				if fmt.Sprint(c.Values) != fmt.Sprint(want) {
					rt.Fatalf("%s has %v, want %v", name, c.Values, want)
				}
				all = append(all, name+" "+c.Revision)
			}
			return all
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			at, key := rapid.SampledFrom(scopes).Draw(rt, "scope"), rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "key")
			switch rapid.IntRange(0, 3).Draw(rt, "act") {
			case 0:
				if _, ok := model[at][key]; ok {
					w.unset(at, key)
					delete(model[at], key)
				}
			case 1:
				name := rapid.SampledFrom([]string{"gw-1", "s-1"}).Draw(rt, "device")
				d := w.devices[name]
				d.Stage, d.Product = rapid.SampledFrom([]string{"", "canary", "production"}).Draw(rt, "stage"), rapid.SampledFrom([]string{"gateway", "sensor"}).Draw(rt, "product")
				w.devices[name] = d
			default:
				value := rapid.SampledFrom([]string{"1", "2", "3"}).Draw(rt, "value")
				if model[at] == nil {
					model[at] = make(map[string]string)
				}
				w.mustSet(at, key, value, configuration.String)
				model[at][key] = value
			}
			ask()
		}
		remembered := fmt.Sprint(ask())
		w.start()
		if again := fmt.Sprint(ask()); again != remembered {
			rt.Fatalf("after a restart %s, before %s", again, remembered)
		}
	})
}

// BenchmarkRevision is what a check-in asks: 100,000 devices, a hundredth of
// them with values of their own.
func BenchmarkRevision(b *testing.B) {
	w, devices := fleetOf(b, 100_000)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if r, err := w.Revision(devices[i%len(devices)]); r == "" || err != nil {
			b.Fatal("no revision")
		}
		i += 7919
	}
}

// BenchmarkSetForAll is one value for the stage of 100,000 devices.
func BenchmarkSetForAll(b *testing.B) {
	w, _ := fleetOf(b, 100_000)
	i := 0
	for b.Loop() {
		i++
		if done := w.mustSet("stage:production", "shared", fmt.Sprint(i), configuration.String); done.Devices != 100_000 {
			b.Fatalf("%d devices", done.Devices)
		}
	}
}

func fleetOf(b *testing.B, n int) (*world, []configuration.Device) {
	w := newWorld(b)
	clear(w.devices)
	for i := range 20 {
		w.mustSet("product:gateway", fmt.Sprintf("key%d", i), "value", "")
	}
	devices := make([]configuration.Device, n)
	for i := range devices {
		devices[i] = configuration.Device{Name: fmt.Sprintf("gw-%d", i), Pipeline: "demo", Product: "gateway", Stage: "production"}
	}
	for i := range n / 100 {
		d := devices[i*100]
		w.devices = map[string]configuration.Device{d.Name: d}
		w.mustSet("device:"+d.Name, "own", d.Name, "")
	}
	for _, d := range devices {
		w.devices[d.Name] = d
	}
	return w, devices
}
