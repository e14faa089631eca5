// Package agent checks in with the server: it says how the device is and
// learns what it should run. Nothing waits for it: a report that cannot be
// delivered is replaced by the next one, and a device without its server runs
// on as it is.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"aptfleet/device-updater/internal/assignment"
	"aptfleet/device-updater/internal/exchange"
	"aptfleet/internal/protocol"
)

// Identity is who signs, and in which session.
type Identity interface {
	Sign(purpose protocol.Purpose, payload []byte) protocol.Signed
	// NextSession returns a number above the given one that was never used; it
	// is durable.
	NextSession(above uint64) (uint64, error)
}

// Assignments keep what the server wants of the device: an assignment.Store.
type Assignments interface {
	Accept(signed protocol.Signed) (changed bool, err error)
	Refused() *assignment.Refusal
	Have() (counter uint64, content string, expires time.Time)
	Current() (a *protocol.Assignment, against string)
}

// Configurer applies the configuration of an assignment, or without one ends
// what was interrupted. It is called at every check-in, with the one that was
// accepted last: what is applied already costs nothing. revision is what is in force
// afterwards, also where err says why the rest is not.
type Configurer interface {
	Apply(ctx context.Context, device string, config *protocol.AssignedConfig) (revision string, err error)
}

// Settings are what an Agent is made of.
type Settings struct {
	Server      string // URL of the public listener
	Device      string // its name
	HTTP        *http.Client
	Identity    Identity
	Assignments Assignments
	Config      Configurer // nil: configuration is not applied
	Machine     string     // identity.Hardware's
	Boot        string
	Interval    time.Duration // between check-ins; 0: on changes and on request only
	// Describe says how the device is now. What it leaves empty the agent
	// does not know either.
	Describe func(ctx context.Context) (protocol.Report, error)
	// Assigned is told that another assignment was accepted. It must not block.
	Assigned func()
	// Told is told what became of each check-in. It must not block.
	Told   func(Contact)
	Clock  func() time.Time
	Random func() float64 // [0, 1)
	Log    *slog.Logger
}

// Contact is what the device knows about its server.
type Contact struct {
	Last   time.Time     `json:"last,omitzero"`    // device's clock, when the server last took a check-in
	Error  string        `json:"error,omitempty"`  // why the newest check-in failed
	Since  time.Time     `json:"since,omitzero"`   // when they began to fail
	Code   string        `json:"code,omitempty"`   // of the server's refusal, as in protocol.Error
	Next   time.Time     `json:"next,omitzero"`    // when it is tried again
	Skew   time.Duration `json:"skew,omitempty"`   // server's clock less the device's, nanoseconds, to about a second; only shown
	Config string        `json:"config,omitempty"` // revision that is in force
	Failed string        `json:"failed,omitempty"` // why the newest configuration is not
}

// How often.
const (
	calm        = 2 * time.Second // at least, between two check-ins that only tell what changed
	quiet       = 15 * time.Second
	firstWait   = 5 * time.Second
	lastWait    = 15 * time.Minute
	retiredWait = 24 * time.Hour
	strangeWait = time.Hour // at most, where the server does not know the device
)

// Agent checks in, one after the other.
type Agent struct {
	Settings
	backoff exchange.Backoff
	wake    chan struct{}

	turn     sync.Mutex // held during a check-in
	session  uint64     // 0: none begun
	sequence uint64
	known    string // ReportHash that the server has acknowledged
	told     string // the same of what matters at once
	refused  string // why the last assignment was

	mu      sync.Mutex
	contact Contact
}

// New returns an agent that has not begun a session yet.
func New(s Settings) *Agent {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	return &Agent{Settings: s, backoff: exchange.Backoff{First: firstWait, Last: lastWait, Random: s.Random}, wake: make(chan struct{}, 1)}
}

// Changed says that something about the device has changed. It returns at once.
func (a *Agent) Changed() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Contact returns what is known about the server.
func (a *Agent) Contact() Contact {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.contact
}

// Run checks in until ctx ends; then once more if there is something to tell.
func (a *Agent) Run(ctx context.Context) {
	var next time.Duration // the first follows the start at once
	for {
		if !a.await(ctx, next) {
			break
		}
		err := a.CheckIn(ctx)
		next = a.pause(err)
		a.note(func(c *Contact) {
			if c.Next = a.Clock().Add(next); next == never {
				c.Next = time.Time{}
			}
		})
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if a.Contact().Error == "" && a.news(last, false) {
		if err := a.report(last); err != nil {
			a.Log.Debug("the last report was not delivered", "error", err)
		}
	}
}

// never is a pause that only a change ends.
const never = time.Duration(-1)

// pause returns how long to leave the server alone after a check-in.
func (a *Agent) pause(err error) time.Duration {
	switch code := exchange.Code(err); {
	case err == nil:
		a.backoff.Reset()
		if a.Interval == 0 {
			return never
		}
		return exchange.Jitter(a.Interval, a.Random)
	case code == protocol.CodeRetired:
		return exchange.Jitter(retiredWait, a.Random)
	case code == protocol.CodeUnknownDevice, code == protocol.CodeBadSignature, code == protocol.CodeUnsupported:
		a.backoff.Last = strangeWait
		return a.backoff.Next(err)
	}
	a.backoff.Last = max(lastWait, a.Interval)
	return a.backoff.Next(err)
}

// await returns when the next check-in is due: after the pause, or if something
// that the server should know changes. It returns false when ctx ends.
func (a *Agent) await(ctx context.Context, pause time.Duration) bool {
	failing := a.Contact().Error != ""
	var due <-chan time.Time
	if pause != never {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		due = timer.C
	}
	began := a.Clock()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-due:
			return true
		case <-a.wake:
			if failing || !a.news(ctx, true) {
				continue // the server has trouble of its own, or knows it all
			}
		}
		// Changes come in bursts: the newest of them counts.
		select {
		case <-ctx.Done():
			return false
		case <-due:
		case <-time.After(max(0, calm-a.Clock().Sub(began))):
		}
		return true
	}
}

// news reports whether the server does not know how the device is now; with
// urgent, whether it should know at once.
func (a *Agent) news(ctx context.Context, urgent bool) bool {
	r, err := a.Describe(ctx)
	if err != nil {
		return false
	}
	a.turn.Lock()
	defer a.turn.Unlock()
	if urgent {
		return gist(r) != a.told
	}
	text, err := json.Marshal(r)
	return err == nil && protocol.ReportHash(text) != a.known
}

// gist is what matters about a report at once: not how far an act is.
func gist(r protocol.Report) string {
	r.Progress, r.FreeBytes = "", 0
	text, err := json.Marshal(r)
	if err != nil {
		return ""
	}
	return protocol.ReportHash(text)
}

// CheckIn checks in now and returns when the answer has been dealt with. An
// assignment that is refused, or a configuration that cannot be applied, is not
// an error of the check-in.
func (a *Agent) CheckIn(ctx context.Context) error {
	a.turn.Lock()
	a.configure(ctx)
	a.turn.Unlock()
	return a.report(ctx)
}

// report is a check-in that leaves the configuration as it is, unless the
// answer has another one.
func (a *Agent) report(ctx context.Context) error {
	a.turn.Lock()
	err := a.checkIn(ctx)
	a.turn.Unlock()
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx) // that says nothing about the server
	}
	now := a.Clock()
	a.note(func(c *Contact) {
		c.Code = exchange.Code(err)
		if err != nil {
			if c.Error == "" {
				c.Since = now
			}
			c.Error = err.Error()
			return
		}
		c.Last, c.Error, c.Since = now, "", time.Time{}
	})
	if err != nil {
		return fmt.Errorf("cannot check in with %s: %w", a.Server, err)
	}
	return nil
}

// note changes the contact and tells it.
func (a *Agent) note(change func(*Contact)) {
	a.mu.Lock()
	before := a.contact
	change(&a.contact)
	now := a.contact
	a.mu.Unlock()
	if now.Error != before.Error {
		if now.Error != "" {
			a.Log.Warn("cannot check in: "+now.Error, "code", now.Code)
		} else {
			a.Log.Info("the server answers again")
		}
	}
	if a.Told != nil {
		a.Told(now)
	}
}

// attempts bounds the exchanges of one check-in: once with the report, once
// above a session that the server remembers.
const attempts = 4

func (a *Agent) checkIn(ctx context.Context) error {
	if a.session == 0 {
		if err := a.begin(0); err != nil {
			return err
		}
	}
	report, err := a.Describe(ctx)
	if err != nil {
		return err
	}
	text, err := json.Marshal(report)
	if err != nil {
		return err
	}
	hash := protocol.ReportHash(text)
	// After a start the server may know the report from before.
	send := a.known != "" && a.known != hash
	for range attempts {
		said, err := a.exchange(ctx, text, send)
		var refused *exchange.Refused
		switch {
		case errors.As(err, &refused) && refused.Said.Code == protocol.CodeReplay:
			// A disk that was put back to an earlier time: the server knows better.
			if err := a.begin(refused.Said.Session); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		if said.Assignment != nil {
			a.accept(ctx, *said.Assignment)
		}
		if !said.SendReport {
			a.known, a.told = hash, gist(report)
			return nil
		}
		if send {
			return errors.New("the server asks for a report that it was just sent")
		}
		send = true
	}
	return errors.New("the server takes no session of this device")
}

// begin begins a session above the given one and our own.
func (a *Agent) begin(above uint64) error {
	session, err := a.Identity.NextSession(max(above, a.session))
	if err != nil {
		return err
	}
	a.session, a.sequence = session, 0
	return nil
}

// exchange is one request. A sequence is never used twice, whatever becomes of
// the request.
func (a *Agent) exchange(ctx context.Context, report []byte, send bool) (protocol.CheckedIn, error) {
	a.sequence++
	began := a.Clock()
	in := protocol.CheckIn{
		Version: protocol.DeviceProtocol, Session: a.session, Sequence: a.sequence, Boot: a.Boot, Machine: a.Machine,
		Time: began.UTC(), ReportHash: protocol.ReportHash(report),
	}
	if send {
		in.Report = report
	}
	in.Counter, in.Assignment, in.Expires = a.Assignments.Have()
	payload, err := json.Marshal(in)
	if err != nil {
		return protocol.CheckedIn{}, err
	}
	var said protocol.CheckedIn
	answer, err := exchange.Post(ctx, a.HTTP, a.Server+"/device/v1/check-ins", a.Identity.Sign(protocol.ForCheckIn, payload), &said)
	if err != nil {
		return protocol.CheckedIn{}, err
	}
	at := said.Time
	if at.IsZero() && !answer.Date.IsZero() {
		at = answer.Date.Add(time.Second / 2) // the header has whole seconds
	}
	if ended := a.Clock(); !at.IsZero() {
		skew := at.Sub(began.Add(ended.Sub(began) / 2)).Round(time.Second)
		a.mu.Lock()
		a.contact.Skew = skew
		a.mu.Unlock()
	}
	return said, nil
}

// accept deals with an assignment. Why it is not followed is told with the next
// report.
func (a *Agent) accept(ctx context.Context, signed protocol.Signed) {
	changed, err := a.Assignments.Accept(signed)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != a.refused {
		if a.refused = text; text != "" {
			a.Log.Warn(text)
		}
		a.Changed()
	}
	if err == nil {
		a.configure(ctx)
	}
	if changed && a.Assigned != nil {
		a.Assigned()
	}
}

// configure applies the configuration of the accepted assignment.
func (a *Agent) configure(ctx context.Context) {
	if a.Config == nil {
		return
	}
	// Why no update may begin on behalf of an assignment does not touch its
	// configuration.
	var config *protocol.AssignedConfig
	if newest, _ := a.Assignments.Current(); newest != nil {
		config = newest.Config
	}
	revision, err := a.Config.Apply(ctx, a.Device, config)
	if err != nil && ctx.Err() != nil {
		return // that says nothing about the configuration
	}
	failed := ""
	if err != nil {
		failed = err.Error()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.contact.Config == revision && a.contact.Failed == failed {
		return
	}
	if failed != "" {
		a.Log.Warn(failed)
	}
	a.contact.Config, a.contact.Failed = revision, failed
	a.Changed()
}
