package snapshots

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"aptfleet/internal/deb"
)

// MaxStanza is the size in bytes of the largest stanza a state accepts.
const MaxStanza = deb.MaxStanza

// Package is one entry of an index. The other fields repeat what Stanza says;
// ParsePackage is the way to get them.
type Package struct {
	Name         string
	Version      string
	Architecture string            // "all" or an architecture
	Filename     string            // of the .deb, relative to the archive's base
	Size         int64             // of the .deb, bytes
	SHA256       [sha256.Size]byte // of the .deb
	Stanza       []byte            // the paragraph as Packages has it, ends in one "\n"; never modified
}

// Ref names a package within a component.
type Ref struct{ Name, Version, Architecture string }

// Ref returns the name of p within its component.
func (p Package) Ref() Ref { return Ref{p.Name, p.Version, p.Architecture} }

// String returns name=version:architecture, e.g. "hello=2.10-3:amd64".
func (r Ref) String() string { return r.Name + "=" + r.Version + ":" + r.Architecture }

// compare orders the entries of an index: by name, by version as dpkg orders
// them, then, for versions that dpkg holds equal ("1.0" and "1.00"), by their
// bytes. The architecture takes no part, as a name and version occurs once.
func (r Ref) compare(o Ref) int {
	if c := cmp.Compare(r.Name, o.Name); c != 0 {
		return c
	}
	if r.Version == o.Version {
		return 0
	}
	if c := deb.Compare(r.Version, o.Version); c != 0 {
		return c
	}
	return cmp.Compare(r.Version, o.Version)
}

// validate refuses what could not be written into a state's text and read
// back from it.
func (r Ref) validate() error {
	if err := deb.ValidPackageName(r.Name); err != nil {
		return err
	}
	if _, err := deb.ParseVersion(r.Version); err != nil {
		return err
	}
	return deb.ValidArchitecture(r.Architecture)
}

// ParsePackage reads one stanza of a Packages file, which must be as deb's
// Stanza writes it: no blank line, one newline at the end. The fields Package,
// Version, Architecture, Filename, Size and SHA256 must be there and be one
// line each.
func ParsePackage(stanza []byte) (Package, error) {
	parsed, err := deb.ParseStanza(stanza)
	if err != nil {
		return Package{}, fmt.Errorf("cannot read package: %w", err)
	}
	if !bytes.Equal(parsed.Bytes(), stanza) {
		return Package{}, errors.New("cannot read package: its stanza has a blank line, or its last line no end")
	}
	p, err := packageOf(parsed)
	if err != nil {
		return Package{}, fmt.Errorf("cannot read package: %w", err)
	}
	return p, nil
}

// required are the fields that a stanza must have.
var required = [...]string{"Package", "Version", "Architecture", "Filename", "Size", "SHA256"}

// packageOf reads the fields of a stanza.
func packageOf(stanza deb.Stanza) (Package, error) {
	values := stanza.Values(required[:]...)
	for i, value := range values {
		if value == "" {
			return Package{}, fmt.Errorf("the field %s is missing or empty", required[i])
		}
		if strings.Contains(value, "\n") {
			return Package{}, fmt.Errorf("the field %s has more than one line", required[i])
		}
	}
	p := Package{Name: values[0], Version: values[1], Architecture: values[2], Filename: values[3], Stanza: stanza.Bytes()}
	var err error
	if p.Size, err = parseCount(values[4]); err != nil {
		return Package{}, fmt.Errorf("the field Size is wrong: %w", err)
	}
	id, err := ParseID(values[5])
	if err != nil {
		return Package{}, fmt.Errorf("the field SHA256 is wrong: %w", err)
	}
	p.SHA256 = id
	if !fs.ValidPath(p.Filename) || p.Filename == "." {
		return Package{}, fmt.Errorf("the field Filename is wrong: %q is no clean path below the archive's base", p.Filename)
	}
	return p, p.Ref().validate()
}

// parseCount reads a decimal number that is written the one way strconv
// writes it.
func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || s[0] < '0' || s[0] > '9' || s[0] == '0' && s != "0" {
		return 0, fmt.Errorf("%q is no plain decimal number", s)
	}
	return n, nil
}
