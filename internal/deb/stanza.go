package deb

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
)

const (
	// MaxStanza is the largest control stanza in bytes that Read and
	// ParseStanza accept. Debian's largest has about 60 kB.
	MaxStanza = 1 << 20

	maxFields   = 256
	usualFields = 16 // more are no error
)

// Stanza is one paragraph of control fields (Policy 5.1), immutable. It keeps
// the bytes it was parsed from: what is not changed is written back identical.
type Stanza struct{ raw []byte }

// ParseStanza reads exactly one paragraph of at most MaxStanza bytes; blank
// lines may stand before and behind it. It refuses duplicate fields,
// comments and control characters.
func ParseStanza(b []byte) (Stanza, error) { return parseStanza(bytes.Clone(b)) }

// parseStanza is ParseStanza of bytes that nobody changes any more.
func parseStanza(b []byte) (Stanza, error) {
	r := StanzasOf(b, MaxStanza)
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
	f, found := s.find(field)
	if !found {
		return ""
	}
	return s.value(f)
}

// Has reports whether the field is present, even when it is empty.
func (s Stanza) Has(field string) bool {
	_, found := s.find(field)
	return found
}

// Values returns what Get would for each of fields, in one pass.
func (s Stanza) Values(fields ...string) []string {
	values := make([]string, len(fields))
	for f := range s.split() {
		for i, name := range fields {
			if sameName(s.raw[f.start:f.colon], name) {
				values[i] = s.value(f)
				break
			}
		}
	}
	return values
}

// Fields yields the names and values of all fields in their order.
func (s Stanza) Fields() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for f := range s.split() {
			if !yield(string(s.raw[f.start:f.colon]), s.value(f)) {
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
	if f, found := s.find(field); found {
		return Stanza{slices.Concat(s.raw[:f.start], []byte(text), s.raw[f.end:])}
	}
	return Stanza{slices.Concat(s.raw, []byte(text))}
}

// Without returns a stanza that lacks the field.
func (s Stanza) Without(field string) Stanza {
	if f, found := s.find(field); found {
		return Stanza{slices.Concat(s.raw[:f.start], s.raw[f.end:])}
	}
	return s
}

// Bytes returns the paragraph, which ends in one newline and holds no blank
// line. The caller must not change it.
func (s Stanza) Bytes() []byte { return s.raw }

// field is where one field lies in a stanza's bytes, continuation lines and
// last newline included.
type field struct{ start, colon, end int }

func (s Stanza) value(f field) string {
	return string(bytes.Trim(s.raw[f.colon+1:f.end], " \t\n"))
}

func (s Stanza) find(name string) (field, bool) {
	for f := range s.split() {
		if sameName(s.raw[f.start:f.colon], name) {
			return f, true
		}
	}
	return field{}, false
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
			if !yield(field{start, start + bytes.IndexByte(s.raw[start:end], ':'), end}) {
				return
			}
			start = end
		}
	}
}

// StanzaReader reads a file of paragraphs, such as Packages, one at a time.
type StanzaReader struct {
	r         *bufio.Reader // nil: all there is to read is text
	text      []byte        // ends in a newline
	at        int           // where its next line begins
	maxStanza int
	line      int
	buffer    []byte // of the line under way
	raw       []byte // of the paragraph under way; a part of text, if that is read
	names     []span // its field names, in raw
	err       error
}

// span is a part of a paragraph's bytes.
type span struct{ start, end int }

// NewStanzaReader reads from r paragraphs of at most maxStanza bytes each.
func NewStanzaReader(r io.Reader, maxStanza int) *StanzaReader {
	return &StanzaReader{r: bufio.NewReaderSize(r, 64<<10), maxStanza: maxStanza}
}

// StanzasOf reads paragraphs of at most maxStanza bytes each from a text, which
// nobody changes any more: the paragraphs are parts of it.
func StanzasOf(text []byte, maxStanza int) *StanzaReader {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text[:len(text):len(text)], '\n')
	}
	return &StanzaReader{text: text, maxStanza: maxStanza, names: make([]span, 0, usualFields)}
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
	sr.raw, sr.names = sr.raw[:0], sr.names[:0]
	for {
		line, err := sr.readLine(len(sr.raw))
		switch {
		case err == io.EOF && len(sr.raw) == 0:
			return Stanza{}, io.EOF
		case err == io.EOF:
			return sr.stanza(), nil
		case err != nil:
			return Stanza{}, err
		}
		if line[0] == '\n' || isBlank(line[0]) && len(bytes.TrimLeft(line, " \t")) == 1 {
			switch {
			case len(sr.raw) == 0:
				continue
			case len(line) > 1:
				return Stanza{}, sr.fail("a line of spaces inside a field (an empty line of a text is written \" .\")")
			}
			return sr.stanza(), nil
		}
		for _, c := range line[:len(line)-1] {
			if isControl(rune(c)) {
				return Stanza{}, sr.fail("the control character 0x%02x is not allowed", c)
			}
		}
		if isBlank(line[0]) {
			if len(sr.raw) == 0 {
				return Stanza{}, sr.fail("a continuation line before the first field")
			}
		} else if err := sr.addName(line); err != nil {
			return Stanza{}, err
		}
		sr.keep(line)
	}
}

// keep adds the line that was just read to the paragraph under way.
func (sr *StanzaReader) keep(line []byte) {
	if sr.r == nil {
		sr.raw = sr.text[sr.at-len(line)-len(sr.raw) : sr.at]
		return
	}
	sr.raw = append(sr.raw, line...)
}

// stanza returns the paragraph under way.
func (sr *StanzaReader) stanza() Stanza {
	if sr.r == nil {
		return Stanza{slices.Clip(sr.raw)}
	}
	return Stanza{bytes.Clone(sr.raw)}
}

// readLine returns the next line with its newline, which it adds to a last
// line without one. It holds no more than maxStanza bytes in memory; what it
// returns is valid until the next call.
func (sr *StanzaReader) readLine(have int) ([]byte, error) {
	if sr.r == nil {
		line := sr.text[sr.at:]
		if len(line) == 0 {
			return nil, io.EOF
		}
		line = line[:bytes.IndexByte(line, '\n')+1]
		if have+len(line) > sr.maxStanza {
			return nil, sr.fail("the paragraph has more than %d bytes", sr.maxStanza)
		}
		sr.at += len(line)
		sr.line++
		return line, nil
	}
	line := sr.buffer[:0]
	defer func() { sr.buffer = line }()
	for {
		part, err := sr.r.ReadSlice('\n')
		line = append(line, part...)
		if errors.Is(err, io.EOF) && len(line) > 0 {
			line, err = append(line, '\n'), nil
		}
		if have+len(line) > sr.maxStanza {
			return nil, sr.fail("the paragraph has more than %d bytes", sr.maxStanza)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil, io.EOF
		case err != nil:
			return nil, fmt.Errorf("cannot read control stanza: %w", err)
		}
		sr.line++
		return line, nil
	}
}

// addName checks the name at the start of a field's first line, which is about
// to be added to the paragraph.
func (sr *StanzaReader) addName(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return sr.fail("%q is no field: want \"Name: value\"", shorten(string(line[:len(line)-1])))
	}
	name := line[:colon]
	if name[0] == '#' || name[0] == '-' {
		return sr.fail("a field name cannot start with %q", name[0])
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return sr.fail("%q is not allowed in a field name", c)
		}
	}
	for _, other := range sr.names {
		if sameName(sr.raw[other.start:other.end], name) {
			return sr.fail("the field %s occurs twice", shorten(string(name)))
		}
	}
	if len(sr.names) == maxFields {
		return sr.fail("the paragraph has more than %d fields", maxFields)
	}
	sr.names = append(sr.names, span{len(sr.raw), len(sr.raw) + len(name)})
	return nil
}

func (sr *StanzaReader) fail(format string, args ...any) error {
	return fmt.Errorf("cannot parse control stanza: line %d: %s", sr.line, fmt.Sprintf(format, args...))
}

// sameName compares names of fields, which are ASCII; case does not matter.
func sameName[T string | []byte](a []byte, b T) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if d := b[i]; c != d && (c|0x20 != d|0x20 || !isLetter(c)) {
			return false
		}
	}
	return true
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
