package product

import (
	"context"
	"errors"
	"time"

	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Store keeps products and answers. Times keep microseconds, in UTC. All
// methods may be called concurrently; what they wrote is durable when they
// return nil. Package storetest holds the suite that every implementation
// passes.
type Store interface {
	// Products lists all products, by pipeline and name.
	Products(ctx context.Context) ([]Product, error)
	// CreateProduct inserts a product; one of that name in the pipeline makes
	// it fail with ErrExists, a pipeline that does not exist with another error.
	// The act is recorded with it, here and below.
	CreateProduct(ctx context.Context, p Product, act release.Act) error
	// SetProduct replaces the definition of a product that exists.
	SetProduct(ctx context.Context, p Product, act release.Act) error
	// DeleteProduct removes a product with its answers.
	DeleteProduct(ctx context.Context, pipeline, name string, act release.Act) error

	// Answers lists all answers in the order of their making, without Text and
	// Details.
	Answers(ctx context.Context) ([]Answer, error)
	// PutAnswer adds an answer, or replaces that to the same question of the
	// pipeline.
	PutAnswer(ctx context.Context, a Answer) error
	// Answer returns one answer with all it has; ok is false if there is none.
	Answer(ctx context.Context, pipeline string, question [32]byte) (a Answer, ok bool, err error)
	// DropAnswers removes all answers of a pipeline about some states.
	DropAnswers(ctx context.Context, pipeline string, states []snapshots.ID) error
}

// ErrExists says that a name is taken.
var ErrExists = errors.New("the name is taken")

// Answer is a bill of materials, or the verdict that there is none.
type Answer struct {
	Pipeline string
	Question [32]byte // SHA-256 of the bill of materials without its packages
	State    snapshots.ID
	Product  string
	Modules  []string // sorted
	SHA256   [32]byte // of Text; zero: a verdict
	Size     int64    // of Text, bytes
	Verdict  *Verdict // nil: a bill of materials
	Made     time.Time
	Text     []byte   // the bill of materials; nil for a verdict
	Details  []Detail // of its packages, in their order
}

// Verdict says why a product cannot be installed. It is a function of the
// question, like a bill of materials.
type Verdict struct {
	Summary string `json:"summary"` // one line
	Apt     string `json:"apt"`     // what apt said
	Dose    string `json:"dose"`    // what dose-debcheck said, or why it said nothing
}

// Detail is what is known of a package besides its line of the bill.
type Detail struct {
	Component     string `json:"component"`
	Source        string `json:"source"`         // source package
	SourceVersion string `json:"source_version"` // its version: that of changelogs
	Maintainer    string `json:"maintainer,omitempty"`
	Size          int64  `json:"size"`      // of the .deb, bytes
	Installed     int64  `json:"installed"` // Installed-Size in bytes
	Reason        Reason `json:"reason"`
	Needs         []int  `json:"needs,omitempty"` // packages that meet its dependencies, by place in the bill
}

// Reason is the shortest way from what was asked for to a package.
type Reason struct {
	Kind   ReasonKind `json:"kind"`
	Module string     `json:"module,omitempty"` // of ByModule
	By     string     `json:"by,omitempty"`     // of ByDependency: name of a package that is one step nearer
	Field  string     `json:"field,omitempty"`  // of ByDependency: its field, e.g. "Depends"
}

// ReasonKind says what a package is in for.
type ReasonKind string

// The kinds of reason.
const (
	ByName       ReasonKind = "top-level"
	ByModule     ReasonKind = "module"
	ByEssential  ReasonKind = "essential"  // every Debian system has it
	ByPriority   ReasonKind = "required"   // by its priority: every Debian system has it
	ByDependency ReasonKind = "dependency" // of By
	ByApt        ReasonKind = "apt"        // no relation of the bill explains it
)

func (r Reason) String() string {
	switch r.Kind {
	case ByModule:
		return "module " + r.Module
	case ByDependency:
		return "needed by " + r.By + " (" + r.Field + ")"
	case ByApt:
		return "apt took it"
	}
	return string(r.Kind)
}
