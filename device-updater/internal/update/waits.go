package update

import (
	"context"
	"fmt"
	"time"

	"aptfleet/device-updater/internal/inhibit"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/protocol"
)

// What people at the device said about it lies in two records, so that the
// command line can write one while the updater is at work.
const (
	holdRecord    = "hold.json"
	developRecord = "develop.json"
)

// Hold returns the hold that was made on the device; the zero Hold if there is
// none. It does not look whether its time has passed.
func (r Records) Hold() (protocol.Hold, error) { return r.wish(holdRecord) }

// PutHold holds the device, or with the zero Hold takes the hold off. It may be
// called by another process at any time.
func (r Records) PutHold(h protocol.Hold) error { return r.putWish(holdRecord, h) }

// Develop returns who has the device follow nothing, and why; the zero Hold if
// it follows what it should.
func (r Records) Develop() (protocol.Hold, error) { return r.wish(developRecord) }

// PutDevelop makes the device follow nothing, or with the zero Hold follow
// again. It may be called by another process at any time.
func (r Records) PutDevelop(h protocol.Hold) error { return r.putWish(developRecord, h) }

func (r Records) wish(name string) (h protocol.Hold, err error) { return h, r.read(name, &h) }

func (r Records) putWish(name string, h protocol.Hold) error {
	if h != (protocol.Hold{}) {
		return r.write(name, h)
	}
	return r.remove(name)
}

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

// heldHere returns why a person at the device wants it to stay as it is; "" if
// nobody does.
func (m *Machine) heldHere() string {
	h, err := m.Records.Hold()
	switch {
	case err != nil:
		return err.Error() // perhaps it is: the device stays as it is
	case h == (protocol.Hold{}) || !h.Until.IsZero() && !m.now().Before(h.Until):
		return ""
	}
	return "it is held here" + Whose(h)
}

// Whose says by whom, until when and why.
func Whose(h protocol.Hold) string {
	said := ""
	if h.By != "" {
		said += " by " + h.By
	}
	if !h.Until.IsZero() {
		said += " until " + h.Until.UTC().Format(time.RFC3339)
	}
	return said + ": " + h.Reason
}

// unhold is the next step of whoever is kept by a hold of the device itself.
const unhold = "device-updater unhold takes the hold off"

// follows returns why the device follows nothing at all; "" if it does.
func (m *Machine) follows() string {
	h, err := m.Records.Develop()
	switch {
	case err != nil:
		return err.Error()
	case h != (protocol.Hold{}):
		return "it follows nothing here" + Whose(h) + "; `device-updater rejoin` ends that"
	}
	return ""
}

// stays adds to an offer what people at the device have against it. What an
// operator says comes first.
func (m *Machine) stays(offer *Offer) {
	if offer.Against != "" {
		return
	}
	if offer.Against = m.heldHere(); offer.Against == "" {
		offer.Against = m.follows()
	}
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
