package sqlite

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"syscall"
	"time"

	"aptfleet/snapshots"
)

// timeFormat is a UTC time of fixed width, so that texts sort like times.
const timeFormat = "2006-01-02T15:04:05.000000Z"

func timeText(t time.Time) string { return t.UTC().Format(timeFormat) }

// optionalTime is NULL for the zero time.
func optionalTime(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return timeText(t)
}

// timeValue scans what timeText or optionalTime wrote.
type timeValue struct{ into *time.Time }

func (v timeValue) Scan(src any) error {
	switch s := src.(type) {
	case nil:
		*v.into = time.Time{}
		return nil
	case string:
		t, err := time.Parse(timeFormat, s)
		*v.into = t
		return err
	}
	return fmt.Errorf("cannot read a time from %T", src)
}

// optionalID is NULL for the zero id.
func optionalID(id snapshots.ID) any {
	if id.IsZero() {
		return nil
	}
	return id[:]
}

// hashValue scans 32 bytes; NULL becomes the zero hash.
type hashValue struct{ into *[32]byte }

func (v hashValue) Scan(src any) error {
	switch b := src.(type) {
	case nil:
		*v.into = [32]byte{}
		return nil
	case []byte:
		if len(b) == len(v.into) {
			copy(v.into[:], b)
			return nil
		}
		return fmt.Errorf("cannot read a hash from %d bytes", len(b))
	}
	return fmt.Errorf("cannot read a hash from %T", src)
}

func idValue(id *snapshots.ID) hashValue { return hashValue{(*[32]byte)(id)} }

// jsonText is v as JSON. What is stored that way are lists of strings and
// plain structs, which always marshal; a nil list becomes [].
func jsonText[T any](v T) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("sqlite: cannot marshal %T: %v", v, err))
	}
	if string(b) == "null" {
		return "[]"
	}
	return string(b)
}

// jsonValue scans what jsonText wrote. NULL leaves the zero value, and an
// empty list becomes nil.
type jsonValue[T any] struct{ into *T }

func (v jsonValue[T]) Scan(src any) error {
	switch s := src.(type) {
	case nil:
		return nil
	case string:
		if s == "[]" {
			return nil
		}
		return json.Unmarshal([]byte(s), v.into)
	}
	return fmt.Errorf("cannot read JSON from %T", src)
}

// list reads all rows through scan.
func list[T any](rows *sql.Rows, err error, scan func(*sql.Rows, *T) error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		var one T
		if err := scan(rows, &one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// classify gives errors of the disk the meaning they have elsewhere, so that
// callers find ENOSPC with errors.Is.
func classify(err error) error {
	if err != nil && isFull(err) {
		return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
	}
	return err
}

// atMost turns a limit of 0 into SQLite's "no limit".
func atMost(limit int) int {
	if limit == 0 {
		return -1
	}
	return limit
}
