package configuration

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"aptfleet/internal/protocol"
)

// Schema says which keys a product has.
type Schema struct {
	Pipeline string
	Product  string
	Fields   map[string]Field // nil: the product has no schema, every key is allowed
	By       string
	At       time.Time

	bad error // why a stored schema cannot be used by this program
}

// Field is what a schema says about one key.
type Field struct {
	Type        Type
	Description string
	Default     string // as JSON; "": none
	Required    bool
	Values      []string // of an Enum
	Pattern     string   // of a String: a regular expression (RE2) that matches all of it
	Min, Max    *float64 // of an Integer or Number

	matches *regexp.Regexp // Pattern
}

// Limits of what a schema says about a key.
const (
	maxDescription = 1000
	maxPattern     = 500
	maxEnum        = 200
)

// prepare checks a schema and makes it ready for use.
func (s *Schema) prepare() error {
	if len(s.Fields) > protocol.MaxConfigKeys {
		return fmt.Errorf("it has %d keys, more than %d", len(s.Fields), protocol.MaxConfigKeys)
	}
	variables := make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(s.Fields)) {
		if err := protocol.CheckConfigKey(key); err != nil {
			return err
		}
		name := protocol.ConfigVariable(key)
		if other, ok := variables[name]; ok {
			return fmt.Errorf("%s and %s would both be %s in the environment file", other, key, name)
		}
		variables[name] = key
		f := s.Fields[key]
		if err := f.prepare(); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		s.Fields[key] = f
	}
	return nil
}

func (f *Field) prepare() (err error) {
	switch {
	case !slices.Contains(Types, f.Type):
		return fmt.Errorf("there is no type %q: types are %v", string(f.Type), Types)
	case len(f.Description) > maxDescription:
		return fmt.Errorf("its description has more than %d bytes", maxDescription)
	case (f.Type == Enum) != (len(f.Values) > 0) || len(f.Values) > maxEnum:
		return fmt.Errorf("an enum, and nothing else, lists its values, at most %d", maxEnum)
	case f.Pattern != "" && (f.Type != String || len(f.Pattern) > maxPattern):
		return fmt.Errorf("a pattern is for strings, and has at most %d bytes", maxPattern)
	case (f.Min != nil || f.Max != nil) && f.Type != Integer && f.Type != Number:
		return fmt.Errorf("min and max are for numbers and integers")
	case f.Type == Secret && f.Default != "":
		return fmt.Errorf("a secret has no default: it would be in the schema for everybody to read")
	}
	for _, v := range f.Values {
		if err := protocol.CheckConfigText(v); err != nil {
			return fmt.Errorf("one of its values: %w", err)
		}
	}
	if f.Pattern != "" {
		if f.matches, err = regexp.Compile(`^(?:` + f.Pattern + `)$`); err != nil {
			return fmt.Errorf("its pattern: %w", err)
		}
	}
	if f.Default != "" {
		if err := f.Fits(f.value()); err != nil {
			return fmt.Errorf("its default: %w", err)
		}
	}
	return nil
}

// value is the default as a value.
func (f Field) value() Value { return Value{Type: f.Type, JSON: f.Default} }
