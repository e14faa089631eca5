package debwriter_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
)

func ExampleWrite() {
	control, err := deb.ParseStanza([]byte("Package: hello\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@test.example>\nDescription: says hello\n"))
	if err != nil {
		panic(err)
	}
	const text = "hello\n"
	var file bytes.Buffer
	err = debwriter.Write(&file, debwriter.Spec{
		Control: control,
		Entries: []debwriter.Entry{{
			Path: "/usr/share/hello/text", Mode: 0o644, Size: int64(len(text)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil },
		}},
		ModTime: time.Unix(0, 0),
	})
	if err != nil {
		panic(err)
	}
	p, err := deb.Read(&file, deb.Limits{})
	if err != nil {
		panic(err)
	}
	fmt.Println(deb.FileName(p.Name, p.Version, p.Architecture))
	fmt.Println(p.Control.Get("Description"))
	// Output:
	// hello_1.0_all.deb
	// says hello
}
