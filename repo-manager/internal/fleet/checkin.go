package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"aptfleet/internal/faultpoint"
	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// maxBoots is how many boots of a device are remembered to find out clones.
const maxBoots = 8

// CheckIn answers what a device sends from an address; nil means that nothing
// changed. What the device must not see undone is durable before it returns. A
// *Refused is for the device, a release.Error for whoever looks into its log.
func (s *Service) CheckIn(ctx context.Context, signed protocol.Signed, address string) (*protocol.CheckedIn, error) {
	d, key, in, err := s.verify(signed)
	if err != nil {
		return nil, err
	}
	d.busy.Lock()
	defer d.busy.Unlock()
	now := s.now()
	if err := d.mayCheckIn(key, in); err != nil {
		return nil, err
	}
	contact, known, err := d.contact(in, address, now)
	if err != nil {
		return nil, err
	}
	answer := &protocol.CheckedIn{Time: now, SendReport: !known && in.Report == nil}
	reported := !known && in.Report != nil
	var todo Batch
	if reported || contact.Session != d.Session || contact.Clone != d.Clone || !slices.Equal(contact.Boots, d.Boots) {
		if reported {
			contact.Events += tell(d, contact.Report, now, &todo)
		}
		todo.Contacts = []ContactOf{{Device: d.Name, Contact: contact}}
		if reported {
			todo.Contacts[0].Text = in.Report
		}
	}
	var next *assignment
	if contact.Clone == nil {
		// What it should run depends on what it just said.
		next = s.decide(context.WithoutCancel(ctx), d, contact.Report, in, now)
		if next != nil && (next.Assigned.Counter != d.Counter || next.Assigned.Content != d.Content) {
			todo.Assigned = []AssignedTo{{d.Name, next.Assigned}}
		}
	}
	if len(todo.Contacts)+len(todo.Assigned) > 0 {
		if err := s.writer.commit(todo); err != nil {
			return nil, fmt.Errorf("cannot record the check-in of device %s: %w", d.Name, err)
		}
		faultpoint.Hit("check-in:committed")
	}
	s.mu.Lock()
	d.Contact = contact
	if next != nil {
		d.Assigned, d.inputs = next.Assigned, next.inputs
	}
	s.mu.Unlock()
	if len(todo.Contacts)+len(todo.Assigned) > 0 {
		s.Announce("device", d.Pipeline, d.Name)
	}
	if next != nil && next.isNews(in, now) {
		if answer.Assignment, err = s.sign(d, next, now); err != nil {
			return nil, err
		}
	}
	if answer.Assignment == nil && !answer.SendReport {
		return nil, nil
	}
	return answer, nil
}

// verify finds out who sent a check-in, by which key, and reads it.
func (s *Service) verify(signed protocol.Signed) (d *device, key ed25519.PublicKey, in protocol.CheckIn, err error) {
	s.mu.RLock()
	old, isOld := s.oldKeys[signed.Key]
	key = old.Key
	if d = s.keys[signed.Key]; d != nil {
		key = d.Key
	}
	s.mu.RUnlock()
	if d == nil && !isOld {
		if err := otherVersion(signed.Payload); err != nil {
			return nil, nil, in, err
		}
		return nil, nil, in, refuse(protocol.CodeUnknownDevice, "cannot take the check-in: no device has the key %.32q", signed.Key)
	}
	text, err := signed.Verify(key, protocol.ForCheckIn)
	if err != nil {
		// A purpose names its version, so the signature of another one is bad, too.
		if err := otherVersion(signed.Payload); err != nil {
			return nil, nil, in, err
		}
		return nil, nil, in, refuse(protocol.CodeBadSignature, "cannot take the check-in: it is not signed by the key that it names")
	}
	if err := json.Unmarshal(text, &in); err != nil {
		return nil, nil, in, fail(release.Invalid, "", "cannot read the check-in: %v", err)
	}
	if in.Version != protocol.DeviceProtocol {
		return nil, nil, in, refuse(protocol.CodeUnsupported, "cannot speak version %d of the device protocol: this server speaks %d", in.Version, protocol.DeviceProtocol)
	}
	if d == nil {
		return nil, nil, in, refuse(protocol.CodeRetired, "cannot take the check-in: device %s has another key: %s", old.Device, old.Reason)
	}
	return d, key, in, check(in)
}

// otherVersion refuses a text that says that it is of another version of the
// protocol.
func otherVersion(text []byte) error {
	var said struct {
		Version *int `json:"version"`
	}
	if json.Unmarshal(text, &said) != nil || said.Version == nil || *said.Version == protocol.DeviceProtocol {
		return nil
	}
	return refuse(protocol.CodeUnsupported, "cannot speak version %d of the device protocol: this server speaks %d", *said.Version, protocol.DeviceProtocol)
}

// check refuses what no device says.
func check(in protocol.CheckIn) error {
	switch {
	case max(in.Session, in.Sequence, in.Counter) >= protocol.MaxNumber:
		return fail(release.Invalid, "", "cannot take the check-in: session, sequence and counter are below 2^53")
	case !isWord(in.Machine, 128), !isWord(in.Boot, 64):
		return fail(release.Invalid, "", "cannot take the check-in: machine and boot are words of printable characters")
	case len(in.Assignment) > 64:
		return fail(release.Invalid, "", "cannot take the check-in: assignment is a SHA-256 in hex")
	}
	if sum, err := hex.DecodeString(in.ReportHash); err != nil || len(sum) != sha256.Size {
		return fail(release.Invalid, "", "cannot take the check-in: report_hash is a SHA-256 in hex")
	}
	return nil
}

// isWord tells whether text is printable ASCII without spaces, at least one
// and at most so many characters.
func isWord(text string, most int) bool {
	if text == "" || len(text) > most {
		return false
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// mayCheckIn refuses a check-in that is not the device's next one.
func (d *device) mayCheckIn(key ed25519.PublicKey, in protocol.CheckIn) error {
	switch {
	case d.Retired != nil:
		return refuse(protocol.CodeRetired, "device %s is retired: %s", d.Name, d.Retired.Reason)
	case !d.Key.Equal(key): // just replaced
		return refuse(protocol.CodeRetired, "device %s has another key", d.Name)
	case slices.Contains(d.Banned, in.Machine):
		return refuse(protocol.CodeRetired, "the key of device %s belongs to another machine", d.Name)
	case in.Session < d.Session || in.Session == d.Session && in.Sequence <= d.Sequence:
		return &Refused{
			Code: protocol.CodeReplay, Session: d.Session,
			Text: fmt.Sprintf("cannot take check-in %d.%d of device %s: %d.%d came before", in.Session, in.Sequence, d.Name, d.Session, d.Sequence),
		}
	}
	return nil
}

// contact is the device's contact after a check-in, and whether the report is
// known. Nothing is changed yet.
func (d *device) contact(in protocol.CheckIn, address string, now time.Time) (c Contact, known bool, err error) {
	c = d.Contact
	c.Session, c.Sequence, c.Seen = in.Session, in.Sequence, now
	if c.Skew = in.Time.Sub(now); in.Time.IsZero() {
		c.Skew = 0
	}
	d.sight(&c, in, address, now)
	var sum [32]byte
	if _, err := hex.Decode(sum[:], []byte(in.ReportHash)); err != nil {
		return c, false, fail(release.Invalid, "", "cannot read report_hash: %v", err)
	}
	if known = sum == d.ReportHash && d.Report != nil; known || in.Report == nil {
		return c, known, nil
	}
	if protocol.ReportHash(in.Report) != in.ReportHash {
		return c, false, fail(release.Invalid, "", "cannot take the report of device %s: report_hash is not its SHA-256", d.Name)
	}
	if c.Report, err = ParseReport(in.Report); err != nil {
		return c, false, fail(release.Invalid, "", "cannot read the report of device %s: %v", d.Name, err)
	}
	c.ReportHash = sum
	return c, false, nil
}

// tell puts the important changes of a report into a batch and returns how
// many they are.
func tell(d *device, report *protocol.Report, now time.Time, into *Batch) uint64 {
	var n uint64
	for _, text := range changes(d.Report, report) {
		n++
		into.Events = append(into.Events, Event{Device: d.Name, Number: d.Events + n, At: now, Text: shorten(text)})
	}
	return n
}

// shorten bounds what a device can have the server keep.
func shorten(text string) string {
	const most = 500
	if len(text) <= most {
		return text
	}
	return text[:most] + "…"
}
