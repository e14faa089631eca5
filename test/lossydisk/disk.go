package lossydisk

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"sync"
)

// blockSize is the unit in which a Disk keeps its content, in bytes.
const blockSize = 4096

// SectorSize is what a disk writes whole whatever happens, in bytes: the
// smallest piece of a torn write.
const SectorSize = 512

// content is what a disk holds by block number; what is absent is zeros. A
// block is never modified, only replaced, so that contents can share it.
type content map[int64]*[blockSize]byte

// read fills p from offset on.
func (c content) read(p []byte, offset int64) {
	for len(p) > 0 {
		number, within := offset/blockSize, offset%blockSize
		n := min(int64(len(p)), blockSize-within)
		if block := c[number]; block != nil {
			copy(p[:n], block[within:])
		} else {
			clear(p[:n])
		}
		p, offset = p[n:], offset+n
	}
}

// write puts p at offset. It keeps p.
func (c content) write(p []byte, offset int64) {
	for len(p) > 0 {
		number, within := offset/blockSize, offset%blockSize
		n := min(int64(len(p)), blockSize-within)
		if n == blockSize {
			c[number] = (*[blockSize]byte)(p) // nobody modifies p any more
		} else {
			block := new([blockSize]byte)
			if before := c[number]; before != nil {
				*block = *before
			}
			copy(block[within:], p[:n])
			c[number] = block
		}
		p, offset = p[n:], offset+n
	}
}

// Disk is a disk with a volatile write cache, in memory. Its methods may be
// called by many at once.
type Disk struct {
	size int64

	mu      sync.Mutex
	live    content // what reads see
	stable  content // what a power cut cannot take away
	pending []write // since the last flush, oldest first
	deaf    bool    // flushes are answered and not done

	recording *Recording // who listens, or nil
}

// write is one that was answered and not flushed.
type write struct {
	data   []byte
	offset int64
	forced bool // FUA: durable by itself
}

// NewDisk makes a disk of size bytes, all zeros.
func NewDisk(size int64) *Disk {
	return &Disk{size: size, live: make(content), stable: make(content)}
}

// Size is that of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// Deafen makes the disk answer flushes, and forced writes, without doing what
// they ask. A test that finds nothing on such a disk is blind.
func (d *Disk) Deafen() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deaf = true
}

func (d *Disk) inside(n int, offset int64) error {
	if offset < 0 || int64(n) > d.size-offset {
		return fmt.Errorf("cannot use %d bytes at %d: the disk ends at %d", n, offset, d.size)
	}
	return nil
}

// ReadAt fills p with what was written last.
func (d *Disk) ReadAt(p []byte, offset int64) error {
	if err := d.inside(len(p), offset); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live.read(p, offset)
	return nil
}

// WriteAt takes p, which the caller must not modify any more. It is durable at
// once if forced, else with the next Flush.
func (d *Disk) WriteAt(p []byte, offset int64, forced bool) error {
	if err := d.inside(len(p), offset); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	w := write{data: p, offset: offset, forced: forced}
	d.take(w)
	if d.recording != nil {
		d.recording.events = append(d.recording.events, event{write: w})
	}
	return nil
}

// take does a write. The caller holds mu.
func (d *Disk) take(w write) {
	d.live.write(w.data, w.offset)
	w.forced = w.forced && !d.deaf
	d.pending = append(d.pending, w)
}

// Flush makes durable what was written before it.
func (d *Disk) Flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.recording != nil {
		d.recording.events = append(d.recording.events, event{flush: true})
	}
	if d.deaf {
		return
	}
	d.settle()
}

// settle moves what is pending to what is stable. The caller holds mu.
func (d *Disk) settle() {
	for _, w := range d.pending {
		for number := w.offset / blockSize; number*blockSize < w.offset+int64(len(w.data)); number++ {
			d.stable[number] = d.live[number]
		}
	}
	d.pending = nil
}

// Cut returns the disk as it is found after the power failed at this moment:
// what is durable, and of what is pending a share chosen by random. Some of
// the writes that survive are torn: a random choice of their pieces of tear
// bytes, a multiple of SectorSize. Of two writes to one place the later one
// wins if both survive.
//
// The disk itself goes on as if nothing had happened: whoever still uses it
// lives in a world that does not count any more.
func (d *Disk) Cut(random *rand.Rand, tear int) (*Disk, Losses) {
	return d.cut(random, func(int64) int { return tear })
}

func (d *Disk) cut(random *rand.Rand, tear func(offset int64) int) (*Disk, Losses) {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := &Disk{size: d.size, stable: maps.Clone(d.stable)}
	lost := Losses{Pending: len(d.pending)}
	// Disks differ: one had written almost everything, another almost nothing.
	share := []float64{0, 0.1, 0.5, 0.9, 1}[random.IntN(5)]
	for _, w := range d.pending {
		switch {
		case !w.forced && random.Float64() >= share:
			lost.Lost++
		case !w.forced && len(w.data) > tear(w.offset) && random.IntN(4) == 0:
			lost.Torn++
			piece := tear(w.offset)
			for at := 0; at < len(w.data); at += piece {
				if random.IntN(2) == 0 {
					after.stable.write(w.data[at:min(at+piece, len(w.data))], w.offset+int64(at))
				}
			}
		default:
			after.stable.write(w.data, w.offset)
		}
	}
	after.live = maps.Clone(after.stable)
	return after, lost
}

// Clone returns a disk that holds the same, all of it durable.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Disk{size: d.size, stable: maps.Clone(d.live), live: maps.Clone(d.live)}
}

// Save writes a stretch of the disk into a new file, with holes where nothing
// was ever written.
func (d *Disk) Save(path string, p Part) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("cannot save disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(p.Size); err != nil {
		return fmt.Errorf("cannot save disk: %w", err)
	}
	for number, block := range d.live {
		if at := number*blockSize - p.Offset; at >= 0 && at < p.Size {
			if _, err := f.WriteAt(block[:min(blockSize, p.Size-at)], at); err != nil {
				return fmt.Errorf("cannot save disk: %w", err)
			}
		}
	}
	return nil
}

// Losses says what became of the writes that were pending at a cut.
type Losses struct{ Pending, Lost, Torn int }

// Add adds those of another cut.
func (l *Losses) Add(other Losses) {
	l.Pending += other.Pending
	l.Lost += other.Lost
	l.Torn += other.Torn
}

func (l Losses) String() string {
	return fmt.Sprintf("of %d writes that were not flushed %d were lost and %d torn", l.Pending, l.Lost, l.Torn)
}
