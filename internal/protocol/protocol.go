// Package protocol holds the JSON bodies that Aptfleet's programs exchange
// over HTTP. docs/architecture.md lists the routes. A field is only ever
// added; receivers ignore what they do not know.
package protocol

import (
	"encoding/json"
	"time"
)

// Error is the body of every answer whose status is 400 or above, inside
// {"error": …}.
type Error struct {
	Code string `json:"code"` // see release.Code
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

// ErrorBody wraps an Error.
type ErrorBody struct {
	Error Error `json:"error"`
}

// System describes a server.
type System struct {
	Product     string `json:"product"` // "aptfleet"
	Version     string `json:"version"`
	Fingerprint string `json:"archive_key"` // 40 upper-case hex digits
	Archive     string `json:"archive"`     // URL of the public listener
	Admin       string `json:"admin"`       // URL of the admin listener
}

// Key is the public half of the archive key.
type Key struct {
	Fingerprint string `json:"fingerprint"` // 40 upper-case hex digits
	Certificate string `json:"certificate"` // ASCII-armoured OpenPGP
}

// Pipeline is one product line.
type Pipeline struct {
	Name          string      `json:"name"`
	Distribution  string      `json:"distribution"`
	Architectures []string    `json:"architectures"`
	Stages        []string    `json:"stages"`
	Components    []Component `json:"components,omitempty"`
	Retention     *Retention  `json:"retention,omitempty"`
	Created       time.Time   `json:"created"`
}

// Component is one repository or mirror.
type Component struct {
	Name   string  `json:"name"`
	Kind   string  `json:"kind"` // "repository" or "mirror"
	Keep   int     `json:"keep,omitempty"`
	Mirror *Mirror `json:"mirror,omitempty"`
}

// Mirror says what a mirror takes from where.
type Mirror struct {
	URL        string   `json:"url"`
	Suite      string   `json:"suite"`
	Components []string `json:"components"`
	Packages   []string `json:"packages"`
	Recommends bool     `json:"recommends,omitempty"`
	Keyring    []byte   `json:"keyring,omitempty"` // OpenPGP certificates, binary or armoured; only in requests
}

// Upload answers one accepted package.
type Upload struct {
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Architecture string   `json:"architecture"`
	SHA256       string   `json:"sha256"`
	Size         int64    `json:"size"` // bytes
	State        string   `json:"state"`
	Already      bool     `json:"already,omitempty"`
	Replaced     []string `json:"replaced,omitempty"`
}

// Package is one package of a state.
type Package struct {
	Component    string `json:"component"`
	Name         string `json:"name"`
	Version      string `json:"version"`
	Architecture string `json:"architecture"`
	SHA256       string `json:"sha256"`
	Size         int64  `json:"size"`
}

// Snapshot is a named state.
type Snapshot struct {
	ID       string    `json:"id"`
	State    string    `json:"state"`
	Labels   []string  `json:"labels,omitempty"`
	Note     string    `json:"note,omitempty"`
	By       string    `json:"by"`
	Created  time.Time `json:"created"`
	Packages int       `json:"packages"`
	Stages   []string  `json:"stages,omitempty"` // that offer it now
	Pin      *Pin      `json:"pin,omitempty"`
}

// NewSnapshot asks for a snapshot of From (default: the newest state).
type NewSnapshot struct {
	From   string   `json:"from,omitempty"`
	Note   string   `json:"note,omitempty"`
	Labels []string `json:"labels,omitempty"`
}

// Stage is what a stage offers.
type Stage struct {
	Name     string    `json:"name"`
	Position int       `json:"position"`
	State    string    `json:"state,omitempty"`    // "" while it offers nothing
	Snapshot string    `json:"snapshot,omitempty"` // "" if the state has no name
	Since    time.Time `json:"since,omitzero"`
	By       string    `json:"by,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Packages int       `json:"packages"`
}

// Move is one entry of a stage's history.
type Move struct {
	Seq          int64     `json:"seq"`
	Stage        string    `json:"stage"`
	Kind         string    `json:"kind"` // "publish", "promote", "undo"
	FromState    string    `json:"from_state,omitempty"`
	FromSnapshot string    `json:"from_snapshot,omitempty"`
	ToState      string    `json:"to_state"`
	ToSnapshot   string    `json:"to_snapshot,omitempty"`
	By           string    `json:"by"`
	Reason       string    `json:"reason,omitempty"`
	At           time.Time `json:"at,omitzero"` // zero in the answer to a dry run
}

// Promote asks a stage to move to Snapshot (an id, a unique prefix, or a
// stage's name). Expect, if given, is the state id the caller saw the stage
// offer; another one is answered with 409.
type Promote struct {
	Snapshot string `json:"snapshot,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Expect   string `json:"expect,omitempty"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

// Difference is one package that differs between two states.
type Difference struct {
	Component    string `json:"component"`
	Name         string `json:"name"`
	Architecture string `json:"architecture"`
	Kind         string `json:"kind"` // "new", "gone", "upgraded", "downgraded", "rebuilt"
	Old          string `json:"old,omitempty"`
	New          string `json:"new,omitempty"`
}

// Diff is what separates two states.
type Diff struct {
	From        string       `json:"from"` // state id
	To          string       `json:"to"`
	Differences []Difference `json:"differences"`
}

// Change is a long act of the server.
type Change struct {
	ID       int64     `json:"id"`
	Kind     string    `json:"kind"`
	Summary  string    `json:"summary"`
	Pipeline string    `json:"pipeline,omitempty"`
	Status   string    `json:"status"` // "doing", "done", "failed", "aborted"
	By       string    `json:"by"`
	Reason   string    `json:"reason,omitempty"`
	Created  time.Time `json:"created"`
	Finished time.Time `json:"finished,omitzero"`
	Done     int64     `json:"done"`
	Total    int64     `json:"total,omitempty"`
	Unit     string    `json:"unit,omitempty"`
	Log      []string  `json:"log,omitempty"`
	Error    string    `json:"error,omitempty"`

	Result json.RawMessage `json:"result,omitempty"` // what it found: of a gc a GC; not in lists
}

// Event tells a watcher that something moved.
type Event struct {
	Seq      int64     `json:"seq"`
	Kind     string    `json:"kind"`
	Pipeline string    `json:"pipeline,omitempty"`
	Subject  string    `json:"subject,omitempty"`
	At       time.Time `json:"at"`
}

// User is a person or a machine with a name.
type User struct {
	Name    string    `json:"name"`
	Roles   []string  `json:"roles"`
	Created time.Time `json:"created"`
}

// Token belongs to a user. Secret is present only in the answer that made it.
type Token struct {
	ID      int64     `json:"id"`
	User    string    `json:"user"`
	Label   string    `json:"label"`
	Roles   []string  `json:"roles"` // a subset of the user's, e.g. "uploader:demo/apps"
	Created time.Time `json:"created"`
	Secret  string    `json:"secret,omitempty"`
}

// NewToken asks for a token of User. Without Roles it has the user's own.
type NewToken struct {
	User  string   `json:"user"`
	Label string   `json:"label"`
	Roles []string `json:"roles,omitempty"`
}

// LoginLink is a one-time URL for a person's browser.
type LoginLink struct {
	User    string    `json:"user"`
	URL     string    `json:"url"`
	Expires time.Time `json:"expires"`
}

// Finding is one bad file or row.
type Finding struct {
	Path   string `json:"path"` // relative to the data directory
	Reason string `json:"reason"`
}

// Check is the report of repo-manager check.
type Check struct {
	Files    int64     `json:"files"`
	Bytes    int64     `json:"bytes"`
	Findings []Finding `json:"findings"`
}

// CheckLine is a line of a check's answer as application/x-ndjson: how far it
// is, and in the last line the report, or why there is none.
type CheckLine struct {
	Files  int64  `json:"files"`
	Bytes  int64  `json:"bytes"`
	Report *Check `json:"report,omitempty"`
	Error  *Error `json:"error,omitempty"`
}

// Device is a machine as the server knows it.
type Device struct {
	Name     string    `json:"name"`
	Pipeline string    `json:"pipeline"`
	Created  time.Time `json:"created"`
	Seen     time.Time `json:"seen,omitzero"` // last report
	Report   *Report   `json:"report,omitempty"`
	Token    string    `json:"token,omitempty"` // only in the answer that made it
}

// Report is what a device says about itself.
type Report struct {
	Follow      string       `json:"follow"` // "production", "snapshot:…", "state:…"
	Deployments []Deployment `json:"deployments"`
	Wanted      string       `json:"wanted,omitempty"` // state id it should run
	WantedName  string       `json:"wanted_name,omitempty"`
	Phase       string       `json:"phase"`              // journal state: "IDLE", "DOWNLOAD", …
	Progress    string       `json:"progress,omitempty"` // "12 of 40 packages"
	WhyNot      string       `json:"why_not,omitempty"`  // why it does not run what it wants, one sentence
	LastError   string       `json:"last_error,omitempty"`
	Failed      []Failure    `json:"failed,omitempty"` // releases it will not try again
}

// Deployment is one bootable root of a device.
type Deployment struct {
	ID       int    `json:"id"`
	State    string `json:"state"`
	Snapshot string `json:"snapshot,omitempty"`
	Role     string `json:"role"`              // "booted", "staged", "trial", "rollback", "pinned"
	Version  string `json:"version,omitempty"` // version of the first wanted package
}

// Failure is a release that failed on a device.
type Failure struct {
	State    string    `json:"state"`
	Snapshot string    `json:"snapshot,omitempty"`
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
}
