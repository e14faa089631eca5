package lossydisk

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// TestPlayer holds what a player makes of a recording against the disk itself:
// cut at the same moment, with the same choices, they are left alike, whatever
// else the player was asked before, and whatever the disk does afterwards.
func TestPlayer(t *testing.T) {
	t.Parallel()
	const size = 8 * blockSize
	tear := func(int64) int { return SectorSize }
	rapid.Check(t, func(t *rapid.T) {
		d := NewDisk(size)
		act := func() {
			if rapid.IntRange(0, 4).Draw(t, "act") == 0 {
				d.Flush()
				return
			}
			first := rapid.IntRange(0, size/SectorSize-1).Draw(t, "first")
			n := rapid.IntRange(1, min(20, size/SectorSize-first)).Draw(t, "n")
			data := bytes.Repeat([]byte{rapid.Byte().Draw(t, "mark")}, n*SectorSize)
			if err := d.WriteAt(data, int64(first*SectorSize), rapid.Bool().Draw(t, "forced")); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(0, 5).Draw(t, "before") {
			act()
		}
		seed := rapid.Uint64().Draw(t, "seed")
		random := func() *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }
		r := d.Record()
		var want []*Disk
		cut := func() {
			after, _ := d.Cut(random(), SectorSize)
			want = append(want, after)
		}
		cut()
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			act()
			cut()
		}
		r.Stop()
		act()
		if r.Len() != len(want)-1 {
			t.Fatalf("%d events are recorded, and there were %d", r.Len(), len(want)-1)
		}
		player := r.Play(false)
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, r.Len()), 1, 10).Draw(t, "cuts") {
			got, _ := player.Cut(n, random(), tear)
			var a, b [size]byte
			if err := got.ReadAt(a[:], 0); err != nil {
				t.Fatal(err)
			}
			if err := want[n].ReadAt(b[:], 0); err != nil {
				t.Fatal(err)
			}
			if a != b {
				t.Fatalf("cut behind event %d the player's disk is another", n)
			}
		}
	})
}

// TestDeafPlayer: on a disk that ignores flushes everything that was recorded
// can be lost.
func TestDeafPlayer(t *testing.T) {
	t.Parallel()
	d := NewDisk(blockSize)
	r := d.Record()
	if err := d.WriteAt(bytes.Repeat([]byte{1}, blockSize), 0, true); err != nil {
		t.Fatal(err)
	}
	d.Flush()
	lost := map[bool]int{}
	for _, deaf := range []bool{false, true} {
		player := r.Play(deaf)
		for seed := range uint64(40) {
			after, losses := player.Cut(r.Len(), rand.New(rand.NewPCG(seed, 0)), func(int64) int { return blockSize })
			var p [1]byte
			if err := after.ReadAt(p[:], 0); err != nil {
				t.Fatal(err)
			}
			if (p[0] == 0) != (losses.Lost == 1) {
				t.Fatalf("it holds %d, and %v", p[0], losses)
			}
			lost[deaf] += losses.Lost
		}
	}
	if lost[false] > 0 || lost[true] == 0 {
		t.Errorf("of 40 cuts %d lost what was flushed, and %d on a disk that ignores flushes", lost[false], lost[true])
	}
}
