package configuration

import (
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"

	"aptfleet/internal/protocol"
)

// maxInteger is the greatest whole number that all readers of JSON agree on
// (RFC 8259, 6).
const maxInteger = 1<<53 - 1

// number is what JSON takes for one.
var number = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// Read reads a scalar, or a text that stands for one, as a type, and returns it
// as JSON. Equal values have equal JSON. A secret is returned as the JSON of
// its text. Errors say what is wanted and never have the value in them.
func Read(t Type, value any) (string, error) {
	text, isText := value.(string)
	if isText {
		if err := protocol.CheckConfigText(text); err != nil {
			return "", err
		}
	}
	switch t {
	case String, Enum, Secret:
		switch {
		case !isText:
			return "", fmt.Errorf("it is no text")
		case t == Secret && text == "":
			return "", fmt.Errorf("it is empty")
		}
		return encode(text)
	case Boolean:
		switch value {
		case true, "true":
			return "true", nil
		case false, "false":
			return "false", nil
		}
		return "", fmt.Errorf("it is neither true nor false")
	case Integer, Number:
		n, ok := value.(float64)
		if isText && number.MatchString(text) {
			parsed, err := strconv.ParseFloat(text, 64)
			n, ok = parsed, err == nil
		}
		switch {
		case !ok || math.IsInf(n, 0) || math.IsNaN(n):
			return "", fmt.Errorf("it is no %s", t)
		case t == Integer && (n != math.Trunc(n) || math.Abs(n) > maxInteger):
			return "", fmt.Errorf("it is no whole number of at most 2^53-1")
		}
		return encode(n + 0) // -0 becomes 0
	}
	return "", fmt.Errorf("there is no type %q: types are %v", string(t), Types)
}

func encode(v any) (string, error) {
	raw, err := json.Marshal(v)
	return string(raw), err
}

// Fits returns an error if a value is not what the schema says about its key.
func (f Field) Fits(v Value) error {
	if v.Type != f.Type && !(v.Type == String && f.Type == Enum || v.Type == Integer && f.Type == Number || v.Type == Enum && f.Type == String) {
		return fmt.Errorf("it is of type %s and must be %s", v.Type, f.Type)
	}
	switch x := v.Any().(type) {
	case string:
		switch {
		case f.Type == Enum && !slices.Contains(f.Values, x):
			return fmt.Errorf("it is none of %v", f.Values)
		case f.matches != nil && !f.matches.MatchString(x):
			return fmt.Errorf("it does not match %s", f.Pattern)
		}
	case float64:
		switch {
		case f.Min != nil && x < *f.Min:
			return fmt.Errorf("it is less than %v", *f.Min)
		case f.Max != nil && x > *f.Max:
			return fmt.Errorf("it is more than %v", *f.Max)
		}
	}
	return nil
}
