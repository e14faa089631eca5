package configuration

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"regexp"
	"slices"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// Kind is what a value can be set for.
type Kind string

// The kinds of scope, the nearest to a device last.
const (
	OfProduct Kind = "product"
	OfStage   Kind = "stage"
	OfDevice  Kind = "device"
)

// Kinds are all kinds of scope, from the farthest to the nearest.
var Kinds = []Kind{OfProduct, OfStage, OfDevice}

// Scope is one product, stage or device of a pipeline.
type Scope struct {
	Pipeline string
	Kind     Kind
	Name     string
}

// String is the scope as people write it: kind:name.
func (s Scope) String() string { return string(s.Kind) + ":" + s.Name }

var scopeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)

func (s Scope) check() error {
	if !slices.Contains(Kinds, s.Kind) || !scopeName.MatchString(s.Name) {
		return &release.Error{
			Code: release.Invalid, Text: fmt.Sprintf("cannot use %.80q as a scope", s.String()),
			Hint: "a scope is product:NAME, stage:NAME or device:NAME",
		}
	}
	return nil
}

// Type is the type of a value.
type Type string

// The types. Only a schema can make an enum: it lists the values.
const (
	String  Type = "string"
	Integer Type = "integer" // whole, between -(2^53-1) and 2^53-1: what JSON readers agree on
	Number  Type = "number"
	Boolean Type = "boolean"
	Enum    Type = "enum"
	Secret  Type = "secret"
)

// Types are all types.
var Types = []Type{String, Integer, Number, Boolean, Enum, Secret}

// Value is what a key is set to.
type Value struct {
	Type   Type
	JSON   string // the scalar as JSON; "" for a secret
	Sealed []byte // a secret, encrypted by a Vault; nil for others, and in histories
	By     string
	At     time.Time
}

// Any is the value as encoding/json would decode it; nil for a secret.
func (v Value) Any() any {
	if v.Type == Secret {
		return nil
	}
	var out any
	if err := json.Unmarshal([]byte(v.JSON), &out); err != nil {
		return nil // only what Read wrote is ever stored
	}
	return out
}

// size is what a value counts for in MaxConfigTotal.
func (v Value) size() int { return len(v.JSON) + len(v.Sealed) }

// text is a value for the audit trail: short, and without secrets.
func (v *Value) text() string {
	switch {
	case v == nil:
		return "(not set)"
	case v.Type == Secret:
		return "(secret)"
	}
	const most = 80
	if runes := []rune(v.JSON); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return v.JSON
}

// same reports whether a value says what another says. Secrets are never the
// same: comparing them would tell who guesses that they are right.
func (v *Value) same(o *Value) bool {
	return v != nil && o != nil && v.Type == o.Type && v.Type != Secret && v.JSON == o.JSON
}

// Entry is a value with its key and scope.
type Entry struct {
	Scope Scope
	Key   string
	Value
}

// Edit is one change of a key of a scope.
type Edit struct {
	Scope Scope
	Key   string
	Old   *Value // nil: it was not set
	New   *Value // nil: it is not set any more
	By    string
	At    time.Time
}

// Store keeps configuration. An Act is recorded together with what it tells
// about. Scopes belong to pipelines that exist.
type Store interface {
	// EditConfig makes New the value of a key, or removes it, and keeps the
	// edit for ConfigHistory, secrets without their Sealed.
	EditConfig(ctx context.Context, e Edit, act release.Act) error
	// ConfigHistory lists the edits of a key, newest first; a limit of 0 means
	// all. Their values have Type and JSON alone.
	ConfigHistory(ctx context.Context, s Scope, key string, limit int) ([]Edit, error)
	// ConfigValues lists all values of all pipelines, in no order.
	ConfigValues(ctx context.Context) ([]Entry, error)
	// PutConfigSchema replaces the schema of a product; without Fields it has
	// none any more.
	PutConfigSchema(ctx context.Context, s Schema, act release.Act) error
	// ConfigSchemas lists the schemas of all pipelines, in no order.
	ConfigSchemas(ctx context.Context) ([]Schema, error)
}

// Device is a device as far as its configuration goes.
type Device struct {
	Name     string
	Pipeline string
	Product  string // "": it has none yet
	Stage    string // "": it follows none
	Sealing  []byte // public X25519 key, see package seal; only For needs it
}

// scopes are those that a device takes its values from, the nearest last.
func (d Device) scopes() []Scope {
	return slices.DeleteFunc([]Scope{
		{d.Pipeline, OfProduct, d.Product}, {d.Pipeline, OfStage, d.Stage}, {d.Pipeline, OfDevice, d.Name},
	}, func(s Scope) bool { return s.Name == "" })
}

// within reports whether a device takes values from a scope.
func (d Device) within(s Scope) bool {
	switch s.Kind {
	case OfProduct:
		return d.Pipeline == s.Pipeline && d.Product == s.Name
	case OfStage:
		return d.Pipeline == s.Pipeline && d.Stage == s.Name
	}
	return d.Pipeline == s.Pipeline && d.Name == s.Name
}

// Devices tells which devices there are. A Service holds no lock while it asks.
type Devices interface {
	Find(ctx context.Context, name string) (d Device, ok bool, err error)
	All(ctx context.Context, pipeline string) (iter.Seq[Device], error)
}

// shorten joins a list of complaints so that an error stays readable.
func shorten(all []string) string {
	const most = 20
	if len(all) > most {
		all = append(slices.Clone(all[:most]), fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(all, "; ")
}
