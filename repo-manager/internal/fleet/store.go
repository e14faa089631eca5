package fleet

import (
	"context"

	"aptfleet/repo-manager/internal/release"
)

// MaxEvents is how many events of a device are kept.
const MaxEvents = 50

// Store keeps what a Service must not forget. Times keep microseconds. All
// methods may be called concurrently.
type Store interface {
	// CommitFleet makes all of a batch durable, or nothing of it. A device or
	// contact of a pipeline or device that does not exist makes it fail.
	CommitFleet(ctx context.Context, b Batch) error
	// Fleet returns everything that was committed, but for events.
	Fleet(ctx context.Context) (Stored, error)
	// Events lists the events of a device, newest first.
	Events(ctx context.Context, device string) ([]Event, error)
}

// Batch is what one commit makes durable, in this order. What has a key that
// is there already takes its place.
type Batch struct {
	Devices       []Device // by name; Contact and Assigned are given apart
	Contacts      []ContactOf
	Assigned      []AssignedTo
	Events        []Event        // an event takes the place of the one MaxEvents before it
	Registrations []Registration // by serial number
	Unregistered  []string       // serial numbers; absent ones are fine
	Tokens        []EnrolToken   // by hash
	Revoked       []Hash         // tokens; absent ones are fine
	Refusals      []Refusal      // by key
	Pardoned      []string       // keys that are refused no more; absent ones are fine
	OldKeys       []OldKey       // by key
	Acts          []release.Act
}

// ContactOf is the contact of a device.
type ContactOf struct {
	Device string
	Contact
	Text []byte // the report as it was sent, JSON; nil: the stored one and its hash stay
}

// AssignedTo is the newest assignment of a device.
type AssignedTo struct {
	Device string
	Assigned
}

// Stored is all that is known: devices by name, the others by their keys.
type Stored struct {
	Devices       []Device
	Registrations []Registration
	Tokens        []EnrolToken
	Refusals      []Refusal
	OldKeys       []OldKey
}

// add takes another batch in. What both have is written twice, in order.
func (b *Batch) add(o Batch) {
	b.Devices = append(b.Devices, o.Devices...)
	b.Contacts = append(b.Contacts, o.Contacts...)
	b.Assigned = append(b.Assigned, o.Assigned...)
	b.Events = append(b.Events, o.Events...)
	b.Registrations = append(b.Registrations, o.Registrations...)
	b.Unregistered = append(b.Unregistered, o.Unregistered...)
	b.Tokens = append(b.Tokens, o.Tokens...)
	b.Revoked = append(b.Revoked, o.Revoked...)
	b.Refusals = append(b.Refusals, o.Refusals...)
	b.Pardoned = append(b.Pardoned, o.Pardoned...)
	b.OldKeys = append(b.OldKeys, o.OldKeys...)
	b.Acts = append(b.Acts, o.Acts...)
}
