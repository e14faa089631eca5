package release

import (
	"time"

	"aptfleet/snapshots"
)

// Actor is who acts. Every act is recorded under its name.
type Actor struct {
	Name string // a user, or the login name at the other end of the Unix socket
	Via  string // "socket", "token:<label>", "session", "system"
}

// Pipeline is one product line. Name, Distribution and Architectures never
// change after creation: apt refuses a Release whose identity changes.
type Pipeline struct {
	Name          string
	Distribution  string   // e.g. "trixie": the directory below dists/ and the Codename
	Architectures []string // Debian names without "all", sorted
	Stages        []string // in order of promotion; the first offers the newest state
	Components    []Component
	Retention     Retention
	Private       bool   // reading it needs credentials
	Deleted       string // highest id of a snapshot that was deleted, or ""
	Created       time.Time
}

// ComponentKind says where the packages of a component come from.
type ComponentKind string

// The kinds of component.
const (
	Repository ComponentKind = "repository" // rolling, receives uploads
	Mirror     ComponentKind = "mirror"     // follows upstream suites
)

// Component is one repository or mirror of a pipeline.
type Component struct {
	Pipeline string
	Name     string
	Kind     ComponentKind
	Keep     int           // Repository: versions kept per name and architecture, at least 1
	Mirror   *MirrorConfig // Mirror only
	Created  time.Time
}

// MirrorConfig says what a mirror takes from where. It takes Packages with
// what they depend on, and what Filter matches; All takes everything.
type MirrorConfig struct {
	Suites     []MirrorSuite // at least one
	Packages   []string      // wanted names; their dependencies follow
	Filter     string        // package query in aptly's language; "" matches nothing
	FilterDeps bool          // the dependencies of what Filter matches follow too
	All        bool          // every package of the suites; no Packages, no Filter
	Recommends bool          // whether Recommends count as dependencies
}

// MirrorSuite is one suite of an archive that a mirror takes packages from. Of
// a name that several suites have, the one of the highest Priority has it;
// within a priority the highest version wins, as for apt.
type MirrorSuite struct {
	URL        string   // base that holds dists/, e.g. https://mirror.example/debian
	Suite      string   // below dists/, e.g. "trixie"
	Components []string // upstream components, e.g. "main"
	Priority   int      // 0 unless somebody decided otherwise
	Keyring    []byte   // OpenPGP certificates that may sign the suite's InRelease
}

// Offer is a state together with the name it goes by, if it has one.
type Offer struct {
	State    snapshots.ID
	Snapshot string // id of the snapshot, or ""
}

// Snapshot is a named state. Its id is a UTC time to the second; ids of a
// pipeline strictly increase.
type Snapshot struct {
	ID       string // 20261120T101500Z
	Pipeline string
	State    snapshots.ID
	Labels   []string
	Note     string
	By       string
	Created  time.Time
	Packages int // entries of all indices: a package of architecture all counts in each
	Pin      *Pin
}

// Stage is what a stage offers now.
type Stage struct {
	Pipeline string
	Name     string
	Position int // 0 is the first
	Offer    Offer
	Since    time.Time
	By       string
	Reason   string
	Packages int
	Standing int64 // Seq of the move that put the offer there
}

// Move is one entry of a stage's history. An undo goes back to what stood
// before the current offer was promoted, so two undos walk further back and
// never return to what the first one left: Over links the moves in that order.
type Move struct {
	Seq      int64 // counts the moves of a pipeline from 1; 0: nothing had to move
	Pipeline string
	Stage    string
	Kind     MoveKind
	From, To Offer
	By       string
	Reason   string
	At       time.Time
	Over     int64 // Seq of the move that an undo of this one goes back to; 0: nothing lies below
}

// MoveKind says why a stage moved.
type MoveKind string

// The kinds of move.
const (
	MovePublish MoveKind = "publish" // the first stage followed a new state
	MovePromote MoveKind = "promote"
	MoveUndo    MoveKind = "undo"
)

// Upload is the answer to one accepted package.
type Upload struct {
	Name, Version, Architecture string
	SHA256                      string
	Size                        int64
	State                       snapshots.ID // published after it; a later upload of the same batch may have replaced it already
	Already                     bool         // the same bytes were there before
	Replaced                    []string     // versions that left the repository
}

// ChangeStatus is the life of a change.
type ChangeStatus string

// The statuses of a change. Doing becomes one of the others exactly once; a
// restart of the server turns Doing into Failed ("interrupted by a restart").
const (
	Doing   ChangeStatus = "doing"
	Done    ChangeStatus = "done"
	Failed  ChangeStatus = "failed"
	Aborted ChangeStatus = "aborted"
)

// Change is a long act: a mirror update, a check.
type Change struct {
	ID       int64
	Kind     string // "mirror-update", "check"
	Summary  string // one line for people
	Pipeline string
	Subject  string // what it works on, e.g. a mirror's name: one change of a kind at a time does
	Status   ChangeStatus
	By       string
	Reason   string
	Created  time.Time
	Finished time.Time // zero while doing
	Done     int64     // progress so far, in Unit
	Total    int64     // 0 while unknown
	Unit     string    // "packages", "bytes"
	Log      []string  // newest last, bounded
	Error    string
	Result   []byte // JSON of what it found, where one change is asked for; nil: nothing
}

// Event tells watchers that something moved; they read the rest themselves.
type Event struct {
	Seq      int64  // counts the events of one run of the server
	Kind     string // "pipeline", "component", "stage", "snapshot", "upload", "change", "device", "enrolment", "registration"
	Pipeline string
	Subject  string // stage, snapshot id, package, change id, device, key or serial number
	At       time.Time
}

// Code classifies an error for whoever answers a person or a program.
type Code string

// The codes and the HTTP status and exit code they become.
const (
	Invalid   Code = "invalid"   // 400, exit 1: the input is not what it should be
	NotFound  Code = "not-found" // 404, exit 1
	Conflict  Code = "conflict"  // 409, exit 1: something moved, or other bytes hold that name
	Refused   Code = "refused"   // 422, exit 3: a policy says no
	TooLarge  Code = "too-large" // 413, exit 1
	NoSpace   Code = "no-space"  // 507, exit 1
	Locked    Code = "locked"    // 423, exit 11: another change holds it
	NoAccess  Code = "no-access" // 401, exit 5: who is asking?
	Forbidden Code = "forbidden" // 403, exit 5: known, but may not
	Upstream  Code = "upstream"  // 502, exit 1: what a mirror's upstream gives cannot be taken

	// Unpublished is 503, exit 1: the act is recorded and not visible yet.
	Unpublished Code = "unpublished"
)

// Error is an error that a caller shows to a person: what failed, why, and
// the next step. Any other error is an internal one.
type Error struct {
	Code Code
	Text string // "cannot <verb> <object>: <cause>"
	Hint string // the next command to try, or ""
	Err  error  // cause for logs, may be nil
}

func (e *Error) Error() string { return e.Text }
func (e *Error) Unwrap() error { return e.Err }

// NextStep returns the hint, for whoever is told of the error without a request.
func (e *Error) NextStep() string { return e.Hint }
