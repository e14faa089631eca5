package journal

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"
)

// Phase is where a transaction is. A record of a phase is written before the
// phase does anything.
type Phase string

// The phases in their order. Idle ends a transaction that changed nothing or
// was committed; Failed ends one whose release is not tried again.
const (
	Idle       Phase = "IDLE"
	Check      Phase = "CHECK"
	Preflight  Phase = "PREFLIGHT"
	Download   Phase = "DOWNLOAD"
	Snapshot   Phase = "SNAPSHOT"
	Install    Phase = "INSTALL"
	Verify     Phase = "VERIFY"
	Staged     Phase = "STAGED"
	Finalise   Phase = "FINALISE"
	Reboot     Phase = "REBOOT"
	Trial      Phase = "TRIAL"
	Health     Phase = "HEALTH"
	Commit     Phase = "COMMIT"
	RolledBack Phase = "ROLLED_BACK"
	Failed     Phase = "FAILED"
)

// Phases returns all of them in their order.
func Phases() []Phase {
	return []Phase{Idle, Check, Preflight, Download, Snapshot, Install, Verify, Staged, Finalise, Reboot, Trial, Health, Commit, RolledBack, Failed}
}

// Format is the version of the records that this package writes. Records
// without a format are of this one, too.
//
// After a rollback an updater meets records of a newer one, in the middle of a
// transaction. So whatever a later format adds, these hold for ever: a record
// is one JSON object a line; a field keeps its meaning, and fields that are not
// known are ignored; phases may be added, but each record has one of the classes
// below, by which it is understood.
const Format = 1

// Class is what the next start of an updater makes of a transaction whose last
// record this is. There will never be another one.
type Class string

// The classes, with what is so when a record of them is the last.
const (
	Over       Class = "over"       // the transaction ended
	Unfinished Class = "unfinished" // the running system has not changed; what was begun is thrown away
	Waiting    Class = "staged"     // so it has not, and the pristine root is whole
	Preparing  Class = "finalise"   // whether the loader was told of a trial is in boot control
	Leaving    Class = "reboot"     // it was told, in the boot that the record names
	Trying     Class = "trial"      // it has booted the trial; with Bad, that is to be left
	Committing Class = "commit"     // the trial was good
	GoingBack  Class = "back"       // the trial was bad, or its tries are used up
)

var classes = map[Phase]Class{
	Idle: Over, Failed: Over,
	Check: Unfinished, Preflight: Unfinished, Download: Unfinished, Snapshot: Unfinished, Install: Unfinished, Verify: Unfinished,
	Staged: Waiting, Finalise: Preparing, Reboot: Leaving, Trial: Trying, Health: Trying, Commit: Committing, RolledBack: GoingBack,
}

// phases are what a record of a phase that is not known is taken for.
var phases = map[Class]Phase{
	Over: Idle, Unfinished: Verify, Waiting: Staged, Preparing: Finalise, Leaving: Reboot, Trying: Health, Committing: Commit, GoingBack: RolledBack,
}

// Record is one line of the journal.
type Record struct {
	Seq         int64     `json:"seq"`
	At          time.Time `json:"at"`
	Transaction int64     `json:"tx"`
	Phase       Phase     `json:"phase"`
	State       string    `json:"state,omitempty"`    // the release: id of its state
	Snapshot    string    `json:"snapshot,omitempty"` // its name, if it has one
	Deployment  int       `json:"deployment"`         // that is made or tried
	From        int       `json:"from"`               // that was booted when it began
	Local       string    `json:"local,omitempty"`    // the overlay on top of the release: its id
	Boot        string    `json:"boot,omitempty"`     // REBOOT: id of the boot that asks for it; from TRIAL on, of the last boot on trial
	Manual      bool      `json:"manual,omitempty"`   // a person asked to go back to Deployment
	Bad         bool      `json:"bad,omitempty"`      // HEALTH: the trial failed, for Reason
	Cut         bool      `json:"cut,omitempty"`      // IDLE, FAILED: the updater was cut off while it installed
	Reboots     int       `json:"reboots,omitempty"`  // that were asked for or seen in this transaction
	Told        int       `json:"told,omitempty"`     // COMMIT, ROLLED_BACK: how often its hooks were begun
	Reason      string    `json:"reason,omitempty"`
	Format      int       `json:"format,omitempty"`
	Class       Class     `json:"class,omitempty"`
}

// Open reports whether the record belongs to a transaction that goes on.
func (r Record) Open() bool { return r.Phase != Idle && r.Phase != Failed && r.Phase != "" }

// Recovery is the class of the record; "" of the zero Record.
func (r Record) Recovery() Class { return classes[r.Phase] }

// Same reports whether two records say the same, but for their number and time.
func (r Record) Same(other Record) bool {
	r.Seq, r.At, other.Seq, other.At = 0, time.Time{}, 0, time.Time{}
	return r == other
}

// line is a record as it is in the file.
type line struct {
	Record
	raw []byte // with the newline; what this updater does not know is kept in it
}

// maxReason is how long a reason may be, in bytes.
const maxReason = 2000

// encode makes the line of a record of ours.
func encode(r Record) (line, error) {
	r.Format, r.Class = Format, classes[r.Phase]
	if len(r.Reason) > maxReason {
		cut := maxReason
		for cut > 0 && !utf8.RuneStart(r.Reason[cut]) {
			cut--
		}
		r.Reason = r.Reason[:cut] + "…"
	}
	raw, err := json.Marshal(r)
	return line{r, append(raw, '\n')}, err
}

// decode reads a whole line. ok is false if it is damaged.
func decode(raw []byte) (l line, ok bool) {
	if !bytes.HasSuffix(raw, []byte("\n")) {
		return l, false
	}
	l.raw = raw
	if err := json.Unmarshal(raw, &l.Record); err != nil || l.Phase == "" {
		return l, false
	}
	l.understand()
	return l, true
}

// understand puts a phase of ours in the place of one of a newer format. What
// has no class that is known is taken for FINALISE, whose recovery looks at boot
// control and what lies on the disk, and relies on nothing else.
func (r *Record) understand() {
	class, known := classes[r.Phase]
	meant, ok := phases[r.Class]
	switch {
	case known && (!ok || r.Class == class):
	case ok:
		r.Phase = meant
	default:
		r.Phase = Finalise
	}
	r.Class = classes[r.Phase]
}

// With returns the record with one more reason behind those that it has.
func (r Record) With(reason string) Record {
	r.Reason = strings.TrimPrefix(r.Reason+"; "+reason, "; ")
	return r
}
