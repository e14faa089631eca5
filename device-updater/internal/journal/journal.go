// Package journal keeps the updater's own record of what it does: one JSON
// object a line, each synced before the act that it announces. After a power
// cut the last whole line says how far things went.
package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/faultpoint"
)

const (
	// keep is how many records survive when the journal is shortened, less the
	// beginning of a transaction that would be torn apart.
	keep = 500
	// shortenAt is how many records it may hold before that.
	shortenAt = 2000
)

// Damaged is added to the name of a journal that was damaged in its middle; what
// was whole of it goes on under the name itself.
const Damaged = ".damaged"

// Journal is an open journal. Its methods may be called from several
// goroutines; only one process may have it open for writing.
type Journal struct {
	path  string
	clock func() time.Time
	mu    sync.Mutex
	file  *os.File
	size  int64 // bytes of whole records
	lines []line
}

// Open opens the journal at path, or makes an empty one. A torn end, which a
// power cut leaves, is cut off. Of a journal that is damaged elsewhere, which no
// power cut does, a copy is kept beside it, and the whole records are gone on
// from: a device must stay updatable, and whoever recovers looks at boot control
// and the disk, too.
func Open(path string, clock func() time.Time) (*Journal, error) {
	c, err := read(path)
	if err != nil {
		return nil, err
	}
	if c.damaged {
		if err := atomicfile.Write(path+Damaged, c.raw, 0o600); err != nil {
			return nil, fmt.Errorf("cannot keep the damaged journal: %w", err)
		}
	}
	if c.damaged || len(c.lines) > shortenAt {
		c.lines = newest(c.lines)
		if c.good, err = replace(path, c.lines); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open journal: %w", err)
	}
	if err := f.Truncate(c.good); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot cut the torn end off %s: %w", path, err), f.Close())
	}
	if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Journal{path: path, clock: clock, file: f, size: c.good, lines: c.lines}, nil
}

// Read returns the whole records of the journal at path, oldest first, without
// changing it: what a program that only looks wants. No file is no records.
func Read(path string) ([]Record, error) {
	c, err := read(path)
	return records(c.lines), err
}

func records(lines []line) []Record {
	var all []Record
	for _, l := range lines {
		all = append(all, l.Record)
	}
	return all
}

// content is what a file holds.
type content struct {
	raw     []byte
	lines   []line // that are whole
	good    int64  // bytes before the torn end
	damaged bool   // there are whole records behind one that is not
}

func read(path string) (c content, err error) {
	c.raw, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("cannot read journal: %w", err)
	}
	var at int64
	for raw := range bytes.Lines(c.raw) {
		l, ok := decode(raw)
		if ok {
			c.damaged = c.damaged || c.good != at
			c.lines = append(c.lines, l)
		}
		if at += int64(len(raw)); ok {
			c.good = at
		}
	}
	return c, nil
}

// newest returns the records that survive: the newest, in whole transactions but
// for one that alone is too long. Of attempts in a row at one release that came
// to nothing only the last counts: else a week without room on the disk would
// make the journal forget what the device was before.
func newest(lines []line) []line {
	var kept []line
	for from := 0; from < len(lines); {
		to := endOf(lines, from)
		if to == len(lines) || !repeated(lines[from:to], lines[to:endOf(lines, to)]) {
			kept = append(kept, lines[from:to]...)
		}
		from = to
	}
	from := max(0, len(kept)-keep)
	for i := from; from > 0 && i < len(kept); i++ {
		if kept[i].Transaction != kept[i-1].Transaction {
			return kept[i:]
		}
	}
	return kept[from:]
}

// endOf is where the transaction ends that begins at from.
func endOf(lines []line, from int) int {
	to := from + 1
	for to < len(lines) && lines[to].Transaction == lines[from].Transaction {
		to++
	}
	return to
}

// repeated reports whether both transactions ended before anything was staged
// of the same release.
func repeated(one, next []line) bool {
	a, b := one[len(one)-1], next[len(next)-1]
	return cameToNothing(one) && cameToNothing(next) && a.State == b.State && a.Local == b.Local
}

func cameToNothing(lines []line) bool {
	n := len(lines)
	return lines[n-1].Phase == Idle && n > 1 && lines[n-2].Recovery() == Unfinished && lines[n-1].Reason != ""
}

// replace replaces the journal by one with only these lines, as they are, and
// returns its length in bytes. Interrupted, it leaves the old one or the new one.
func replace(path string, lines []line) (int64, error) {
	var b bytes.Buffer
	for _, l := range lines {
		b.Write(l.raw)
	}
	if err := atomicfile.Write(path, b.Bytes(), 0o600); err != nil {
		return 0, fmt.Errorf("cannot shorten journal: %w", err)
	}
	return int64(b.Len()), nil
}

// Append writes a record and returns when it is on the disk, with its number,
// time, format and class filled in, and its reason cut to 2000 bytes. After an
// error the record counts as not written; a power cut may prove that wrong.
func (j *Journal) Append(r Record) (Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Seq = 1
	if n := len(j.lines); n > 0 {
		r.Seq = j.lines[n-1].Seq + 1
	}
	r.At = j.clock().UTC().Truncate(time.Millisecond)
	l, err := encode(r)
	if err != nil {
		return Record{}, fmt.Errorf("cannot write journal: %w", err)
	}
	if _, err := j.file.WriteAt(l.raw, j.size); err != nil {
		return Record{}, fmt.Errorf("cannot write journal: %w", errors.Join(err, j.file.Truncate(j.size)))
	}
	if !faultpoint.SkipJournalSync {
		if err := j.file.Sync(); err != nil {
			// Else a longer line than the next would stick out behind that.
			return Record{}, fmt.Errorf("cannot sync journal: %w", errors.Join(err, j.file.Truncate(j.size)))
		}
	}
	faultpoint.Hit("journal:" + string(l.Phase))
	j.size += int64(len(l.raw))
	j.lines = append(j.lines, l)
	if len(j.lines) > shortenAt {
		return l.Record, j.shorten()
	}
	return l.Record, nil
}

// shorten goes on in a file with the newest records only.
func (j *Journal) shorten() error {
	lines := newest(j.lines)
	size, err := replace(j.path, lines)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot open journal: %w", err)
	}
	old := j.file
	j.file, j.size, j.lines = f, size, lines
	return old.Close()
}

// Last returns the newest record; the zero Record if there is none.
func (j *Journal) Last() Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.lines) == 0 {
		return Record{}
	}
	return j.lines[len(j.lines)-1].Record
}

// Records returns all records, oldest first.
func (j *Journal) Records() []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return records(j.lines)
}

// Close closes the file. Records are on the disk already.
func (j *Journal) Close() error {
	if err := j.file.Close(); err != nil {
		return fmt.Errorf("cannot close journal: %w", err)
	}
	return nil
}
