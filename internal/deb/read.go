package deb

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"
)

// Package is what one pass over a .deb learned about it.
type Package struct {
	Control      Stanza
	Name         string
	Version      string
	Architecture string
	SHA256       [32]byte // of the whole file
	Size         int64    // bytes of the whole file
}

// Limits bound what Read accepts. A zero field means its default.
type Limits struct {
	Size         int64 // bytes of the whole file; default 16 GiB
	ControlTar   int64 // unpacked bytes of control.tar; default 64 MiB
	Entries      int   // files in control.tar; default 1024
	ControlFile  int64 // bytes of the control file; default MaxStanza, which it cannot exceed
	DataEntries  int   // files in data.tar, for Inspect; default 4 million
	DataUnpacked int64 // unpacked bytes of data.tar, for Inspect; default 256 GiB
}

func (l Limits) withDefaults() Limits {
	if l.Size == 0 {
		l.Size = 16 << 30
	}
	if l.ControlTar == 0 {
		l.ControlTar = 64 << 20
	}
	if l.Entries == 0 {
		l.Entries = 1024
	}
	if l.ControlFile == 0 || l.ControlFile > MaxStanza {
		l.ControlFile = MaxStanza
	}
	if l.DataEntries == 0 {
		l.DataEntries = 4 << 20
	}
	if l.DataUnpacked == 0 {
		l.DataUnpacked = 256 << 30
	}
	return l
}

// Visitor is shown the files inside a package by Inspect. Both functions may
// be nil; r is valid during the call and need not be read.
type Visitor struct {
	Control func(h *tar.Header, r io.Reader) error
	Data    func(h *tar.Header, r io.Reader) error
}

// Read reads a whole .deb in one pass: it hashes every byte, checks the
// archive's structure and its control stanza, and that there is a data member,
// which it does not unpack. Memory is bounded by lim and by 64 MiB for a
// compression window.
//
// What is wrong with the file itself is a *FormatError; a failure of r is not.
func Read(r io.Reader, lim Limits) (Package, error) {
	return new(Reader).Read(r, lim)
}

// Inspect is Read that also shows the files of the package to v, those of
// control.tar first. An error of v ends it and is returned as it is.
func Inspect(r io.Reader, lim Limits, v Visitor) (Package, error) {
	return new(Reader).inspect(r, lim, v)
}

// Reader reads packages, one after the other, and keeps its buffers and
// decompressors for the next one: most of what a small package costs is to
// make them. Its zero value is ready.
type Reader struct {
	buffer *bufio.Reader
	sum    hash.Hash
	unpack unpacker
}

// Read is the function Read.
func (d *Reader) Read(r io.Reader, lim Limits) (Package, error) {
	return d.inspect(r, lim, Visitor{})
}

// bufferSize is how much is read, and hashed, at once: small packages at one go.
const bufferSize = 64 << 10

func (d *Reader) inspect(r io.Reader, lim Limits, v Visitor) (Package, error) {
	lim = lim.withDefaults()
	if d.buffer == nil {
		d.buffer, d.sum = bufio.NewReaderSize(nil, bufferSize), sha256.New()
	}
	d.sum.Reset()
	in := &meter{r: io.TeeReader(r, d.sum), limit: lim.Size, over: badMember("", "it has more than the %d bytes a package may have", lim.Size)}
	d.buffer.Reset(in)
	defer d.buffer.Reset(nil)
	archive, err := openAr(d.buffer)
	if err != nil {
		return Package{}, err
	}
	var p Package
	if err := readVersionMember(archive); err != nil {
		return Package{}, err
	}
	haveControl, haveData := false, false
	for {
		m, err := archive.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Package{}, err
		}
		if m.size > lim.Size {
			return Package{}, badMember(m.name, "it claims %d bytes, more than the %d a package may have", m.size, lim.Size)
		}
		control, isControl := strings.CutPrefix(m.name, "control.tar")
		data, isData := strings.CutPrefix(m.name, "data.tar")
		switch {
		case strings.HasPrefix(m.name, "_"): // deb(5): to be ignored
		case isControl && !haveControl:
			haveControl = true
			if p.Control, err = d.readControl(m, control, lim, v.Control); err != nil {
				return Package{}, err
			}
		case isData && haveControl && !haveData:
			haveData = true
			if err := d.readData(m, data, lim, v.Data); err != nil {
				return Package{}, err
			}
		case isData && !haveControl:
			return Package{}, badMember(m.name, "it stands before control.tar")
		case isControl || isData:
			return Package{}, badMember(m.name, "the archive has a second one")
		default:
			return Package{}, badMember(m.name, "a member of this name does not belong here")
		}
	}
	switch {
	case !haveControl:
		return Package{}, badMember("", "it has no control.tar")
	case !haveData:
		return Package{}, badMember("", "it has no data.tar")
	}
	if err := p.identify(); err != nil {
		return Package{}, err
	}
	p.Size = in.n
	d.sum.Sum(p.SHA256[:0])
	return p, nil
}

// readVersionMember checks that the first member says format 2.x.
func readVersionMember(archive *arReader) error {
	const name = "debian-binary"
	m, err := archive.next()
	if errors.Is(err, io.EOF) {
		return badMember("", "the archive is empty")
	}
	if err != nil {
		return err
	}
	if m.name != name {
		return badMember(m.name, "the first member must be %s", name)
	}
	if m.size > 64 {
		return badMember(name, "it claims %d bytes where a version number is expected", m.size)
	}
	text, err := io.ReadAll(m)
	if err != nil {
		return err
	}
	version, _, _ := strings.Cut(string(text), "\n")
	if major, _, found := strings.Cut(version, "."); !found || major != "2" {
		return badMember(name, "the format version is %q, want 2.0", version)
	}
	return nil
}

// readControl returns the stanza of the file "control" in control.tar.
func (d *Reader) readControl(m *arMember, ending string, lim Limits, visit func(*tar.Header, io.Reader) error) (Stanza, error) {
	var control []byte
	found := false
	seen := map[string]bool{}
	err := d.walkTar(m, ending, lim.ControlTar, lim.Entries, func(h *tar.Header, r io.Reader) error {
		name, err := controlName(h)
		if err != nil {
			return badMember(m.name, "%v", err)
		}
		if name == "." {
			return nil
		}
		if seen[name] {
			return badMember(m.name, "the file %q occurs twice", name)
		}
		seen[name] = true
		if name == "control" {
			if h.Size > lim.ControlFile {
				return badMember(m.name, "the control file claims %d bytes, more than the %d it may have", h.Size, lim.ControlFile)
			}
			control = make([]byte, h.Size)
			if _, err = io.ReadFull(r, control); err != nil {
				return err
			}
			found = true
		}
		if visit != nil {
			if name == "control" {
				r = bytes.NewReader(control)
			}
			h.Name = name
			return visitorError{visit(h, r)}.orNil()
		}
		return nil
	})
	if err != nil {
		return Stanza{}, err
	}
	if !found {
		return Stanza{}, badMember(m.name, "it has no control file")
	}
	stanza, err := parseStanza(control)
	if err != nil {
		return Stanza{}, badMember(m.name, "the control file is none: %v", err)
	}
	return stanza, nil
}

// controlName returns the plain name of an entry of control.tar, "." for its
// directory. Nothing else may be in there: no directories, links or devices.
func controlName(h *tar.Header) (string, error) {
	name := strings.TrimPrefix(h.Name, "./")
	if h.Typeflag == tar.TypeDir && strings.Trim(name, "./") == "" && !strings.Contains(name, "..") {
		return ".", nil
	}
	switch {
	case strings.IndexFunc(name, isControl) >= 0:
		return "", fmt.Errorf("the name %q has a control character", shorten(h.Name))
	case strings.Contains(name, "/") || name == ".." || name == "." || name == "":
		return "", fmt.Errorf("the name %q leads out of the control directory", shorten(h.Name))
	case h.Typeflag != tar.TypeReg:
		return "", fmt.Errorf("%q is no plain file", shorten(h.Name))
	}
	return name, nil
}

// readData checks the data member's name and, for a visitor, walks it.
func (d *Reader) readData(m *arMember, ending string, lim Limits, visit func(*tar.Header, io.Reader) error) error {
	switch ending {
	case "", ".gz", ".xz", ".zst", ".bz2", ".lzma":
	default:
		return badMember(m.name, "the compression %q is not known", ending)
	}
	if m.size == 0 {
		return badMember(m.name, "it is empty")
	}
	if visit == nil {
		return nil
	}
	return d.walkTar(m, ending, lim.DataUnpacked, lim.DataEntries, func(h *tar.Header, r io.Reader) error {
		name := path.Clean("/" + h.Name)
		if strings.IndexFunc(name, isControl) >= 0 {
			return badMember(m.name, "the name %q has a control character", shorten(h.Name))
		}
		if strings.Contains("/"+h.Name+"/", "/../") {
			return badMember(m.name, "the name %q leads out of the package", shorten(h.Name))
		}
		h.Name = name
		return visitorError{visit(h, r)}.orNil()
	})
}

// walkTar shows each entry of a compressed tar to visit.
func (d *Reader) walkTar(m *arMember, ending string, unpacked int64, entries int, visit func(*tar.Header, io.Reader) error) error {
	packed := &sticky{r: m}
	content, err := d.unpack.open(packed, ending, unpacked)
	if err != nil {
		return packed.or(badMember(m.name, "it cannot be unpacked: %v", err))
	}
	limited := &meter{r: content, limit: unpacked, over: badMember(m.name, "it unpacks to more than %d bytes", unpacked)}
	t := tar.NewReader(limited)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) { // the rest holds the check of the compression
			if _, err = io.Copy(io.Discard, limited); err == nil {
				return nil
			}
		}
		if err == nil && n == entries {
			return badMember(m.name, "it has more than %d entries", entries)
		}
		if err == nil {
			err = visitEntry(visit, h, t)
		}
		if err == nil {
			continue
		}
		var visitor visitorError
		var format *FormatError
		switch {
		case errors.As(err, &visitor):
			return visitor.error
		case errors.As(err, &format):
			return err
		case errors.Is(err, io.ErrUnexpectedEOF):
			return packed.or(badMember(m.name, "truncated inside"))
		}
		return packed.or(badMember(m.name, "it cannot be unpacked: %v", err))
	}
}

// visitEntry shows one entry, and tells a visitor's own error from one that
// its reading met.
func visitEntry(visit func(*tar.Header, io.Reader) error, h *tar.Header, content io.Reader) error {
	watched := &sticky{r: content}
	err := visit(h, watched)
	return watched.or(err)
}

// identify fills in name, version and architecture, checked.
func (p *Package) identify() error {
	identity := [...]string{"Package", "Version", "Architecture"}
	values := p.Control.Values(append(identity[:], RelationFields[:]...)...)
	for i, field := range identity {
		if values[i] == "" {
			return badMember("control", "the field %s is missing", field)
		}
	}
	p.Name, p.Version, p.Architecture = values[0], values[1], values[2]
	if err := ValidPackageName(p.Name); err != nil {
		return badMember("control", "%v", err)
	}
	if _, err := ParseVersion(p.Version); err != nil {
		return badMember("control", "%v", err)
	}
	if len(p.Version) > maxName {
		return badMember("control", "the version has more than %d characters", maxName)
	}
	if err := ValidArchitecture(p.Architecture); err != nil {
		return badMember("control", "%v", err)
	}
	if n := len(FileName(p.Name, p.Version, p.Architecture)); n > MaxFileName {
		return badMember("control", "name and version are too long together: the file would have a name of %d bytes, %d are possible", n, MaxFileName)
	}
	for i, relation := range RelationFields {
		if _, err := ParseRelations(values[len(identity)+i]); err != nil {
			return badMember("control", "the field %s: %v", relation, err)
		}
	}
	return nil
}

// visitorError marks an error of the caller's visitor on its way out.
type visitorError struct{ error }

func (v visitorError) orNil() error {
	if v.error == nil {
		return nil
	}
	return v
}

// meter counts what is read and fails with over behind limit bytes.
type meter struct {
	r     io.Reader
	n     int64
	limit int64
	over  error
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n += int64(n)
	if m.n > m.limit {
		return n, m.over
	}
	return n, err
}

// sticky remembers why its source failed, since decompressors rename errors.
type sticky struct {
	r   io.Reader
	err error
}

func (s *sticky) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (s *sticky) or(err error) error {
	if s.err != nil {
		return s.err
	}
	return err
}
