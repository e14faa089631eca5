package update

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"aptfleet/device-updater/internal/journal"
)

// ErrNothingUnderWay means that there is nothing to cancel.
var ErrNothingUnderWay = errors.New("no update is under way")

// cancelled is a release that a person did not want: it is left alone until one
// does, or another release comes. It outlives a reboot.
type cancelled struct {
	State  string    `json:"state"`
	Reason string    `json:"reason"` // why it is not installed, a sentence
	At     time.Time `json:"at"`
}

const cancelledRecord = "cancelled.json"

// Withdraw gives up what is staged, as Cancel does what is under way. What was
// downloaded stays. If nothing is staged it returns ErrNothingUnderWay.
func (m *Machine) Withdraw(ctx context.Context) error {
	tx := m.Journal.Last()
	if tx.Phase != journal.Staged {
		return ErrNothingUnderWay
	}
	reason := fmt.Sprintf("%s by a person when it was staged", ErrCancelled)
	from, err := m.Records.Deployment(tx.From)
	if err != nil {
		return m.whyNot(err)
	}
	staged, err := m.Records.Deployment(tx.Deployment)
	if err != nil {
		return m.whyNot(err)
	}
	if sameRelease(staged, from) {
		// Only what is on top of the release was new.
		err = m.want(from.Overlay)
	} else {
		err = m.leaveAlone(tx.State, reason)
	}
	if err == nil {
		err = m.discard(ctx, tx, reason)
	}
	if err != nil {
		return m.whyNot(err)
	}
	m.say(func(s *Status) { s.WhyNot = reason })
	m.tidy(ctx)
	return nil
}

// sameRelease reports whether two deployments differ at most in what is on top
// of their release. One release may have other packages for a product later.
func sameRelease(a, b Deployment) bool {
	return a.State == b.State && a.BOM == b.BOM && slices.Equal(a.TopLevel, b.TopLevel)
}

// onTop reports whether all that was new in a transaction is what a person put
// on top of the release that from is of.
func onTop(tx journal.Record, from Deployment) bool {
	return from.State == tx.State && from.Overlay.ID() != tx.Local
}

// leaveAlone keeps that a person did not want a release. What hooks said of it
// is over: whoever asks for it later begins anew.
func (m *Machine) leaveAlone(state, reason string) error {
	if d, err := m.Records.Deferral(); err == nil && d.State == state {
		if err := m.Records.DropDeferral(); err != nil {
			return err
		}
	}
	m.pause, m.cancelled = pause{}, cancelled{State: state, Reason: reason, At: m.recordTime()}
	return m.Records.write(cancelledRecord, m.cancelled)
}

// isCancelled reports whether a person did not want a release.
func (m *Machine) isCancelled(state string) bool { return state != "" && m.cancelled.State == state }

// remindOfCancelled reads what leaveAlone kept. What cannot be read is
// forgotten: the release comes once more.
func (m *Machine) remindOfCancelled() {
	var kept cancelled
	if err := m.Records.read(cancelledRecord, &kept); err == nil && kept.State != "" {
		m.cancelled = kept
	}
}

// forgetCancelled is for when a person asks, or something else is offered.
func (m *Machine) forgetCancelled() {
	if m.cancelled == (cancelled{}) {
		return
	}
	m.cancelled = cancelled{}
	if err := m.Records.remove(cancelledRecord); err != nil {
		m.say(func(s *Status) { s.LastError = err.Error() })
	}
}
