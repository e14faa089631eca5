package e2e

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
)

// read returns a file inside the running device.
func (d *fielded) read(path string) string {
	d.t.Helper()
	out, err := d.Exec(d.patient(), "cat", path)
	if err != nil {
		d.t.Error(err)
	}
	return out
}

func TestAConfigurationReachesTheProgramsOfTheDevice(t *testing.T) {
	t.Parallel()
	d := newDevice(t)
	d.on()
	set := func(scope, name, key string, value protocol.SetConfig) {
		t.Helper()
		if _, err := d.site.API.SetConfig(t.Context(), pipeline, protocol.ConfigScope{Kind: scope, Name: name}, key, value); err != nil {
			t.Fatal(err)
		}
	}
	// inForce waits until the device has values and the server knows, and returns
	// their revision.
	inForce := func(want map[string]any) (revision string) {
		t.Helper()
		d.await("its values", func() bool {
			var values map[string]any
			out, err := d.Exec(d.patient(), "cat", "/etc/aptfleet/config/config.json")
			return err == nil && json.Unmarshal([]byte(out), &values) == nil && maps.Equal(values, want)
		})
		out, err := d.Exec(d.patient(), "sh", "-ec", `. /etc/aptfleet/config/config.env; echo $APTFLEET_CONFIG_REVISION`)
		if err != nil {
			t.Fatal(err)
		}
		revision = strings.TrimSpace(out)
		d.awaitKnown("that "+revision+" is in force", func(known protocol.Device) bool { return known.Report != nil && known.Report.Config == revision })
		return revision
	}
	set("stage", d.stage, "interval", protocol.SetConfig{Type: "integer", Value: 60})
	inForce(map[string]any{"interval": 60.0})
	set("device", d.name, "api.token", protocol.SetConfig{Type: "secret", Value: "correct horse"})
	inForce(map[string]any{"interval": 60.0, "api.token": "correct horse"})
	set("device", d.name, "interval", protocol.SetConfig{Type: "integer", Value: 5})
	revision := inForce(map[string]any{"interval": 5.0, "api.token": "correct horse"})

	out, err := d.Exec(d.patient(), "sh", "-ec", `. /etc/aptfleet/config/config.env; echo "$INTERVAL $API_TOKEN"`)
	if want := "5 correct horse\n"; err != nil || out != want {
		t.Errorf("config.env gives %q (%v), want %q", out, err, want)
	}
	if out, err := d.Exec(d.patient(), "device-updater", "config", "get", "interval"); err != nil || strings.TrimSpace(out) != "5" {
		t.Errorf("`config get interval` says %q (%v)", out, err)
	}
	// On the disk the secret is where programs read it, and nowhere else.
	if assignment, err := os.ReadFile(filepath.Join(d.Top(), "updater/assignment.json")); err != nil || strings.Contains(string(assignment), "correct horse") {
		t.Errorf("the assignment has the secret in clear (%v)", err)
	}
	hooks := strings.Split(strings.TrimSpace(d.read("/var/lib/demo/hooks")), "\n")
	for i, want := range []string{"interval", "api.token", "interval"} {
		if i >= len(hooks) || hooks[i] != want {
			t.Fatalf("the hook was run for %q, want one line for each change: interval, api.token, interval", hooks)
		}
	}
	// Another release begins with it, and its hooks are run for all keys.
	d.promote("2")
	d.awaitCommit("2")
	d.await("the hook of the new release", func() bool {
		lines := strings.Split(strings.TrimSpace(d.read("/var/lib/demo/hooks")), "\n")
		return lines[len(lines)-1] == "api.token interval"
	})
	d.awaitKnown("the configuration of before", func(known protocol.Device) bool { return known.Report.Config == revision })
}
