// Package journal keeps the updater's own record of what it does: one JSON
// object a line, each synced before the act that it announces. After a power
// cut the last whole line says how far things went.
package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/faultpoint"
)

// Phase is where a transaction is. A record of a phase is written before the
// phase does anything.
type Phase string

// The phases in their order. Idle ends a transaction that changed nothing or
// was committed; Failed ends one whose release is not tried again.
const (
	Idle       Phase = "IDLE"
	Check      Phase = "CHECK"
	Preflight  Phase = "PREFLIGHT"
	Download   Phase = "DOWNLOAD"
	Snapshot   Phase = "SNAPSHOT"
	Install    Phase = "INSTALL"
	Verify     Phase = "VERIFY"
	Staged     Phase = "STAGED"
	Finalise   Phase = "FINALISE"
	Reboot     Phase = "REBOOT"
	Trial      Phase = "TRIAL"
	Health     Phase = "HEALTH"
	Commit     Phase = "COMMIT"
	RolledBack Phase = "ROLLED_BACK"
	Failed     Phase = "FAILED"
)

// Record is one line of the journal.
type Record struct {
	Seq         int64     `json:"seq"`
	At          time.Time `json:"at"`
	Transaction int64     `json:"tx"`
	Phase       Phase     `json:"phase"`
	State       string    `json:"state,omitempty"`    // the release: id of its state
	Snapshot    string    `json:"snapshot,omitempty"` // its name, if it has one
	Deployment  int       `json:"deployment"`         // that is made or tried
	From        int       `json:"from"`               // that was booted when it began
	Local       string    `json:"local,omitempty"`    // the overlay on top of the release: its id
	Boot        string    `json:"boot,omitempty"`     // id of the boot that wrote the record
	Manual      bool      `json:"manual,omitempty"`   // a person asked to go back to Deployment
	Bad         bool      `json:"bad,omitempty"`      // HEALTH: the trial failed, for Reason
	Reason      string    `json:"reason,omitempty"`
}

// Open reports whether the record belongs to a transaction that goes on.
func (r Record) Open() bool { return r.Phase != Idle && r.Phase != Failed && r.Phase != "" }

const (
	maxLine = 64 << 10
	// keep is how many records survive when the journal is shortened.
	keep = 500
	// shortenAt is how many records it may hold before that.
	shortenAt = 2000
)

// Journal is an open journal. Its methods may be called from several
// goroutines; only one process may have it open for writing.
type Journal struct {
	path    string
	clock   func() time.Time
	mu      sync.Mutex
	file    *os.File
	size    int64 // bytes of whole records
	records []Record
}

// Open opens the journal at path, or makes an empty one. A torn last line,
// which a power cut leaves, is cut off; a damaged line before the last is an
// error.
func Open(path string, clock func() time.Time) (*Journal, error) {
	records, good, err := read(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if len(records) > shortenAt {
		records = records[len(records)-keep:]
		if good, err = shorten(path, records); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cannot open journal: %w", err)
	}
	if err := f.Truncate(good); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot cut the torn end off %s: %w", path, err), f.Close())
	}
	if err := atomicfile.SyncDir(filepath.Dir(path)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Journal{path: path, clock: clock, file: f, size: good, records: records}, nil
}

// Read returns the records of the journal at path, oldest first, without
// changing it: what a program that only looks wants. No file is no records.
func Read(path string) ([]Record, error) {
	records, _, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return records, err
}

// read returns the whole records and the length in bytes they take.
func read(path string) ([]Record, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("cannot read journal: %w", err)
	}
	defer f.Close()
	var (
		records []Record
		good    int64
		bad     error
	)
	lines := bufio.NewReaderSize(f, maxLine)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, 0, fmt.Errorf("cannot read journal %s: %w", path, err)
		}
		if len(line) == 0 {
			return records, good, nil
		}
		if bad != nil {
			return nil, 0, fmt.Errorf("cannot read journal %s: %w", path, bad)
		}
		var r Record
		whole := line[len(line)-1] == '\n'
		if jsonErr := json.Unmarshal(bytes.TrimSpace(line), &r); jsonErr != nil || !whole || r.Phase == "" {
			// Right if it is the last line, an error if another follows.
			bad = fmt.Errorf("record %d is damaged", len(records)+1)
			continue
		}
		records = append(records, r)
		good += int64(len(line))
	}
}

// shorten replaces the journal by one with only these records and returns its
// length in bytes.
func shorten(path string, records []Record) (int64, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, r := range records {
		if err := enc.Encode(r); err != nil {
			return 0, fmt.Errorf("cannot shorten journal: %w", err)
		}
	}
	if err := atomicfile.Write(path, b.Bytes(), 0o600); err != nil {
		return 0, fmt.Errorf("cannot shorten journal: %w", err)
	}
	return int64(b.Len()), nil
}

// Append writes a record and returns when it is on the disk, with its number
// and time filled in.
func (j *Journal) Append(r Record) (Record, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Seq = 1
	if n := len(j.records); n > 0 {
		r.Seq = j.records[n-1].Seq + 1
	}
	r.At = j.clock().UTC().Truncate(time.Millisecond)
	line, err := json.Marshal(r)
	if err != nil {
		return Record{}, fmt.Errorf("cannot write journal: %w", err)
	}
	line = append(line, '\n')
	// A write that failed half-way (a full disk) is overwritten by the next.
	if _, err := j.file.WriteAt(line, j.size); err != nil {
		return Record{}, fmt.Errorf("cannot write journal: %w", errors.Join(err, j.file.Truncate(j.size)))
	}
	if !faultpoint.SkipJournalSync {
		if err := j.file.Sync(); err != nil {
			return Record{}, fmt.Errorf("cannot sync journal: %w", err)
		}
	}
	faultpoint.Hit("journal:" + string(r.Phase))
	j.size += int64(len(line))
	j.records = append(j.records, r)
	if len(j.records) > shortenAt {
		return r, j.shorten()
	}
	return r, nil
}

// shorten goes on in a file with the newest records only.
func (j *Journal) shorten() error {
	records := j.records[len(j.records)-keep:]
	size, err := shorten(j.path, records)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot open journal: %w", err)
	}
	old := j.file
	j.file, j.size, j.records = f, size, append([]Record(nil), records...)
	return old.Close()
}

// Last returns the newest record; the zero Record if there is none.
func (j *Journal) Last() Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.records) == 0 {
		return Record{}
	}
	return j.records[len(j.records)-1]
}

// Records returns all records, oldest first.
func (j *Journal) Records() []Record {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Record(nil), j.records...)
}

// Close closes the file. Records are on the disk already.
func (j *Journal) Close() error {
	if err := j.file.Close(); err != nil {
		return fmt.Errorf("cannot close journal: %w", err)
	}
	return nil
}
