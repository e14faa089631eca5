package publish

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/snapshots"
)

// BenchmarkPublishAfterOneChange is what one upload into a large repository
// costs after its bytes have arrived: the new state, its own base, and the
// stage, all durable. It is held against a bare loop that hashes and writes the
// same index files, and syncs once. The changed packages lie all over the
// alphabet.
func BenchmarkPublishAfterOneChange(b *testing.B) {
	for _, n := range []int{5000, 20000, 60000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkOneChange(b, n) })
	}
}

func benchmarkOneChange(b *testing.B, n int) {
	ctx := context.Background()
	f := newFixture(b)
	state := f.state(many(b, n)...)
	f.offer(state)
	base := demo
	version := 1

	b.Run("aptfleet", func(b *testing.B) {
		var applied, indexed, shown time.Duration
		for b.Loop() {
			version++
			p := described(b, fmt.Sprintf("filler%05d", version*7919%n), fmt.Sprintf("1.0-%d", version), "amd64")
			begin := time.Now()
			next, err := snapshots.Apply(ctx, f.store, state, snapshots.Edit{Component: "apps", Put: []snapshots.Package{p}})
			if err != nil {
				b.Fatal(err)
			}
			applied += time.Since(begin)
			begin = time.Now()
			text, err := f.ReleaseText(ctx, base, next, Meta{Date: start})
			if err != nil {
				b.Fatal(err)
			}
			indexed += time.Since(begin)
			begin = time.Now()
			signed, err := f.Sign(text)
			if err != nil {
				b.Fatal(err)
			}
			f.now = f.now.Add(time.Second)
			if err := f.Publish(ctx,
				Update{Base: base, Dir: "states/" + next.ID().String(), State: next, Signed: &signed},
				Update{Base: base, Dir: "dev", State: next, Meta: Meta{Date: f.now}},
			); err != nil {
				b.Fatal(err)
			}
			shown += time.Since(begin)
			state = next
		}
		for what, took := range map[string]time.Duration{"ms-state/op": applied, "ms-indices/op": indexed, "ms-sign+sync+show/op": shown} {
			b.ReportMetric(float64(took.Microseconds())/float64(b.N)/1000, what)
		}
	})
	b.Run("bare-loop", func(b *testing.B) {
		key := snapshots.Key{Component: "apps", Architecture: "amd64"}
		dir := filepath.Join(f.public, IndexKeyOf(state.Index(key)).dir())
		var packages []byte
		for _, chunk := range state.Index(key).Chunks {
			text, err := f.store.Get(ctx, chunk.ID)
			if err != nil {
				b.Fatal(err)
			}
			packages = append(packages, text...)
		}
		contents := [][]byte{packages, read(b, filepath.Join(dir, "Packages.gz")), read(b, filepath.Join(dir, "Packages.zst"))}
		target := b.TempDir()
		for round := 0; b.Loop(); round++ {
			for i, content := range contents {
				sum := sha256.Sum256(content)
				if _, err := io.Discard.Write(sum[:]); err != nil {
					b.Fatal(err)
				}
				if i == 0 {
					continue // listed, not written
				}
				if err := os.WriteFile(filepath.Join(target, fmt.Sprint(round, i)), content, 0o644); err != nil {
					b.Fatal(err)
				}
			}
			if err := atomicfile.SyncFS(target); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("promote", func(b *testing.B) {
		for b.Loop() {
			f.now = f.now.Add(time.Second)
			if err := f.Stage(ctx, base, "canary", state, Meta{Date: f.now}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
