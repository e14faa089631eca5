package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/test/rig"
)

// told is what a device was told last.
func told(a protocol.Assignment) string {
	var said []string
	if r := a.Release; r != nil {
		said = append(said, r.Snapshot+" "+r.BOM)
		if r.Pinned {
			said = append(said, "pinned")
		}
	}
	if a.Wait != "" {
		said = append(said, "wait: "+a.Wait)
	}
	if a.Hold != nil {
		said = append(said, "hold: "+a.Hold.Reason)
	}
	if a.Config != nil {
		said = append(said, "config "+a.Config.Revision)
	}
	return strings.Join(said, "; ")
}

// Each thing that decides what a device should have, one after the other: what
// it is told, that the counter grows, and that it is told once.
func TestWhatADeviceIsTold(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	d := w.device("SN-1", "gateway", "dev")
	running(d, w.snapshots[snapshot1])
	state2 := w.snapshots[snapshot2].State.String()
	three := published(3, "20261122T101500Z")
	w.snapshots[three.Snapshot] = three
	for _, c := range []struct {
		name string
		act  func()
		want string
	}{
		{"at first", func() {}, snapshot2 + " bom2"},
		{"the stage moves", func() { w.promote("dev", snapshot1) }, snapshot1 + " bom1"},
		{"and back", func() { w.promote("dev", snapshot2) }, snapshot2 + " bom2"},
		{"another stage", func() { must1(w.Assign(ctx, op, "SN-1", "canary")) }, snapshot1 + " bom1"},
		{"a pin", func() { must1(w.Pin(ctx, op, "SN-1", snapshot2, "acceptance")) }, snapshot2 + " bom2; pinned"},
		{"the pin is off", func() { must1(w.Unpin(ctx, op, "SN-1")) }, snapshot1 + " bom1"},
		{"a hold", func() { must1(w.Hold(ctx, op, "SN-1", "fair", w.now.Add(time.Hour))) }, snapshot1 + " bom1; hold: fair"},
		{"it ends", func() { w.pass(time.Hour) }, snapshot1 + " bom1"},
		{"a hold without end", func() { must1(w.Hold(ctx, op, "SN-1", "fair", time.Time{})) }, snapshot1 + " bom1; hold: fair"},
		{"it is taken off", func() { must1(w.Unhold(ctx, op, "SN-1")) }, snapshot1 + " bom1"},
		{"modules", func() { must1(w.Set(ctx, op, "SN-1", nil, &[]string{"lte"})) }, snapshot1 + " bom1+lte"},
		{"a configuration", func() { w.configs["SN-1"] = protocol.AssignedConfig{Revision: "1", Values: map[string]any{"a": "b"}} }, snapshot1 + " bom1+lte; config 1"},
		{"another", func() { w.configs["SN-1"] = protocol.AssignedConfig{Revision: "2"} }, snapshot1 + " bom1+lte; config 2"},
		{"none", func() { delete(w.configs, "SN-1") }, snapshot1 + " bom1+lte"},
		{"no modules", func() { must1(w.Set(ctx, op, "SN-1", nil, &[]string{})) }, snapshot1 + " bom1"},
		{"a release whose bill is being made", func() { w.promote("canary", three.Snapshot) },
			snapshot1 + " bom1; wait: the bill of materials of product gateway in snapshot " + three.Snapshot + " is being made"},
		{"it cannot be made", func() { w.boms[three.State.String()] = bom{status: fleet.BOMFailed, reason: "demo-app needs libfoo"} },
			snapshot1 + " bom1; wait: product gateway cannot be installed from snapshot " + three.Snapshot + ": demo-app needs libfoo"},
		{"it is made", func() { w.boms[three.State.String()] = bom{status: fleet.BOMReady, sum: "bom3"} }, three.Snapshot + " bom3"},
		{"another bill of the same release", func() { w.boms[three.State.String()] = bom{status: fleet.BOMReady, sum: "bom4"} }, three.Snapshot + " bom4"},
		{"a stage that offers nothing", func() { must1(w.Assign(ctx, op, "SN-1", "empty")) }, three.Snapshot + " bom4; wait: stage empty offers nothing yet"},
		{"a stage that is gone", func() { delete(w.offers, "empty") }, three.Snapshot + " bom4; wait: cannot find stage empty"},
		{"a product that is gone", func() { delete(w.products, "gateway") }, three.Snapshot + " bom4; wait: there is no product gateway any more"},
		{"one for other machines", func() { w.products["gateway"] = fleet.Product{Architecture: "arm64"} }, three.Snapshot + " bom4; wait: product gateway is for arm64, the device is amd64"},
		{"one for other revisions", func() { w.products["gateway"] = fleet.Product{Revisions: []string{"r1", "r2"}} },
			three.Snapshot + " bom4; wait: product gateway is for the hardware revisions r1, r2, and the device does not say which it has"},
		{"it says which", func() { d.Report.Revision = "r3" }, three.Snapshot + " bom4; wait: product gateway does not support hardware revision r3, only r1, r2"},
		{"an operator knows better", func() {
			revision := "r1"
			must1(w.Set(ctx, op, "SN-1", &revision, nil))
			must1(w.Assign(ctx, op, "SN-1", "dev"))
		}, snapshot2 + " bom2"},
		{"a bill that is lost and made again is no news", func() { delete(w.boms, state2) }, ""},
		{"nor is it when it is there", func() { w.boms[state2] = bom{status: fleet.BOMReady, sum: "bom2"} }, ""},
	} {
		before := d.Accepted
		c.act()
		w.checkIn(d)
		switch {
		case c.want == "" && d.Accepted.Counter != before.Counter:
			t.Errorf("%s: told %s", c.name, told(d.Accepted))
		case c.want != "" && (told(d.Accepted) != c.want || d.Accepted.Counter != before.Counter+1):
			t.Errorf("%s: told %d %q after %d, want %q", c.name, d.Accepted.Counter, told(d.Accepted), before.Counter, c.want)
		}
		if answer := w.checkIn(d); answer != nil {
			t.Errorf("%s: told again: %+v", c.name, answer)
		}
		if len(c.name)%3 == 0 {
			w.restart()
		}
	}
	a := d.Accepted
	r := a.Release
	if a.Version != 1 || a.Device != "SN-1" || a.Key != d.KeyID() || a.Pipeline != "demo" || a.Product != "gateway" || a.Stage != "dev" ||
		!a.Issued.Equal(w.now) || a.Expires.Sub(a.Issued) != 7*24*time.Hour ||
		r.State != state2 || r.Base != "demo/snapshots/"+snapshot2 || r.Distribution != "trixie" || len(r.Components) != 1 || r.Release != "release of "+snapshot2 || r.BOMSize != 100 {
		t.Errorf("the assignment is %+v, %+v", a, r)
	}
}

// Without products, as a server that has none yet.
func TestNothingToGive(t *testing.T) {
	w := newWorld(t)
	must(t, w.Close())
	w.config.Products, w.config.BOMs, w.config.Configs, w.config.Packages = nil, nil, nil, nil
	w.open()
	d := w.device("SN-1", "anything", "dev")
	w.checkIn(d)
	if d.Accepted.Release != nil || d.Accepted.Wait == "" || d.Accepted.Counter != 1 {
		t.Errorf("told %+v", d.Accepted)
	}
	if answer := w.checkIn(d); answer != nil {
		t.Errorf("told again: %+v", answer)
	}
	if _, err := w.List(t.Context(), protocol.DeviceFilter{Package: "openssl"}); release.CodeOf(err) != release.Refused {
		t.Errorf("%v", err)
	}
}

// An assignment is renewed at half its life, without a write and under the same
// counter, and its configuration is asked for only then.
func TestRenewal(t *testing.T) {
	w := newWorld(t)
	w.configs["SN-1"] = protocol.AssignedConfig{Revision: "1"}
	d := w.device("SN-1", "gateway", "dev")
	w.checkIn(d)
	first, asked, commits := d.Accepted, w.asked, w.store.commits.Load()
	w.pass(protocol.AssignmentLife/2 - time.Second)
	if answer := w.checkIn(d); answer != nil || w.asked != asked {
		t.Errorf("before half of its life: %+v, %d", answer, w.asked-asked)
	}
	w.pass(2 * time.Second)
	answer := w.checkIn(d)
	if answer == nil || d.Accepted.Counter != first.Counter || d.Accepted.Content() != first.Content() || !d.Accepted.Expires.Equal(w.now.Add(protocol.AssignmentLife)) {
		t.Errorf("at half of it: %+v", answer)
	}
	if n := w.store.commits.Load() - commits; n != 0 {
		t.Errorf("it took %d commits", n)
	}
	if answer := w.checkIn(d); answer != nil {
		t.Errorf("renewed twice: %+v", answer)
	}
	// A device that was away for long is told at once.
	w.pass(400 * 24 * time.Hour)
	if answer := w.checkIn(d); answer == nil || d.Accepted.Counter != first.Counter {
		t.Errorf("after a year: %+v", answer)
	}
}

// A server whose clock was set back takes check-ins, keeps its counters, and
// says nothing that a device refuses.
func TestTheClockIsSetBack(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	w.checkIn(d)
	w.pass(-300 * 24 * time.Hour)
	if answer := w.checkIn(d); answer != nil {
		t.Errorf("%+v", answer)
	}
	w.promote("dev", snapshot1)
	w.checkIn(d)
	if d.Accepted.Counter != 2 || told(d.Accepted) != snapshot1+" bom1" {
		t.Errorf("told %+v", d.Accepted)
	}
	in := must1(d.Next(w.now.Add(-time.Hour), true)) // and the device's clock is wrong
	if answer, err := w.send(in); err != nil || answer != nil {
		t.Errorf("%+v, %v", answer, err)
	}
	if skew := must1(w.Device(t.Context(), "SN-1")).Skew; skew != -time.Hour {
		t.Errorf("the skew is %s", skew)
	}
}

// A counter is durable before it is sent: a server that dies in between, or
// whose disk fails, never gives one counter two contents.
func TestACounterHasOneContent(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	w.checkIn(d)
	w.promote("dev", snapshot1)
	if _, err := w.send(must1(d.Next(w.now, true))); err != nil { // the answer is lost
		t.Fatal(err)
	}
	if stored := must1(w.store.Fleet(t.Context())).Devices[0]; stored.Counter != 2 {
		t.Errorf("stored is the counter %d", stored.Counter)
	}
	w.restart()
	w.checkIn(d)
	if d.Accepted.Counter != 2 || told(d.Accepted) != snapshot1+" bom1" {
		t.Errorf("told %+v", d.Accepted)
	}
	// Lost, and the stage is back at what the device has.
	w.promote("dev", snapshot2)
	if _, err := w.send(must1(d.Next(w.now, true))); err != nil {
		t.Fatal(err)
	}
	w.promote("dev", snapshot1)
	w.checkIn(d)
	if d.Accepted.Counter != 4 || told(d.Accepted) != snapshot1+" bom1" {
		t.Errorf("told %+v", d.Accepted)
	}
	// The disk refuses the counter: nothing is sent.
	w.promote("dev", snapshot2)
	w.store.FailNext(fmt.Errorf("disk full"))
	if answer, err := w.send(must1(d.Next(w.now, true))); err == nil {
		t.Errorf("sent %+v", answer)
	}
	w.promote("dev", "20261122T101500Z") // nil: nothing
	w.checkIn(d)
	if d.Accepted.Counter != 5 {
		t.Errorf("told %+v", d.Accepted)
	}
}

// A server that was restored from an old backup goes on above what devices
// have, and strands none.
func TestARestoredServer(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	same := w.device("SN-2", "gateway", "dev")
	w.checkIn(d)
	w.checkIn(same)
	backup := w.store.Save()
	for range 3 { // counters 2 to 7
		for _, id := range []string{snapshot1, snapshot2} {
			w.promote("dev", id)
			w.checkIn(d)
			w.checkIn(same)
			d.Restart(true)
		}
	}
	w.promote("dev", snapshot1)
	w.checkIn(d) // 8
	lost := d.Accepted
	w.promote("dev", snapshot2) // as the backup knows it
	must(t, w.Close())
	w.store.Restore(backup)
	w.open()
	if known := must1(w.Device(t.Context(), "SN-1")); known.Counter != 1 || known.Session != 1 {
		t.Fatalf("the restored server knows %+v", known)
	}
	if answer := w.checkIn(d); answer == nil || d.Accepted.Counter != lost.Counter+1 || told(d.Accepted) != snapshot2+" bom2" {
		t.Errorf("the device is told %+v", d.Accepted)
	}
	// One that has what it should keeps its counter, and this server learns it.
	if answer := w.checkIn(same); answer != nil || same.Accepted.Counter != 7 {
		t.Errorf("the other one is told %+v", answer)
	}
	if known := must1(w.store.Fleet(t.Context())).Devices[1]; known.Counter != 7 {
		t.Errorf("stored is the counter %d", known.Counter)
	}
	w.promote("dev", snapshot1)
	w.checkIn(same)
	if same.Accepted.Counter != 8 {
		t.Errorf("then it is told %+v", same.Accepted)
	}
	// What somebody recorded of the lost server's time is worth nothing by now.
	w.restart()
	for _, one := range []*rig.Device{d, same} {
		if answer := w.checkIn(one); answer != nil && one == same {
			t.Errorf("%+v", answer)
		}
	}
}

// A database that cannot be read for a moment tells nobody anything else.
func TestALookupThatFailsIsNoNews(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	w.broken = fmt.Errorf("disk I/O error")
	d.Report.Phase = "IDLE"
	if answer := w.checkIn(d); answer != nil {
		t.Errorf("told %+v", answer)
	}
	w.broken = nil
	if w.checkIn(d); told(d.Accepted) != snapshot2+" bom2" || must1(w.Device(t.Context(), "SN-1")).Report == nil {
		t.Errorf("told %+v", d.Accepted)
	}
	w.restart()
	w.broken = fmt.Errorf("disk I/O error")
	w.pass(protocol.AssignmentLife)
	if answer := w.checkIn(d); answer != nil {
		t.Errorf("told %+v", answer)
	}
	if view, _, err := w.Show(t.Context(), "SN-1"); err != nil || strings.Contains(view.WhyNot, "I/O") {
		t.Errorf("%q, %v", view.WhyNot, err)
	}
}

// A device whose configuration is not complete keeps the one that it has, and
// everybody is told what it lacks, beside what its release waits for.
func TestAConfigurationThatLacksSomething(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	running(d, w.snapshots[snapshot2])
	w.lacks["SN-1"] = errors.New("a is required and not set")
	for range 2 {
		w.checkIn(d)
		if d.Accepted.Config != nil || d.Accepted.Wait != "a is required and not set" || d.Accepted.Counter != 1 {
			t.Errorf("told %+v", d.Accepted)
		}
	}
	if v, _, err := w.Show(t.Context(), "SN-1"); err != nil || v.State != protocol.DeviceOK || v.WhyNot != "a is required and not set" {
		t.Errorf("%s, %q, %v", v.State, v.WhyNot, err)
	}
	w.lacks["SN-1"] = errors.New("b is required and not set")
	w.offers["dev"] = nil
	w.checkIn(d)
	if d.Accepted.Wait != "stage dev offers nothing yet; b is required and not set" {
		t.Errorf("told %+v", d.Accepted)
	}
	w.promote("dev", snapshot1)
	delete(w.boms, w.snapshots[snapshot1].State.String())
	w.checkIn(d)
	if v, _, err := w.Show(t.Context(), "SN-1"); err != nil || !strings.HasSuffix(v.WhyNot, " is being made; b is required and not set") {
		t.Errorf("%s, %q, %v", v.State, v.WhyNot, err)
	}
	delete(w.lacks, "SN-1")
	w.checkIn(d)
	if !strings.HasSuffix(d.Accepted.Wait, " is being made") {
		t.Errorf("told %+v", d.Accepted)
	}
}

// A device that lies about its counter raises only its own.
func TestALyingCounter(t *testing.T) {
	w := newWorld(t)
	d, other := w.device("SN-1", "gateway", "dev"), w.device("SN-2", "gateway", "dev")
	w.checkIn(d)
	w.checkIn(other)
	lie := resign(d, must1(d.Next(w.now, true)), func(in *protocol.CheckIn) { in.Counter, in.Assignment = 1<<52, "lie" })
	answer, err := w.send(lie)
	must(t, err)
	must(t, d.Accept(*answer.Assignment, w.now))
	if d.Accepted.Counter != 1<<52+1 {
		t.Errorf("told %+v", d.Accepted)
	}
	w.promote("dev", snapshot1)
	w.checkIn(other)
	if other.Accepted.Counter != 2 {
		t.Errorf("the other one is told %+v", other.Accepted)
	}
	// Back to nothing: it is told what is newest.
	d.Accepted = protocol.Assignment{}
	w.checkIn(d)
	if d.Accepted.Counter != 1<<52+2 {
		t.Errorf("told %+v", d.Accepted)
	}
}

func TestActs(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.device("SN-1", "gateway", "dev")
	for name, c := range map[string]struct {
		act  func() error
		code release.Code
	}{
		"nobody":              {func() error { _, err := w.Assign(ctx, op, "SN-9", "dev"); return err }, release.NotFound},
		"a stage of nowhere":  {func() error { _, err := w.Assign(ctx, op, "SN-1", "moon"); return err }, release.NotFound},
		"no reason to hold":   {func() error { _, err := w.Hold(ctx, op, "SN-1", " ", time.Time{}); return err }, release.Invalid},
		"a hold that is past": {func() error { _, err := w.Hold(ctx, op, "SN-1", "fair", w.now); return err }, release.Invalid},
		"a novel":             {func() error { _, err := w.Hold(ctx, op, "SN-1", strings.Repeat("x", 1001), time.Time{}); return err }, release.Invalid},
		"no such snapshot":    {func() error { _, err := w.Pin(ctx, op, "SN-1", "2026", "why"); return err }, release.NotFound},
		"no reason to pin":    {func() error { _, err := w.Pin(ctx, op, "SN-1", snapshot1, ""); return err }, release.Invalid},
		"no such module":      {func() error { _, err := w.Set(ctx, op, "SN-1", nil, &[]string{"warp"}); return err }, release.NotFound},
		"nothing to resolve":  {func() error { _, err := w.Resolve(ctx, op, "SN-1", ""); return err }, release.Refused},
		"no reason to retire": {func() error { _, err := w.Retire(ctx, op, "SN-1", ""); return err }, release.Invalid},
	} {
		if err := c.act(); release.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	w.store.FailNext(fmt.Errorf("disk full"))
	if _, err := w.Assign(ctx, op, "SN-1", "canary"); err == nil || must1(w.Device(ctx, "SN-1")).Stage != "dev" {
		t.Errorf("an act that was not written counts: %v", err)
	}
	acts, announced := len(must1(w.store.Acts(ctx, "", 0))), len(w.announced)
	for range 2 { // the second time there is nothing to do
		must1(w.Assign(ctx, op, "SN-1", "canary"))
		must1(w.Hold(ctx, op, "SN-1", "fair", time.Time{}))
		must1(w.Pin(ctx, op, "SN-1", snapshot1, "why"))
	}
	for range 2 {
		must1(w.Unhold(ctx, op, "SN-1"))
		must1(w.Unpin(ctx, op, "SN-1"))
	}
	must1(w.Retire(ctx, op, "SN-1", "sold"))
	if n := len(must1(w.store.Acts(ctx, "", 0))) - acts; n != 6 || len(w.announced)-announced != 6 {
		t.Errorf("%d acts are on record, announced is %q", n, w.announced[announced:])
	}
	if last := must1(w.store.Acts(ctx, "demo", 1))[0]; last.Verb != "retire" || last.By != "otto" || last.Object != "device SN-1" || last.Detail != "sold" {
		t.Errorf("the last is %+v", last)
	}
	if _, err := w.Hold(ctx, op, "SN-1", "again", time.Time{}); release.CodeOf(err) != release.Refused {
		t.Errorf("a retired device was held: %v", err)
	}
}

// The states of a device, and what lists filter.
func TestList(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	add := func(serial, product, stage string, report func(*rig.Device)) *rig.Device {
		d := w.device(serial, product, stage)
		if report != nil {
			running(d, w.snapshots[snapshot1])
			report(d)
			w.checkIn(d)
		}
		return d
	}
	add("silent", "gateway", "production", func(*rig.Device) {})
	w.pass(fleet.SilentAfter + time.Second)
	add("ok", "gateway", "production", func(*rig.Device) {})
	add("behind", "panel", "dev", func(d *rig.Device) { d.Report.Revision = "r1" })
	add("waits", "panel", "dev", func(d *rig.Device) { d.Report.Revision = "r9" })
	add("held", "gateway", "dev", func(*rig.Device) {})
	must1(w.Hold(ctx, op, "held", "fair", w.now.Add(time.Hour)))
	add("holds", "gateway", "production", func(d *rig.Device) { d.Report.Holds = []protocol.Hold{{Reason: "its owner"}} })
	add("failed", "gateway", "dev", func(d *rig.Device) {
		d.Report.Failed = []protocol.Failure{{State: w.snapshots[snapshot2].State.String(), Reason: "it did not boot", At: w.now}}
	})
	add("sick", "gateway", "production", func(d *rig.Device) { d.Report.Health = &protocol.Health{Reason: "no network"} })
	add("refuses", "gateway", "dev", func(d *rig.Device) { d.Report.Refused = &protocol.Refused{Reason: "release", Text: "another text"} })
	add("updates", "gateway", "dev", func(d *rig.Device) {
		d.Report.Wanted, d.Report.Phase, d.Report.Progress = w.snapshots[snapshot2].State.String(), "DOWNLOAD", "12 of 40 packages"
	})
	add("pending", "gateway", "production", nil)
	clone := add("clone", "gateway", "production", func(*rig.Device) {})
	clone.Machine = "another"
	clone.Restart(true)
	w.checkIn(clone)
	add("retired", "gateway", "production", func(*rig.Device) {})
	must1(w.Retire(ctx, op, "retired", "sold"))

	for name, want := range map[string][2]string{
		"silent": {"silent", ""}, "ok": {"ok", ""}, "behind": {"behind", "it has not looked since this was offered"},
		"waits": {"behind", "product panel does not support hardware revision r9"}, "held": {"held", "it is held: fair"}, "holds": {"held", ""},
		"failed": {"failed", "it did not boot"}, "sick": {"failed", ""}, "refuses": {"behind", "it refused its assignment (release)"}, "updates": {"behind", "it is on its way: download, 12 of 40 packages"},
		"pending": {"pending", "it has not reported yet"}, "clone": {"clone", "another machine has the key"}, "retired": {"retired", "it is retired: sold"},
	} {
		v, _, err := w.Show(ctx, name)
		if must(t, err); v.State != want[0] || !strings.HasPrefix(v.WhyNot, want[1]) || want[1] == "" && v.WhyNot != "" {
			t.Errorf("%s is %s, %q", name, v.State, v.WhyNot)
		}
	}
	for _, c := range []struct {
		filter protocol.DeviceFilter
		want   string
	}{
		{protocol.DeviceFilter{Pipeline: "demo", State: "ok"}, "ok"},
		{protocol.DeviceFilter{Pipeline: "other"}, ""},
		{protocol.DeviceFilter{Product: "panel"}, "behind waits"},
		{protocol.DeviceFilter{Revision: "r1"}, "behind"},
		{protocol.DeviceFilter{State: "held"}, "held holds"},
		{protocol.DeviceFilter{Stage: "dev", Product: "gateway"}, "failed held refuses updates"},
		{protocol.DeviceFilter{Snapshot: snapshot2}, ""},
		{protocol.DeviceFilter{Snapshot: "20261120", Product: "panel"}, "behind waits"},
		{protocol.DeviceFilter{Package: "openssl<<3", Product: "panel"}, "behind waits"},
		{protocol.DeviceFilter{Package: "openssl<<2"}, ""},
	} {
		views, err := w.List(ctx, c.filter)
		must(t, err)
		var names []string
		for _, v := range views {
			names = append(names, v.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%+v: %q, want %q", c.filter, got, c.want)
		}
	}
}

// Check-ins, acts and lists at once; it is for the race detector.
func TestEverybodyAtOnce(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	ended := make(chan struct{})
	names := []string{"SN-0", "SN-1", "SN-2", "SN-3"}
	for i, name := range names {
		d := w.device(name, "gateway", "dev")
		go func() {
			defer func() { ended <- struct{}{} }()
			for n := 0; ctx.Err() == nil; n++ {
				d.Report.Phase = fmt.Sprint(n % 3)
				signed := must1(d.Next(w.config.Clock(), true))
				answer, err := w.Service.CheckIn(t.Context(), signed, "192.0.2.1")
				if err != nil {
					t.Error(err)
					return
				}
				if answer != nil && answer.Assignment != nil {
					if err := d.Accept(*answer.Assignment, w.config.Clock()); err != nil {
						t.Error(err)
					}
				}
				if n%5 == i {
					must1(w.Assign(t.Context(), op, name, []string{"dev", "canary"}[n%2]))
				}
			}
		}()
	}
	go func() {
		defer func() { ended <- struct{}{} }()
		for n := 0; ctx.Err() == nil; n++ {
			must1(w.List(t.Context(), protocol.DeviceFilter{}))
			w.promote("dev", []string{snapshot1, snapshot2}[n%2])
			w.ReadAllowed("SN-0", "x", "demo")
			w.Pending(t.Context())
		}
	}()
	for range len(names) + 1 {
		<-ended
	}
}

// What a device has is what it says that it was made of, not what its product is
// by now; and another bill of materials for the same state is something that it
// should have.
func TestTheSameStateWithAnotherBOM(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	list := func() (names string) {
		t.Helper()
		all, err := w.List(ctx, protocol.DeviceFilter{Package: "openssl<<3"})
		must(t, err)
		for _, v := range all {
			names += v.Name + " "
		}
		return names
	}
	silent, says := w.device("silent", "gateway", "production"), w.device("says", "gateway", "production")
	for _, d := range []*rig.Device{silent, says} {
		w.checkIn(d)
		d.Install()
	}
	silent.Report.Deployments[0].BOM = ""
	odd := w.device("odd", "gateway", "production")
	odd.Report.Deployments = []protocol.Deployment{{State: "nobody knows that one", Role: "booted"}}
	for _, d := range []*rig.Device{silent, says, odd} {
		w.checkIn(d)
	}
	if got := list(); got != "says silent " {
		t.Errorf("listed are %q", got)
	}
	for _, d := range []*rig.Device{silent, says} {
		must1(w.Set(ctx, op, d.Serial, nil, &[]string{"lte"}))
	}
	if got := list(); got != "says silent " {
		t.Errorf("before they heard of the module: %q", got)
	}
	for _, d := range []*rig.Device{silent, says} {
		w.checkIn(d)
	}
	if got := list(); got != "says " {
		t.Errorf("listed are %q", got)
	}
	v, _, err := w.Show(ctx, "says")
	if must(t, err); v.State != protocol.DeviceBehind || v.Has.BOM != "bom1" || v.Should.BOM != "bom1+lte" || v.WhyNot == "" {
		t.Errorf("%s, has %+v, should have %+v, %q", v.State, v.Has, v.Should, v.WhyNot)
	}
	says.Install()
	w.checkIn(says)
	v, events, err := w.Show(ctx, "says")
	if must(t, err); v.State != protocol.DeviceOK || v.WhyNot != "" || len(events) < 2 || events[0].Text != "runs "+snapshot1 {
		t.Errorf("%s, %q, %+v", v.State, v.WhyNot, events)
	}
	if got := list(); got != "" {
		t.Errorf("listed are %q", got)
	}

	// The product asks for something else, which there is not.
	w.boms[w.snapshots[snapshot1].State.String()] = bom{status: fleet.BOMFailed, reason: "app : Depends: lib"}
	w.checkIn(says)
	v, _, err = w.Show(ctx, "says")
	if must(t, err); told(says.Accepted) != snapshot1+" bom1+lte; wait: "+v.WhyNot || !strings.HasSuffix(v.WhyNot, "app : Depends: lib") {
		t.Errorf("told %s, why not %q", told(says.Accepted), v.WhyNot)
	}
}
