package fleet

import (
	"crypto/ed25519"
	"time"

	"aptfleet/internal/protocol"
)

// Device is a machine as the server knows it. Slices and what pointers lead to
// are never modified.
type Device struct {
	Name         string
	Pipeline     string // for good
	Product      string // for good
	Stage        string
	Serial       string // of one device that is not retired
	Modules      []string
	Key          ed25519.PublicKey
	Sealing      []byte // X25519 public key
	Architecture string
	Revision     string   // of the hardware, if an operator said it; see HardwareRevision
	Machine      string   // the hardware that the key belongs to
	Banned       []string // machines that had the key too and were told apart by an operator
	Hold         *protocol.Hold
	Pin          *Pin
	Retired      *protocol.Retired
	Created      time.Time
	Enrolled     time.Time // with this key

	Contact
	Assigned
}

// Pin keeps a device at a snapshot.
type Pin = protocol.DevicePin

// Contact is what a device's check-ins left.
type Contact struct {
	Session    uint64
	Sequence   uint64
	Boots      []Boot // the newest last, at most maxBoots
	Where      protocol.Sighting
	Clone      *protocol.Clone  // nil: one machine has the key
	Report     *protocol.Report // nil before the first
	ReportHash [32]byte         // of the report as it was sent
	Seen       time.Time        // last check-in; zero before the first
	Skew       time.Duration    // that its clock was ahead then; not stored
	Events     uint64           // how many there ever were
}

// Boot stands for a boot id: the first bytes of its SHA-256.
type Boot [8]byte

// Assigned is the newest assignment of a device.
type Assigned struct {
	Counter uint64
	Content string // see protocol.Assignment.Content; "": there was none
	// Release is the one it was given, nil: none. It stays while the next one
	// cannot be given yet. Values are shared between devices.
	Release *protocol.AssignedRelease
	Modules []string // that Release was made for
}

// HardwareRevision is what an operator said, else what the device says; "" if
// nobody knows.
func (d *Device) HardwareRevision() string {
	if d.Revision == "" && d.Report != nil {
		return d.Report.Revision
	}
	return d.Revision
}

// KeyID names the device's key.
func (d *Device) KeyID() string { return protocol.KeyID(d.Key) }

// Registration is a serial number that may enrol by itself, once.
type Registration = protocol.Registration

// EnrolToken lets machines enrol. Of its secret only the SHA-256 is kept.
type EnrolToken struct {
	Hash     Hash
	Pipeline string
	Product  string
	Stage    string
	Modules  []string
	Serial   string // the only one that may use it, or ""
	Label    string
	Uses     int // that it was made for
	Left     int
	By       string
	Created  time.Time
	Expires  time.Time
}

// Hash is the SHA-256 of a secret's text.
type Hash = [32]byte

// Refusal is a key that an operator does not want.
type Refusal struct {
	Key    string // KeyID
	Serial string
	By     string
	Reason string
	At     time.Time
}

// OldKey belonged to a device that has another one now.
type OldKey struct {
	Key    ed25519.PublicKey
	Device string
	Reason string
	At     time.Time
}

// Event is something important that changed in a device's reports.
type Event struct {
	Device string
	Number uint64 // counts the events of a device from 1
	At     time.Time
	Text   string
}
