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
			for b.Loop() {
				if _, err := deb.Read(bytes.NewReader(data), deb.Limits{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStanzaReader reads an index of 1000 paragraphs.
func BenchmarkStanzaReader(b *testing.B) {
	data := bytes.Repeat([]byte(control+"X-Field: some text of a usual length\n"+"\n"), 1000)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		r := deb.NewStanzaReader(bytes.NewReader(data), deb.MaxStanza)
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
}
