// Package daemon runs the state machine in the background: it checks from time
// to time, does what the command line asks over a Unix socket, and lets those
// who asked follow.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"aptfleet/device-updater/internal/update"
)

// Act is something the machine can be asked to do.
type Act string

// The acts.
const (
	Check    Act = "check"
	Update   Act = "update"
	Rollback Act = "rollback"
	Retry    Act = "retry"
)

// Request is one act with its options.
type Request struct {
	Act    Act  `json:"act"`
	Reboot bool `json:"reboot,omitempty"` // Update: boot the result in any case
	Retry  bool `json:"retry,omitempty"`  // Update: also what failed before
}

// Do carries a request out on a machine that has recovered.
func Do(ctx context.Context, m *update.Machine, r Request) error {
	switch r.Act {
	case Check:
		_, err := m.Check(ctx)
		return err
	case Update:
		return m.Update(ctx, update.Options{Reboot: r.Reboot, Retry: r.Retry})
	case Rollback:
		return m.Rollback(ctx)
	case Retry:
		if err := m.Retry(); err != nil {
			return err
		}
		return m.Update(ctx, update.Options{})
	}
	return errors.New("cannot do " + string(r.Act) + ": no such act")
}

// Daemon is one running daemon.
type Daemon struct {
	Machine *update.Machine
	Poll    time.Duration // 0: only on request
	Tell    func()        // reports to the server; must not block
	Log     *slog.Logger

	said    string // the last warning: the same is not repeated at every check
	queue   chan job
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change of the status
}

type job struct {
	request Request
	done    chan error // buffered
}

// New returns a daemon and makes the machine's Notify its own.
func New(m *update.Machine, poll time.Duration, tell func(), log *slog.Logger) *Daemon {
	d := &Daemon{Machine: m, Poll: poll, Tell: tell, Log: log, queue: make(chan job, 16), changed: make(chan struct{})}
	m.Notify = func(update.Status) {
		d.mu.Lock()
		close(d.changed)
		d.changed = make(chan struct{})
		d.mu.Unlock()
		d.Tell()
	}
	return d
}

// Run recovers, then works until ctx ends. Errors of single acts are logged and
// do not end it: a device must stay updatable.
func (d *Daemon) Run(ctx context.Context) {
	recovered := d.recover(ctx)
	d.Tell()
	var tick <-chan time.Time
	if d.Poll > 0 {
		// The first check follows the start at once.
		tick = time.After(0)
	}
	for {
		var next job
		select {
		case <-ctx.Done():
			return
		case next = <-d.queue:
		case <-tick:
			next = job{Request{Act: Update}, make(chan error, 1)}
		}
		if !recovered {
			recovered = d.recover(ctx)
		}
		switch {
		case !recovered:
			next.done <- errors.New("cannot start: what was interrupted could not be brought to an end; see the log of aptfleet-updater.service")
		case d.Machine.Rebooting():
			next.done <- &update.Refused{Reason: "the device is about to reboot"}
		default:
			err := Do(ctx, d.Machine, next.request)
			d.warn(ctx, next.request.Act, err)
			next.done <- err
		}
		d.Tell()
		if d.Poll > 0 {
			tick = time.After(d.Poll)
		}
	}
}

func (d *Daemon) warn(ctx context.Context, act Act, err error) {
	if ctx.Err() != nil {
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != d.said {
		d.Log.Warn(text, "act", string(act))
	}
	d.said = text
}

func (d *Daemon) recover(ctx context.Context) bool {
	if err := d.Machine.Recover(ctx); err != nil {
		if ctx.Err() == nil {
			d.Log.Error(err.Error(), "act", "recover")
		}
		return false
	}
	return true
}

// change returns a channel that is closed when the status changes.
func (d *Daemon) change() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}
