package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"aptfleet/internal/deb"
)

// corpus is a set of packages with distinct names, as .deb files in one
// directory.
type corpus struct {
	label string   // "generated", or the Debian release that its stanzas are of; see members.label
	dir   string   // of the files
	files []string // names in dir, sorted as a shell lists them
	count int
	as    members // how the files are compressed
	// stanza returns the control stanza of a package, the same each time. Its
	// fields are those of a control file, without what an index adds.
	stanza func(i int) (deb.Stanza, error)
	// close gives back what stanza needs.
	close func() error
}

// format counts changes of how packages are written; it is part of the key
// of the cache.
const format = "2"

// writtenAtOnce is how many packages share one process that compresses them.
const writtenAtOnce = 250

// fill writes the files of a corpus into a directory below cache, unless they
// are there. key names everything that decides their bytes. The directory
// appears whole or not at all.
func (c *corpus) fill(ctx context.Context, cache, key string, workers int) error {
	sum := sha256.Sum256([]byte(format + " " + string(c.as) + "\n" + key))
	c.dir = filepath.Join(cache, hex.EncodeToString(sum[:8]))
	if err := c.write(ctx, cache, workers); err != nil {
		return fmt.Errorf("cannot make packages: %w", err)
	}
	found, err := os.ReadDir(c.dir)
	if err != nil {
		return fmt.Errorf("cannot read packages: %w", err)
	}
	if len(found) != c.count {
		return fmt.Errorf("cannot use the packages in %s: there are %d instead of %d; remove the directory", c.dir, len(found), c.count)
	}
	c.files = make([]string, len(found))
	for i, entry := range found {
		c.files[i] = entry.Name()
	}
	return nil
}

func (c *corpus) write(ctx context.Context, cache string, workers int) (err error) {
	if _, err := os.Stat(c.dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	partial, err := os.MkdirTemp(cache, ".partial-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(partial)) }()
	if err := os.Chmod(partial, 0o755); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for w := range workers {
		group.Go(func() error {
			out := debWriter{as: c.as}
			for from := w * writtenAtOnce; from < c.count; from += workers * writtenAtOnce {
				var stanzas []deb.Stanza
				for i := from; i < min(from+writtenAtOnce, c.count); i++ {
					stanza, err := c.stanza(i)
					if err != nil {
						return err
					}
					stanzas = append(stanzas, stanza)
				}
				if _, err := out.write(ctx, partial, stanzas...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return os.Rename(partial, c.dir)
}

// newer writes package i into dir in a version that is higher by change, which
// counts from 1.
func (c *corpus) newer(ctx context.Context, dir string, i, change int) (changed, error) {
	stanza, err := c.stanza(i)
	if err != nil {
		return changed{}, err
	}
	// Whatever the version is, it is lower than itself with "+b1" behind.
	version := fmt.Sprintf("%s+b%d", stanza.Get("Version"), change)
	out := debWriter{as: c.as}
	files, err := out.write(ctx, dir, stanza.With("Version", version))
	if err != nil {
		return changed{}, fmt.Errorf("cannot make a newer package: %w", err)
	}
	return changed{path: filepath.Join(dir, files[0]), name: stanza.Get("Package"), version: version}, nil
}

// changed is a package that is newer than the archive's.
type changed struct{ path, name, version string }
