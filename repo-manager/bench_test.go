package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
	"aptfleet/internal/protocol"
)

// BenchmarkIngest is what one small package costs that arrives with many
// others, sorted as a shell lists them, from the client to the answer after its
// publication: both sides together, in a repository that grows with it.
func BenchmarkIngest(b *testing.B) {
	s := serve(b, local(shortDir(b)+"/data"))
	api, ctx := s.api(), b.Context()
	_, err := api.CreatePipeline(ctx, protocol.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"}})
	must(b, err)
	_, err = api.CreateRepository(ctx, "demo", "apps", 1)
	must(b, err)
	packages, tmp := make([][]byte, b.N), b.TempDir()
	for i := range packages {
		packages[i] = smallPackage(b, tmp, fmt.Sprintf("%c-bench-%06d", 'a'+i*26/b.N, i))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for from := 0; from < len(packages); from += parcelFiles {
		parcel := packages[from:min(from+parcelFiles, len(packages))]
		answers, err := api.UploadAll(ctx, "demo", "apps", func(yield func(string, []byte) bool) {
			for i, content := range parcel {
				if !yield(fmt.Sprintf("%d.deb", i), content) {
					return
				}
			}
		}, false)
		must(b, err)
		for _, a := range answers {
			must(b, client.Refusal(a))
		}
	}
}

// smallPackage has a control file of the length that Debian's have on average.
// It is not compressed: to unpack it is measured by package deb, and to pack it
// would take longer than everything else.
func smallPackage(b testing.TB, tmp, name string) []byte {
	b.Helper()
	control, err := deb.ParseStanza([]byte("Package: " + name + `
Version: 1.0-1
Architecture: amd64
Maintainer: Benchmark Maintainers <bench@lists.example.org>
Installed-Size: 12
Depends: libc6 (>= 2.34), libgcc-s1 (>= 3.4), libstdc++6 (>= 11), zlib1g (>= 1:1.2.8), python3:any (>= 3.11)
Section: utils
Priority: optional
Homepage: https://www.example.org/projects/bench/
Description: small package of a benchmark
 This package exists so that archives can be filled with many of them. Its
 text has about the length that descriptions of Debian have on average.
`))
	must(b, err)
	var file bytes.Buffer
	must(b, debwriter.Write(&file, debwriter.Spec{Control: control, ModTime: time.Unix(1700000000, 0), Compression: debwriter.None, TempDir: tmp}))
	return file.Bytes()
}

// nowhere is an answer that nobody reads.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}

// What a small request to the archive costs, to a public and to a private
// pipeline; 10,000 a second must leave room for other work.
func BenchmarkArchive(b *testing.B) {
	r := serve(b, local(filepath.Join(shortDir(b), "data")))
	r.demo("open", false)
	r.demo("secret", true)
	_, err := r.api().CreateUser(b.Context(), "ann", []string{"viewer"})
	must(b, err)
	token, err := r.api().CreateToken(b.Context(), protocol.NewToken{User: "ann"})
	must(b, err)
	pool, err := filepath.Glob(filepath.Join(r.settings.Data, "public/pool/*/*/*.deb"))
	must(b, err)
	file, err := filepath.Rel(filepath.Join(r.settings.Data, "public"), pool[0])
	must(b, err)
	for _, pipeline := range []string{"open", "secret"} {
		for name, path := range map[string]string{"index": "dists/trixie/InRelease", "package": file} {
			b.Run(pipeline+"/"+name, func(b *testing.B) {
				req := httptest.NewRequest(http.MethodHead, "/"+pipeline+"/dev/"+path, nil)
				req.RemoteAddr = "127.0.0.1:1"
				req.SetBasicAuth("ann", token.Secret)
				for b.Loop() {
					w := &nowhere{header: http.Header{}}
					r.archive.ServeHTTP(w, req)
					if w.header.Get("Last-Modified") == "" {
						b.Fatal("it was refused")
					}
				}
			})
		}
	}
}
