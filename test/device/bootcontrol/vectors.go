package bootcontrol

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Vector is one case of loader-vectors.txt, whose head describes the format.
type Vector struct {
	Name        string
	Committed   []byte // nil: the file is absent
	Trial       []byte // grubenv; nil: absent
	ReadOnly    bool   // grubenv cannot be written
	Deployments map[int]Contents
	Boots       string // as Decision.String without "boot "; or "nothing"
	Then        []byte // grubenv afterwards; nil: absent
}

// Contents says what a deployment of a vector has.
type Contents struct{ Init, Release bool }

// ReadVectors parses the text of loader-vectors.txt. Every field must be there
// once; an unknown one is an error.
func ReadVectors(r io.Reader) ([]Vector, error) {
	var all []Vector
	fields := map[string]string{}
	flush := func() error {
		if len(fields) == 0 {
			return nil
		}
		v, err := newVector(fields)
		if err != nil {
			return fmt.Errorf("cannot read vector %q: %w", fields["vector"], err)
		}
		all, fields = append(all, v), map[string]string{}
		return nil
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		if strings.TrimSpace(line) == "" {
			if err := flush(); err != nil {
				return nil, err
			}
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if _, double := fields[name]; !ok || double {
			return nil, fmt.Errorf("cannot read vector %q: line %q is no new field", fields["vector"], line)
		}
		fields[name] = strings.TrimSpace(value)
	}
	return all, errors.Join(flush(), lines.Err())
}

func newVector(fields map[string]string) (Vector, error) {
	for _, name := range []string{"vector", "committed", "grubenv", "deployments", "boots", "then"} {
		if _, ok := fields[name]; !ok {
			return Vector{}, fmt.Errorf("field %s is missing", name)
		}
	}
	if len(fields) != 6 {
		return Vector{}, errors.New("it has an unknown field")
	}
	v := Vector{Name: fields["vector"], Boots: fields["boots"], Deployments: map[int]Contents{}}
	grubenv := fields["grubenv"]
	grubenv, v.ReadOnly = strings.CutPrefix(grubenv, "readonly ")
	var err error
	if v.Committed, err = contents(fields["committed"]); err != nil {
		return Vector{}, err
	}
	if v.Trial, err = contents(grubenv); err != nil {
		return Vector{}, err
	}
	v.Then = v.Trial
	if fields["then"] != "same" {
		if v.Then, err = contents(fields["then"]); err != nil {
			return Vector{}, err
		}
	}
	for _, word := range strings.Fields(fields["deployments"]) {
		number, lacks, _ := strings.Cut(word, "-")
		n, err := strconv.Atoi(number)
		if err != nil {
			return Vector{}, fmt.Errorf("deployment %q is no number", word)
		}
		switch lacks {
		case "":
			v.Deployments[n] = Contents{Init: true, Release: true}
		case "init":
			v.Deployments[n] = Contents{Release: true}
		case "release":
			v.Deployments[n] = Contents{Init: true}
		case "empty":
			v.Deployments[n] = Contents{}
		default:
			return Vector{}, fmt.Errorf("deployment %q lacks an unknown thing", word)
		}
	}
	return v, nil
}

// contents returns the bytes that a form of the vector file describes.
func contents(form string) ([]byte, error) {
	kind, rest, _ := strings.Cut(form, " ")
	switch kind {
	case "absent":
		return nil, nil
	case "block":
		return NewBlock(strings.Fields(rest)...), nil
	case "zeros":
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("%q is no count of zeros", rest)
		}
		return make([]byte, n), nil
	case "text":
		s, err := strconv.Unquote(rest)
		return []byte(s), err
	}
	return nil, fmt.Errorf("%q is no description of a file", form)
}
