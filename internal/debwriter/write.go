// Package debwriter writes .deb files: deterministic, and in memory that does
// not grow with the content. Reading them, and all that needs no files or
// processes, is package deb.
package debwriter

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/blakesmith/ar"

	"aptfleet/internal/deb"
)

// Spec is a package to be written.
type Spec struct {
	// Control needs Package, Version, Architecture, Maintainer and
	// Description; Installed-Size is added if it is absent.
	Control deb.Stanza
	// Scripts are preinst, postinst, prerm, postrm and config, by name.
	Scripts map[string][]byte
	// ControlFiles are further files of control.tar by name, such as
	// triggers. md5sums and conffiles are made from Entries.
	ControlFiles map[string][]byte
	Entries      []Entry   // in any order; missing parent directories are added
	ModTime      time.Time // of the archive's own parts and of entries without one
	Compression  Compression
	TempDir      string // where data.tar is collected; "" is the system's
}

// Write writes a .deb. The same Spec gives the same bytes: entries are sorted,
// owned by root unless they say otherwise, and carry no time of this machine.
// Memory does not grow with the content, which passes through one file in
// TempDir.
func Write(w io.Writer, spec Spec) (err error) {
	entries, err := arrange(spec.Entries)
	if err != nil {
		return err
	}
	data, err := os.CreateTemp(spec.TempDir, ".aptfleet-data-*")
	if err != nil {
		return fmt.Errorf("cannot write package: %w", err)
	}
	// Without a name it is gone however this process ends.
	if err := os.Remove(data.Name()); err != nil {
		return errors.Join(fmt.Errorf("cannot write package: %w", err), data.Close())
	}
	defer func() { err = errors.Join(err, data.Close()) }()

	sums, err := writeData(data, entries, spec)
	if err != nil {
		return err
	}
	var control bytes.Buffer
	if err := writeControl(&control, entries, sums, spec); err != nil {
		return err
	}
	size, err := data.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("cannot write package: %w", err)
	}
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("cannot write package: %w", err)
	}
	archive := ar.NewWriter(w)
	if err := archive.WriteGlobalHeader(); err != nil {
		return fmt.Errorf("cannot write package: %w", err)
	}
	ending := spec.Compression.ending()
	for _, member := range []struct {
		name    string
		size    int64
		content io.Reader
	}{
		{"debian-binary", 4, bytes.NewReader([]byte("2.0\n"))},
		{"control.tar" + ending, int64(control.Len()), &control},
		{"data.tar" + ending, size, data},
	} {
		if err := writeMember(archive, member.name, member.size, spec.ModTime, member.content); err != nil {
			return fmt.Errorf("cannot write package: %s: %w", member.name, err)
		}
	}
	return nil
}

// writeMember copies one member of a known size. The ar package pads every
// odd Write, so all but the last one have an even length.
func writeMember(archive *ar.Writer, name string, size int64, modTime time.Time, content io.Reader) error {
	if size > 9_999_999_999 {
		return fmt.Errorf("%d bytes do not fit into a .deb", size)
	}
	if err := archive.WriteHeader(&ar.Header{Name: name, ModTime: modTime, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for left := size; left > 0; {
		part := buffer[:min(left, int64(len(buffer)))]
		if _, err := io.ReadFull(content, part); err != nil {
			return err
		}
		if _, err := archive.Write(part); err != nil {
			return err
		}
		left -= int64(len(part))
	}
	return nil
}

// writeData writes the compressed data.tar and returns the MD5 of each plain
// file by its path.
func writeData(w io.Writer, entries []Entry, spec Spec) (map[string]string, error) {
	compressed, err := spec.Compression.writer(w)
	if err != nil {
		return nil, fmt.Errorf("cannot write package: %w", err)
	}
	t := tar.NewWriter(compressed)
	sums := make(map[string]string, len(entries))
	for _, entry := range entries {
		sum, err := entry.write(t, spec.ModTime)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("cannot write package: %s: %w", entry.Path, err), compressed.Close())
		}
		if sum != nil {
			sums[entry.Path] = hex.EncodeToString(sum.Sum(nil))
		}
	}
	if err := errors.Join(t.Close(), compressed.Close()); err != nil {
		return nil, fmt.Errorf("cannot write package: %w", err)
	}
	return sums, nil
}

// write puts one entry into the archive and returns the hash of a plain file.
func (e Entry) write(t *tar.Writer, modTime time.Time) (hash.Hash, error) {
	header := e.header(modTime)
	if err := t.WriteHeader(header); err != nil {
		return nil, err
	}
	if header.Typeflag != tar.TypeReg {
		return nil, nil
	}
	content, err := e.Open()
	if err != nil {
		return nil, err
	}
	sum := md5.New()
	n, err := io.Copy(io.MultiWriter(t, sum), content)
	if errors.Is(err, tar.ErrWriteTooLong) || err == nil && n != e.Size {
		err = fmt.Errorf("its size changed while it was read (it was %d bytes)", e.Size)
	}
	return sum, errors.Join(err, content.Close())
}

// writeControl writes the compressed control.tar.
func writeControl(w io.Writer, entries []Entry, sums map[string]string, spec Spec) error {
	files := map[string]controlFile{}
	add := func(name string, mode int64, data []byte) error {
		if _, exists := files[name]; exists {
			return fmt.Errorf("cannot write package: the control file %q is given twice", name)
		}
		files[name] = controlFile{mode: mode, data: data}
		return nil
	}
	var md5sums, conffiles bytes.Buffer
	for _, entry := range entries {
		if entry.Conffile {
			fmt.Fprintln(&conffiles, entry.Path)
		} else if sum, isFile := sums[entry.Path]; isFile {
			fmt.Fprintf(&md5sums, "%s  %s\n", sum, entry.Path[1:])
		}
	}
	for name, data := range map[string][]byte{"md5sums": md5sums.Bytes(), "conffiles": conffiles.Bytes()} {
		if len(data) > 0 {
			if err := add(name, 0o644, data); err != nil {
				return err
			}
		}
	}
	for name, data := range spec.Scripts {
		if err := add(name, 0o755, data); err != nil {
			return err
		}
	}
	for name, data := range spec.ControlFiles {
		if err := add(name, 0o644, data); err != nil {
			return err
		}
	}
	if err := add("control", 0o644, sized(spec.Control, entries, files).Bytes()); err != nil {
		return err
	}
	return writeControlTar(w, files, spec)
}

// sized returns the stanza with its Installed-Size, before the description,
// which people expect to come last.
func sized(control deb.Stanza, entries []Entry, files map[string]controlFile) deb.Stanza {
	if control.Has("Installed-Size") {
		return control
	}
	size := InstalledSize(entries) + 1 // dpkg-gencontrol counts DEBIAN and what is in it by then
	for name, file := range files {
		if name != "md5sums" {
			size += (int64(len(file.data)) + 1023) / 1024
		}
	}
	description := control.Get("Description")
	control = control.Without("Description").With("Installed-Size", strconv.FormatInt(size, 10))
	if description != "" {
		control = control.With("Description", description)
	}
	return control
}
