package update

import (
	"fmt"
	"time"

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

func (r Records) wish(name string) (h protocol.Hold, err error) {
	err = r.read(name, &h)
	return h, err
}

func (r Records) putWish(name string, h protocol.Hold) error {
	if h != (protocol.Hold{}) {
		return r.write(name, h)
	}
	return r.remove(name)
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

// develops returns why the device follows nothing at all; "" if it does.
func (m *Machine) develops() string {
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
		offer.Against = m.develops()
	}
}

// refuseHeld refuses what a person asks for where an operator, or somebody at the
// device, wants it to stay as it is. What only the assignment lacks does not: it says nothing about
// the release that is booted.
func (m *Machine) refuseHeld(verb string) error {
	if why := m.Releases.Held(); why != "" {
		return &Refused{Reason: fmt.Sprintf("cannot %s: %s", verb, why), Hint: "an operator takes the hold off: repo-manager device unhold"}
	}
	if why := m.heldHere(); why != "" {
		return &Refused{Reason: fmt.Sprintf("cannot %s: %s", verb, why), Hint: unhold}
	}
	return nil
}

// nextStep is what whoever is kept from an update may do about it here.
func (m *Machine) nextStep(offer Offer) string {
	if offer.Against == m.heldHere() {
		return unhold
	}
	return ""
}
