package fleet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/test/rig"
)

// What says nothing new costs no write, and its report is not read.
func TestAnUnchangedCheckInWritesNothing(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	running(d, w.snapshots[snapshot2])
	if answer := w.checkIn(d); answer == nil || answer.Assignment == nil {
		t.Fatalf("the first is answered with %+v", answer)
	}
	before, announced := w.store.commits.Load(), len(w.announced)
	for range 50 {
		w.pass(time.Minute)
		signed := must1(d.Next(w.now, false))
		if answer, err := w.send(signed); err != nil || answer != nil {
			t.Fatalf("answered with %+v, %v", answer, err)
		}
	}
	// One that comes along although it is known is not looked at.
	signed := resign(d, must1(d.Next(w.now, false)), func(in *protocol.CheckIn) { in.Report = json.RawMessage(`"no report"`) })
	if answer, err := w.send(signed); err != nil || answer != nil {
		t.Errorf("answered with %+v, %v", answer, err)
	}
	if n := w.store.commits.Load() - before; n != 0 || len(w.announced) != announced {
		t.Errorf("there were %d commits, announced is %q", n, w.announced[announced:])
	}
	if seen := must1(w.Device(t.Context(), "SN-1")).Seen; !seen.Equal(w.now) {
		t.Errorf("it was seen at %s, want %s", seen, w.now)
	}
	// After a restart of the server too.
	w.restart()
	before = w.store.commits.Load()
	if answer, err := w.send(must1(d.Next(w.now, false))); err != nil || answer != nil || w.store.commits.Load() != before {
		t.Errorf("after a restart: %+v, %v, %d commits", answer, err, w.store.commits.Load()-before)
	}
}

func TestReports(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	running(d, w.snapshots[snapshot1])
	// The server does not know it: it asks for it, and takes it only if it is what was said.
	if answer, err := w.send(must1(d.Next(w.now, false))); err != nil || answer == nil || !answer.SendReport {
		t.Fatalf("answered with %+v, %v", answer, err)
	}
	for name, change := range map[string]func(*protocol.CheckIn){
		"another report": func(in *protocol.CheckIn) { in.Report = json.RawMessage(`{"phase":"TRIAL"}`) },
		"no report": func(in *protocol.CheckIn) {
			in.Report = json.RawMessage(`[]`)
			in.ReportHash = protocol.ReportHash(in.Report)
		},
		"no hash":      func(in *protocol.CheckIn) { in.ReportHash = "" },
		"no hex":       func(in *protocol.CheckIn) { in.ReportHash = strings.Repeat("z", 64) },
		"a short hash": func(in *protocol.CheckIn) { in.ReportHash = "00" },
	} {
		if _, err := w.send(resign(d, must1(d.Next(w.now, true)), change)); release.CodeOf(err) != release.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.checkIn(d)
	if got := must1(w.Device(t.Context(), "SN-1")).Report; got == nil || got.Deployments[0].Snapshot != snapshot1 {
		t.Errorf("the report is %+v", got)
	}
	// A failed write is no answer, and the report is taken when it comes again.
	d.Report.Phase = "DOWNLOAD"
	w.store.FailNext(errors.New("disk full"))
	if answer, err := w.send(must1(d.Next(w.now, true))); err == nil {
		t.Errorf("a report that was not written is answered with %+v", answer)
	}
	if got := must1(w.Device(t.Context(), "SN-1")).Report; got.Phase != "IDLE" {
		t.Errorf("it counts although it was not written: %+v", got)
	}
	w.checkIn(d)
	w.restart()
	if got := must1(w.Device(t.Context(), "SN-1")).Report; got.Phase != "DOWNLOAD" {
		t.Errorf("after a restart the report is %+v", got)
	}
}

// Many changed reports share commits, and each is durable when it is answered.
func TestChangedReportsShareCommits(t *testing.T) {
	w := newWorld(t)
	devices := make([]*rig.Device, 40)
	for i := range devices {
		devices[i] = w.device(fmt.Sprint("SN-", i), "gateway", "dev")
		w.checkIn(devices[i])
	}
	w.store.slow.Store(int64(5 * time.Millisecond))
	before := w.store.commits.Load()
	var all sync.WaitGroup
	for _, d := range devices {
		d.Report.Phase = "DOWNLOAD"
		signed := must1(d.Next(w.now, true))
		all.Go(func() {
			if _, err := w.send(signed); err != nil {
				t.Error(err)
			}
			stored, err := w.store.Fleet(t.Context())
			if err != nil {
				t.Error(err)
			}
			for _, one := range stored.Devices {
				if one.Name == d.Serial && (one.Report == nil || one.Report.Phase != "DOWNLOAD") {
					t.Errorf("%s was answered before its report was durable", one.Name)
				}
			}
		})
	}
	all.Wait()
	if n := w.store.commits.Load() - before; n > 10 {
		t.Errorf("%d reports took %d commits", len(devices), n)
	}
	// One of a group that cannot be written fails alone or not at all, never the others.
	w.store.FailNext(errors.New("disk hiccup"))
	for _, d := range devices {
		d.Report.Phase = "INSTALL"
		signed := must1(d.Next(w.now, true))
		all.Go(func() { _, _ = w.send(signed) })
	}
	all.Wait()
	failed := 0
	for _, d := range devices {
		if must1(w.Device(t.Context(), d.Serial)).Report.Phase != "INSTALL" {
			failed++
		}
	}
	if failed > 1 {
		t.Errorf("%d reports were lost to one hiccup", failed)
	}
}

func TestRefusedCheckIns(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	d, other, retired := w.device("SN-1", "gateway", "dev"), w.device("SN-2", "gateway", "dev"), w.device("SN-3", "gateway", "dev")
	w.checkIn(d)
	must1(w.Retire(ctx, op, "SN-3", "stolen"))
	stranger := must1(rig.NewDevice("SN-4"))
	next := func(change func(*protocol.CheckIn)) protocol.Signed {
		return resign(d, must1(d.Next(w.now, true)), change)
	}
	text := func(s string) protocol.Signed { return protocol.Sign(d.Key, protocol.ForCheckIn, []byte(s)) }
	good := must1(d.Next(w.now, true))
	flipped := good
	flipped.Payload = append([]byte{' '}, good.Payload...)
	for name, c := range map[string]struct {
		signed protocol.Signed
		code   string
	}{
		"a stranger":                     {must1(stranger.Next(w.now, true)), protocol.CodeUnknownDevice},
		"nobody":                         {protocol.Signed{}, protocol.CodeUnknownDevice},
		"another's signature":            {protocol.Signed{Payload: good.Payload, Key: other.KeyID(), Signature: good.Signature}, protocol.CodeBadSignature},
		"signed by another":              {protocol.Signed{Payload: good.Payload, Key: good.Key, Signature: protocol.Sign(other.Key, protocol.ForCheckIn, good.Payload).Signature}, protocol.CodeBadSignature},
		"another text":                   {flipped, protocol.CodeBadSignature},
		"no signature":                   {protocol.Signed{Payload: good.Payload, Key: good.Key}, protocol.CodeBadSignature},
		"signed for an enrolment":        {protocol.Sign(d.Key, protocol.ForEnrolment, good.Payload), protocol.CodeBadSignature},
		"retired":                        {must1(retired.Next(w.now, true)), protocol.CodeRetired},
		"retired, forged":                {protocol.Signed{Payload: good.Payload, Key: retired.KeyID(), Signature: good.Signature}, protocol.CodeBadSignature},
		"a later version":                {next(func(in *protocol.CheckIn) { in.Version = 2 }), protocol.CodeUnsupported},
		"no version":                     {next(func(in *protocol.CheckIn) { in.Version = 0 }), protocol.CodeUnsupported},
		"a version that signs otherwise": {protocol.Sign(d.Key, "aptfleet check-in 2", []byte(`{"version":2}`)), protocol.CodeUnsupported},
		"garbage":                        {text("}{"), "invalid"},
		"a list":                         {text("[]"), "invalid"},
		"null":                           {text("null"), protocol.CodeUnsupported},
		"a negative session":             {text(`{"version":1,"session":-1}`), "invalid"},
		"a fraction":                     {text(`{"version":1,"session":1.5}`), "invalid"},
		"a huge session":                 {next(func(in *protocol.CheckIn) { in.Session = protocol.MaxNumber }), "invalid"},
		"a huge sequence":                {next(func(in *protocol.CheckIn) { in.Sequence = protocol.MaxNumber }), "invalid"},
		"a huge counter":                 {next(func(in *protocol.CheckIn) { in.Counter = protocol.MaxNumber }), "invalid"},
		"no machine":                     {next(func(in *protocol.CheckIn) { in.Machine = "" }), "invalid"},
		"a machine with an escape":       {next(func(in *protocol.CheckIn) { in.Machine = "\x1b[2J" }), "invalid"},
		"a long boot id":                 {next(func(in *protocol.CheckIn) { in.Boot = strings.Repeat("b", 65) }), "invalid"},
		"a long assignment":              {next(func(in *protocol.CheckIn) { in.Assignment = strings.Repeat("b", 65) }), "invalid"},
	} {
		before := must1(w.Device(ctx, "SN-1"))
		if answer, err := w.send(c.signed); code(err) != c.code || answer != nil {
			t.Errorf("%s: %+v, %v, want %s", name, answer, err, c.code)
		}
		if after := must1(w.Device(ctx, "SN-1")); after.Sequence != before.Sequence || !after.Seen.Equal(before.Seen) || after.Counter != before.Counter {
			t.Errorf("%s changed the device", name)
		}
	}
	if _, err := w.send(good); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// Session and sequence go up only, also over a restart of the server.
func TestReplays(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	w.checkIn(d)
	one, two, three := must1(d.Next(w.now, true)), must1(d.Next(w.now, true)), must1(d.Next(w.now, true))
	replay := func(name string, signed protocol.Signed, session uint64) {
		t.Helper()
		_, err := w.send(signed)
		var refused *fleet.Refused
		if !errors.As(err, &refused) || refused.Code != protocol.CodeReplay || refused.Session != session {
			t.Errorf("%s: %v, want a replay above %d", name, err, session)
		}
	}
	if _, err := w.send(two); err != nil {
		t.Fatal(err)
	}
	replay("the one before it", one, 1)
	replay("the same again", two, 1)
	if _, err := w.send(three); err != nil {
		t.Error(err)
	}
	before := d.Report
	d.Restart(true)
	d.Report.Phase = "TRIAL"
	fresh := must1(d.Next(w.now, true))
	if _, err := w.send(fresh); err != nil {
		t.Fatal(err)
	}
	replay("an earlier session", three, 2)
	replay("the same of this session", fresh, 2)
	w.restart()
	replay("an earlier session, after a restart", three, 2)
	replay("what came with a report, after a restart", fresh, 2)
	// What said nothing new may be repeated once after a restart, and says nothing new.
	unchanged := must1(d.Next(w.now, true))
	if _, err := w.send(unchanged); err != nil {
		t.Fatal(err)
	}
	w.restart()
	commits := w.store.commits.Load()
	if _, err := w.send(unchanged); err != nil || w.store.commits.Load() != commits {
		t.Errorf("%v, %d commits", err, w.store.commits.Load()-commits)
	}
	replay("and once more", unchanged, 2)
	// A session without any change is on record as well.
	d.Restart(false)
	quiet := must1(d.Next(w.now, true))
	if _, err := w.send(quiet); err != nil {
		t.Fatal(err)
	}
	w.restart()
	replay("a session that said nothing new", quiet, 3)
	if d.Report.Phase == before.Phase {
		t.Error("the test does not test")
	}
}

// Two machines with one key: told apart by their hardware, or by boot ids that
// come in turns. Neither is given anything until a person decides.
func TestClones(t *testing.T) {
	for _, c := range []struct {
		name    string
		machine bool // the copy is other hardware
	}{{"another machine", true}, {"the same hardware", false}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			ctx := t.Context()
			d := w.device("SN-1", "gateway", "dev")
			w.checkIn(d)
			copied := *d
			if c.machine {
				copied.Machine = "another"
			}
			copied.Restart(true)
			_, err := w.Service.CheckIn(ctx, must1(copied.Next(w.now, true)), "203.0.113.9")
			must(t, err)
			if cloned := must1(w.Device(ctx, "SN-1")).Clone != nil; cloned != c.machine {
				t.Fatalf("after the copy's first check-in it is found out: %v", cloned)
			}
			// The device is told that it repeats itself, and goes on above the copy.
			_, err = w.send(must1(d.Next(w.now, true)))
			var refused *fleet.Refused
			if !errors.As(err, &refused) || refused.Code != protocol.CodeReplay {
				t.Fatalf("the device: %v", err)
			}
			w.pass(time.Minute)
			d.Session, d.Sequence = refused.Session+1, 0
			w.promote("dev", snapshot1)
			if answer := w.checkIn(d); answer != nil {
				t.Errorf("the device is given %+v", answer)
			}
			view, events, err := w.Show(ctx, "SN-1")
			must(t, err)
			if view.Clone == nil || view.State != protocol.DeviceClone || len(view.Clone.Machines) != 2 {
				t.Fatalf("it is not found out: %+v, %v", view.Clone, events)
			}
			if a, b := view.Clone.Machines[0], view.Clone.Machines[1]; a.Address == b.Address || a.Boot == b.Boot || a.First.IsZero() || b.Last.IsZero() {
				t.Errorf("the evidence is %+v", view.Clone.Machines)
			}
			copied.Session, copied.Sequence = d.Session+1, 0
			if answer := w.checkIn(&copied); answer != nil {
				t.Errorf("the copy is given %+v", answer)
			}
			w.restart()
			if must1(w.Device(ctx, "SN-1")).Clone == nil {
				t.Error("it is forgotten after a restart")
			}
			must1(w.Assign(ctx, op, "SN-1", "canary")) // operators may go on
			keep := ""
			if c.machine {
				if _, err := w.Resolve(ctx, op, "SN-1", ""); release.CodeOf(err) != release.Invalid {
					t.Errorf("resolved without a word: %v", err)
				}
				keep = d.Machine[:9]
			}
			must1(w.Resolve(ctx, op, "SN-1", keep))
			d.Session, d.Sequence = copied.Session+1, 0
			if w.checkIn(d); d.Accepted.Stage != "canary" {
				t.Errorf("after the decision the device is told %+v", d.Accepted)
			}
			copied.Session, copied.Sequence = d.Session+1, 0
			_, err = w.send(must1(copied.Next(w.now, true)))
			if c.machine {
				if code(err) != protocol.CodeRetired || must1(w.Device(ctx, "SN-1")).Clone != nil {
					t.Errorf("the copy: %v", err)
				}
				if err := w.enrol(&copied, ""); code(err) != protocol.CodeRetired {
					t.Errorf("the copy enrols: %v", err)
				}
				return
			}
			must(t, err)
			d.Session, d.Sequence = copied.Session+1, 0
			if w.checkIn(d); must1(w.Device(ctx, "SN-1")).Clone == nil {
				t.Error("the copy went on, and is not found out again")
			}
		})
	}
}

// One machine, however often it starts, is no clone.
func TestRebootsAreNoClones(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	for i := range 30 {
		w.checkIn(d)
		w.checkIn(d)
		d.Restart(i%3 != 0)
		if i%7 == 0 {
			w.restart()
		}
	}
	if c := must1(w.Device(t.Context(), "SN-1")).Clone; c != nil {
		t.Errorf("%+v", c)
	}
}

// The evidence stays small however long two machines go on.
func TestEvidenceIsBounded(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	w.checkIn(d)
	for i := range 50 {
		d.Machine = fmt.Sprint("machine-", i%2)
		d.Restart(true)
		w.checkIn(d)
	}
	before := w.store.contacts.Load()
	for range 20 {
		w.checkIn(d)
	}
	if c := must1(w.Device(t.Context(), "SN-1")).Clone; c == nil || len(c.Machines) > 8 || c.Machines[0].Machine != "machine-SN-1" {
		t.Errorf("%+v", c)
	}
	if n := w.store.contacts.Load() - before; n > 0 {
		t.Errorf("a quiet clone was written %d times", n)
	}
}

func TestHistory(t *testing.T) {
	w := newWorld(t)
	d := w.device("SN-1", "gateway", "dev")
	running(d, w.snapshots[snapshot1])
	w.checkIn(d)
	d.Report.Progress = "3 of 7 packages"
	w.checkIn(d) // not important
	d.Report.Health = &protocol.Health{Reason: "demo-app is down"}
	d.Report.Failed = []protocol.Failure{{State: "cc", Snapshot: snapshot2, Reason: "no boot", At: w.now}}
	w.checkIn(d)
	d.Report.LastError = strings.Repeat("x", 10_000)
	w.checkIn(d)
	w.restart()
	d.Report.Health = &protocol.Health{OK: true}
	w.checkIn(d)
	for _, overlay := range [][]string{{"app 1~local"}, nil} {
		d.Report.Overlay = overlay
		w.checkIn(d)
	}
	for _, f := range []protocol.Firmware{{Version: "1.0", Wanted: "2.0", Reason: "no answer"}, {Version: "2.0", Wanted: "2.0"}, {Version: "2.0", Wanted: "2.0"}} {
		f.Component = "mcu"
		d.Report.Firmware = []protocol.Firmware{f}
		w.checkIn(d)
	}
	_, events, err := w.Show(t.Context(), "SN-1")
	must(t, err)
	var texts []string
	for _, e := range events {
		texts = append(texts, e.Text[:min(40, len(e.Text))])
	}
	want := []string{"has firmware 2.0 on mcu", "has not the firmware that it should on mcu: no answer"[:40], "has firmware 1.0 on mcu", "has its release alone again", "has packages of its own on top of its release: app 1~local"[:40], "is healthy", "reports an error: " + strings.Repeat("x", 22), "went back from " + snapshot2 + ": no boot", "is not healthy: demo-app is down", "is healthy", "runs " + snapshot1}
	if fmt.Sprint(texts) != fmt.Sprint(want) {
		t.Errorf("the history is %q, want %q", texts, want)
	}
}
