package update

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
)

// Hooks are the executables of the booted release that take part in a
// transaction: hook.Hooks.
type Hooks interface {
	// Any reports whether a point has any.
	Any(p hook.Point) bool
	// Run runs those of a point. An error says which one did not say yes, and
	// why; a *hook.Later that it wants to be asked again.
	Run(ctx context.Context, p hook.Point, env []string) error
}

const (
	// How long hooks that want to be asked later are left alone, unless a person
	// asks: the first time, doubled each time, and the longest.
	firstHookPause = 30 * time.Second
	lastHookPause  = 30 * time.Minute
	// longestGap is what the time between two askings counts at most.
	longestGap = 2 * lastHookPause
	// hookRest is how long a release is left alone that hooks have stopped,
	// unless a person asks.
	hookRest = 24 * time.Hour
	// maxTold is how often hooks are begun that are told of one end: whoever
	// reboots the device or stops the updater in a hook does not do so for ever.
	maxTold = 3
)

// Deferral is how hooks have put a release off. It outlives restarts, so that it
// has an end.
type Deferral struct {
	State string     `json:"state"`
	Local string     `json:"local,omitempty"` // the overlay on top: its id
	Point hook.Point `json:"point"`
	Times int        `json:"times"` // that they were asked
	Since time.Time  `json:"since"`
	Last  time.Time  `json:"last"`
	// Waited adds up the time between askings. A clock that is set, or a device
	// that was off, does not make it longer than the updater itself waits.
	Waited  time.Duration `json:"waited_ns,omitempty"`
	Reason  string        `json:"reason"`
	GivenUp bool          `json:"given_up,omitempty"` // the transaction ended
}

const deferralRecord = "deferral.json"

// Deferral returns how a release was put off last; the zero Deferral if none
// was.
func (r Records) Deferral() (Deferral, error) {
	var d Deferral
	err := r.read(deferralRecord, &d)
	return d, err
}

// PutDeferral keeps d.
func (r Records) PutDeferral(d Deferral) error { return r.write(deferralRecord, d) }

// DropDeferral forgets it.
func (r Records) DropDeferral() error { return r.remove(deferralRecord) }

func (d Deferral) of(offer Offer) bool {
	return d.State != "" && d.State == offer.State && d.Local == offer.Overlay.ID()
}

// putOff decides whether hooks keep what is staged, or else an offer, from being
// booted or begun right now, and says so in the status. They do not if they are
// to be asked again.
func (m *Machine) putOff(offer Offer, staged journal.Record, o Options) (bool, error) {
	d, err := m.Records.Deferral()
	its := d.of(offer)
	if staged.Phase == journal.Staged {
		its = d.State == staged.State && d.Local == staged.Local
	}
	if err != nil || !its {
		return false, nil // a record that cannot be read is replaced by the next one
	}
	pause := min(firstHookPause<<min(max(d.Times-1, 0), 16), lastHookPause)
	if d.GivenUp {
		pause = hookRest
	}
	if gone := m.Clock().Sub(d.Last); o.Patient && gone >= 0 && gone < pause {
		m.say(func(s *Status) { s.WhyNot = d.Reason })
		return true, nil
	}
	if d.GivenUp {
		if err := m.Records.DropDeferral(); err != nil {
			return true, m.whyNot(err)
		}
	}
	return false, nil
}

// askHooks asks the hooks of a point whether the transaction may go on; if not,
// the error is a *Refused, and givenUp says that it must end. That is so at once
// if a hook says no, and after some time and times if it wants to be asked later.
func (m *Machine) askHooks(ctx context.Context, tx journal.Record, p hook.Point) (givenUp bool, err error) {
	if m.Hooks == nil {
		return false, nil
	}
	d, err := m.Records.Deferral()
	if err != nil {
		d = Deferral{}
	}
	said := m.Hooks.Run(ctx, p, hookEnv(tx))
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if said == nil {
		if d.Point == p {
			return false, m.Records.DropDeferral()
		}
		return false, nil
	}
	now := m.recordTime()
	if d.State != tx.State || d.Local != tx.Local || d.Point != p || d.GivenUp || now.Before(d.Since) {
		d = Deferral{State: tx.State, Local: tx.Local, Point: p, Since: now}
	}
	if d.Times > 0 {
		d.Waited += min(max(now.Sub(d.Last), 0), longestGap)
	}
	d.Times++
	d.Last, d.Reason = now, said.Error()
	var later *hook.Later
	switch {
	case !errors.As(said, &later):
		d.GivenUp = true
	case d.Times > m.Settings.HookRetries || d.Waited >= m.Settings.HookWait:
		d.GivenUp = true
		d.Reason = fmt.Sprintf("it was put off %d times in %s: %s", d.Times, d.Waited, said)
	}
	if err := m.Records.PutDeferral(d); err != nil {
		return true, errors.Join(said, err)
	}
	return d.GivenUp, &Refused{Reason: d.Reason, Hint: "device-updater update asks the hooks again"}
}

// askBeforeFinalise lets hooks keep what is staged from being booted. If they
// only put it off it stays.
func (m *Machine) askBeforeFinalise(ctx context.Context, tx journal.Record) error {
	givenUp, err := m.askHooks(ctx, tx, hook.BeforeFinalise)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	m.whyNot(err)
	if givenUp {
		return errors.Join(err, m.discard(ctx, tx, err.Error()))
	}
	return err
}

// tellHooks runs the hooks of a point at which nothing can be stopped, and
// returns the record with what they complained about. That they are about to run
// is a record of its own, so that they are not begun for ever.
func (m *Machine) tellHooks(ctx context.Context, tx journal.Record, p hook.Point) (journal.Record, error) {
	if m.Hooks == nil || !m.Hooks.Any(p) {
		return tx, nil
	}
	if tx.Told >= maxTold {
		return tx.With(fmt.Sprintf("the hooks %s were cut off %d times", p, maxTold)), nil
	}
	tx.Told++
	tx, err := m.enter(tx, tx.Phase)
	if err != nil {
		return tx, err
	}
	if err := m.Hooks.Run(ctx, p, hookEnv(tx)); err != nil {
		tx = tx.With(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return tx, nil
}

func hookEnv(tx journal.Record) []string {
	env := []string{
		"APTFLEET_TRANSACTION=" + strconv.FormatInt(tx.Transaction, 10), "APTFLEET_STATE=" + tx.State, "APTFLEET_SNAPSHOT=" + tx.Snapshot,
		"APTFLEET_DEPLOYMENT=" + strconv.Itoa(tx.Deployment), "APTFLEET_FROM=" + strconv.Itoa(tx.From), "APTFLEET_REASON=" + tx.Reason,
	}
	if tx.Manual {
		env = append(env, "APTFLEET_ROLLBACK=1")
	}
	return env
}
