package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"aptfleet/internal/deb"
)

// members is how the two archives in a package are compressed; it ends their
// names.
type members string

const (
	xzMembers members = "xz" // as dpkg-deb does it unless told otherwise
	gzMembers members = "gz" // what is read fastest
)

// label names packages by what they are and how they are compressed.
func (m members) label(what string) string {
	if m == xzMembers {
		return what
	}
	return what + "-" + string(m)
}

// debWriter writes small .debs, many at a time. Package debwriter writes
// packages of any size and pays with a temporary file and two new compressors,
// or processes, for each, which is most of the time for tens of thousands of
// small ones.
type debWriter struct {
	as  members
	zip *gzip.Writer
}

// made is the time that every package carries.
var made = time.Unix(1_700_000_000, 0)

// write writes a package with one small file for each stanza into dir and
// returns the names of the .debs. The same stanza gives the same bytes.
func (w *debWriter) write(ctx context.Context, dir string, stanzas ...deb.Stanza) ([]string, error) {
	var plain [][]byte // of each package control and data
	for _, stanza := range stanzas {
		name, version := stanza.Get("Package"), stanza.Get("Version")
		control, err := archiveOf(string(stanza.Bytes()), "./", "./control")
		if err != nil {
			return nil, err
		}
		content := strings.Repeat("content of "+name+" "+version+"\n", 4)
		data, err := archiveOf(content, "./", "./usr/", "./usr/share/", "./usr/share/"+name)
		if err != nil {
			return nil, err
		}
		plain = append(plain, control, data)
	}
	packed, err := w.pack(ctx, plain)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(stanzas))
	for i, stanza := range stanzas {
		var file bytes.Buffer
		file.WriteString("!<arch>\n")
		addMember(&file, "debian-binary", []byte("2.0\n"))
		addMember(&file, "control.tar."+string(w.as), packed[2*i])
		addMember(&file, "data.tar."+string(w.as), packed[2*i+1])
		names[i] = deb.FileName(stanza.Get("Package"), stanza.Get("Version"), stanza.Get("Architecture"))
		if err := os.WriteFile(filepath.Join(dir, names[i]), file.Bytes(), 0o644); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// archiveOf returns a tar archive of these entries; the last one is a file
// with that content, the others are directories.
func archiveOf(content string, entries ...string) ([]byte, error) {
	var out bytes.Buffer
	t := tar.NewWriter(&out)
	for i, name := range entries {
		h := tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir, Uname: "root", Gname: "root", ModTime: made, Format: tar.FormatGNU}
		if i == len(entries)-1 {
			h.Mode, h.Typeflag, h.Size = 0o644, tar.TypeReg, int64(len(content))
		}
		if err := t.WriteHeader(&h); err != nil {
			return nil, err
		}
	}
	if _, err := t.Write([]byte(content)); err != nil {
		return nil, err
	}
	err := t.Close()
	return out.Bytes(), err
}

// pack compresses texts, each for itself.
func (w *debWriter) pack(ctx context.Context, texts [][]byte) ([][]byte, error) {
	if w.as == xzMembers {
		return packXZ(ctx, texts)
	}
	packed := make([][]byte, len(texts))
	for i, text := range texts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var out bytes.Buffer
		if w.zip == nil {
			w.zip = gzip.NewWriter(&out)
		} else {
			w.zip.Reset(&out)
		}
		if _, err := w.zip.Write(text); err != nil {
			return nil, err
		}
		if err := w.zip.Close(); err != nil {
			return nil, err
		}
		packed[i] = out.Bytes()
	}
	return packed, nil
}

// packXZ compresses texts with one process. With two threads xz notes the sizes
// of a block in its header, as dpkg-deb always does. The files for it are in
// memory where they can be: tens of thousands that were just removed would be in
// the way of whoever is measured next.
func packXZ(ctx context.Context, texts [][]byte) (packed [][]byte, err error) {
	memory := "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		memory = "" // the directory for temporary files
	}
	dir, err := os.MkdirTemp(memory, "af-bench-xz-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	args := []string{"--threads=2", "-6", "--check=crc64"}
	for i, text := range texts {
		name := strconv.Itoa(i)
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
		args = append(args, name)
	}
	xz := exec.CommandContext(ctx, "xz", args...)
	xz.Dir, xz.Env = dir, append(os.Environ(), "XZ_DEFAULTS=", "XZ_OPT=")
	out, err := xz.CombinedOutput()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("xz: %w: %s", err, bytes.TrimSpace(out))
	}
	packed = make([][]byte, len(texts))
	for i := range texts {
		if packed[i], err = os.ReadFile(filepath.Join(dir, strconv.Itoa(i)+".xz")); err != nil {
			return nil, err
		}
	}
	return packed, nil
}

// addMember appends a member to an archive, as deb(5) and ar(5) want it.
func addMember(file *bytes.Buffer, name string, content []byte) {
	fmt.Fprintf(file, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, made.Unix(), 0, 0, "100644", len(content))
	file.Write(content)
	if len(content)%2 == 1 {
		file.WriteByte('\n')
	}
}
