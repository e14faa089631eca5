package deb

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	arMagic      = "!<arch>\n"
	arHeaderSize = 60
)

// FormatError says that a file is no usable .deb: which member of the archive
// is bad ("" for the archive itself), and why.
type FormatError struct {
	Member string
	Reason string
}

func (e *FormatError) Error() string {
	if e.Member == "" {
		return "cannot read package: " + e.Reason
	}
	return "cannot read package: " + e.Member + ": " + e.Reason
}

func badMember(member, format string, args ...any) error {
	return &FormatError{Member: member, Reason: fmt.Sprintf(format, args...)}
}

// arReader walks the members of an ar archive (ar(5), the common format
// without long names, as deb(5) uses it) in one pass.
type arReader struct {
	r      io.Reader
	member *arMember // the one under way
	header [arHeaderSize]byte
}

// arMember is an open member; it reads as its content.
type arMember struct {
	name string
	size int64
	left int64
	r    io.Reader
}

// openAr checks the archive's first eight bytes.
func openAr(r io.Reader) (*arReader, error) {
	magic := make([]byte, len(arMagic))
	if n, err := io.ReadFull(r, magic); err != nil {
		return nil, readFailure(err, "", "the file ends after %d bytes", n)
	}
	if string(magic) != arMagic {
		return nil, badMember("", "it does not start with %q: it is no Debian package", arMagic)
	}
	return &arReader{r: r}, nil
}

// next skips what is left of the member under way and opens the next one;
// io.EOF tells the orderly end of the archive.
func (a *arReader) next() (*arMember, error) {
	if m := a.member; m != nil {
		if _, err := io.Copy(io.Discard, m); err != nil {
			return nil, err
		}
		if m.size%2 == 1 {
			var pad [1]byte
			if _, err := io.ReadFull(a.r, pad[:]); err != nil {
				return nil, readFailure(err, m.name, "truncated: its padding byte is missing")
			}
		}
	}
	header := a.header[:]
	n, err := io.ReadFull(a.r, header)
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, readFailure(err, "", "truncated: a member's header has %d of %d bytes", n, arHeaderSize)
	}
	if header[58] != '`' || header[59] != '\n' {
		return nil, badMember("", "a member's header is damaged")
	}
	name := strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
	for i := range len(name) {
		if name[i] <= ' ' || name[i] >= 0x7f || name[i] == '/' {
			return nil, badMember("", "the member name %q has a character that is not allowed", name)
		}
	}
	if name == "" {
		return nil, badMember("", "a member has no name")
	}
	digits := strings.TrimRight(string(header[48:58]), " ")
	size, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || !isDigit(digits[0]) {
		return nil, badMember(name, "its size %q is no number of bytes", digits)
	}
	a.member = &arMember{name: name, size: int64(size), left: int64(size), r: a.r}
	return a.member, nil
}

// Read implements io.Reader; an archive that ends within the member is an
// error.
func (m *arMember) Read(p []byte) (int, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > m.left {
		p = p[:m.left]
	}
	n, err := m.r.Read(p)
	m.left -= int64(n)
	if err == nil || m.left == 0 && errors.Is(err, io.EOF) {
		return n, nil
	}
	return n, readFailure(err, m.name, "truncated: it claims %d bytes, the file ends after %d of them", m.size, m.size-m.left)
}

// readFailure tells a file that ends early, which is the file's fault, from a
// failure to read it, which is not.
func readFailure(err error, member, format string, args ...any) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return badMember(member, format, args...)
	}
	var over *FormatError
	if errors.As(err, &over) {
		return err
	}
	return fmt.Errorf("cannot read package: %w", err)
}
