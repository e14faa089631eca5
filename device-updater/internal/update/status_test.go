package update

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/bom"
	"aptfleet/test/device/bootcontrol"
)

// TestLook: which deployment plays which role, in each moment of an update.
func TestLook(t *testing.T) {
	for _, c := range []struct {
		name             string
		committed, trial string
		current          int
		last             journal.Record
		want             string
	}{
		{"at rest", "committed=2 previous=1", "", 2, journal.Record{Phase: journal.Idle}, "IDLE [2 booted 1 rollback]"},
		{"the first", "committed=1 previous=", "", 1, journal.Record{}, "IDLE [1 booted]"},
		{"installing", "committed=1 previous=", "", 1, journal.Record{Phase: journal.Install, Deployment: 2}, "INSTALL [1 booted]"},
		{"staged", "committed=2 previous=1", "", 2, journal.Record{Phase: journal.Staged, Deployment: 3}, "STAGED [2 booted 1 rollback 3 staged]"},
		{"on trial", "committed=2 previous=1", "trial=3 tries=1", 3, journal.Record{Phase: journal.Health, Deployment: 3}, "HEALTH [3 trial 2 rollback] trial"},
		{"boot control is gone", "", "", 2, journal.Record{Phase: journal.Failed}, "IDLE [2 booted]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.current = c.current
			w.boot = map[string][]byte{}
			for name, vars := range map[string]string{"committed.env": c.committed, "grubenv": c.trial} {
				if vars != "" {
					w.boot[name] = bootcontrol.NewBlock(strings.Fields(vars)...)
				}
			}
			records := w.records()
			if err := records.PutDeployment(Deployment{
				ID: c.current, State: "s", BOM: "abc", TopLevel: []string{"app"}, Packages: []apt.Package{{Name: "app", Version: "1.5"}, {Name: "lib", Version: "2"}},
			}); err != nil {
				t.Fatal(err)
			}
			v, err := Look(control{boot.New(blocks{w}), w}, records, c.last, "production")
			if err != nil {
				t.Fatal(err)
			}
			var roles []string
			for _, d := range v.Report.Deployments {
				roles = append(roles, fmt.Sprint(d.ID, " ", d.Role))
			}
			for _, d := range v.Report.Deployments { // only one has a record
				if want := map[bool]string{true: bom.Sum([]byte("abc"))}[d.ID == c.current]; d.BOM != want {
					t.Errorf("deployment %d reports the bill of materials %q, want %q", d.ID, d.BOM, want)
				}
			}
			got := fmt.Sprint(v.Report.Phase, " ", roles)
			if v.Trial != nil {
				got += " trial"
			}
			if got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if v.Report.Deployments[0].Version != "1.5" {
				t.Errorf("version %q", v.Report.Deployments[0].Version)
			}
			if (v.Report.LastError != "") != (c.committed == "") {
				t.Errorf("last error %q", v.Report.LastError)
			}
		})
	}
}

// TestJSONOfStatus is the contract of `status --json`.
func TestJSONOfStatus(t *testing.T) {
	w := newWorld(t)
	w.offered = "new"
	w.bad["new"] = "app.service failed"
	w.powerOn()
	if err := w.settle(); err == nil {
		t.Fatal("the bad release was taken")
	}
	m, done := w.machine()
	defer done()
	v, err := Look(m.Boot, m.Records, m.Journal.Last(), "production")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "report": {
    "follow": "production",
    "deployments": [
      {
        "id": 1,
        "state": "old",
        "role": "booted"
      }
    ],
    "wanted": "new",
    "phase": "IDLE",
    "why_not": "state new failed here: app.service failed",
    "failed": [
      {
        "state": "new",
        "reason": "app.service failed",
        "at": "2026-11-20T12:00:00Z"
      }
    ]
  },
  "current": 1,
  "committed": 1,
  "checked": "2026-11-20T12:00:00Z"
}`
	if string(got) != want {
		t.Errorf("got\n%s", got)
	}
}
