package assignment

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/protocol"
)

// The files of a Store.
const (
	signedFile = "assignment.json"       // the newest accepted one, as it was signed
	floorFile  = "assignment-floor.json" // its counter and content
)

// kept is the file of the floor. It holds for one enrolment.
type kept struct {
	Floor
	Device string `json:"device"`
	Key    string `json:"assignment_key"` // its KeyID
}

// Store keeps the newest assignment that was accepted, and its floor, durably:
// first the assignment, then the floor, and only then is it told to anybody. It
// may be used by several goroutines.
type Store struct {
	dir   string
	me    Me
	clock func() Clock

	mu      sync.Mutex
	floor   Floor
	current *protocol.Assignment // nil: none, or it was lost
	refused *Refusal             // why the last one was; nil: it was accepted
	named   *Refusal             // what is wrong with what the accepted one names; nil: nothing
}

// Open reads what dir keeps and judges it anew. An assignment that is torn or
// was changed is as if it had been lost: the server sends it again, and the
// floor keeps older ones out. A floor that cannot be read is taken from the
// assignment; if both cannot be read that is an error: nothing would keep old
// assignments out.
func Open(dir string, me Me, clock func() Clock) (*Store, error) {
	s := &Store{dir: dir, me: me, clock: clock}
	floor, err := s.readFloor()
	broken := errors.As(err, new(*brokenError))
	if err != nil && !broken {
		return nil, err
	}
	a, err := s.readSigned()
	if err != nil {
		return nil, err
	}
	if a != nil && judge(*a, me, floor, Clock{Now: a.Issued}) != nil {
		a = nil // of another enrolment, or older than the floor
	}
	if broken && a == nil {
		return nil, &brokenError{s.path(floorFile)}
	}
	s.floor, s.current = floor, a
	if a != nil {
		if now := (Floor{a.Counter, a.Content()}); now != floor {
			if err := s.writeFloor(now); err != nil {
				return nil, err
			}
			s.floor = now
		}
	}
	return s, nil
}

// brokenError says that nothing is known of what was accepted.
type brokenError struct{ path string }

func (b *brokenError) Error() string {
	return fmt.Sprintf("cannot tell which assignments are old: %s cannot be read, nor can the assignment itself", b.path)
}

// NextStep tells what a person can do.
func (*brokenError) NextStep() string {
	return "look at the disk; then enrol anew: device-updater enrol --anew"
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Store) readFloor() (Floor, error) {
	text, err := os.ReadFile(s.path(floorFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Floor{}, nil
	}
	if err != nil {
		return Floor{}, fmt.Errorf("cannot read the last assignment: %w", err)
	}
	var k kept
	if err := json.Unmarshal(text, &k); err != nil || k.Key == "" || k.Device == "" {
		return Floor{}, &brokenError{s.path(floorFile)}
	}
	if k.Device != s.me.Device || k.Key != protocol.KeyID(s.me.Pinned) {
		return Floor{}, nil // counters are of one server and one device
	}
	return k.Floor, nil
}

func (s *Store) writeFloor(f Floor) error {
	text, err := json.Marshal(kept{f, s.me.Device, protocol.KeyID(s.me.Pinned)})
	if err == nil {
		err = atomicfile.Write(s.path(floorFile), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the assignment: %w", err)
	}
	return nil
}

// readSigned returns the kept assignment if it is signed by the pinned key.
func (s *Store) readSigned() (*protocol.Assignment, error) {
	text, err := os.ReadFile(s.path(signedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the last assignment: %w", err)
	}
	var signed protocol.Signed
	if json.Unmarshal(text, &signed) != nil {
		return nil, nil
	}
	payload, err := signed.Verify(s.me.Pinned, protocol.ForAssignment)
	var a protocol.Assignment
	if err != nil || json.Unmarshal(payload, &a) != nil {
		return nil, nil
	}
	return &a, nil
}

// Accept judges an assignment and keeps it. changed reports whether it says
// something else than the one before, or what could not be followed any more
// can be. A *Refusal is remembered until another assignment is accepted.
func (s *Store) Accept(signed protocol.Signed) (changed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clock := s.clock()
	a, err := Judge(signed, s.me, s.floor, clock)
	if err != nil {
		var refusal *Refusal
		if errors.As(err, &refusal) {
			s.refused = refusal
		}
		return false, err
	}
	before := s.current
	now := Floor{a.Counter, a.Content()}
	if before != nil && now == s.floor && !a.Expires.After(before.Expires) {
		s.refused = nil
		return false, nil // an earlier way of saying the same
	}
	text, err := json.Marshal(signed)
	if err != nil {
		return false, fmt.Errorf("cannot keep the assignment: %w", err)
	}
	if err := atomicfile.Write(s.path(signedFile), append(text, '\n'), 0o600); err != nil {
		return false, fmt.Errorf("cannot keep the assignment: %w", err)
	}
	if now != s.floor {
		if err := s.writeFloor(now); err != nil {
			return false, err
		}
	}
	changed = before == nil || now != s.floor || untimely(*before, clock) != ""
	s.floor, s.current = now, &a
	s.refused = nil
	return changed, nil
}

// Have returns what a check-in says about the accepted assignment. content is
// "" if it was lost, so that the server sends it again.
func (s *Store) Have() (counter uint64, content string, expires time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return s.floor.Counter, "", time.Time{}
	}
	return s.floor.Counter, s.floor.Content, s.current.Expires
}

// Current returns the accepted assignment, nil if there is none, and why
// nothing may be begun on its behalf; "" if nothing speaks against it. What
// runs stays as it is in any case.
func (s *Store) Current() (a *protocol.Assignment, against string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return nil, "the server has not said yet what this device should run"
	}
	clock := s.clock()
	copied := *s.current
	if h := copied.Hold; h != nil && !h.Until.IsZero() && !clock.latest(copied).Before(h.Until) {
		copied.Hold = nil // its time has passed
	}
	if why := untimely(copied, clock); why != "" {
		return &copied, why
	}
	if copied.Hold != nil {
		return &copied, held(*copied.Hold)
	}
	return &copied, ""
}

// untimely says why an accepted assignment is not for now.
func untimely(a protocol.Assignment, clock Clock) string {
	switch {
	case !clock.latest(a).Before(a.Expires):
		why := fmt.Sprintf("its assignment expired at %s, and the server has not renewed it", a.Expires.UTC().Format(time.RFC3339))
		if !clock.Now.Before(a.Expires) {
			why += "; " + clock.ifWrong() // the server renews by its own
		}
		return why
	case clock.Synchronised && a.Issued.After(clock.Now.Add(maxAhead)):
		return fmt.Sprintf("its assignment was issued at %s, which has not come yet", a.Issued.UTC().Format(time.RFC3339))
	}
	return ""
}

func held(h protocol.Hold) string {
	var b strings.Builder
	b.WriteString("it is held")
	if h.By != "" {
		b.WriteString(" by " + h.By)
	}
	if !h.Until.IsZero() {
		b.WriteString(" until " + h.Until.UTC().Format(time.RFC3339))
	}
	b.WriteString(": " + h.Reason)
	return b.String()
}

// Refuse remembers that what the accepted assignment names is not what it
// should be; nil forgets it.
func (s *Store) Refuse(r *Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.named = r
}

// Refused returns the last refusal, nil if all is accepted.
func (s *Store) Refused() *Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.refused, s.named)
}
