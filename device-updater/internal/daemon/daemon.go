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

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/update"
)

// Act is something the machine can be asked to do.
type Act string

// The acts.
const (
	Check    Act = "check"
	Preview  Act = "preview"
	Update   Act = "update"
	Rollback Act = "rollback"
	Retry    Act = "retry"
	Try      Act = "try"
	Rejoin   Act = "rejoin"
	Firmware Act = "firmware"
	Cancel   Act = "cancel" // what is staged
	Pin      Act = "pin"
	Unpin    Act = "unpin"
	// Reload ends Run, so that the daemon begins anew with what has changed
	// about the device: it was enrolled.
	Reload Act = "reload"
)

// Request is one act with its options.
type Request struct {
	Act    Act      `json:"act"`
	Reboot bool     `json:"reboot,omitempty"`  // Update, Try, Rejoin: boot the result in any case
	Retry  bool     `json:"retry,omitempty"`   // Update: also what failed before
	DryRun bool     `json:"dry_run,omitempty"` // Try, Rejoin, Firmware: only say what would change
	Files  []string `json:"files,omitempty"`   // Try: absolute paths of .debs
	By     string   `json:"by,omitempty"`      // Try, Pin: who brought them, or who wants it

	Component  string `json:"component,omitempty"`  // what Firmware is applied to; "": all of them
	Deployment int    `json:"deployment,omitempty"` // Pin, Unpin
	Reason     string `json:"reason,omitempty"`     // Pin

	RestoreState bool `json:"restore_state,omitempty"` // Rollback: the state goes back, too

	patient bool // nobody asked: it is time to check
}

// Machine is what the daemon runs: an update.Machine.
type Machine interface {
	Recover(ctx context.Context) error
	Check(ctx context.Context) (update.Offer, error)
	Preview(ctx context.Context) ([]apt.Change, error)
	Update(ctx context.Context, o update.Options) error
	Rollback(ctx context.Context) error
	RollbackState(ctx context.Context) error
	Retry() error
	Try(ctx context.Context, files []string, by string, o update.Options) error
	PreviewTry(ctx context.Context, files []string) ([]apt.Change, error)
	Rejoin(ctx context.Context, o update.Options) error
	PreviewRejoin(ctx context.Context) ([]apt.Change, error)
	ApplyFirmware(ctx context.Context, component string, dryRun bool) ([]apt.Change, error)
	Withdraw(ctx context.Context) error
	Pin(deployment int, by, reason string) error
	Unpin(deployment int) error
	Rebooting() bool
	Unfinished() bool
	Waits() bool
	Ready(ctx context.Context) bool
	Cancel() bool
	Status() update.Status
}

// AsksServer reports whether a request wants to know first what the server has
// to say.
func (r Request) AsksServer() bool {
	return !r.patient && r.Act != Rollback && r.Act != Cancel && r.Act != Pin && r.Act != Unpin && r.Act != Firmware
}

// Do carries a request out on a machine that has recovered. changes are the
// answer to Preview, Firmware and dry runs.
func Do(ctx context.Context, m Machine, r Request) (changes []apt.Change, err error) {
	switch r.Act {
	case Try:
		if r.DryRun {
			return m.PreviewTry(ctx, r.Files)
		}
		err = m.Try(ctx, r.Files, r.By, update.Options{Reboot: r.Reboot})
	case Rejoin:
		if r.DryRun {
			return m.PreviewRejoin(ctx)
		}
		err = m.Rejoin(ctx, update.Options{Reboot: r.Reboot})
	case Firmware:
		return m.ApplyFirmware(ctx, r.Component, r.DryRun)
	case Check:
		_, err = m.Check(ctx)
	case Preview:
		changes, err = m.Preview(ctx)
	case Update:
		err = m.Update(ctx, update.Options{Reboot: r.Reboot, Retry: r.Retry, Patient: r.patient})
	case Rollback:
		if r.RestoreState {
			return nil, m.RollbackState(ctx)
		}
		err = m.Rollback(ctx)
	case Retry:
		if err = m.Retry(); err == nil {
			err = m.Update(ctx, update.Options{})
		}
	case Cancel:
		err = m.Withdraw(ctx)
	case Pin:
		err = m.Pin(r.Deployment, r.By, r.Reason)
	case Unpin:
		err = m.Unpin(r.Deployment)
	default:
		err = errors.New("cannot do " + string(r.Act) + ": no such act")
	}
	return changes, err
}

// Daemon is one running daemon.
type Daemon struct {
	// Ask learns what the server wants; it precedes what people ask for. nil:
	// the machine asks by itself.
	Ask func(ctx context.Context) error

	machine Machine
	poll    time.Duration // 0: only on request
	tell    func()
	log     *slog.Logger
	said    string // the last warning: the same is not repeated at every check
	queue   chan job
	news    chan struct{} // there is something to do before poll has passed
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change of the status
}

type job struct {
	request Request
	done    chan outcome // buffered
}

// outcome is what Do returned.
type outcome struct {
	changes []apt.Change
	err     error
}

// New returns a daemon that checks every poll, or only on request if that is
// 0. tell reports to the server and must not block.
func New(m Machine, poll time.Duration, tell func(), log *slog.Logger) *Daemon {
	return &Daemon{machine: m, poll: poll, tell: tell, log: log, queue: make(chan job, 16), news: make(chan struct{}, 1), changed: make(chan struct{})}
}

// Notify is to be called when the status of the machine has changed.
func (d *Daemon) Notify(update.Status) {
	d.mu.Lock()
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	d.tell()
}

// Wake makes the daemon check now, if it does so by itself. It does not block.
func (d *Daemon) Wake() {
	select {
	case d.news <- struct{}{}:
	default:
	}
}

// Reload makes Run end when it is between two acts. It does not block, and is
// lost if 16 requests wait.
func (d *Daemon) Reload() {
	select {
	case d.queue <- job{Request{Act: Reload}, make(chan outcome, 1)}:
	default:
	}
}

// recoverPause is how long at most what could not be brought to an end is left
// alone.
const recoverPause = 2 * time.Second

// rebootPause is how long a reboot may take to come before it is asked for
// again: services have minutes to stop.
const rebootPause = 5 * time.Minute

// Run recovers, then works until ctx ends or it is to Reload. Errors of single
// acts are logged and do not end it: a device must stay updatable. An act that
// fails half-way is brought to an end like one that was cut off.
func (d *Daemon) Run(ctx context.Context) {
	recovered := d.recover(ctx)
	d.tell()
	// The first check follows the start at once.
	tick := d.next(recovered, 0)
	for {
		var next job
		byItself, goesOn := false, false
		select {
		case <-ctx.Done():
			return
		case next = <-d.queue:
		case <-tick:
			byItself = true
			// A reboot that was asked for has not come.
			recovered = recovered && !d.machine.Rebooting()
		case <-d.news:
			byItself = true
		case <-d.ready(recovered):
			if !d.machine.Ready(ctx) {
				continue
			}
			byItself, goesOn = true, true
		}
		if byItself {
			next = job{Request{Act: Update, patient: true}, make(chan outcome, 1)}
		}
		if next.request.Act == Reload {
			next.done <- outcome{}
			return
		}
		if !recovered {
			recovered = d.recover(ctx)
		}
		switch {
		case !recovered:
			next.done <- outcome{err: errors.New("cannot start: what was interrupted could not be brought to an end; see the log of aptfleet-updater.service")}
		case byItself && d.poll == 0 && !goesOn:
			// It only recovered.
		case d.machine.Rebooting():
			next.done <- outcome{err: &update.Refused{Reason: "the device is about to reboot"}}
		default:
			changes, err := d.do(ctx, next.request)
			d.warn(ctx, next.request.Act, err)
			recovered = err == nil || !d.machine.Unfinished()
			next.done <- outcome{changes, err}
		}
		d.tell()
		tick = d.next(recovered, d.poll)
	}
}

// do carries a request out, and asks the server first if a person wants to know.
func (d *Daemon) do(ctx context.Context, r Request) ([]apt.Change, error) {
	if d.Ask != nil && r.AsksServer() {
		if err := d.Ask(ctx); err != nil {
			return nil, err
		}
	}
	return Do(ctx, d.machine, r)
}

// next returns what says when to go on without being asked: after pause, if it
// is to check at all, and soon if something must be brought to an end.
func (d *Daemon) next(recovered bool, pause time.Duration) <-chan time.Time {
	switch {
	case !recovered && d.poll > 0:
		return time.After(min(recoverPause, d.poll))
	case !recovered:
		return time.After(recoverPause)
	case d.machine.Rebooting():
		return time.After(rebootPause)
	case d.poll > 0:
		return time.After(pause)
	}
	return nil
}

// readyPause is how often it is looked whether what is staged may be booted now.
const readyPause = 2 * time.Second

// ready returns what says when to look whether what is staged must still wait.
func (d *Daemon) ready(recovered bool) <-chan time.Time {
	if recovered && d.machine.Waits() {
		return time.After(readyPause)
	}
	return nil
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
		d.log.Warn(text, "act", string(act))
	}
	d.said = text
}

func (d *Daemon) recover(ctx context.Context) bool {
	if err := d.machine.Recover(ctx); err != nil {
		if ctx.Err() == nil && err.Error() != d.said {
			d.log.Error(err.Error(), "act", "recover")
			d.said = err.Error()
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
