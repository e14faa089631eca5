package debwriter

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Entry is one file, directory or symbolic link of a package.
type Entry struct {
	Path     string      // absolute, clean: "/usr/bin/hello"
	Mode     fs.FileMode // permissions, set-id and sticky bits, and fs.ModeDir or fs.ModeSymlink
	Owner    string      // "" is root
	Group    string      // "" is root
	ModTime  time.Time   // zero is the Spec's
	Link     string      // target of a symbolic link
	Size     int64       // bytes of a plain file
	Open     func() (io.ReadCloser, error)
	Conffile bool // dpkg asks before it replaces a changed one
}

// arrange returns the entries sorted, with every missing parent directory, as
// root's with mode 0755.
func arrange(given []Entry) ([]Entry, error) {
	entries := make(map[string]Entry, len(given))
	for _, e := range given {
		if e.Path != path.Clean(e.Path) || !strings.HasPrefix(e.Path, "/") || strings.IndexFunc(e.Path, unicode.IsControl) >= 0 {
			return nil, fmt.Errorf("cannot write package: %q is no absolute clean path", e.Path)
		}
		if _, exists := entries[e.Path]; exists {
			return nil, fmt.Errorf("cannot write package: %s is given twice", e.Path)
		}
		entries[e.Path] = e
	}
	for _, e := range given {
		for dir := path.Dir(e.Path); ; dir = path.Dir(dir) {
			parent, exists := entries[dir]
			if !exists {
				entries[dir] = Entry{Path: dir, Mode: fs.ModeDir | 0o755}
			} else if !parent.Mode.IsDir() {
				return nil, fmt.Errorf("cannot write package: %s lies below %s, which is no directory", e.Path, dir)
			}
			if dir == "/" {
				break
			}
		}
	}
	if len(entries) == 0 {
		entries["/"] = Entry{Path: "/", Mode: fs.ModeDir | 0o755}
	}
	return slices.SortedFunc(maps.Values(entries), func(a, b Entry) int { return strings.Compare(a.Path, b.Path) }), nil
}

// InstalledSize estimates what entries take on a disk in KiB, as
// dpkg-gencontrol does: files and links by their size, rounded up each,
// everything else as 1.
func InstalledSize(entries []Entry) int64 {
	var total int64
	for _, e := range entries {
		switch {
		case e.Mode.IsRegular():
			total += (e.Size + 1023) / 1024
		case e.Mode&fs.ModeSymlink != 0:
			total += (int64(len(e.Link)) + 1023) / 1024
		default:
			total++
		}
	}
	return total
}

// header describes the entry in the GNU variant of tar that dpkg writes.
func (e Entry) header(modTime time.Time) *tar.Header {
	if !e.ModTime.IsZero() {
		modTime = e.ModTime
	}
	h := &tar.Header{
		Name:    "." + e.Path,
		Mode:    int64(e.Mode.Perm()),
		Uname:   "root",
		Gname:   "root",
		ModTime: modTime.Truncate(time.Second),
		Format:  tar.FormatGNU,
	}
	// dpkg looks names up on the target and falls back to the numbers.
	if e.Owner != "" {
		h.Uname = e.Owner
	}
	if e.Group != "" {
		h.Gname = e.Group
	}
	for bit, value := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if e.Mode&bit != 0 {
			h.Mode |= value
		}
	}
	switch {
	case e.Mode.IsDir():
		h.Typeflag = tar.TypeDir
		h.Name = strings.TrimSuffix(h.Name, "/") + "/"
	case e.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Link, 0o777
	default:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	}
	return h
}

// controlFile is one file of control.tar.
type controlFile struct {
	mode int64
	data []byte
}

// writeControlTar writes files sorted by name.
func writeControlTar(w io.Writer, files map[string]controlFile, spec Spec) error {
	fail := func(err error) error { return fmt.Errorf("cannot write package: control.tar: %w", err) }
	compressed, err := spec.Compression.writer(w)
	if err != nil {
		return fail(err)
	}
	t := tar.NewWriter(compressed)
	header := tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755, Uname: "root", Gname: "root", ModTime: spec.ModTime.Truncate(time.Second), Format: tar.FormatGNU}
	if err := t.WriteHeader(&header); err != nil {
		return fail(err)
	}
	header.Typeflag = tar.TypeReg
	for _, name := range slices.Sorted(maps.Keys(files)) {
		header.Name, header.Mode, header.Size = "./"+name, files[name].mode, int64(len(files[name].data))
		if err := t.WriteHeader(&header); err != nil {
			return fail(err)
		}
		if _, err := t.Write(files[name].data); err != nil {
			return fail(err)
		}
	}
	if err := t.Close(); err != nil {
		return fail(err)
	}
	if err := compressed.Close(); err != nil {
		return fail(err)
	}
	return nil
}
