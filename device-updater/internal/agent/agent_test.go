package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/device-updater/internal/agent"
	"aptfleet/device-updater/internal/assignment"
	"aptfleet/device-updater/internal/exchange"
	"aptfleet/device-updater/internal/identity"
	"aptfleet/device-updater/internal/servertest"
	"aptfleet/internal/protocol"
)

// fielded is a device without disks: identity, assignments and an agent.
type fielded struct {
	*agent.Agent
	server      *servertest.Server
	dir         identity.Dir
	keys        identity.Keys
	assignments *assignment.Store
	told        []agent.Contact

	mu       sync.Mutex
	report   protocol.Report
	assigned int
}

type signer struct {
	identity.Keys
	identity.Dir
}

func newDevice(t *testing.T) *fielded {
	t.Helper()
	d := &fielded{server: servertest.Start(t, false), dir: identity.In(t.TempDir()), report: protocol.Report{Phase: "IDLE"}}
	var err error
	if d.keys, err = d.dir.Make(rand.Reader); err != nil {
		t.Fatal(err)
	}
	d.server.Devices[d.keys.ID()] = &servertest.Known{Name: "dev-1", Accepted: true, Enrolment: protocol.Enrolment{Key: d.keys.Public()}}
	me := assignment.Me{Device: "dev-1", Key: d.keys.ID(), Pipeline: servertest.Pipeline, Product: servertest.Product, Pinned: d.server.Assignment.Public().(ed25519.PublicKey)}
	if d.assignments, err = assignment.Open(t.TempDir(), me, func() assignment.Clock { return assignment.Clock{Now: time.Now(), Synchronised: true} }); err != nil {
		t.Fatal(err)
	}
	d.start()
	return d
}

// start begins anew, as after a reboot.
func (d *fielded) start() {
	d.Agent = agent.New(agent.Settings{
		Server: d.server.URL, Device: "dev-1", HTTP: exchange.NewClient(http.DefaultTransport), Identity: signer{d.keys, d.dir}, Assignments: d.assignments,
		Machine: "m", Boot: "b", Interval: time.Hour, Clock: time.Now, Random: func() float64 { return 0 },
		Describe: func(context.Context) (protocol.Report, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.report, nil
		},
		Assigned: func() { d.mu.Lock(); d.assigned++; d.mu.Unlock() },
		Told:     func(c agent.Contact) { d.mu.Lock(); d.told = append(d.told, c); d.mu.Unlock() },
	})
}

func (d *fielded) say(change func(*protocol.Report)) {
	d.mu.Lock()
	change(&d.report)
	d.mu.Unlock()
	d.Changed()
}

func (d *fielded) known() servertest.Known {
	d.server.Lock()
	defer d.server.Unlock()
	return *d.server.Devices[d.keys.ID()]
}

func (d *fielded) exchanges() int {
	d.server.Lock()
	defer d.server.Unlock()
	return len(d.server.Requests)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never happened: %s", what)
		}
	}
}

// TestReportsOnlyWhatIsNews: the report goes when the server asks for it or it
// has changed, and a restart that changes nothing costs one small exchange.
func TestReportsOnlyWhatIsNews(t *testing.T) {
	d := newDevice(t)
	check := func(want string) {
		t.Helper()
		before := d.exchanges()
		if err := d.CheckIn(t.Context()); err != nil {
			t.Fatal(err)
		}
		var got []string
		d.server.Lock()
		for _, in := range d.server.CheckIns[before:] {
			if in.Report != nil {
				got = append(got, "report")
			} else {
				got = append(got, "hash")
			}
		}
		d.server.Unlock()
		if strings.Join(got, " ") != want {
			t.Errorf("it sent %v, want %q", got, want)
		}
	}
	check("hash report")
	check("hash")
	d.say(func(r *protocol.Report) { r.Phase = "DOWNLOAD" })
	check("report")
	if d.known().Report.Phase != "DOWNLOAD" {
		t.Errorf("%+v", d.known().Report)
	}
	first := d.server.Last()
	d.start()
	check("hash")
	if last := d.server.Last(); last.Session != first.Session+1 || last.Sequence != 1 || last.Machine != "m" || last.Boot != "b" {
		t.Errorf("%+v after %+v", last, first)
	}
}

// TestASessionThatWentBack: the disk was put back, and the server says where it
// stands.
func TestASessionThatWentBack(t *testing.T) {
	d := newDevice(t)
	d.server.Devices[d.keys.ID()].Session = 41
	if err := d.CheckIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := d.server.Last().Session; s != 42 {
		t.Errorf("session %d", s)
	}
	d.start()
	if err := d.CheckIn(t.Context()); err != nil || d.server.Last().Session != 43 {
		t.Errorf("it is not durable: %v, session %d", err, d.server.Last().Session)
	}
	// A server that takes nothing does not keep the device busy.
	d.server.Lie = func(w http.ResponseWriter, _ *http.Request) bool {
		servertest.Answer(w, http.StatusConflict, protocol.ErrorBody{Error: protocol.Error{Code: protocol.CodeReplay, Session: 1}})
		return true
	}
	before := d.exchanges()
	if err := d.CheckIn(t.Context()); err == nil || d.exchanges()-before > 5 {
		t.Errorf("%v after %d exchanges", err, d.exchanges()-before)
	}
}

func TestAnAssignmentIsTakenOnce(t *testing.T) {
	d := newDevice(t)
	release := &protocol.AssignedRelease{
		State: strings.Repeat("a", 64), Base: "demo/states/" + strings.Repeat("a", 64), Distribution: "trixie", Components: []string{"main"},
		Release: strings.Repeat("b", 64), BOM: strings.Repeat("c", 64), BOMSize: 100,
	}
	d.server.Assign(release, nil)
	for range 3 {
		if err := d.CheckIn(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if a, against := d.assignments.Current(); a == nil || a.Counter != 1 || against != "" || d.assigned != 1 || d.known().Counter != 1 {
		t.Errorf("%+v %q, told %d times, the server knows counter %d", a, against, d.assigned, d.known().Counter)
	}
	// Renewed: the same with a later expiry is nothing new to do.
	d.server.Lock()
	d.server.Assigned.Expires = d.server.Assigned.Expires.Add(time.Hour)
	expires := d.server.Assigned.Expires
	d.server.Unlock()
	if err := d.CheckIn(t.Context()); err != nil || d.assigned != 1 {
		t.Errorf("%v, told %d times", err, d.assigned)
	}
	if _, _, until := d.assignments.Have(); !until.Equal(expires) {
		t.Errorf("good until %s, want %s", until, expires)
	}
	// What is refused is said, and changes nothing.
	d.server.Assign(release, func(a *protocol.Assignment) { a.Product = "camera" })
	if err := d.CheckIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r := d.assignments.Refused(); r == nil || r.Reason != assignment.Product || r.Counter != 2 || d.assigned != 1 {
		t.Errorf("%+v", r)
	}
	d.server.Assign(release, nil)
	if err := d.CheckIn(t.Context()); err != nil || d.assignments.Refused() != nil || d.assigned != 2 {
		t.Errorf("%v, %+v", err, d.assignments.Refused())
	}
}

// TestChangesAreToldSoon, and how far an act is only when it is time.
func TestChangesAreToldSoon(t *testing.T) {
	d := newDevice(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	eventually(t, "the first check-in", func() bool { return d.known().Report.Phase == "IDLE" })
	first := d.exchanges()
	d.say(func(r *protocol.Report) { r.Progress = "1 of 40 packages" })
	d.say(func(r *protocol.Report) { r.FreeBytes = 7 })
	time.Sleep(50 * time.Millisecond)
	if n := d.exchanges(); n != first {
		t.Errorf("progress alone cost %d exchanges", n-first)
	}
	for _, phase := range []string{"CHECK", "PREFLIGHT", "DOWNLOAD"} {
		d.say(func(r *protocol.Report) { r.Phase = phase })
	}
	eventually(t, "the phase", func() bool { return d.known().Report.Phase == "DOWNLOAD" })
	if n := d.exchanges(); n != first+1 {
		t.Errorf("a burst of changes cost %d exchanges", n-first)
	}
	// What changes just before the end is still told.
	d.mu.Lock()
	d.report.Phase = "REBOOT"
	d.mu.Unlock()
	stop()
	<-done
	if d.known().Report.Phase != "REBOOT" {
		t.Errorf("the last report is %+v", d.known().Report)
	}
}

// TestTheServerHasTrouble: it is left alone for as long as it asks for, longer
// each time, and what is known of it is told.
func TestTheServerHasTrouble(t *testing.T) {
	for _, c := range []struct {
		name       string
		status     int
		code       string
		header     string
		atLeast    time.Duration
		atMost     time.Duration
		afterThree time.Duration // at least, after the third time
	}{
		{"it is down", 503, "", "", 2 * time.Second, 5 * time.Second, 10 * time.Second},
		{"it asks for time", 503, "", "120", 120 * time.Second, 150 * time.Second, 120 * time.Second},
		{"it asks for a year", 429, "", "31536000", 24 * time.Hour, 30 * time.Hour, 24 * time.Hour},
		{"it does not know the device", 401, protocol.CodeUnknownDevice, "", 2 * time.Second, 5 * time.Second, 10 * time.Second},
		{"it retired the device", 403, protocol.CodeRetired, "", 12 * time.Hour, 24 * time.Hour, 12 * time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(t)
			d.server.Lie = func(w http.ResponseWriter, _ *http.Request) bool {
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				servertest.Answer(w, c.status, protocol.ErrorBody{Error: protocol.Error{Code: c.code, Text: "no"}})
				return true
			}
			var pause time.Duration
			for n := range 3 {
				err := d.CheckIn(t.Context())
				if err == nil || exchange.Code(err) != c.code {
					t.Fatalf("%v", err)
				}
				if pause = d.Pause(err); n == 0 && (pause < c.atLeast || pause > c.atMost) {
					t.Errorf("it comes back after %s, want %s to %s", pause, c.atLeast, c.atMost)
				}
			}
			if pause < c.afterThree {
				t.Errorf("after three times it comes back after %s, want at least %s", pause, c.afterThree)
			}
			if contact := d.Contact(); contact.Error == "" || contact.Code != c.code || contact.Since.IsZero() {
				t.Errorf("%+v", contact)
			}
		})
	}
}

// TestCancelled: who stops a check-in has not found the server gone.
func TestCancelled(t *testing.T) {
	d := newDevice(t)
	ctx, stop := context.WithCancel(t.Context())
	d.server.Lie = func(http.ResponseWriter, *http.Request) bool { stop(); time.Sleep(20 * time.Millisecond); return false }
	if err := d.CheckIn(ctx); !errors.Is(err, context.Canceled) || d.Contact().Error != "" {
		t.Errorf("%v, %+v", err, d.Contact())
	}
}

// TestAStrangerStaysItself: a server that does not know the device any more
// changes nothing about it.
func TestAStrangerStaysItself(t *testing.T) {
	d := newDevice(t)
	d.server.Assign(nil, nil)
	if err := d.CheckIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	delete(d.server.Devices, d.keys.ID())
	if err := d.CheckIn(t.Context()); exchange.Code(err) != protocol.CodeUnknownDevice {
		t.Errorf("%v", err)
	}
	keys, err := d.dir.Keys()
	if a, _ := d.assignments.Current(); err != nil || keys.ID() != d.keys.ID() || a == nil || slices.Contains(d.server.Requests, "/device/v1/enrolments") {
		t.Errorf("%v, %+v, %v", err, a, d.server.Requests)
	}
}

// TestTheClockIsMeasured and nothing else is done with it.
func TestTheClockIsMeasured(t *testing.T) {
	d := newDevice(t)
	d.server.Clock = func() time.Time { return time.Now().Add(-3 * time.Minute) }
	if err := d.CheckIn(t.Context()); err != nil {
		t.Fatal(err)
	}
	if skew := d.Contact().Skew; skew < -3*time.Minute-2*time.Second || skew > -3*time.Minute+2*time.Second {
		t.Errorf("skew %s", skew)
	}
}

// configurer keeps what it was given.
type configurer struct {
	got []string
	err error
}

func (c *configurer) Apply(_ context.Context, device string, config *protocol.AssignedConfig) (string, error) {
	if config == nil {
		c.got = append(c.got, device+" nothing")
		return "", c.err
	}
	c.got = append(c.got, device+" "+config.Revision)
	return config.Revision, c.err
}

func TestConfigurationIsApplied(t *testing.T) {
	d := newDevice(t)
	config := &configurer{}
	d.Config = config
	if err := d.CheckIn(t.Context()); err != nil || strings.Join(config.got, ", ") != "dev-1 nothing" {
		t.Errorf("without an assignment: %v, applied %v", err, config.got)
	}
	config.got = nil
	d.server.Assign(nil, func(a *protocol.Assignment) { a.Config = &protocol.AssignedConfig{Revision: "r1"} })
	if err := d.CheckIn(t.Context()); err != nil || d.Contact().Config != "r1" {
		t.Errorf("%v, %+v", err, d.Contact())
	}
	config.err = errors.New("a hook failed")
	d.server.Assign(nil, func(a *protocol.Assignment) { a.Config = &protocol.AssignedConfig{Revision: "r2"} })
	if err := d.CheckIn(t.Context()); err != nil || d.Contact().Config != "r2" || d.Contact().Failed != "a hook failed" {
		t.Errorf("%v, %+v", err, d.Contact())
	}
	// Each check-in begins with what is there.
	if strings.Join(config.got, ", ") != "dev-1 nothing, dev-1 r1, dev-1 r1, dev-1 r2" {
		t.Errorf("applied %v", config.got)
	}
	config.err = nil
	if err := d.CheckIn(t.Context()); err != nil || d.Contact().Failed != "" {
		t.Errorf("the hook succeeds: %v, %+v", err, d.Contact())
	}
	ended, end := context.WithCancel(t.Context())
	end()
	config.err = context.Canceled
	if err := d.CheckIn(ended); err == nil || d.Contact().Failed != "" {
		t.Errorf("the updater ends: %v, %+v", err, d.Contact())
	}
}

// TestLies: no answer makes the device do or believe anything, or wait for ever.
func TestLies(t *testing.T) {
	other, err := json.Marshal(protocol.Assignment{Version: 1, Device: "dev-1", Counter: 9})
	if err != nil {
		t.Fatal(err)
	}
	for name, lie := range map[string]func(*fielded, http.ResponseWriter){
		"an assignment of another key": func(d *fielded, w http.ResponseWriter) {
			keys, err := identity.In(t.TempDir()).Make(rand.Reader)
			if err != nil {
				t.Error(err)
			}
			signed := keys.Sign(protocol.ForAssignment, other)
			servertest.Answer(w, 200, protocol.CheckedIn{Assignment: &signed})
		},
		"a check-in that comes back as an assignment": func(d *fielded, w http.ResponseWriter) {
			signed := d.keys.Sign(protocol.ForCheckIn, other)
			servertest.Answer(w, 200, protocol.CheckedIn{Assignment: &signed})
		},
		"a report is asked for, for ever": func(_ *fielded, w http.ResponseWriter) {
			servertest.Answer(w, 200, protocol.CheckedIn{SendReport: true})
		},
		"a redirect": func(_ *fielded, w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(http.StatusPermanentRedirect)
		},
		"a gigabyte, it says": func(_ *fielded, w http.ResponseWriter) {
			if _, err := w.Write([]byte(strings.Repeat("[", 3<<20))); err != nil {
				return // it has seen enough
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.server.Lie = func(w http.ResponseWriter, _ *http.Request) bool { lie(d, w); return true }
			began := time.Now()
			if err := d.CheckIn(t.Context()); err == nil && d.assignments.Refused() == nil {
				t.Error("it was believed")
			}
			if a, _ := d.assignments.Current(); a != nil || d.assigned > 0 || time.Since(began) > 5*time.Second || d.exchanges() > 5 {
				t.Errorf("%+v after %s and %d exchanges", a, time.Since(began), d.exchanges())
			}
		})
	}
}

// TestSlowAnswers end with the time that a check-in may take.
func TestSlowAnswers(t *testing.T) {
	d := newDevice(t)
	release := make(chan struct{})
	defer close(release)
	d.server.Lie = func(w http.ResponseWriter, r *http.Request) bool {
		for range 100 {
			if _, err := w.Write([]byte(" ")); err != nil {
				return true
			}
			http.NewResponseController(w).Flush()
			select {
			case <-release:
				return true
			case <-time.After(20 * time.Millisecond):
			}
		}
		return true
	}
	d.HTTP.Timeout = 300 * time.Millisecond
	began := time.Now()
	if err := d.CheckIn(t.Context()); err == nil || time.Since(began) > 2*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}
