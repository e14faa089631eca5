package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/agent"
	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

var rewrite = flag.Bool("update", false, "write the golden files anew")

// golden compares text with testdata/<name>.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (go test -update writes it)", err)
	}
	if text != string(want) {
		t.Errorf("%s is\n%s\nand should be (go test -update writes it)\n%s", name, text, want)
	}
}

// bootedAt is boot control of a device that runs a deployment.
type bootedAt struct {
	*boot.Control
	n int
}

func (b bootedAt) Current() (int, error) { return b.n, nil }

// troubled is a device on which much has happened: it has staged a release, which
// waits for a hold and for the maintenance window; another one failed; its
// firmware differs, files too; and a state unit was brought to another epoch.
func troubled(t *testing.T) (p *program, b update.Boot, now time.Time) {
	t.Helper()
	sysroot, flags := deviceFlags(t)
	now = time.Date(2026, 11, 26, 9, 30, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const day = 24 * time.Hour
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) {
		t.Helper()
		must(os.MkdirAll(filepath.Dir(filepath.Join(sysroot, name)), 0o755))
		must(os.WriteFile(filepath.Join(sysroot, name), []byte(text), 0o600))
	}
	p = &program{sysroot: sysroot, configPath: flags[1], bootControl: flags[5], socket: flags[7]}
	text, err := os.ReadFile(p.configPath)
	must(err)
	must(os.WriteFile(p.configPath, append(text, "window: mon-fri 02:00-04:00\n"...), 0o600))

	records, err := update.OpenRecords(p.updaterDir())
	must(err)
	state := func(n int) string { return strings.Repeat(fmt.Sprintf("%02x", n), 32) }
	for _, d := range []update.Deployment{
		{ID: 4, State: state(4), Snapshot: "20261001T080000Z", Pin: &update.Pin{Reason: "customer's acceptance", At: ago(40 * day)}},
		{ID: 6, State: state(6), Snapshot: "20261105T080000Z"},
		{ID: 8, State: state(8), Snapshot: "20261119T080000Z"},
		{ID: 9, State: state(9), Snapshot: "20261126T050000Z"},
	} {
		d.TopLevel = []string{"gateway-app"}
		d.Packages = []apt.Package{{Name: "gateway-app", Architecture: "amd64", Version: fmt.Sprintf("1.%d", d.ID)}}
		must(records.PutDeployment(d))
	}
	control := boot.New(boot.Dir(p.bootControl))
	must(control.Commit(6))
	must(control.Commit(8))

	at := ago(day * 7)
	log, err := journal.Open(p.journalPath(), func() time.Time { at = at.Add(40 * time.Second); return at })
	must(err)
	add := func(r journal.Record) {
		t.Helper()
		_, err := log.Append(r)
		must(err)
	}
	for _, phase := range []journal.Phase{journal.Check, journal.Download, journal.Install, journal.Staged, journal.Finalise, journal.Reboot, journal.Trial, journal.Health, journal.Commit, journal.Idle} {
		add(journal.Record{Transaction: 11, Phase: phase, State: state(8), Snapshot: "20261119T080000Z", Deployment: 8, From: 6})
	}
	at = ago(2 * day)
	for _, phase := range []journal.Phase{journal.Check, journal.Install, journal.Staged, journal.Reboot, journal.Trial, journal.Health, journal.RolledBack} {
		add(journal.Record{Transaction: 12, Phase: phase, State: state(0x17), Snapshot: "20261124T090000Z", Deployment: 9, From: 8})
	}
	add(journal.Record{Transaction: 12, Phase: journal.Failed, State: state(0x17), Snapshot: "20261124T090000Z", Deployment: 9, From: 8, Reason: "gateway-app.service failed that was fine before the update"})
	at = ago(4 * time.Hour)
	for _, phase := range []journal.Phase{journal.Check, journal.Download, journal.Install, journal.Verify, journal.Staged} {
		add(journal.Record{Transaction: 13, Phase: phase, State: state(9), Snapshot: "20261126T050000Z", Deployment: 9, From: 8})
	}
	must(log.Close())

	hold := protocol.Hold{Reason: "at the fair", By: "ann", Until: time.Date(2026, 12, 1, 6, 0, 0, 0, time.UTC)}
	must(records.PutHold(hold))
	must(records.PutStatus(update.Status{
		Phase: string(journal.Staged), Wanted: state(9), WantedName: "20261126T050000Z", Checked: ago(4 * time.Minute),
		WhyNot: "it is held here by ann until 2026-12-01T06:00:00Z: at the fair",
	}))
	for i, f := range []protocol.Failure{
		{Snapshot: "20261020T080000Z", Reason: "it was not committed in time"},
		{Snapshot: "20261029T080000Z", Reason: "cannot install: dpkg ended with exit status 1"},
		{Snapshot: "20261110T080000Z", Reason: "the server answered before the update, and a firewall of this device keeps its answers out"},
		{
			Snapshot: "20261124T090000Z", State: state(0x17), Reason: "gateway-app.service failed",
			Evidence: []protocol.Excerpt{{From: "the journal of gateway-app.service", Text: "listening on 8080\npanic: no such table: readings\n"}},
		},
	} {
		if f.State == "" {
			f.State = state(0x20 + i)
		}
		f.At = ago(time.Duration(36-12*i) * day)
		if i == 3 {
			f.At = ago(2 * day)
		}
		must(records.Fail(f))
	}
	must(records.PutVerified(update.Verified{Deployment: 8, At: ago(22 * time.Hour), Damage: 2, Unowned: 1}))
	must(records.PutEtc(8, merge.Result{Conflicts: []merge.Conflict{
		{Path: "gateway/app.conf", Kind: merge.Edited, Beside: "gateway/app.conf.aptfleet-new"},
		{Path: "issue", Kind: merge.Deleted, Beside: "issue.aptfleet-new"},
		{Path: "passwd", Account: "gateway", Kind: merge.Dropped},
		{Path: "ssh/sshd_config", Kind: merge.Attributes},
	}}, ago(7*day)))
	write("deployments/8/etc/gateway/app.conf.aptfleet-new", "")
	write("deployments/8/etc/issue.aptfleet-new", "")
	write("updater/firmware.json", `{"components":[
{"name":"mcu","state":"running","version":"1.3","wanted":"1.4","why":"it was put off: the pump runs"},
{"name":"modem","state":"running","version":"7","wanted":"7"}]}`)
	write("kept/units.json", `{"units":{"ledger":{"name":"ledger","epoch":2,"paths":["/var/lib/ledger"],"deployment":8,"since":"2026-11-19T09:40:00Z","places":["state/var-lib/ledger"]}}}`)
	write("kept/6/ledger/unit.json", `{"name":"ledger","epoch":1,"paths":["/var/lib/ledger"],"deployment":6,"since":"2026-03-01T00:00:00Z","at":"2026-11-19T09:40:00Z","places":["state/var-lib/ledger"]}`)
	return p, bootedAt{control, 8}, now
}

// looked is what status knows of a device, with its server; where it lies is
// left out.
func looked(t *testing.T) (statusView, time.Time) {
	t.Helper()
	p, b, now := troubled(t)
	v, err := p.look(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range v.Kept {
		v.Kept[i].Dir = strings.TrimPrefix(v.Kept[i].Dir, filepath.Dir(p.sysroot))
	}
	v.Server = &serverView{URL: "https://fleet.example.com", Device: "gateway-17", contact: contact{
		Contact:    agent.Contact{Last: now.Add(-20 * time.Second), Config: "5f0c"},
		Assignment: &assigned{Counter: 12, Stage: "production", Issued: now.Add(-time.Hour), Expires: now.Add(7 * 24 * time.Hour)},
	}}
	v.Report.Follow = "assignment"
	return v, now
}

// TestStatusIsOneScreen: of a device on which much has happened, why it does not
// run what it should comes first, and all of it fits.
func TestStatusIsOneScreen(t *testing.T) {
	v, now := looked(t)
	var screen, pipe, stored bytes.Buffer
	v.print(&term.IO{Out: &screen, OutTerminal: true, Width: 100, Now: func() time.Time { return now }})
	golden(t, "status.txt", screen.String())
	if n := strings.Count(screen.String(), "\n"); n > 40 {
		t.Errorf("it has %d lines", n)
	}
	if first, _, _ := strings.Cut(screen.String(), "\n"); !strings.HasPrefix(first, "why not ") {
		t.Errorf("it begins with %s", first)
	}
	v.print(&term.IO{Out: &pipe, Now: func() time.Time { return now }})
	golden(t, "status.tsv", pipe.String())
	if err := (&term.IO{Out: &stored}).PrintJSON(v); err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", stored.String())
}

// TestStatusOfADeviceThatIsWell is short.
func TestStatusOfADeviceThatIsWell(t *testing.T) {
	now := time.Date(2026, 11, 26, 9, 30, 0, 0, time.UTC)
	state := strings.Repeat("ab", 32)
	v := statusView{View: update.View{
		Current: 2, Committed: 2, Checked: now.Add(-time.Minute),
		Report: protocol.Report{
			Follow: "production", Phase: "IDLE", Wanted: state, WantedName: "20261120T094500Z",
			Deployments: []protocol.Deployment{{ID: 2, State: state, Snapshot: "20261120T094500Z", Role: "booted", Version: "2.0"}},
		},
		Verified: &update.Verified{Deployment: 2, At: now.Add(-3 * time.Hour), Equal: true},
	}}
	var out bytes.Buffer
	v.print(&term.IO{Out: &out, OutTerminal: true, Width: 80, Now: func() time.Time { return now }})
	want := `has       20261120T094500Z, as it should
wanted    20261120T094500Z, asked 1 minute ago
phase     IDLE

DEPLOYMENT  ROLE    RELEASE           VERSION
2           booted  20261120T094500Z  2.0

follows   production
verified  3 hours ago, equal to its release
`
	if out.String() != want {
		t.Errorf("it says\n%s", &out)
	}
}

// TestHistoryIsATable, with a header for people alone.
func TestHistoryIsATable(t *testing.T) {
	p, _, now := troubled(t)
	records, err := journal.Read(p.journalPath())
	if err != nil {
		t.Fatal(err)
	}
	past := journal.Transactions(records)
	var screen, stored bytes.Buffer
	p.io = &term.IO{Out: &screen, OutTerminal: true, Width: 100, Now: func() time.Time { return now }}
	p.printHistory(past)
	golden(t, "history.txt", screen.String())
	p.io = &term.IO{Out: &stored}
	if err := p.historyJSON(past); err != nil {
		t.Fatal(err)
	}
	golden(t, "history.json", stored.String())
}

// TestWhatStatusKnowsIsDocumented: each field of status --json and of history
// --json is in the document.
func TestWhatStatusKnowsIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/device-updater.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## What status and history say\n")
	section, _, _ = strings.Cut(section, "\n## ")
	if !ok {
		t.Fatal("there is no such section")
	}
	names := append(jsonNames(reflect.TypeFor[statusView]()), jsonNames(reflect.TypeFor[historyEntry]())...)
	raw, err := os.ReadFile("testdata/status.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct{ Report map[string]any }
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	names = append(names, slices.Sorted(maps.Keys(v.Report))...)
	if len(names) < 30 {
		t.Errorf("only %q", names)
	}
	for _, name := range names {
		if !strings.Contains(section, "`"+name+"`") {
			t.Errorf("nothing is said about %s", name)
		}
	}
}

// jsonNames are the fields of a type, those of what it embeds among them.
func jsonNames(of reflect.Type) (names []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name != "":
			names = append(names, name)
		case f.Anonymous:
			names = append(names, jsonNames(f.Type)...)
		}
	}
	return names
}
