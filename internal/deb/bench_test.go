package deb_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"aptfleet/internal/deb"
)

// BenchmarkRead is the ingest path for small packages of each compression.
func BenchmarkRead(b *testing.B) {
	dir := tree(b)
	for _, compression := range []string{"gzip", "xz", "zstd"} {
		file := filepath.Join(b.TempDir(), "hello.deb")
		dpkgDeb(b, "--root-owner-group", "-Z"+compression, "-b", dir, file)
		data, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(compression, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			var r deb.Reader
			for b.Loop() {
				if _, err := r.Read(bytes.NewReader(data), deb.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStanzaReader reads an index of 1000 paragraphs, as a file and as a
// text in memory.
func BenchmarkStanzaReader(b *testing.B) {
	data := bytes.Repeat([]byte(control+"X-Field: some text of a usual length\n"+"\n"), 1000)
	for name, open := range map[string]func() *deb.StanzaReader{
		"file": func() *deb.StanzaReader { return deb.NewStanzaReader(bytes.NewReader(data), deb.MaxStanza) },
		"text": func() *deb.StanzaReader { return deb.StanzasOf(data, deb.MaxStanza) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				r := open()
				n := 0
				for {
					if _, err := r.Next(); err != nil {
						break
					}
					n++
				}
				if n != 1000 {
					b.Fatalf("read %d paragraphs", n)
				}
			}
		})
	}
}
