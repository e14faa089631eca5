package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// No two index files were modified in the same second. apt keeps the part of an
// index that it has when an update breaks off. The next update asks for the rest,
// of whatever InRelease names by then, if that was modified when the part was;
// HTTP compares whole seconds. Of an index made in the same second apt would put
// the end behind the beginning of the other.

// newestFile is as old as the newest index, which may be gone while a base still
// has a name of it.
const newestFile = indexStore + "/newest"

// stamp is when the next index is said to be modified: in this second, or in the
// one after the last index's.
func (p *Publisher) stamp() (time.Time, error) {
	at := p.now().UTC().Truncate(time.Second)
	if !at.After(p.newest) {
		at = p.newest.Add(time.Second)
	}
	if err := p.tree.touch(newestFile, at); err != nil {
		return at, err
	}
	p.newest = at
	return at, nil
}

// stamped notes that an index was modified at at, before the Publisher came.
func (p *Publisher) stamped(at time.Time) {
	if at.After(p.newest) {
		p.newest = at.UTC().Truncate(time.Second)
	}
}

// newestMade is when newestFile was modified; zero if it is not there.
func (p *Publisher) newestMade() time.Time {
	info, err := os.Stat(p.tree.path(newestFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// BeginAfter has the index files of a tree that no Publisher has opened be
// modified later than at: clients may have parts of those that another server
// made.
func BeginAfter(public string, at time.Time) error {
	t := newTree(public)
	err := t.mkdir(indexStore)
	if err == nil {
		err = t.touch(newestFile, at)
	}
	if err != nil {
		return fmt.Errorf("cannot write index: %w", err)
	}
	return nil
}

// touch makes rel a file that was modified at at, and makes it if needed.
func (t tree) touch(rel string, at time.Time) error {
	err := os.Chtimes(t.path(rel), at, at)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.WriteFile(t.path(rel), nil, 0o644); err == nil {
			err = os.Chtimes(t.path(rel), at, at)
		}
	}
	return err
}
