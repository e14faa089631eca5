package main

import (
	"context"
	"crypto/ecdh"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/device-updater/internal/agent"
	"aptfleet/device-updater/internal/archive"
	"aptfleet/device-updater/internal/assignment"
	"aptfleet/device-updater/internal/config"
	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/enrol"
	"aptfleet/device-updater/internal/exchange"
	"aptfleet/device-updater/internal/hardware"
	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/identity"
	"aptfleet/device-updater/internal/settings"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/atomicfile"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// features are the words of the device protocol that this program knows.
var features = []string{}

// server is what this device has to do with its server. Without an enrolment it
// has no agent, and what is assigned is nothing.
type server struct {
	program     *program
	config      config.Config
	records     update.Records
	hardware    identity.Hardware
	transport   http.RoundTripper
	enrolment   identity.Enrolment
	keys        identity.Keys
	boot        string             // kernel's id
	assignments update.Assignments // never nil
	store       *assignment.Store  // nil: not enrolled
	agent       *agent.Agent       // nil: not enrolled
	waits       *waiting           // why there is no agent
	settings    *settings.Settings
	worker      *daemon.Daemon // nil: no daemon
	log         *slog.Logger
}

func (p *program) identity() identity.Dir {
	return identity.In(filepath.Join(p.sysroot, "identity"))
}

// openServer reads who this device is. An identity that is damaged does not
// keep the updater from ending what was interrupted, nor from going back.
func (p *program) openServer(c config.Config, records update.Records) (*server, error) {
	s := &server{
		program: p, config: c, records: records, hardware: identity.ReadHardware(os.DirFS("/")),
		waits: &waiting{why: "this device is not enrolled"}, log: slog.New(slog.DiscardHandler),
	}
	s.assignments = s.waits
	deployment := "" // where nobody can tell, hooks run as in another one
	if n, err := p.control().Current(); err == nil {
		deployment = strconv.Itoa(n)
	}
	s.settings = settings.New(p.updaterDir(), deployment, func() (*ecdh.PrivateKey, error) { return s.keys.Unseal(), nil })
	enrolled, err := s.open()
	if err != nil {
		s.waits.broken = true
		s.waits.say(err.Error())
		return s, nil
	}
	if enrolled {
		s.assignments = s.store
	}
	return s, nil
}

func (s *server) open() (enrolled bool, err error) {
	dir := s.program.identity()
	e, enrolled, err := dir.Enrolment()
	if err != nil || !enrolled {
		return false, err
	}
	keys, err := dir.Keys()
	if err != nil {
		return false, err
	}
	if keys.ID() != e.Key {
		return false, fmt.Errorf("cannot use the enrolment of %s: it was made for the key %s, and this device has %s", e.Device, e.Key, keys.ID())
	}
	if err := dir.Export(e); err != nil {
		return false, err
	}
	var ca []byte
	if e.CA != "" {
		ca = []byte(e.CA)
	}
	transport, err := s.program.trust(s.records).Transport(ca)
	if err != nil {
		return false, err
	}
	me := assignment.Me{Device: e.Device, Key: e.Key, Pipeline: e.Pipeline, Product: e.Product, Pinned: e.AssignmentKey}
	store, err := assignment.Open(s.program.updaterDir(), me, s.clock)
	if err != nil {
		return false, err
	}
	if s.boot, err = identity.BootID(os.DirFS("/")); err != nil {
		return false, err
	}
	s.enrolment, s.keys, s.transport, s.store = e, keys, transport, store
	return true, nil
}

// lend gives a source what the enrolment says about the archive.
func (s *server) lend(source *update.Source, c config.Config) {
	source.Server = s.reachable
	e := s.enrolment
	if s.store == nil || c.Follow != config.FollowAssignment && c.Archive != e.Archive {
		return
	}
	dir := s.program.identity()
	source.Access = archive.Access{User: e.Device, Password: e.Password}
	source.Client.HTTP = archive.NewHTTP(s.transport, e.Archive, source.Access)
	source.Client.URL = e.Archive
	if e.CA != "" {
		source.CA = dir.CA()
	}
	if c.Keyring == "" {
		source.Client.Keyring = dir.ArchiveKey()
	}
}

// begin makes the agent of an enrolled device.
func (s *server) begin(d *device) {
	if s.store == nil {
		return
	}
	describe := describer{device: d, board: s.program.board(s.config)}
	s.agent = agent.New(agent.Settings{
		Server: s.enrolment.Server, Device: s.enrolment.Device, HTTP: exchange.NewClient(s.transport),
		Identity: signer{s.keys, s.program.identity()}, Assignments: s.store, Config: s.settings, Machine: s.hardware.Machine, Boot: s.boot, Interval: s.config.Poll,
		Describe: describe.report, Told: s.told, Assigned: s.assigned, Clock: time.Now, Random: rand.Float64, Log: s.log,
	})
}

// signer is the agent.Identity of a device.
type signer struct {
	identity.Keys
	identity.Dir
}

func (s *server) assigned() {
	if s.worker != nil {
		s.worker.Wake()
	}
}

// listen tells a daemon about news.
func (s *server) listen(worker *daemon.Daemon, log *slog.Logger) {
	s.worker, s.log = worker, log
	if s.agent != nil {
		s.agent.Log = log
	}
}

// ask returns what learns the newest assignment; nil if none is followed.
func (s *server) ask() func(context.Context) error {
	if s.agent == nil || s.config.Follow != config.FollowAssignment {
		return nil
	}
	return s.agent.CheckIn
}

// reachable asks the server for nothing but an answer.
func (s *server) reachable(ctx context.Context) error {
	if s.store == nil {
		return errors.New("this device is not enrolled")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.enrolment.Server+"/healthz", nil)
	if err != nil {
		return err
	}
	answer, err := exchange.NewClient(s.transport).Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answers %s", answer.Status)
	}
	return nil
}

// run keeps in contact until ctx ends. A daemon whose device is not enrolled
// enrols it.
func (s *server) run(ctx context.Context) {
	if s.agent != nil {
		s.agent.Run(ctx)
		return
	}
	// A configuration outlives the enrolment that it came with.
	if _, err := s.settings.Resume(ctx); err != nil && ctx.Err() == nil {
		s.log.Warn(err.Error())
	}
	if s.worker != nil && s.config.Server != "" && !s.waits.broken {
		s.enrol(ctx)
	}
}

// How often an enrolment is tried again.
const (
	firstAsk   = 5 * time.Second
	lastAsk    = 5 * time.Minute
	refusedAsk = 24 * time.Hour
)

// enrol asks until the device is enrolled, then makes the daemon begin anew.
func (s *server) enrol(ctx context.Context) {
	tell := func(err error) {
		if s.waits.say(err.Error()) {
			s.log.Warn("this device is not enrolled: " + err.Error())
			s.worker.Wake()
		}
		s.told(agent.Contact{})
	}
	backoff := exchange.Backoff{First: firstAsk, Last: lastAsk, Random: rand.Float64}
	for ctx.Err() == nil {
		client, err := s.program.enroller(ctx, s.config, enrolment{hardware: s.hardware, records: s.records})
		var e identity.Enrolment
		if err == nil {
			e, err = client.Until(ctx, backoff, tell)
		}
		if err == nil {
			err = s.program.identity().PutEnrolment(e)
		}
		if err == nil {
			s.log.Info("enrolled", "device", e.Device, "server", e.Server)
			s.worker.Reload()
			return
		}
		tell(err)
		pause := backoff.Next(err)
		if enrol.Final(err) {
			pause = exchange.Jitter(refusedAsk, rand.Float64)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// waiting is the update.Assignments of a device that is not enrolled.
type waiting struct {
	broken bool // its identity is damaged: a person must look
	mu     sync.Mutex
	why    string
}

// Current implements update.Assignments.
func (w *waiting) Current() (*protocol.Assignment, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return nil, w.why
}

// Refuse implements update.Assignments.
func (*waiting) Refuse(*assignment.Refusal) {}

// say changes the reason and reports whether it was another one.
func (w *waiting) say(why string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	news := w.why != why
	w.why = why
	return news
}

// clock is what assignments are judged by.
func (s *server) clock() assignment.Clock {
	return assignment.Clock{Now: time.Now(), Synchronised: synchronised(), Floor: floor(s.records)}
}

// floor is a time that has passed, whatever the clock says.
func floor(records update.Records) time.Time {
	floor := buildTime()
	if times, err := records.Times(); err == nil && times.Floor.After(floor) {
		floor = times.Floor
	}
	return floor
}

// trust believes certificates by the clock, or by the floor if it stands
// before that.
func (p *program) trust(records update.Records) enrol.Authorities {
	return enrol.Authorities{Clock: func() time.Time {
		if now, floor := time.Now(), floor(records); now.After(floor) {
			return now
		}
		return floor(records)
	}}
}

// synchronised reports whether something keeps the clock right, as adjtimex(2)
// knows it.
func synchronised() bool {
	var state unix.Timex
	_, err := unix.Adjtimex(&state)
	return err == nil && state.Status&unix.STA_UNSYNC == 0
}

// architecture is Debian's name of what this program was built for.
func architecture() string {
	if runtime.GOARCH == "arm" {
		return "armhf"
	}
	if runtime.GOARCH == "386" {
		return "i386"
	}
	return runtime.GOARCH
}

// describer says how a device is.
type describer struct {
	device *device
	board  *hardware.Board
	mu     sync.Mutex
	free   int64 // that was told
	health *protocol.Health
	looked time.Time // at the health
}

// healthAge is how old an answer of the service manager may be.
const healthAge = 10 * time.Second

func (x *describer) report(ctx context.Context) (protocol.Report, error) {
	d := x.device
	view, err := update.Look(d.boot, d.records, d.machine.Journal.Last(), d.config.Follow)
	if err != nil {
		return protocol.Report{}, err
	}
	r := view.Report
	r.Failed = update.Reported(r.Failed)
	contact := d.server.agent.Contact()
	r.Updater, r.Features, r.Refused, r.Config = term.Version(), features, d.server.store.Refused().Report(), contact.Config
	if r.LastError == "" {
		r.LastError = contact.Failed
	}
	if r.Revision, err = x.board.Revision(ctx); err != nil && r.LastError == "" {
		r.LastError = err.Error()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	// A report that changes with every byte would be a report each time.
	if free, err := d.machine.Roots.Free(); err == nil && (free-x.free > x.free/16 || x.free-free > x.free/16) {
		x.free = free
	}
	if now := time.Now(); now.Sub(x.looked) > healthAge || now.Before(x.looked) {
		x.health, x.looked = unitHealth(ctx), now
	}
	r.FreeBytes, r.Health = x.free, x.health
	return r, nil
}

// unitHealth is what the service manager says; nil if it says nothing.
func unitHealth(ctx context.Context) *protocol.Health {
	units, err := health.Units(ctx)
	switch {
	case err != nil:
		return nil
	case len(units.Failed) > 0:
		return &protocol.Health{Reason: units.Failed[0] + " failed"}
	case len(units.Restarting) > 0:
		return &protocol.Health{Reason: units.Restarting[0] + " does not stay up"}
	}
	return &protocol.Health{OK: true}
}

// contact is what the updater last knew of the server, for `status`. It lies
// beside the socket and ends with the boot.
type contact struct {
	Waits string `json:"waits,omitempty"` // why the device is not enrolled
	agent.Contact
	Assignment *assigned         `json:"assignment,omitempty"`
	Refused    *protocol.Refused `json:"refused,omitempty"` // the last one, if it was
}

// assigned is an accepted assignment in short.
type assigned struct {
	Counter uint64    `json:"counter"`
	Stage   string    `json:"stage,omitempty"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
	Against string    `json:"against,omitempty"` // why nothing may be begun on its behalf
}

func (p *program) contactPath() string {
	return filepath.Join(filepath.Dir(p.socket), "server.json")
}

// told keeps what became of a check-in. If that cannot be kept, status knows
// less.
func (s *server) told(c agent.Contact) {
	now := contact{Contact: c}
	if s.store == nil {
		_, now.Waits = s.waits.Current()
	} else {
		now.Refused = s.store.Refused().Report()
		if a, against := s.store.Current(); a != nil {
			now.Assignment = &assigned{a.Counter, a.Stage, a.Issued, a.Expires, against}
		}
	}
	text, err := json.Marshal(now)
	if err == nil {
		err = atomicfile.Write(s.program.contactPath(), text, 0o600)
	}
	if err != nil {
		s.log.Debug("status will not show the server", "error", err)
	}
}
