package snapshots

import (
	"bytes"
	"path"
	"regexp"
	"slices"
	"strings"

	"aptfleet/internal/deb"
)

// MaxQuery is the size in bytes of the longest query.
const MaxQuery = 64 << 10

// Query is a condition on packages in aptly's query language. Its zero value
// takes every package.
//
//	nginx                          a package, or one that provides nginx
//	nginx (>= 1.2), !$Architecture (i386)
//	nginx (1.2) {amd64} | nginx_1.3_arm64
//	Name (% lib*), Section (~ ^(doc|debug)$), $Source (linux)
//
// "," is and, "|" is or, "!" is not; "!" binds closest and "|" least, and
// parentheses group. What begins with a capital letter is a field of the
// package; $Source, $SourceVersion, $Version, $Architecture and $PackageType
// are what they say, with what a stanza leaves out filled in. Conditions
// compare as version numbers (=, <<, <=, >=, >>; < and > are <= and >=), match
// a shell pattern (%) or a regular expression (~, unanchored, as package
// regexp has it); without one a field must not be empty. $Architecture (X) and
// {X} take packages for all too. Words with spaces or one of ()|,!{} in them
// are quoted, 'so' or "so", and a backslash takes the next character as it is.
//
// It differs from aptly where aptly errs: versions are ordered as dpkg orders
// them; Name (= X) compares text, so that X is one name; a versioned relation
// is satisfied by a versioned Provides, and only by one (Policy 7.5); and what
// can take no package at all, as the name of a package in capitals or an
// unknown $Field, is refused.
type Query struct {
	text string
	root condition
}

// condition is a node of a query.
type condition interface {
	takes(p Package) bool
	// names returns where the names lie of all packages that it can take; ok
	// is false if they can be anywhere.
	names() (spans []span, ok bool)
}

// span is the names from one up to, and without, another.
type span struct{ from, to string }

// Takes tells whether the query takes p.
func (q Query) Takes(p Package) bool { return q.root == nil || q.root.takes(p) }

// String returns what ParseQuery read.
func (q Query) String() string { return q.text }

// names returns where the names lie that the query can take; ok is false if
// they can be anywhere.
func (q Query) names() (spans []span, ok bool) {
	if q.root == nil {
		return nil, false
	}
	return q.root.names()
}

// operator is how a condition compares.
type operator string

const (
	anyValue operator = ""
	matches  operator = "%"
	finds    operator = "~"
)

// test is an operator with its value, ready to be used.
type test struct {
	op    operator
	value string
	re    *regexp.Regexp // for finds
}

// holds tells whether text stands in the relation to the value.
func (t test) holds(text string) bool {
	switch t.op {
	case matches:
		ok, _ := path.Match(t.value, text) // the parser has tried the pattern
		return ok
	case finds:
		return t.re.MatchString(text)
	}
	return deb.Satisfies(text, string(t.op), t.value)
}

// either takes what one of its conditions takes.
type either []condition

func (e either) takes(p Package) bool {
	return slices.ContainsFunc(e, func(c condition) bool { return c.takes(p) })
}

func (e either) names() ([]span, bool) {
	var all []span
	for _, c := range e {
		spans, ok := c.names()
		if !ok {
			return nil, false
		}
		all = append(all, spans...)
	}
	return all, true
}

// both takes what all of its conditions take.
type both []condition

func (b both) takes(p Package) bool {
	return !slices.ContainsFunc(b, func(c condition) bool { return !c.takes(p) })
}

func (b both) names() ([]span, bool) {
	for _, c := range b {
		if spans, ok := c.names(); ok {
			return spans, true
		}
	}
	return nil, false
}

// not takes what its condition does not take.
type not struct{ condition }

func (n not) takes(p Package) bool  { return !n.condition.takes(p) }
func (n not) names() ([]span, bool) { return nil, false }

// exactly is one package, name_version_architecture.
type exactly struct{ ref Ref }

func (e exactly) takes(p Package) bool  { return p.Ref() == e.ref }
func (e exactly) names() ([]span, bool) { return []span{only(e.ref.Name)}, true }

// only is the span of one name.
func only(name string) span { return span{name, name + "\x00"} }

// dependency takes packages as a relation does.
type dependency struct {
	name         string
	version      test
	architecture string // "" for any
}

func (d dependency) takes(p Package) bool {
	if d.architecture != "" && p.Architecture != d.architecture && p.Architecture != "all" {
		return false
	}
	if p.Name == d.name && d.version.holds(p.Version) {
		return true
	}
	if !bytes.Contains(p.Stanza, []byte(d.name)) {
		return false // no need to parse it
	}
	for name, version := range provides(p) {
		if name == d.name && (d.version.op == anyValue || version != "" && d.version.holds(version)) {
			return true
		}
	}
	return false
}

// names is open: whoever provides the name is called otherwise.
func (d dependency) names() ([]span, bool) { return nil, false }

// field is a condition on a field of the stanza, or on one that is made from
// several.
type field struct {
	name  string
	value test
}

func (f field) takes(p Package) bool {
	var text string
	switch f.name {
	case "Name", "Package":
		if f.value.op == "=" {
			return p.Name == f.value.value
		}
		text = p.Name
	case "Version", "$Version":
		text = p.Version
	case "$Architecture":
		if f.value.op == "=" && p.Architecture == "all" {
			return f.value.value != "source"
		}
		text = p.Architecture
	case "Architecture":
		text = p.Architecture
	case "$PackageType":
		text = "deb"
	case "$Source":
		text, _ = sourceOf(p)
	case "$SourceVersion":
		_, text = sourceOf(p)
	default:
		text = valueOf(p, f.name)
	}
	if f.value.op == anyValue {
		return text != ""
	}
	return f.value.holds(text)
}

func (f field) names() ([]span, bool) {
	if f.name != "Name" && f.name != "Package" {
		return nil, false
	}
	switch f.value.op {
	case "=":
		return []span{only(f.value.value)}, true
	case matches:
		switch i := strings.IndexAny(f.value.value, `*?[\`); {
		case i < 0:
			return []span{only(f.value.value)}, true
		case i > 0:
			prefix := f.value.value[:i]
			return []span{{prefix, prefix + "\xff"}}, true
		}
	}
	return nil, false
}

// valueOf returns a field as aptly sees it: a relationship field is a list
// with ", " between its relations, whatever white space the stanza has.
func valueOf(p Package, name string) string {
	stanza, err := deb.ParseStanza(p.Stanza)
	if err != nil {
		return ""
	}
	text := stanza.Get(name)
	if slices.ContainsFunc(deb.RelationFields[:], func(f string) bool { return strings.EqualFold(f, name) }) {
		relations := strings.Split(text, ",")
		for i := range relations {
			relations[i] = strings.TrimSpace(relations[i])
		}
		return strings.Join(relations, ", ")
	}
	return text
}

// sourceOf returns the name and version of the source package that p was built
// from. A stanza leaves out what is as for the package itself (Policy 5.6.1).
func sourceOf(p Package) (name, version string) {
	name, rest, found := strings.Cut(valueOf(p, "Source"), "(")
	version, _, _ = strings.Cut(rest, ")")
	name, version = strings.TrimSpace(name), strings.TrimSpace(version)
	if name == "" {
		name = p.Name
	}
	if !found || version == "" {
		version = p.Version
	}
	return name, version
}
