package backup

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Manifest is one backup: what was in the data directory, and which objects
// hold it.
type Manifest struct {
	ID      string    // a UTC time to the second; grows within a directory
	Created time.Time // when the database was read
	By      string    // who asked for it
	Program string    // version of the repo-manager that made it
	Change  int64     // of that server that made it; 0: no server ran
	Key     string    // fingerprint of the archive key
	Keys    bool      // whether the private keys are among the files
	Files   []File    // by path
	Lost    []string  // paths that the database needs and the data directory did not have
}

// File is one file of a data directory.
type File struct {
	Path    string // relative to the data directory
	Mode    fs.FileMode
	ModTime time.Time
	Parts   []Part // one after the other they are its bytes
}

// Part is one object of a file.
type Part struct {
	SHA256 [sha256.Size]byte
	Size   int64 // bytes
}

// Size is that of the file, in bytes.
func (f File) Size() int64 {
	var n int64
	for _, p := range f.Parts {
		n += p.Size
	}
	return n
}

// Bytes is the size of all files together.
func (m Manifest) Bytes() int64 {
	var n int64
	for _, f := range m.Files {
		n += f.Size()
	}
	return n
}

// objects lists each object of the files once.
func (m Manifest) objects() map[[sha256.Size]byte]int64 {
	all := make(map[[sha256.Size]byte]int64)
	for _, f := range m.Files {
		for _, p := range f.Parts {
			all[p.SHA256] = p.Size
		}
	}
	return all
}

const (
	idFormat      = "20060102T150405Z"
	createdFormat = "2006-01-02T15:04:05.000000Z"
	firstLine     = "aptfleet backup 1"
)

// encode returns the text of a manifest: the same bytes for equal ones.
func (m Manifest) encode() []byte {
	var b bytes.Buffer
	keys := "no"
	if m.Keys {
		keys = "yes"
	}
	fmt.Fprintf(&b, "%s\nid %s\ncreated %s\nby %s\nprogram %s\nchange %d\nkey %s\nkeys %s\n",
		firstLine, m.ID, m.Created.UTC().Format(createdFormat), oneLine(m.By), oneLine(m.Program), m.Change, m.Key, keys)
	for _, path := range m.Lost {
		fmt.Fprintf(&b, "lost %s\n", path)
	}
	for _, f := range m.Files {
		fmt.Fprintf(&b, "file %04o %d.%09d %s\n", f.Mode.Perm(), f.ModTime.Unix(), f.ModTime.Nanosecond(), f.Path)
		for _, p := range f.Parts {
			fmt.Fprintf(&b, " %x %d\n", p.SHA256, p.Size)
		}
	}
	fmt.Fprintf(&b, "sha256 %x\n", sha256.Sum256(b.Bytes()))
	return b.Bytes()
}

// oneLine keeps foreign text to the line it is on.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, text)
}

// decode reads what encode wrote, and nothing else: a manifest that says a
// thing in another way is as damaged as one whose checksum is wrong.
func decode(text []byte) (Manifest, error) {
	if line, _, _ := bytes.Cut(text, []byte("\n")); string(line) != firstLine && bytes.HasPrefix(line, []byte("aptfleet backup ")) {
		return Manifest{}, errors.New("it was written by a newer repo-manager")
	}
	body := text[:max(0, len(text)-len(sumLine(nil)))]
	if len(body) == 0 || string(text[len(body):]) != sumLine(body) {
		return Manifest{}, errors.New("its checksum is wrong: it is damaged or cut short")
	}
	m, err := parse(string(body))
	if err != nil {
		return Manifest{}, err
	}
	if !bytes.Equal(m.encode(), text) {
		return Manifest{}, errors.New("it is not in the form of a manifest")
	}
	return m, nil
}

func sumLine(body []byte) string { return fmt.Sprintf("sha256 %x\n", sha256.Sum256(body)) }

// parse reads the lines before the checksum. decode judges their form.
func parse(body string) (m Manifest, err error) {
	for line := range strings.Lines(body) {
		line = strings.TrimSuffix(line, "\n")
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "id":
			m.ID = rest
		case "created":
			m.Created, err = time.Parse(createdFormat, rest)
		case "by":
			m.By = rest
		case "program":
			m.Program = rest
		case "change":
			m.Change, err = strconv.ParseInt(rest, 10, 64)
		case "key":
			m.Key = rest
		case "keys":
			m.Keys = rest == "yes"
		case "lost":
			m.Lost = append(m.Lost, rest)
		case "file":
			var f File
			f, err = parseFile(rest)
			m.Files = append(m.Files, f)
		case "":
			var p Part
			if p, err = parsePart(rest); err == nil && len(m.Files) == 0 {
				err = errors.New("it has an object of no file")
			}
			if err == nil {
				f := &m.Files[len(m.Files)-1]
				f.Parts = append(f.Parts, p)
			}
		}
		if err != nil {
			return m, err
		}
	}
	if _, err := time.Parse(idFormat, m.ID); err != nil {
		return m, fmt.Errorf("it has no id: %w", err)
	}
	for i, f := range m.Files {
		if i > 0 && m.Files[i-1].Path >= f.Path {
			return m, fmt.Errorf("it lists %q out of order", f.Path)
		}
	}
	return m, nil
}

func parseFile(text string) (File, error) {
	words := strings.SplitN(text, " ", 3)
	if len(words) != 3 {
		return File{}, fmt.Errorf("it has a line %q", text)
	}
	mode, err := strconv.ParseUint(words[0], 8, 32)
	if err != nil || mode > 0o777 {
		return File{}, fmt.Errorf("it has the mode %q", words[0])
	}
	seconds, fraction, _ := strings.Cut(words[1], ".")
	s, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return File{}, fmt.Errorf("it has the time %q", words[1])
	}
	ns, err := strconv.ParseInt(fraction, 10, 64)
	if err != nil || ns < 0 || ns > 999_999_999 {
		return File{}, fmt.Errorf("it has the time %q", words[1])
	}
	// fs.ValidPath has no "..", and "." would be the directory itself.
	if !fs.ValidPath(words[2]) || words[2] == "." || oneLine(words[2]) != words[2] {
		return File{}, fmt.Errorf("it has the path %q", words[2])
	}
	return File{Path: words[2], Mode: fs.FileMode(mode), ModTime: time.Unix(s, ns)}, nil
}

func parsePart(text string) (Part, error) {
	digits, size, _ := strings.Cut(text, " ")
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != sha256.Size {
		return Part{}, fmt.Errorf("it has the object %q", digits)
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 {
		return Part{}, fmt.Errorf("it has the size %q", size)
	}
	return Part{SHA256: [sha256.Size]byte(raw), Size: n}, nil
}

// sort brings files and lost paths into the order of a manifest.
func (m *Manifest) sort() {
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	slices.Sort(m.Lost)
}
