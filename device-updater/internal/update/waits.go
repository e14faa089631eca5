package update

import (
	"context"
	"fmt"
	"time"

	"aptfleet/device-updater/internal/inhibit"
	"aptfleet/device-updater/internal/journal"
)

// recordTime is the time for a record: UTC, in whole seconds.
func (m *Machine) recordTime() time.Time { return m.Clock().UTC().Truncate(time.Second) }

// now is the time as far as it is known: a clock that was set back does not
// make what is to end last longer.
func (m *Machine) now() time.Time {
	now := m.Clock()
	if times, err := m.Records.Times(); err == nil && times.Floor.After(now) {
		return times.Floor
	}
	return now
}

// waiting is what the machine remembers about a staged deployment that it does
// not boot yet. It ends with the process.
type waiting struct {
	transaction int64
	asked       bool      // a person asked for the reboot
	why         string    // what it waits for; "": it is to be booted
	locked      time.Time // when it first waited for a lock; zero: it has not
}

// waits decides whether a staged deployment that is to be booted must wait, and
// says so in the status. What a person asks for does not wait for the
// maintenance window: they know what time it is.
func (m *Machine) waits(ctx context.Context, tx journal.Record, asked bool) (bool, error) {
	if why := m.heldHere(); why != "" {
		return true, m.whyNot(&Refused{Reason: why, Hint: unhold})
	}
	if m.waiting.transaction != tx.Transaction {
		m.waiting = waiting{transaction: tx.Transaction}
	}
	m.waiting.asked = m.waiting.asked || asked
	m.waiting.why = m.keeps(ctx)
	m.say(func(s *Status) { s.WhyNot = m.waiting.why })
	return m.waiting.why != "", nil
}

// asked reports whether a person asked for the reboot into what is staged.
func (m *Machine) asked(tx journal.Record) bool {
	return m.waiting.asked && m.waiting.transaction == tx.Transaction
}

// ownIsStaged reports whether what is staged is what a person put on top of the
// booted release, or took off it, and may be booted. Only a hold speaks against
// that, not what is said of another release.
func (m *Machine) ownIsStaged(tx journal.Record, booted Deployment) bool {
	if tx.Phase != journal.Staged || tx.From != booted.ID {
		return false
	}
	staged, err := m.Records.Deployment(tx.Deployment)
	return err == nil && sameRelease(staged, booted) && m.refuseHeld("boot it") == nil
}

// bootStaged boots what is staged if it need not wait. asked says that a person
// wants that.
func (m *Machine) bootStaged(ctx context.Context, tx journal.Record, asked bool) error {
	if waits, err := m.waits(ctx, tx, asked); waits {
		return err
	}
	return m.finalise(ctx, tx)
}

// keeps returns what keeps the staged deployment from being booted, a sentence;
// "" if nothing does.
func (m *Machine) keeps(ctx context.Context) string {
	now := m.Clock()
	if w := m.Settings.Window; !m.waiting.asked && !w.Open(now) {
		return fmt.Sprintf("it is staged and waits for the maintenance window (%s), which opens at %s", w, w.Next(now).Format(time.RFC3339))
	}
	if m.Locks == nil || m.Settings.InhibitMax == 0 {
		return ""
	}
	locks := m.Locks(ctx)
	if len(locks) == 0 {
		return ""
	}
	waited := now.Sub(m.waiting.locked)
	if m.waiting.locked.IsZero() || waited < 0 { // a clock that was set back
		m.waiting.locked, waited = now, 0
	}
	if waited >= m.Settings.InhibitMax {
		return ""
	}
	return "it is staged and waits for " + holders(locks) + ", until " + m.waiting.locked.Add(m.Settings.InhibitMax).Format(time.RFC3339) + " at the latest"
}

// holders names who holds locks.
func holders(locks []inhibit.Lock) string {
	said := fmt.Sprintf("%s (%s)", locks[0].Who, locks[0].Why)
	if n := len(locks) - 1; n > 0 {
		said += fmt.Sprintf(" and %d more", n)
	}
	return said
}

// Waits reports whether what is staged waits for nothing but the maintenance
// window or a lock.
func (m *Machine) Waits() bool {
	tx := m.Journal.Last()
	return tx.Phase == journal.Staged && m.waiting.transaction == tx.Transaction && m.waiting.why != ""
}

// Ready looks again whether what Waits still must, without asking a server. Once
// it need not, Waits is over, and Update goes on.
func (m *Machine) Ready(ctx context.Context) bool {
	before := m.waiting.why
	if m.waiting.why = m.keeps(ctx); m.waiting.why == "" {
		return true
	}
	if m.waiting.why != before {
		m.say(func(s *Status) { s.WhyNot = m.waiting.why })
	}
	return false
}
