package publish

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"aptfleet/snapshots"
)

// What is taken out of the tree is renamed to a temporary name first: it is
// there as a whole or not at all, and what a crash leaves of it goes with the
// next New.

// Dirs lists the fixed bases of a pipeline that are in the tree, whatever the
// database says: "snapshots/<id>" and "states/<state id>".
func (p *Publisher) Dirs(pipeline string) ([]string, error) {
	if err := ValidPipeline(pipeline); err != nil {
		return nil, err
	}
	var dirs []string
	for _, kind := range []string{"snapshots", "states"} {
		entries, err := os.ReadDir(p.tree.path(path.Join(pipeline, kind)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("cannot list bases of %s: %w", pipeline, err)
		}
		for _, entry := range entries {
			if dir := path.Join(kind, entry.Name()); entry.IsDir() && fixedDirectory.MatchString(dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs, nil
}

// Withdraw takes a fixed base out of the tree: at no moment does it offer a
// part of what it did. One that is not there is no error. The caller knows that
// it is not to be published again as it was.
func (p *Publisher) Withdraw(pipeline, dir string) error {
	if err := ValidPipeline(pipeline); err != nil {
		return err
	}
	if !fixedDirectory.MatchString(dir) {
		return fmt.Errorf("cannot withdraw %q: want snapshots/<id> or states/<id>", dir)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	root := path.Join(pipeline, dir)
	p.touch(place{root: root})
	if err := p.tree.takeAway(root); err != nil {
		return fmt.Errorf("cannot withdraw %s of %s: %w", dir, pipeline, err)
	}
	return nil
}

// Indices calls f for all index files that are kept for bases, with the bytes
// they take. Files that are made meanwhile may be missing.
func (p *Publisher) Indices(f func(key IndexKey, bytes int64)) error {
	return p.eachIndex(func(key IndexKey, bytes int64, _ time.Time) { f(key, bytes) })
}

// eachIndex is Indices that also says when the newest file of each was
// modified.
func (p *Publisher) eachIndex(f func(key IndexKey, bytes int64, modified time.Time)) error {
	found, err := filepath.Glob(p.tree.path(path.Join(indexStore, "??", "*")))
	if err != nil {
		return err
	}
	for _, dir := range found {
		id, err := snapshots.ParseID(filepath.Base(dir))
		if err != nil {
			continue // not ours to judge
		}
		bytes, modified, err := p.indexStat(dir)
		if err != nil {
			return fmt.Errorf("cannot list index files: %w", err)
		}
		f(IndexKey(id), bytes, modified)
	}
	return nil
}

// indexStat returns the bytes of the files in the directory of an index, and
// when the newest was modified.
func (p *Publisher) indexStat(dir string) (bytes int64, modified time.Time, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, modified, err
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil {
			bytes += info.Size()
			if entry.Name() != sumsFile && info.ModTime().After(modified) {
				modified = info.ModTime()
			}
		}
	}
	return bytes, modified, nil
}

// IndexBytes returns how many bytes index files take, those that are superseded
// among them. It is kept count of and costs nothing.
func (p *Publisher) IndexBytes() int64 { return p.indexBytes.Load() }

// DropIndex takes index files away; bases that have names of them keep those.
// It returns false, and does nothing, if a publication that was cut short has
// yet to use them. Files that are not there are no error.
func (p *Publisher) DropIndex(key IndexKey) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.unsealed[key] {
		return false, nil
	}
	delete(p.sums, key)
	bytes, _, err := p.indexStat(p.tree.path(key.dir()))
	if err == nil {
		err = p.tree.takeAway(key.dir())
	}
	if err != nil {
		return false, fmt.Errorf("cannot remove index files %s: %w", hex.EncodeToString(key[:]), err)
	}
	p.indexBytes.Add(-bytes)
	return true, nil
}

// takeAway removes a directory, all at once; one that is not there is no error.
func (t tree) takeAway(rel string) error {
	if _, err := os.Lstat(t.path(rel)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	tmp, err := os.MkdirTemp(t.path(temporary), "")
	if err != nil {
		return err
	}
	if err := t.step("takeaway", rel); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	err = os.Rename(t.path(rel), filepath.Join(tmp, "gone"))
	return errors.Join(err, os.RemoveAll(tmp))
}
