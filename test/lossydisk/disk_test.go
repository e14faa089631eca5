package lossydisk

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestCut holds a disk against the plain rules: what was flushed or forced is
// there after a cut unless something newer is, and every sector holds
// something that was written to it.
func TestCut(t *testing.T) {
	t.Parallel()
	const sectors = 32
	rapid.Check(t, func(t *rapid.T) {
		d := NewDisk(sectors * SectorSize)
		var newest [sectors]byte
		may := make([]map[byte]bool, sectors) // what each sector may hold after a cut
		for i := range may {
			may[i] = map[byte]bool{0: true}
		}
		mark := byte(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.IntRange(0, 5).Draw(t, "step") == 0 {
				d.Flush()
				for i := range may {
					may[i] = map[byte]bool{newest[i]: true}
				}
				continue
			}
			mark++
			first := rapid.IntRange(0, sectors-1).Draw(t, "first")
			n := rapid.IntRange(1, min(12, sectors-first)).Draw(t, "n")
			forced := rapid.Bool().Draw(t, "forced")
			if err := d.WriteAt(bytes.Repeat([]byte{mark}, n*SectorSize), int64(first*SectorSize), forced); err != nil {
				t.Fatal(err)
			}
			for i := first; i < first+n; i++ {
				newest[i] = mark
				if forced {
					may[i] = map[byte]bool{}
				}
				may[i][mark] = true
			}
		}
		after, _ := d.Cut(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), SectorSize)
		for i := range sectors {
			var now, then [SectorSize]byte
			if err := d.ReadAt(now[:], int64(i*SectorSize)); err != nil {
				t.Fatal(err)
			}
			if err := after.ReadAt(then[:], int64(i*SectorSize)); err != nil {
				t.Fatal(err)
			}
			if now != [SectorSize]byte(bytes.Repeat([]byte{newest[i]}, SectorSize)) {
				t.Fatalf("sector %d is read as %d, and %d was written", i, now[0], newest[i])
			}
			if !may[i][then[0]] || then != [SectorSize]byte(bytes.Repeat(then[:1], SectorSize)) {
				t.Fatalf("after the cut sector %d holds %d; possible is %v", i, then[0], may[i])
			}
		}
	})
}

func TestOutside(t *testing.T) {
	t.Parallel()
	d := NewDisk(8192)
	for _, c := range []struct {
		n      int
		offset int64
	}{{1, 8192}, {8193, 0}, {4096, 4097}, {1, -1}, {1, 1 << 62}} {
		if d.ReadAt(make([]byte, c.n), c.offset) == nil || d.WriteAt(make([]byte, c.n), c.offset, false) == nil {
			t.Errorf("%d bytes at %d were taken", c.n, c.offset)
		}
	}
}

// world is a mounted device.
type world struct {
	t      *testing.T
	fs     FileSystem
	disk   *Disk
	device *Device
	top    string
}

func newWorld(t *testing.T, fs FileSystem) *world {
	t.Helper()
	w := &world{t: t, fs: fs, disk: NewDisk(fs.Size), top: t.TempDir()}
	w.attach()
	if err := w.device.Format(t.Context(), fs); err != nil {
		t.Fatal(err)
	}
	if err := w.device.Mount(fs, w.top); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.device.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) attach() {
	w.t.Helper()
	var err error
	if w.device, err = Attach(w.t.Context(), w.disk, w.t.TempDir()); err != nil {
		w.t.Fatal(err)
	}
}

// cut replaces the device by what a power cut leaves of it. ok is false if
// that cannot even be mounted.
func (w *world) cut(random *rand.Rand) (lost Losses, ok bool) {
	w.t.Helper()
	after, lost := w.disk.Cut(random, w.fs.Tear)
	if err := w.device.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.disk = after
	w.attach()
	if err := w.device.Mount(w.fs, w.top); err != nil {
		w.t.Logf("after the cut: %v", err)
		return lost, false
	}
	return lost, true
}

// write makes a file of 20 kB, and syncs it and its directory if durable.
func (w *world) write(name string, durable bool) {
	w.t.Helper()
	file, err := os.Create(filepath.Join(w.top, name))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := file.Write(text(name)); err != nil {
		w.t.Fatal(err)
	}
	if durable {
		if err := file.Sync(); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := file.Close(); err != nil {
		w.t.Fatal(err)
	}
}

func text(name string) []byte { return bytes.Repeat([]byte(name+"\n"), 20000/len(name)) }

func (w *world) has(name string) bool {
	w.t.Helper()
	content, err := os.ReadFile(filepath.Join(w.top, name))
	return err == nil && bytes.Equal(content, text(name))
}

// TestPowerCuts writes files with and without a sync. Those with one survive
// every cut; of the others some are lost, else the disk loses nothing. On a
// disk that ignores flushes those with a sync are lost too, else nothing here
// could ever be found.
func TestPowerCuts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("a block device needs root; make test runs as root")
	}
	const cuts, files = 6, 8
	for _, fs := range []FileSystem{Ext4, Btrfs} {
		for _, deaf := range []bool{false, true} {
			name := fs.Name
			if deaf {
				name += ", ignoring flushes"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(1, 0))
				w := newWorld(t, fs)
				var durable, gone, pending int
				for cut := range cuts {
					if deaf {
						w.disk.Deafen()
					}
					for n := range files {
						w.write(fileName("durable", cut, n), true)
					}
					for n := range files {
						w.write(fileName("volatile", cut, n), false)
					}
					if cut%2 == 0 { // written back, and not flushed
						if err := writeBack(filepath.Join(w.top, fileName("volatile", cut, 0))); err != nil {
							t.Fatal(err)
						}
					}
					lost, ok := w.cut(random)
					pending += lost.Pending
					if !ok {
						durable += files
						w = newWorld(t, fs)
						continue
					}
					for n := range files {
						if !w.has(fileName("durable", cut, n)) {
							durable++
						}
						if !w.has(fileName("volatile", cut, n)) {
							gone++
						}
					}
				}
				t.Logf("%d cuts: %d writes were pending; lost %d of %d synced files and %d of %d others", cuts, pending, durable, cuts*files, gone, cuts*files)
				if deaf && durable == 0 {
					t.Error("nothing was lost although every flush was ignored")
				}
				if !deaf && (durable > 0 || gone == 0) {
					t.Errorf("lost %d synced files, want none; and %d others, want some", durable, gone)
				}
			})
		}
	}
}

func fileName(kind string, cut, n int) string {
	return kind + string(rune('a'+cut)) + string(rune('a'+n))
}

// writeBack has the kernel send a file's pages to the disk without a flush.
func writeBack(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return unix.SyncFileRange(int(file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
}
