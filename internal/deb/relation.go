package deb

import (
	"fmt"
	"strings"
)

// Relation is one alternative of a relationship field (Policy 7.1).
type Relation struct {
	Name          string
	ArchQualifier string   // "any", "native" or an architecture; "" if absent
	Op            string   // "<<", "<=", "=", ">=", ">>", or "" for any version
	Version       string   // "" if Op is ""
	Architectures []string // of a source package's restriction, e.g. "!i386"
	Profiles      []string // each the text between < and >
}

// String returns the relation as it is written in a control file.
func (r Relation) String() string {
	s := r.Name
	if r.ArchQualifier != "" {
		s += ":" + r.ArchQualifier
	}
	if r.Op != "" {
		s += " (" + r.Op + " " + r.Version + ")"
	}
	if len(r.Architectures) > 0 {
		s += " [" + strings.Join(r.Architectures, " ") + "]"
	}
	for _, profile := range r.Profiles {
		s += " <" + profile + ">"
	}
	return s
}

// Concerns tells whether a package of an architecture, or one for all, can be
// what the relation asks for there: `:any` and `:native` can be met within an
// architecture, that of another one cannot.
func (r Relation) Concerns(architecture string) bool {
	switch r.ArchQualifier {
	case "", "any", "native", architecture:
		return true
	}
	return false
}

// Alternatives writes a group of alternatives as a control file does:
// "libfoo (>= 2) | libbar".
func Alternatives(group []Relation) string {
	alternatives := make([]string, len(group))
	for i, r := range group {
		alternatives[i] = r.String()
	}
	return strings.Join(alternatives, " | ")
}

// ParseRelations reads a relationship field: all of the outer list must hold,
// by any one of each inner list. An empty field is an empty list. The obsolete
// operators "<" and ">" are read as dpkg does, as "<=" and ">=".
func ParseRelations(field string) ([][]Relation, error) {
	if strings.TrimSpace(field) == "" {
		return nil, nil
	}
	var all [][]Relation
	for _, group := range strings.Split(field, ",") {
		var alternatives []Relation
		for _, text := range strings.Split(group, "|") {
			relation, err := parseRelation(strings.TrimSpace(text))
			if err != nil {
				return nil, fmt.Errorf("cannot parse relation %q: %w", shorten(strings.TrimSpace(text)), err)
			}
			alternatives = append(alternatives, relation)
		}
		all = append(all, alternatives)
	}
	return all, nil
}

func parseRelation(s string) (Relation, error) {
	var r Relation
	end := strings.IndexAny(s, " \t\n:([<")
	if end < 0 {
		end = len(s)
	}
	r.Name, s = s[:end], s[end:]
	if r.Name == "" {
		return r, fmt.Errorf("a package name is missing")
	}
	if err := ValidPackageName(r.Name); err != nil {
		return r, err
	}
	if rest, found := strings.CutPrefix(s, ":"); found {
		end := strings.IndexAny(rest, " \t\n([<")
		if end < 0 {
			end = len(rest)
		}
		r.ArchQualifier, s = rest[:end], rest[end:]
		if r.ArchQualifier != "any" {
			if err := ValidArchitecture(r.ArchQualifier); err != nil {
				return r, err
			}
		}
	}
	s = trimBlank(s)
	if strings.HasPrefix(s, "(") {
		inside, rest, found := strings.Cut(s[1:], ")")
		if !found {
			return r, fmt.Errorf("the parenthesis is not closed")
		}
		if err := r.parseVersion(trimBlank(inside)); err != nil {
			return r, err
		}
		s = trimBlank(rest)
	}
	if strings.HasPrefix(s, "[") {
		inside, rest, found := strings.Cut(s[1:], "]")
		if !found {
			return r, fmt.Errorf("the bracket is not closed")
		}
		if r.Architectures = strings.Fields(inside); len(r.Architectures) == 0 {
			return r, fmt.Errorf("the list of architectures is empty")
		}
		s = trimBlank(rest)
	}
	for strings.HasPrefix(s, "<") {
		inside, rest, found := strings.Cut(s[1:], ">")
		if !found {
			return r, fmt.Errorf("the angle bracket is not closed")
		}
		profile := strings.Join(strings.Fields(inside), " ")
		if profile == "" {
			return r, fmt.Errorf("the list of build profiles is empty")
		}
		r.Profiles = append(r.Profiles, profile)
		s = trimBlank(rest)
	}
	if s != "" {
		return r, fmt.Errorf("%q is left over behind it", shorten(s))
	}
	return r, nil
}

// parseVersion reads what stands between the parentheses.
func (r *Relation) parseVersion(s string) error {
	end := 0
	for end < len(s) && strings.IndexByte("<=>", s[end]) >= 0 {
		end++
	}
	switch op := s[:end]; op {
	case "<<", "<=", "=", ">=", ">>":
		r.Op = op
	case "<", ">":
		r.Op = op + "="
	case "":
		return fmt.Errorf("an operator (<<, <=, =, >=, >>) is missing before the version")
	default:
		return fmt.Errorf("%q is no operator: want <<, <=, =, >= or >>", op)
	}
	r.Version = trimBlank(s[end:])
	_, err := ParseVersion(r.Version)
	return err
}

func trimBlank(s string) string { return strings.Trim(s, " \t\n") }
