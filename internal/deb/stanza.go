package deb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
)

const (
	// MaxStanza is the largest control stanza in bytes that Read and
	// ParseStanza accept. Debian's largest has about 60 kB.
	MaxStanza = 1 << 20

	maxFields = 256
)

// Stanza is one paragraph of control fields (Policy 5.1), immutable. It keeps
// the bytes it was parsed from: what is not changed is written back identical.
type Stanza struct{ raw []byte }

// ParseStanza reads exactly one paragraph of at most MaxStanza bytes; blank
// lines may stand before and behind it. It refuses duplicate fields,
// comments and control characters.
func ParseStanza(b []byte) (Stanza, error) {
	r := NewStanzaReader(bytes.NewReader(b), MaxStanza)
	stanza, err := r.Next()
	if errors.Is(err, io.EOF) {
		return Stanza{}, errors.New("cannot parse control stanza: it is empty")
	}
	if err != nil {
		return Stanza{}, err
	}
	switch _, err := r.Next(); {
	case errors.Is(err, io.EOF):
		return stanza, nil
	case err != nil:
		return Stanza{}, err
	}
	return Stanza{}, errors.New("cannot parse control stanza: a second paragraph follows the first")
}

// Get returns the value of a field without the white space around it, "" if
// the field is absent. Continuation lines follow their newline as they are
// written, with their leading space. Case does not matter.
func (s Stanza) Get(field string) string {
	for f := range s.split() {
		if strings.EqualFold(f.name, field) {
			return f.value()
		}
	}
	return ""
}

// Has reports whether the field is present, even when it is empty.
func (s Stanza) Has(field string) bool {
	for f := range s.split() {
		if strings.EqualFold(f.name, field) {
			return true
		}
	}
	return false
}

// Fields yields the names and values of all fields in their order.
func (s Stanza) Fields() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for f := range s.split() {
			if !yield(f.name, f.value()) {
				return
			}
		}
	}
}

// With returns a stanza in which field has the value, in the place of the old
// one or else at the end. A newline in value must be followed by a space or
// tab, as in the file. All other fields stay identical byte for byte.
func (s Stanza) With(field, value string) Stanza {
	text := field + ": " + value + "\n"
	if value == "" || value[0] == '\n' {
		text = field + ":" + value + "\n"
	}
	for f := range s.split() {
		if strings.EqualFold(f.name, field) {
			return Stanza{slices.Concat(s.raw[:f.start], []byte(text), s.raw[f.end:])}
		}
	}
	return Stanza{slices.Concat(s.raw, []byte(text))}
}

// Without returns a stanza that lacks the field.
func (s Stanza) Without(field string) Stanza {
	for f := range s.split() {
		if strings.EqualFold(f.name, field) {
			return Stanza{slices.Concat(s.raw[:f.start], s.raw[f.end:])}
		}
	}
	return s
}

// Bytes returns the paragraph, which ends in one newline and holds no blank
// line. The caller must not change it.
func (s Stanza) Bytes() []byte { return s.raw }

// field is where one field lies in a stanza's bytes, continuation lines and
// newline included.
type field struct {
	name       string
	start, end int
	raw        []byte
}

func (f field) value() string {
	return string(bytes.Trim(f.raw[len(f.name)+1:], " \t\n"))
}

// split yields the fields of a stanza that was checked when it was parsed.
func (s Stanza) split() iter.Seq[field] {
	return func(yield func(field) bool) {
		for start := 0; start < len(s.raw); {
			end := start
			for {
				end += bytes.IndexByte(s.raw[end:], '\n') + 1
				if end >= len(s.raw) || !isBlank(s.raw[end]) {
					break
				}
			}
			raw := s.raw[start:end]
			name := string(raw[:bytes.IndexByte(raw, ':')])
			if !yield(field{name: name, start: start, end: end, raw: raw}) {
				return
			}
			start = end
		}
	}
}

// StanzaReader reads a file of paragraphs, such as Packages, one at a time.
type StanzaReader struct {
	r         *bufio.Reader
	maxStanza int
	line      int
	err       error
}

// NewStanzaReader reads from r paragraphs of at most maxStanza bytes each.
func NewStanzaReader(r io.Reader, maxStanza int) *StanzaReader {
	return &StanzaReader{r: bufio.NewReaderSize(r, 64<<10), maxStanza: maxStanza}
}

// Next returns the next paragraph, or io.EOF after the last one. Errors of the
// text name its line; after any error every further call returns it again.
func (sr *StanzaReader) Next() (Stanza, error) {
	if sr.err != nil {
		return Stanza{}, sr.err
	}
	stanza, err := sr.next()
	if err != nil {
		sr.err = err
		return Stanza{}, err
	}
	return stanza, nil
}

func (sr *StanzaReader) next() (Stanza, error) {
	var raw []byte
	var names []string
	for {
		line, err := sr.readLine(len(raw))
		switch {
		case errors.Is(err, io.EOF) && len(raw) == 0:
			return Stanza{}, io.EOF
		case errors.Is(err, io.EOF):
			return Stanza{raw}, nil
		case err != nil:
			return Stanza{}, err
		}
		if len(bytes.TrimLeft(line, " \t")) == 1 { // only the newline
			if len(line) > 1 && len(raw) > 0 {
				return Stanza{}, sr.fail("a line of spaces inside a field (an empty line of a text is written \" .\")")
			}
			if len(raw) > 0 {
				return Stanza{raw}, nil
			}
			continue
		}
		if i := bytes.IndexFunc(line[:len(line)-1], isControl); i >= 0 {
			return Stanza{}, sr.fail("the control character 0x%02x is not allowed", line[i])
		}
		if isBlank(line[0]) {
			if len(raw) == 0 {
				return Stanza{}, sr.fail("a continuation line before the first field")
			}
		} else if names, err = sr.addName(names, line); err != nil {
			return Stanza{}, err
		}
		raw = append(raw, line...)
	}
}

// readLine returns the next line with its newline, which it adds to a last
// line without one. It holds no more than maxStanza bytes in memory.
func (sr *StanzaReader) readLine(have int) ([]byte, error) {
	var line []byte
	for {
		part, err := sr.r.ReadSlice('\n')
		line = append(line, part...)
		if have+len(line) > sr.maxStanza {
			return nil, sr.fail("the paragraph has more than %d bytes", sr.maxStanza)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(line) > 0:
			line = append(line, '\n')
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case err != nil:
			return nil, fmt.Errorf("cannot read control stanza: %w", err)
		}
		sr.line++
		return line, nil
	}
}

// addName checks the name at the start of a field's first line.
func (sr *StanzaReader) addName(names []string, line []byte) ([]string, error) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return nil, sr.fail("%q is no field: want \"Name: value\"", shorten(string(line[:len(line)-1])))
	}
	name := string(line[:colon])
	if name[0] == '#' || name[0] == '-' {
		return nil, sr.fail("a field name cannot start with %q", name[0])
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f {
			return nil, sr.fail("%q is not allowed in a field name", name[i])
		}
	}
	for _, other := range names {
		if strings.EqualFold(other, name) {
			return nil, sr.fail("the field %s occurs twice", shorten(name))
		}
	}
	if len(names) == maxFields {
		return nil, sr.fail("the paragraph has more than %d fields", maxFields)
	}
	return append(names, name), nil
}

func (sr *StanzaReader) fail(format string, args ...any) error {
	return fmt.Errorf("cannot parse control stanza: line %d: %s", sr.line, fmt.Sprintf(format, args...))
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
