package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// This file holds what devices and the server say to each other; the document
// is docs/device-protocol.md.

// DeviceProtocol is the version that this program speaks.
const DeviceProtocol = 1

// Codes of Error that a device must tell apart.
const (
	CodeUnknownDevice = "unknown_device" // 401: enrol (again)
	CodeBadSignature  = "bad_signature"  // 401
	CodeRetired       = "retired"        // 403: for good
	CodeReplay        = "replay"         // 409: Error.Session is what the next one must exceed
	CodeUnsupported   = "unsupported"    // 400: the version
	CodeRefused       = "refused"        // 403: an enrolment that an operator refused
)

// Enrolment asks to become a device of the server. It is signed, for
// ForEnrolment, by the key it carries: that proves possession.
type Enrolment struct {
	Version      int      `json:"version"`
	Features     []string `json:"features,omitempty"`
	Key          []byte   `json:"key"`               // Ed25519, 32 bytes
	Sealing      []byte   `json:"sealing"`           // X25519, 32 bytes: secrets are encrypted to it
	Serial       string   `json:"serial"`            // serial number
	Token        string   `json:"token,omitempty"`   // one-time; "": none
	Product      string   `json:"product,omitempty"` // what the device takes itself for; "": whatever the server says
	Architecture string   `json:"architecture"`
	Revision     string   `json:"revision,omitempty"` // hardware revision; "": unknown
	Machine      string   `json:"machine"`            // hash of what does not change about the hardware: tells clones apart
	Boot         string   `json:"boot"`               // kernel's boot id
}

// Outcomes of an enrolment.
const (
	EnrolmentAccepted = "accepted"
	EnrolmentPending  = "pending" // an operator decides: ask again later
)

// Enrolled answers an Enrolment. Asking again with the same key gives the same
// answer.
type Enrolled struct {
	Status string `json:"status"`
	Reason string `json:"reason,omitempty"` // of pending, a sentence
	// Of an accepted device:
	Device        string    `json:"device,omitempty"`         // its name
	Pipeline      string    `json:"pipeline,omitempty"`       // for good
	Product       string    `json:"product,omitempty"`        // for good
	AssignmentKey []byte    `json:"assignment_key,omitempty"` // Ed25519: the server signs assignments with it
	Archive       string    `json:"archive,omitempty"`        // URL above /<pipeline>/
	ArchiveKey    string    `json:"archive_key,omitempty"`    // ASCII-armoured OpenPGP certificate
	Password      string    `json:"password,omitempty"`       // reads the archive as user Device, if it is private
	CA            string    `json:"ca,omitempty"`             // PEM of the server's own authority
	Features      []string  `json:"features,omitempty"`       // that both know
	Time          time.Time `json:"time"`                     // the server's clock
}

// CheckIn is signed by the device's key, for ForCheckIn.
type CheckIn struct {
	Version    int       `json:"version"`
	Session    uint64    `json:"session"`              // grows with every start of the updater
	Sequence   uint64    `json:"sequence"`             // grows with every check-in of a session
	Boot       string    `json:"boot"`                 // kernel's boot id
	Machine    string    `json:"machine"`              // as in Enrolment
	Counter    uint64    `json:"counter"`              // of the newest assignment that was accepted; 0: none
	Assignment string    `json:"assignment,omitempty"` // Content of that assignment
	Expires    time.Time `json:"expires,omitzero"`     // of that assignment
	Time       time.Time `json:"time"`                 // the device's clock
	// ReportHash is ReportHash of Report, or of a report that the server has
	// acknowledged before; then Report is absent.
	ReportHash string          `json:"report_hash"`
	Report     json.RawMessage `json:"report,omitempty"` // a Report
}

// ReportHash is the SHA-256 of a report's bytes as they stand in the check-in,
// in lower-case hex. encoding/json writes a RawMessage without white space and
// with <, > and & escaped: hash what it wrote, as json.Marshal of a Report does.
func ReportHash(report []byte) string { return hexSum(report) }

// CheckedIn answers a check-in that is not answered by 204: nothing changed.
type CheckedIn struct {
	Assignment *Signed   `json:"assignment,omitempty"`  // an Assignment, if the device has another or its own expires soon
	SendReport bool      `json:"send_report,omitempty"` // the server does not know that report: check in again, with it
	Time       time.Time `json:"time"`                  // the server's clock
}

// MaxNumber bounds sessions, sequences and counters: every JSON reader can hold
// a number up to it.
const MaxNumber = 1 << 53

// MaxCheckIn bounds the body of an enrolment or a check-in, in bytes.
const MaxCheckIn = 256 << 10

// AssignmentLife is from the issue of an assignment to its expiry. A device
// whose assignment has less than half of it left is sent the same with later
// times.
const AssignmentLife = 7 * 24 * time.Hour

// Assignment is what the server wants of one device. It is signed by the
// assignment key, for ForAssignment.
type Assignment struct {
	Version  int              `json:"version"`
	Device   string           `json:"device"`
	Key      string           `json:"key"` // KeyID of the device's key
	Pipeline string           `json:"pipeline"`
	Product  string           `json:"product"`
	Stage    string           `json:"stage"`
	Counter  uint64           `json:"counter"` // never falls
	Issued   time.Time        `json:"issued"`
	Expires  time.Time        `json:"expires"`
	Release  *AssignedRelease `json:"release,omitempty"` // nil: stay as you are
	Wait     string           `json:"wait,omitempty"`    // why there is no other release yet, a sentence
	Hold     *Hold            `json:"hold,omitempty"`    // change nothing while it lasts
	Config   *AssignedConfig  `json:"config,omitempty"`
}

// AssignedRelease names a release so that no other can be put in its place.
type AssignedRelease struct {
	State        string   `json:"state"`
	Snapshot     string   `json:"snapshot,omitempty"`
	Base         string   `json:"base"` // below the archive: <pipeline>/snapshots/<id> or <pipeline>/states/<id>
	Distribution string   `json:"distribution"`
	Components   []string `json:"components"`
	Release      string   `json:"release"`  // SHA-256 of the file Release of the base
	BOM          string   `json:"bom"`      // SHA-256 of the bill of materials, <pipeline>/boms/<sha256> below the archive
	BOMSize      int64    `json:"bom_size"` // bytes
	Pinned       bool     `json:"pinned,omitempty"`
}

// Hold keeps a device as it is.
type Hold struct {
	Reason string    `json:"reason"`
	By     string    `json:"by,omitempty"`
	Until  time.Time `json:"until,omitzero"` // zero: until it is taken off
}

// AssignedConfig is the configuration of one device.
type AssignedConfig struct {
	Revision string            `json:"revision"`          // changes with any value, secrets included
	Values   map[string]any    `json:"values"`            // JSON strings, numbers, booleans
	Secrets  map[string][]byte `json:"secrets,omitempty"` // each encrypted to the device: internal/seal
}

// Content identifies what an assignment says, whenever it was issued: the
// SHA-256 of its JSON without counter, times and encrypted secrets (which
// Config.Revision stands for).
func (a Assignment) Content() string {
	a.Counter, a.Issued, a.Expires = 0, time.Time{}, time.Time{}
	if a.Config != nil {
		config := *a.Config
		config.Secrets = nil
		a.Config = &config
	}
	text, err := json.Marshal(a)
	if err != nil {
		panic("an assignment of scalars cannot be written as JSON: " + err.Error())
	}
	return hexSum(text)
}

func hexSum(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}
