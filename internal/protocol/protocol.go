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

	Session uint64 `json:"session,omitempty"` // of CodeReplay: the next one must be higher
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
	// KeyID of the key that signs what devices are told to run.
	AssignmentKey string `json:"assignment_key"`
	Archive       string `json:"archive"` // URL of the public listener
	Admin         string `json:"admin"`   // URL of the admin listener
}

// Key is the public half of the archive key and of the CA of a server that has
// made one for itself, and the name of the key that signs assignments.
type Key struct {
	Fingerprint   string `json:"fingerprint"`              // 40 upper-case hex digits
	Certificate   string `json:"certificate"`              // ASCII-armoured OpenPGP
	CAFingerprint string `json:"ca_fingerprint,omitempty"` // SHA-256 of the DER, 64 lower-case hex digits
	CA            string `json:"ca,omitempty"`             // PEM
	Assignment    string `json:"assignment"`               // KeyID of the key that signs assignments
}

// Pipeline is one product line.
type Pipeline struct {
	Name          string      `json:"name"`
	Distribution  string      `json:"distribution"`
	Architectures []string    `json:"architectures"`
	Stages        []string    `json:"stages"`
	Components    []Component `json:"components,omitempty"`
	Retention     *Retention  `json:"retention,omitempty"`
	Private       bool        `json:"private,omitempty"` // reading it needs credentials
	Created       time.Time   `json:"created"`
}

// Component is one repository or mirror.
type Component struct {
	Name   string  `json:"name"`
	Kind   string  `json:"kind"` // "repository" or "mirror"
	Keep   int     `json:"keep,omitempty"`
	Mirror *Mirror `json:"mirror,omitempty"`
}

// Mirror says what a mirror takes from where: Packages with what they depend
// on, and what Filter matches; All takes everything.
type Mirror struct {
	Suites     []MirrorSuite `json:"suites"`
	Packages   []string      `json:"packages,omitempty"`
	Filter     string        `json:"filter,omitempty"`      // package query
	FilterDeps bool          `json:"filter_deps,omitempty"` // dependencies of what Filter matches follow too
	All        bool          `json:"all,omitempty"`
	Recommends bool          `json:"recommends,omitempty"`
}

// MirrorSuite is one suite of an archive. Of a name that several suites have,
// the one of the highest Priority has it; within a priority the highest version
// wins.
type MirrorSuite struct {
	URL        string   `json:"url"`
	Suite      string   `json:"suite"`
	Components []string `json:"components"`
	Priority   int      `json:"priority,omitempty"`
	// OpenPGP certificates, binary or armoured; only in requests. A change of
	// a mirror may leave it out for a suite or URL that the mirror has already.
	Keyring []byte `json:"keyring,omitempty"`
}

// MirrorUpdate asks for an update of a mirror.
type MirrorUpdate struct {
	AllowRebuilt bool `json:"allow_rebuilt,omitempty"` // other bytes under a version that is known are taken
}

// MirrorDiff says what an update of a mirror would change.
type MirrorDiff struct {
	Releases    []UpstreamRelease `json:"releases"`
	Packages    int               `json:"packages"` // in the mirror after it; a package of architecture all counts once
	Download    int64             `json:"download"` // bytes of packages that the pool lacks
	Differences []Difference      `json:"differences"`
}

// UpstreamRelease is a verified InRelease of upstream.
type UpstreamRelease struct {
	URL    string    `json:"url"` // of the InRelease
	Date   time.Time `json:"date"`
	Signer string    `json:"signer"` // fingerprint
}

// MirrorDiffLine is a line of a mirror diff's answer as application/x-ndjson:
// how far it is, and in the last line the difference, or why there is none.
type MirrorDiffLine struct {
	Done  int64       `json:"done"`
	Total int64       `json:"total"`
	Unit  string      `json:"unit"`
	Diff  *MirrorDiff `json:"diff,omitempty"`
	Error *Error      `json:"error,omitempty"`
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

// Uploaded is what became of one file of many: Upload, or Error.
type Uploaded struct {
	File   string  `json:"file"`   // as it was sent
	Status int     `json:"status"` // what it would have been answered with if it had come alone
	Upload *Upload `json:"upload,omitempty"`
	Error  *Error  `json:"error,omitempty"`
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

// Merge asks for a snapshot that has what several states have. States are
// given like Promote.Snapshot. OnConflict is "refuse", which is the default,
// "latest" or "first".
type Merge struct {
	States     []string `json:"states"`
	OnConflict string   `json:"on_conflict,omitempty"`
	Note       string   `json:"note,omitempty"`
	Labels     []string `json:"labels,omitempty"`
	DryRun     bool     `json:"dry_run,omitempty"`
}

// Pick asks for a snapshot that is Base with the packages Names as From has
// them, and with what they depend on and Base lacks if Dependencies is set.
type Pick struct {
	Base         string   `json:"base"`
	From         string   `json:"from"`
	Names        []string `json:"names"`
	Dependencies bool     `json:"dependencies,omitempty"`
	Note         string   `json:"note,omitempty"`
	Labels       []string `json:"labels,omitempty"`
	DryRun       bool     `json:"dry_run,omitempty"`
}

// Filter asks for a snapshot that has of From (default: the newest state) what
// Query takes, in aptly's query language.
type Filter struct {
	From   string   `json:"from,omitempty"`
	Query  string   `json:"query"`
	Note   string   `json:"note,omitempty"`
	Labels []string `json:"labels,omitempty"`
	DryRun bool     `json:"dry_run,omitempty"`
}

// Composed answers Merge, Pick and Filter.
type Composed struct {
	Base        string       `json:"base"` // id of the first state it was made from: Differences lead from there
	State       string       `json:"state"`
	Packages    int          `json:"packages"`
	Snapshot    *Snapshot    `json:"snapshot,omitempty"` // absent in the answer to a dry run
	Differences []Difference `json:"differences"`
	Conflicts   []Conflict   `json:"conflicts,omitempty"` // of a merge, and how they were decided
	Picked      []string     `json:"picked,omitempty"`    // names that came, dependencies too
	Unmet       []Unmet      `json:"unmet,omitempty"`     // what a pick with dependencies could not find
}

// Conflict is a package that the states of a merge have differently.
type Conflict struct {
	Component string     `json:"component"`
	Name      string     `json:"name"`
	Versions  [][]string `json:"versions"` // of each state in the order of the request, highest first
	Taken     int        `json:"taken"`    // index of the state it was taken from
}

// Unmet is a dependency that the result of a pick does not satisfy.
type Unmet struct {
	Package      string `json:"package"` // name=version:architecture
	Architecture string `json:"architecture"`
	Relation     string `json:"relation"` // as in Depends
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
	Kind         string `json:"kind"` // "new", "gone", "upgraded", "downgraded", "rebuilt" (other bytes), "relisted" (the same file, another entry)
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

// LoginLink is a one-time URL for a person's browser.
type LoginLink struct {
	User    string    `json:"user"`
	URL     string    `json:"url"`
	Expires time.Time `json:"expires"`
}

// NewBackup asks for a backup.
type NewBackup struct {
	Dir         string `json:"dir,omitempty"` // absolute, on the server's machine; "" is that of its settings
	WithoutKeys bool   `json:"without_keys,omitempty"`
}

// Backup is one backup of a backup directory.
type Backup struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created,omitzero"`
	By      string    `json:"by,omitempty"`
	Program string    `json:"program,omitempty"`     // version of the repo-manager that made it
	Key     string    `json:"archive_key,omitempty"` // 40 upper-case hex digits
	Keys    bool      `json:"keys"`                  // the private keys are in it
	Files   int       `json:"files"`
	Bytes   int64     `json:"bytes"`
	Lost    []string  `json:"lost,omitempty"`  // paths that the server should have had
	Error   string    `json:"error,omitempty"` // why it cannot be read
}

// Pruned is what "backup prune" removed, or would.
type Pruned struct {
	Backups []string `json:"backups"` // ids
	Objects int      `json:"objects"`
	Bytes   int64    `json:"bytes"`
}

// Finding is one bad file or row.
type Finding struct {
	Path     string   `json:"path"` // relative to the data directory; rows are "repo-manager.db: <table> <key>"
	Reason   string   `json:"reason"`
	Repaired string   `json:"repaired,omitempty"`  // what a repair did, if all is well now
	Aside    string   `json:"aside,omitempty"`     // where a repair moved what was there
	Restore  string   `json:"restore,omitempty"`   // what a person must do
	SHA256   string   `json:"sha256,omitempty"`    // of a package file that must be restored
	NeededBy []string `json:"needed_by,omitempty"` // bases of stages and snapshots, then of some states
}

// Check is the report of repo-manager check.
type Check struct {
	Files    int64     `json:"files"`
	Bytes    int64     `json:"bytes"`
	Findings []Finding `json:"findings"`
	Usage    Usage     `json:"usage"`
}

// Usage says what the data directory is full of, in bytes.
type Usage struct {
	Pool       int64 `json:"pool"`       // package files
	Indices    int64 `json:"indices"`    // that a stage, snapshot or state offers
	Superseded int64 `json:"superseded"` // indices that none offers any more
	States     int64 `json:"states"`
	Chunks     int64 `json:"chunks"`
	Frames     int64 `json:"frames"` // chunks, compressed
}

// CheckLine is a line of a check's answer as application/x-ndjson: how far it
// is, and in the last line the report, or why there is none.
type CheckLine struct {
	Files  int64  `json:"files"`
	Bytes  int64  `json:"bytes"`
	Report *Check `json:"report,omitempty"`
	Error  *Error `json:"error,omitempty"`
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
	Failed      []Failure    `json:"failed,omitempty"`  // releases it will not try again
	Overlay     []string     `json:"overlay,omitempty"` // local packages on top of its release, "name version"

	Revision  string   `json:"revision,omitempty"`   // of the hardware; "": unknown
	Health    *Health  `json:"health,omitempty"`     // of what is booted; nil: not judged yet
	FreeBytes int64    `json:"free_bytes,omitempty"` // for deployments; rounded, or every log line would make another report
	Holds     []Hold   `json:"holds,omitempty"`      // that were made on the device
	Developer bool     `json:"developer,omitempty"`  // it follows its developer
	Config    string   `json:"config,omitempty"`     // revision of the configuration that was applied
	Updater   string   `json:"updater,omitempty"`    // version of device-updater
	Features  []string `json:"features,omitempty"`
	Refused   *Refused `json:"refused,omitempty"` // the last assignment, if it was refused

	Firmware []Firmware `json:"firmware,omitempty"` // of what runs beside its processor, sorted by component
}

// Firmware is what one component of a device runs, such as a microcontroller.
type Firmware struct {
	Component string `json:"component,omitempty"` // "": Reason is about all of them
	Version   string `json:"version,omitempty"`   // that it runs; "": none, or nobody knows
	Wanted    string `json:"wanted,omitempty"`    // what the booted release has for it on this hardware revision; "": nothing
	Reason    string `json:"reason,omitempty"`    // why it does not run that, a sentence
}

// Health is whether what runs does what it should.
type Health struct {
	OK     bool   `json:"ok"`
	Reason string `json:"reason,omitempty"` // why not, a sentence
}

// Refused is an assignment that a device did not accept.
type Refused struct {
	Reason  string `json:"reason"`         // one of those of docs/device-protocol.md
	Text    string `json:"text,omitempty"` // a sentence
	Counter uint64 `json:"counter,omitempty"`
}

// Deployment is one bootable root of a device.
type Deployment struct {
	ID       int    `json:"id"`
	State    string `json:"state"`
	Snapshot string `json:"snapshot,omitempty"`
	BOM      string `json:"bom,omitempty"`     // SHA-256 of the bill of materials that it was made of, if it was
	Role     string `json:"role"`              // "booted", "staged", "trial", "rollback"; of others "pinned" or "kept"
	Pinned   bool   `json:"pinned,omitempty"`  // it stays whatever its role
	Version  string `json:"version,omitempty"` // version of the first wanted package
}

// Failure is a release that failed on a device.
type Failure struct {
	State    string    `json:"state"`
	Snapshot string    `json:"snapshot,omitempty"`
	Overlay  string    `json:"overlay,omitempty"` // id of the local packages with which alone it failed; "" if it needs none to fail
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
	Evidence []Excerpt `json:"evidence,omitempty"` // what is known of why; in a report only of the newest failure
}

// Excerpt is a piece of a log.
type Excerpt struct {
	From string `json:"from"` // what it is of: "the journal of app.service"
	Text string `json:"text"` // its last lines: UTF-8 without control characters but tabs and line feeds
}

// MaxEvidence bounds the texts of one Failure's evidence, in bytes.
const MaxEvidence = 8 << 10
