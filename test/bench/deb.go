package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/internal/deb"
)

// debWriter writes small .debs: both members are gzip, so that reading them is
// cheap for everybody. Package debwriter writes packages of any size and pays
// with a temporary file and two new compressors for each, which is most of the
// time for tens of thousands of small ones; here both are used again.
type debWriter struct {
	file, member bytes.Buffer
	zip          *gzip.Writer
}

// made is the time that every package carries.
var made = time.Unix(1_700_000_000, 0)

// write writes a package with one small file into dir and returns the name of
// its .deb. The same stanza gives the same bytes.
func (w *debWriter) write(dir string, stanza deb.Stanza) (string, error) {
	name, version := stanza.Get("Package"), stanza.Get("Version")
	content := strings.Repeat("content of "+name+" "+version+"\n", 4)
	w.file.Reset()
	w.file.WriteString("!<arch>\n")
	w.add("debian-binary", []byte("2.0\n"))
	for _, member := range []struct {
		name    string
		entries []tar.Header
		content string
	}{
		{"control.tar.gz", []tar.Header{{Name: "./"}, {Name: "./control"}}, string(stanza.Bytes())},
		{"data.tar.gz", []tar.Header{{Name: "./"}, {Name: "./usr/"}, {Name: "./usr/share/"}, {Name: "./usr/share/" + name}}, content},
	} {
		if err := w.pack(member.entries, member.content); err != nil {
			return "", err
		}
		w.add(member.name, w.member.Bytes())
	}
	target := deb.FileName(name, version, stanza.Get("Architecture"))
	return target, os.WriteFile(filepath.Join(dir, target), w.file.Bytes(), 0o644)
}

// pack makes the member a compressed tar archive of these entries; the last
// one is a file with that content, the others are directories.
func (w *debWriter) pack(entries []tar.Header, content string) error {
	w.member.Reset()
	if w.zip == nil {
		w.zip = gzip.NewWriter(&w.member)
	} else {
		w.zip.Reset(&w.member)
	}
	t := tar.NewWriter(w.zip)
	for i, h := range entries {
		h.Mode, h.Typeflag, h.Uname, h.Gname, h.ModTime, h.Format = 0o755, tar.TypeDir, "root", "root", made, tar.FormatGNU
		if i == len(entries)-1 {
			h.Mode, h.Typeflag, h.Size = 0o644, tar.TypeReg, int64(len(content))
		}
		if err := t.WriteHeader(&h); err != nil {
			return err
		}
	}
	if _, err := t.Write([]byte(content)); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return w.zip.Close()
}

// add appends a member to the archive, as deb(5) and ar(5) want it.
func (w *debWriter) add(name string, content []byte) {
	fmt.Fprintf(&w.file, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, made.Unix(), 0, 0, "100644", len(content))
	w.file.Write(content)
	if len(content)%2 == 1 {
		w.file.WriteByte('\n')
	}
}
