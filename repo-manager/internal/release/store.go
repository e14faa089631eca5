package release

import (
	"context"
	"time"

	"aptfleet/snapshots"
)

// Store keeps what an Engine must not forget. Times keep microseconds, in
// UTC. All methods may be called concurrently; Commit and PutChange have one
// caller at a time. Package storetest holds the suite that every
// implementation passes.
type Store interface {
	// Commit makes all of a batch durable, or nothing of it: after it returned
	// nil, no crash and no power cut loses it; after an error or a crash
	// before that, no part of it is there. A pipeline, component, snapshot,
	// move or base that exists already makes it fail, and so does one of
	// Mirrors that is no mirror.
	Commit(ctx context.Context, b Batch) error

	// Pipelines lists all pipelines with their components, both by name.
	Pipelines(ctx context.Context) ([]Pipeline, error)
	// Standings lists the stages of a pipeline in order of promotion.
	Standings(ctx context.Context, pipeline string) ([]Standing, error)
	// Snapshots lists the snapshots of a pipeline, oldest first.
	Snapshots(ctx context.Context, pipeline string) ([]Snapshot, error)
	// Moves lists the moves of a stage, or of all stages if it is "", newest
	// first, at most limit of them; 0 means all.
	Moves(ctx context.Context, pipeline, stage string, limit int) ([]Move, error)
	// Move finds one move; ok is false if there is none.
	Move(ctx context.Context, pipeline string, seq int64) (m Move, ok bool, err error)
	// Below lists a move and those that undos lead back to from there, one
	// after the other: the move itself first. It is empty if there is no such move.
	Below(ctx context.Context, pipeline string, seq int64) ([]Move, error)
	// Bases lists the fixed bases of a pipeline in the order of their making.
	Bases(ctx context.Context, pipeline string) ([]Base, error)
	// BaseStates is Bases without texts and signatures.
	BaseStates(ctx context.Context, pipeline string) ([]Base, error)
	// Base returns the fixed base that a pipeline has in dir; ok is false if
	// there is none.
	Base(ctx context.Context, pipeline, dir string) (b Base, ok bool, err error)
	// HasBase tells whether a pipeline has a fixed base in dir.
	HasBase(ctx context.Context, pipeline, dir string) (bool, error)
	// Accepted finds the newest upload into any repository of a pipeline of
	// each of these packages that there was one of.
	Accepted(ctx context.Context, pipeline string, packages ...snapshots.Ref) (map[snapshots.Ref]Accepted, error)
	// Files lists the files of the pool that are on record, by SHA256.
	Files(ctx context.Context) ([]File, error)
	// HasFile tells whether a file of the pool is on record: committed, and not
	// dropped since.
	HasFile(ctx context.Context, sha256 [32]byte) (bool, error)
	// Uploads lists all uploads that repositories took, oldest first.
	Uploads(ctx context.Context) ([]Accepted, error)
	// Acts lists the audit trail, newest first, at most limit entries; 0 means
	// all, and an empty pipeline those of every pipeline and of none.
	Acts(ctx context.Context, pipeline string, limit int) ([]Act, error)
	// FindActs lists those of the audit trail that a filter takes, newest first.
	FindActs(ctx context.Context, filter ActFilter) ([]Act, error)

	// Integrity reads everything and says, a sentence each, what of the store
	// itself is damaged: pages, lookups, references to rows that are not there.
	Integrity(ctx context.Context) ([]string, error)
	// Mend is all or nothing and durable like Commit.
	Mend(ctx context.Context, m Mending) error

	// PutChange inserts a change whose ID is 0, or replaces the one it names,
	// and returns it with its ID.
	PutChange(ctx context.Context, c Change) (Change, error)
	// Changes lists changes, newest first, at most limit; 0 means all.
	Changes(ctx context.Context, limit int) ([]Change, error)
	// PutResult keeps what a change found, as JSON, in place of an earlier one.
	PutResult(ctx context.Context, change int64, result []byte) error
	// Result returns what PutResult kept; ok is false if there is nothing.
	Result(ctx context.Context, change int64) (result []byte, ok bool, err error)

	// Compact gives space that nothing uses any more back to the file system, a
	// bounded part of it, and tells whether there is more.
	Compact(ctx context.Context) (more bool, err error)
}

// Batch is what one commit makes durable, in this order.
type Batch struct {
	Pipelines  []Pipeline // created; their components are given apart
	Components []Component
	Mirrors    []Component // existing mirrors; each gets the Mirror given here, all else stays
	Snapshots  []Snapshot
	Moves      []Move
	Standings  []Standing // each replaces what the stage was before
	Bases      []Base
	Files      []File // became part of the pool; known ones are fine
	Uploads    []Accepted
	Retentions []Retained // each replaces what the pipeline had
	Readings   []Reading  // each replaces what the pipeline had
	Pins       []Pin      // of snapshots that have none
	Unpinned   []SnapshotName
	Dropped    Dropped
	Acts       []Act
}

// Mending is what a repair of the store makes of it. A row takes the place of
// the one with its key, or is added; components of pipelines are given apart.
type Mending struct {
	Lookups    bool // make again what only helps to find rows
	Drop       []RowName
	Pipelines  []Pipeline
	Components []Component
	Snapshots  []Snapshot
	Standings  []Standing
	Bases      []Base
	Files      []File
	Acts       []Act // added
}

// RowName names a row that nothing refers to and that cannot be right.
type RowName struct {
	Table    string // "snapshots", "stages", "bases" or "files"
	Pipeline string // of all but files
	Key      string // id, name or dir
	SHA256   [32]byte
}

// Retained is the retention of a pipeline.
type Retained struct {
	Pipeline string
	Retention
}

// Reading says who may read a pipeline: everybody, or whoever has credentials.
type Reading struct {
	Pipeline string
	Private  bool
}

// SnapshotName names a snapshot of a pipeline.
type SnapshotName struct{ Pipeline, ID string }

// Dropped is what a commit forgets. What is not there is fine.
type Dropped struct {
	Snapshots []SnapshotName // not pinned; their ids are never given again, see Pipeline.Deleted
	Bases     []BaseName
	Files     [][32]byte // by SHA256
}

// BaseName names a fixed base of a pipeline.
type BaseName struct{ Pipeline, Dir string }

// Standing is a stage with what its newest InRelease says, so that a
// publication can be repeated as it was.
type Standing struct {
	Stage
	Date       time.Time // whole seconds; zero while the stage was never published
	ValidUntil time.Time
	Modified   time.Time // of the files, whole seconds; each publication adds one or more
	Archive    string    // base of the URL in the field Snapshots, "" for none
}

// Base is a tree of fixed content: the base of a snapshot or of a state. Its
// Release text and signatures are primary data, so that a rebuilt tree is
// the same byte for byte.
type Base struct {
	Pipeline  string
	Dir       string // "snapshots/<id>" or "states/<state id>"
	State     snapshots.ID
	Text      []byte // Release
	InRelease []byte
	Signature []byte // Release.gpg
}

// File is one file of the pool.
type File struct {
	Path   string // where it lies until it is in the pool, on the same file system; not stored
	SHA256 [32]byte
	Name   string // <name>_<version without epoch>_<arch>.deb
	Size   int64  // bytes
}

// Accepted is one upload that a repository took.
type Accepted struct {
	Pipeline     string
	Component    string
	Name         string
	Version      string
	Architecture string
	SHA256       [32]byte
	Size         int64
	State        snapshots.ID // the one that its batch made; a later upload of the batch may have replaced it already
	By, Via      string
	At           time.Time
}

// Ref returns the name of the package within its component.
func (a Accepted) Ref() snapshots.Ref {
	return snapshots.Ref{Name: a.Name, Version: a.Version, Architecture: a.Architecture}
}

// Act is one line of the audit trail.
type Act struct {
	At       time.Time
	By, Via  string
	Verb     string // "create", "upload", "remove", "replace", "name", "promote", "undo", …
	Pipeline string // "" for acts on the server itself
	Object   string // what was acted on: "repository apps", "stage canary"
	Detail   string // versions, ids, the reason given
}

// ActFilter takes acts; what is zero does not restrict.
type ActFilter struct {
	By       string
	Pipeline string
	Since    time.Time // not older
	Limit    int       // at most so many, the newest
}
