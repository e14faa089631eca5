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

	"aptfleet/snapshots"
)

// BenchmarkPublishAfterOneChange is what one upload into a repository of
// 20,000 packages costs after its bytes have arrived: the new state, its own
// base, and the stage. It is held against the bare loop that hashes and writes
// the same index files.
func BenchmarkPublishAfterOneChange(b *testing.B) {
	ctx := context.Background()
	f := newFixture(b)
	state := f.state(many(b, 20000)...)
	f.offer(state)
	base := demo

	b.Run("aptfleet", func(b *testing.B) {
		var applied, fixed time.Duration
		for i := 0; b.Loop(); i++ {
			begin := time.Now()
			p := described(b, fmt.Sprintf("filler%05d", i*7919%20000), fmt.Sprintf("1.0-%d", i+2), "amd64")
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
			signed, err := f.Sign(text)
			if err != nil {
				b.Fatal(err)
			}
			if err := f.Fixed(ctx, base, "states/"+next.ID().String(), next, signed); err != nil {
				b.Fatal(err)
			}
			fixed += time.Since(begin)
			f.offer(next)
			state = next
		}
		b.ReportMetric(float64(applied.Microseconds())/float64(b.N)/1000, "ms-state/op")
		b.ReportMetric(float64(fixed.Microseconds())/float64(b.N)/1000, "ms-fixed/op")
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
		for b.Loop() {
			for i, content := range contents {
				sum := sha256.Sum256(content)
				if _, err := io.Discard.Write(sum[:]); err != nil {
					b.Fatal(err)
				}
				if i == 0 {
					continue // listed, not written
				}
				if err := os.WriteFile(filepath.Join(target, fmt.Sprint(i)), content, 0o644); err != nil {
					b.Fatal(err)
				}
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
