// Package assignment judges what the server wants of this device, and keeps
// the newest assignment that it accepted. docs/device-protocol.md has the rules.
package assignment

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

// Me is what the device was enrolled as.
type Me struct {
	Device   string
	Key      string // KeyID of its key
	Pipeline string
	Product  string
	Pinned   ed25519.PublicKey // the assignment key
}

// Floor is the newest assignment that was accepted: nothing older is.
type Floor struct {
	Counter uint64 `json:"counter"`
	Content string `json:"content"` // protocol.Assignment.Content
}

// Clock is what the device knows about the time.
type Clock struct {
	Now          time.Time // of the system
	Synchronised bool      // something keeps it right
	Floor        time.Time // that time has passed, whatever the clock says
}

// Reason is a word for why an assignment is refused.
type Reason string

// The reasons, in the assignment of the document.
const (
	Signature Reason = "signature"
	Version   Reason = "version"
	Device    Reason = "device"
	Product   Reason = "product"
	Counter   Reason = "counter"
	Expired   Reason = "expired"
	Future    Reason = "future"
	Lifetime  Reason = "lifetime"
	Release   Reason = "release"
	BOM       Reason = "bom"
	Package   Reason = "package"
)

// Refusal is why an assignment is not followed.
type Refusal struct {
	Reason  Reason
	Text    string // a sentence
	Counter uint64 // of the assignment; 0: unknown
}

// Refuse returns a Refusal.
func Refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Text: fmt.Sprintf(format, args...)}
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("cannot follow the assignment (%s): %s", r.Reason, r.Text)
}

// Report is what a report says; nil of nil.
func (r *Refusal) Report() *protocol.Refused {
	if r == nil {
		return nil
	}
	return &protocol.Refused{Reason: string(r.Reason), Text: r.Text, Counter: r.Counter}
}

// Bounds of what is accepted.
const (
	maxAhead    = 10 * time.Minute    // of a synchronised clock
	maxLifetime = 90 * 24 * time.Hour // between issued and expires
)

// Judge returns the assignment that a signed text is, if this device may follow
// it, else a *Refusal.
func Judge(signed protocol.Signed, me Me, floor Floor, clock Clock) (protocol.Assignment, error) {
	none := protocol.Assignment{}
	payload, err := signed.Verify(me.Pinned, protocol.ForAssignment)
	if err != nil {
		return none, Refuse(Signature, "it is not signed by the server that this device was enrolled at")
	}
	var a protocol.Assignment
	if err := json.Unmarshal(payload, &a); err != nil {
		return none, Refuse(Version, "it cannot be read: %v", err)
	}
	if refusal := judge(a, me, floor, clock); refusal != nil {
		refusal.Counter = a.Counter
		return none, refusal
	}
	return a, nil
}

func judge(a protocol.Assignment, me Me, floor Floor, clock Clock) *Refusal {
	stamp := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	switch {
	case a.Version != protocol.DeviceProtocol:
		return Refuse(Version, "it is of version %d, and this device knows %d", a.Version, protocol.DeviceProtocol)
	case a.Device != me.Device:
		return Refuse(Device, "it is for device %q, not for %q", a.Device, me.Device)
	case a.Key != me.Key:
		return Refuse(Device, "it is for the key %s, and this device has %s", a.Key, me.Key)
	case a.Pipeline != me.Pipeline:
		return Refuse(Product, "it is of pipeline %q, and this device is of %q", a.Pipeline, me.Pipeline)
	case a.Product != me.Product:
		return Refuse(Product, "it is for product %q, and this device is a %q", a.Product, me.Product)
	case a.Counter == 0 || a.Counter >= protocol.MaxNumber:
		return Refuse(Counter, "its counter is %d", a.Counter)
	case a.Counter < floor.Counter:
		return Refuse(Counter, "its counter is %d, and %d was accepted", a.Counter, floor.Counter)
	case a.Counter == floor.Counter && a.Content() != floor.Content:
		return Refuse(Counter, "another assignment with the counter %d was accepted", floor.Counter)
	case !clock.Now.Before(a.Expires) && a.Expires.After(a.Issued):
		return Refuse(Expired, "it has expired; %s", clock.ifWrong())
	case !clock.latest(a).Before(a.Expires) && a.Expires.After(a.Issued):
		return Refuse(Expired, "it expired at %s", stamp(a.Expires))
	case clock.Synchronised && a.Issued.After(clock.Now.Add(maxAhead)):
		return Refuse(Future, "it was issued more than %v ahead of this device's clock, which is synchronised: look at the server's", maxAhead)
	case !a.Expires.After(a.Issued):
		return Refuse(Lifetime, "it was issued at %s and expires at %s", stamp(a.Issued), stamp(a.Expires))
	case a.Expires.Sub(a.Issued) > maxLifetime:
		return Refuse(Lifetime, "it is to last for %.0f days", a.Expires.Sub(a.Issued).Hours()/24)
	case a.Release != nil:
		return judgeRelease(*a.Release, a.Pipeline)
	}
	return nil
}

// ifWrong is for a device for which everything has expired. It says a day: the
// server signs an assignment anew at each check-in, and a reason that named its
// times would be news each time.
func (c Clock) ifWrong() string {
	return "the clock of this device says " + c.Now.UTC().Format(time.DateOnly) + ": if that is wrong, set it (timedatectl set-time)"
}

// latest is the time by which an assignment is judged. Without a clock the
// assignment itself tells how late it is at least; that brings the time forward,
// never back.
func (c Clock) latest(a protocol.Assignment) time.Time {
	now := c.Now
	if c.Floor.After(now) {
		now = c.Floor
	}
	if !c.Synchronised && a.Issued.After(now) {
		now = a.Issued
	}
	return now
}

var (
	sumPattern      = regexp.MustCompile(`^[0-9a-f]{64}$`)
	snapshotPattern = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z$`)
	wordPattern     = regexp.MustCompile(`^[a-z0-9][a-z0-9.+-]*$`)
)

// judgeRelease refuses names that are none: they become URLs, paths and lines
// of apt's sources.
func judgeRelease(r protocol.AssignedRelease, pipeline string) *Refusal {
	switch {
	case !sumPattern.MatchString(r.State):
		return Refuse(Release, "%q is not the id of a state", r.State)
	case r.Snapshot != "" && !snapshotPattern.MatchString(r.Snapshot):
		return Refuse(Release, "%q is not the id of a snapshot", r.Snapshot)
	case r.Base != pipeline+"/states/"+r.State && (r.Snapshot == "" || r.Base != pipeline+"/snapshots/"+r.Snapshot):
		return Refuse(Release, "%q is not a base of its state or its snapshot", r.Base)
	case !wordPattern.MatchString(r.Distribution):
		return Refuse(Release, "%q is not the name of a distribution", r.Distribution)
	case len(r.Components) == 0:
		return Refuse(Release, "it names no components")
	case !sumPattern.MatchString(r.Release):
		return Refuse(Release, "%q is not a SHA-256", r.Release)
	case !sumPattern.MatchString(r.BOM):
		return Refuse(BOM, "%q is not a SHA-256", r.BOM)
	case r.BOMSize <= 0 || r.BOMSize > bom.MaxSize:
		return Refuse(BOM, "a bill of materials of %d bytes is not taken", r.BOMSize)
	}
	for _, name := range r.Components {
		if !wordPattern.MatchString(name) {
			return Refuse(Release, "%q is not the name of a component", name)
		}
	}
	return nil
}
