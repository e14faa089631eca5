package publish

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"aptfleet/snapshots"
)

var amd64 = snapshots.Key{Component: "apps", Architecture: "amd64"}

// storedIndex is a file of an index below .indices.
func (f *fixture) storedIndex(s snapshots.State, suffix string) string {
	return filepath.Join(f.public, IndexKeyOf(s.Index(amd64)).dir(), "Packages"+suffix)
}

// beginning returns n packages of which each begins a chunk: by the rule of
// docs/snapshot-format.md.
func beginning(t testing.TB, n int) (packages []snapshots.Package) {
	for i := 0; len(packages) < n; i++ {
		name := fmt.Sprintf("border%06d", i)
		if sum := sha256.Sum256([]byte(name)); binary.BigEndian.Uint32(sum[:4])%512 == 0 {
			packages = append(packages, described(t, name, "1", "amd64"))
		}
	}
	return packages
}

// Files of an index that are not those that this process wrote are not gone on
// from: whoever put them there, what is published next is good.
func TestAnIndexGoesOnOnlyFromWhatWasWritten(t *testing.T) {
	for name, change := range map[string]func(f *fixture, s snapshots.State){
		"a flipped bit":                  func(f *fixture, s snapshots.State) { flip(t, f.storedIndex(s, ".gz")) },
		"a flipped bit, in another file": func(f *fixture, s snapshots.State) { damage(t, f.storedIndex(s, ".zst")) },
		// As a repair puts them back from what a fixed base lists.
		"frames of another compressor": func(f *fixture, s snapshots.State) {
			var made bytes.Buffer
			for _, ref := range s.Index(amd64).Chunks {
				text, err := f.store.Get(t.Context(), ref.ID)
				if err != nil {
					t.Fatal(err)
				}
				w, err := gzip.NewWriterLevel(&made, gzip.NoCompression)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := w.Write(text); err != nil {
					t.Fatal(err)
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
			}
			replace(t, f.storedIndex(s, ".gz"), made.Bytes())
			key := IndexKeyOf(s.Index(amd64))
			of := f.sums[key]
			of[1].sum, of[1].size = sha256.Sum256(made.Bytes()), int64(made.Len())
			f.sums[key] = of
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			packages := beginning(t, 7)
			state := f.state(packages[:6]...)
			if len(state.Index(amd64).Chunks) != 6 {
				t.Fatal("the packages do not begin chunks")
			}
			f.offer(state)
			change(f, state)
			f.offer(f.state(packages...))
			f.consistent("demo/dev")
		})
	}
}

// An index that cannot go on from the one before is made from nothing the next
// time: a file may have become unreadable.
func TestAnIndexThatCannotGoOnBeginsAnew(t *testing.T) {
	f, packages := newFixture(t), beginning(t, 3)
	f.offer(f.state(packages[:2]...))
	for i := range f.trails["demo "+amd64.String()].marks[1] {
		f.trails["demo "+amd64.String()].marks[1][i].size += 1 << 20 // more than can be read
	}
	f.now = f.now.Add(time.Second)
	next := f.state(packages...)
	if err := f.Stage(t.Context(), demo, "dev", next, Meta{Date: f.now}); err == nil {
		t.Fatal("the index went on from what is not there")
	}
	f.offer(next)
	f.consistent("demo/dev")
}

// Whatever came before, an InRelease says of its indices what they are.
func TestAnyIndexGoesOnFromAnyOther(t *testing.T) {
	f, packages, random := newFixture(t), beginning(t, 12), rand.New(rand.NewPCG(1, 2))
	var before snapshots.State
	for n := range 50 {
		from := random.IntN(len(packages))
		state := f.state(packages[from : from+random.IntN(len(packages)-from)]...)
		meanwhile := random.IntN(8)
		switch {
		case n == 0 || before.Count() == 0:
		case meanwhile == 0:
			if _, err := f.DropIndex(IndexKeyOf(before.Index(amd64))); err != nil {
				t.Fatal(err)
			}
		case meanwhile == 1:
			remove(t, f.storedIndex(before, ".zst"))
		case meanwhile == 2:
			clear(f.sums)
		case meanwhile == 3:
			f.reopen()
		}
		f.offer(state)
		before = state
		f.consistent("demo/dev")
		h := sha256.New()
		for _, ref := range state.Index(amd64).Chunks {
			text, err := f.store.Get(t.Context(), ref.ID)
			if err != nil {
				t.Fatal(err)
			}
			h.Write(text)
		}
		line := fmt.Sprintf(" %x %d apps/binary-amd64/Packages\n", h.Sum(nil), state.Index(amd64).Size())
		if release := read(t, filepath.Join(f.public, "demo/dev/dists/trixie/Release")); !bytes.Contains(release, []byte(line)) {
			t.Fatalf("publication %d: Release does not list %q:\n%s", n, line, release)
		}
	}
}
