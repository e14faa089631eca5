package lossydisk

import (
	"maps"
	"math/rand/v2"
)

// Recording is what a disk was told from a moment on: every write and every
// flush, in order. The disk can be had as a power cut at any of these moments
// would have left it, while it goes on.
type Recording struct {
	disk   *Disk
	base   content // what was durable when it began
	events []event // guarded by the disk's mu
}

// event is a write, or a flush.
type event struct {
	write
	flush bool
}

// Record begins a recording. What is pending is durable from here on: whoever
// wants it to be lost too must begin before. A disk has one recording at a time.
func (d *Disk) Record() *Recording {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settle()
	d.recording = &Recording{disk: d, base: maps.Clone(d.stable)}
	return d.recording
}

// Stop ends the recording.
func (r *Recording) Stop() {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	r.disk.recording = nil
}

// Len is how many events there are until now.
func (r *Recording) Len() int {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	return len(r.events)
}

// event returns event n.
func (r *Recording) event(n int) event {
	r.disk.mu.Lock()
	defer r.disk.mu.Unlock()
	return r.events[n]
}

// Player plays a recording again on a disk of its own.
type Player struct {
	recording *Recording
	deaf      bool
	disk      *Disk
	at        int // events played
}

// Play returns a player of the recording. One that is deaf plays it on a disk
// that ignores flushes.
func (r *Recording) Play(deaf bool) *Player {
	p := &Player{recording: r, deaf: deaf}
	p.rewind()
	return p
}

func (p *Player) rewind() {
	p.at, p.disk = 0, &Disk{size: p.recording.disk.size, stable: maps.Clone(p.recording.base), live: maps.Clone(p.recording.base), deaf: p.deaf}
}

// Cut returns the disk as it is found after the power failed behind the first n
// events, as Disk.Cut does; tear says for an offset what is written whole there.
// Going on from an earlier cut costs what was written since, going back costs
// all.
func (p *Player) Cut(n int, random *rand.Rand, tear func(offset int64) int) (*Disk, Losses) {
	if n < p.at {
		p.rewind()
	}
	for ; p.at < n; p.at++ {
		switch e := p.recording.event(p.at); {
		case e.flush:
			p.disk.Flush()
		default:
			p.disk.mu.Lock()
			p.disk.take(e.write)
			p.disk.mu.Unlock()
		}
	}
	return p.disk.cut(random, tear)
}
