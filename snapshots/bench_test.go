package snapshots

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkBatch adds a batch of new packages to a state of 20,000: sorted, as
// a shell lists files, they lie side by side; spread, in every chunk.
func BenchmarkBatch(b *testing.B) {
	const held, batch = 20000, 1000
	ctx, chunks, key := context.Background(), new(Memory), Key{"apps", "amd64"}
	edit := func(from, n, step int, version string) Edit {
		e := Edit{Component: key.Component}
		for i := range n {
			name := fmt.Sprintf("%c-bench-%05d", 'a'+(from+i*step)*26/held, from+i*step)
			p, err := ParsePackage([]byte(fmt.Sprintf(benchStanza, name, version, 0)))
			if err != nil {
				b.Fatal(err)
			}
			e.Put = append(e.Put, p)
		}
		return e
	}
	state := must[State](b)(Apply(ctx, chunks, must[State](b)(New(ctx, chunks, []Key{key})), edit(0, held, 1, "1.0")))
	for name, e := range map[string]Edit{"sorted": edit(5000, batch, 1, "1.1"), "spread": edit(0, batch, held/batch, "1.1")} {
		b.Run("apply/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must[State](b)(Apply(ctx, chunks, state, e))
			}
		})
		var names []string
		for _, p := range e.Put {
			names = append(names, p.Name)
		}
		b.Run("find/"+name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				must[map[string][]Package](b)(FindAll(ctx, chunks, state, key, names))
			}
		})
	}
}

// benchStanza has the length that stanzas of Debian have on average.
const benchStanza = `Package: %[1]s
Version: %[2]s
Architecture: amd64
Maintainer: Benchmark Maintainers <bench@lists.example.org>
Installed-Size: 1234
Depends: libc6 (>= 2.34), libgcc-s1 (>= 3.4), libstdc++6 (>= 11), zlib1g (>= 1:1.2.8), python3:any (>= 3.11)
Section: utils
Priority: optional
Multi-Arch: same
Homepage: https://www.example.org/projects/bench/
Description: small package of a benchmark
 This package exists so that archives can be filled with many of them. Its
 text has about the length that descriptions of Debian have on average.
Filename: pool/00/00/%[1]s_%[2]s_amd64.deb
Size: 1234
SHA256: %064[3]x
`
