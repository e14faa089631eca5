package protocol

import "time"

// This file holds what people and programs are told of the fleet, and ask of
// it, on the admin listener.

// Device is a machine as the server knows it.
type Device struct {
	Name         string     `json:"name"`
	Pipeline     string     `json:"pipeline"`
	Product      string     `json:"product"`
	Stage        string     `json:"stage"`
	Serial       string     `json:"serial"`
	Modules      []string   `json:"modules,omitempty"`
	Architecture string     `json:"architecture"`
	Revision     string     `json:"revision,omitempty"` // of the hardware: what an operator said, else what the device says
	Key          string     `json:"key"`                // KeyID
	Hold         *Hold      `json:"hold,omitempty"`
	Pin          *DevicePin `json:"pin,omitempty"`
	Retired      *Retired   `json:"retired,omitempty"`
	Clone        *Clone     `json:"clone,omitempty"` // two machines have its key
	Created      time.Time  `json:"created"`
	Enrolled     time.Time  `json:"enrolled"`        // with this key
	Seen         time.Time  `json:"seen,omitzero"`   // last check-in
	Counter      uint64     `json:"counter"`         // of the newest assignment
	Skew         float64    `json:"skew,omitempty"`  // seconds that its clock is ahead
	Where        *Sighting  `json:"where,omitempty"` // of the last check-in

	State   string           `json:"state"`             // see the constants
	Has     *Runs            `json:"has,omitempty"`     // what is booted
	Should  *Runs            `json:"should,omitempty"`  // what its stage offers, or its pin
	Healthy *bool            `json:"healthy,omitempty"` // absent: it did not say
	WhyNot  string           `json:"why_not,omitempty"` // why it does not run what it should, a sentence
	Given   *AssignedRelease `json:"given,omitempty"`   // the release of the newest assignment
	Report  *Report          `json:"report,omitempty"`
	History []DeviceEvent    `json:"history,omitempty"` // newest first; only of one device
}

// States of a device, worst first.
const (
	DeviceClone   = "clone"   // two machines have its key: an operator decides
	DeviceFailed  = "failed"  // what it should run failed on it, or what it runs is not healthy
	DevicePending = "pending" // it is enrolled and never reported
	DeviceSilent  = "silent"  // not heard of for ten minutes
	DeviceHeld    = "held"    // it stays as it is
	DeviceBehind  = "behind"  // it does not run what it should
	DeviceOK      = "ok"
	DeviceRetired = "retired"
)

// Runs names a release.
type Runs struct {
	State    string `json:"state,omitempty"`
	Snapshot string `json:"snapshot,omitempty"`
	BOM      string `json:"bom,omitempty"` // SHA-256 of the bill of materials, if it is known
}

// DevicePin keeps a device at a snapshot.
type DevicePin struct {
	Snapshot string    `json:"snapshot"`
	Reason   string    `json:"reason"`
	By       string    `json:"by"`
	At       time.Time `json:"at"`
}

// Retired says why a device is no device any more.
type Retired struct {
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	At     time.Time `json:"at"`
}

// Sighting is one machine that has a device's key.
type Sighting struct {
	Machine string    `json:"machine"`
	Boot    string    `json:"boot"`
	Address string    `json:"address"`
	First   time.Time `json:"first,omitzero"` // of this machine and boot
	Last    time.Time `json:"last,omitzero"`
}

// Clone is the evidence that two machines have one key.
type Clone struct {
	Since    time.Time  `json:"since"`
	Why      string     `json:"why"` // a sentence
	Machines []Sighting `json:"machines"`
}

// DeviceEvent is something important that changed in a device's reports.
type DeviceEvent struct {
	At   time.Time `json:"at"`
	Text string    `json:"text"`
}

// Registration is a serial number that may enrol by itself.
type Registration struct {
	Serial   string    `json:"serial"`
	Name     string    `json:"name,omitempty"` // of the device it becomes; "": its serial number
	Pipeline string    `json:"pipeline"`
	Product  string    `json:"product"`
	Stage    string    `json:"stage"`
	Modules  []string  `json:"modules,omitempty"`
	Revision string    `json:"revision,omitempty"` // of the hardware
	By       string    `json:"by,omitempty"`
	Created  time.Time `json:"created,omitzero"`
}

// EnrolmentToken lets machines enrol. Token is present only in the answer that
// made it.
type EnrolmentToken struct {
	ID       string    `json:"id"`
	Pipeline string    `json:"pipeline"`
	Product  string    `json:"product"`
	Stage    string    `json:"stage"`
	Modules  []string  `json:"modules,omitempty"`
	Serial   string    `json:"serial,omitempty"` // the only one that may use it
	Label    string    `json:"label,omitempty"`
	Uses     int       `json:"uses"`
	Left     int       `json:"left"`
	By       string    `json:"by,omitempty"`
	Created  time.Time `json:"created,omitzero"`
	Expires  time.Time `json:"expires"`
	Token    string    `json:"token,omitempty"`
}

// PendingEnrolment waits for an operator.
type PendingEnrolment struct {
	Key          string    `json:"key"` // KeyID
	Serial       string    `json:"serial"`
	Product      string    `json:"product,omitempty"` // what it takes itself for
	Architecture string    `json:"architecture"`
	Revision     string    `json:"revision,omitempty"`
	Machine      string    `json:"machine"`
	Address      string    `json:"address"`
	Reason       string    `json:"reason"`             // why it waits, a sentence
	Replaces     string    `json:"replaces,omitempty"` // the device that has its serial number
	First        time.Time `json:"first"`
	Last         time.Time `json:"last"`
}

// Accept makes a pending enrolment a device.
type Accept struct {
	Name     string   `json:"name,omitempty"` // "": the serial number
	Pipeline string   `json:"pipeline,omitempty"`
	Product  string   `json:"product,omitempty"` // "": what it takes itself for
	Stage    string   `json:"stage,omitempty"`
	Modules  []string `json:"modules,omitempty"`
	Replace  bool     `json:"replace,omitempty"` // the key of the device that has its serial number; all else stays
}

// Reason is the body of acts that only need one.
type Reason struct {
	Reason string `json:"reason"`
}

// AssignStage asks a device to follow another stage.
type AssignStage struct {
	Stage string `json:"stage"`
}

// SetDevice changes what is given of a device.
type SetDevice struct {
	Revision *string   `json:"revision,omitempty"` // of the hardware; "": what the device says
	Modules  *[]string `json:"modules,omitempty"`
}

// PinDevice asks for a pin.
type PinDevice struct {
	Snapshot string `json:"snapshot"`
	Reason   string `json:"reason"`
}

// Resolve says which machine a device is; the other one's key is refused.
type Resolve struct {
	Keep string `json:"keep,omitempty"` // machine, or a unique prefix
}

// DeviceFilter asks for some devices; what is empty takes all.
type DeviceFilter struct {
	Pipeline string
	Product  string
	Stage    string
	Revision string
	State    string // one of the states of Device
	Snapshot string // that is booted: an id or a prefix of it
	Package  string // relation of a package that is booted, e.g. "openssl (<< 3.0.15)"
}
