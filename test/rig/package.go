package rig

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
)

// Package returns a .deb with one file, /usr/share/<name>/content, which is not
// compressed. The same arguments give the same bytes. fields are lines that
// its control file has besides the usual ones, e.g. "Depends: other".
func Package(name, version, architecture string, content []byte, fields ...string) ([]byte, error) {
	text := fmt.Appendf(nil, "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: Test <test@aptfleet.example>\nDescription: a package for tests\n", name, version, architecture)
	for _, field := range fields {
		text = append(text, field+"\n"...)
	}
	control, err := deb.ParseStanza(text)
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	err = debwriter.Write(&file, debwriter.Spec{
		Control: control, ModTime: time.Unix(1_700_000_000, 0), Compression: debwriter.None,
		Entries: []debwriter.Entry{{
			Path: "/usr/share/" + name + "/content", Mode: 0o644, Size: int64(len(content)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		}},
	})
	return file.Bytes(), err
}
