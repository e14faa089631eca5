package build

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"aptfleet/builder/internal/manifest"
	"aptfleet/internal/debwriter"
)

// collector turns a manifest's contents into a package's entries.
type collector struct {
	m       *manifest.Manifest
	dir     string // of the manifest
	entries []debwriter.Entry
	taken   map[string]place
	sources []string // files of this machine that go into the package
}

// place is where a path of the package comes from.
type place struct {
	index int // in entries
	line  int // of the manifest
}

// collect resolves all contents. Files are looked at, not read, but for manual
// pages.
func collect(m *manifest.Manifest, dir string) (*collector, error) {
	c := &collector{m: m, dir: dir, taken: map[string]place{}}
	for _, content := range m.Contents {
		if err := c.content(content); err != nil {
			return nil, fmt.Errorf("cannot collect contents: %s:%d: %w", m.File, content.Line, err)
		}
	}
	return c, nil
}

func (c *collector) content(content manifest.Content) error {
	destination := path.Clean(content.Destination)
	switch content.Type {
	case manifest.TypeDir:
		return c.add(content, debwriter.Entry{Path: destination, Mode: fs.ModeDir | mode(content, 0o755)})
	case manifest.TypeSymlink:
		return c.add(content, debwriter.Entry{Path: destination, Mode: fs.ModeSymlink | 0o777, Link: content.Source})
	case manifest.TypeTree:
		return c.tree(content, c.source(content.Source), destination)
	}
	if isPattern(content.Source) && !c.m.NoGlobs {
		found, err := glob(c.dir, content.Source)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("the pattern %s matches no file", content.Source)
		}
		for _, match := range found {
			if err := c.file(content, match.path, path.Join(destination, match.relative)); err != nil {
				return err
			}
		}
		return nil
	}
	source := c.source(content.Source)
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return c.tree(content, source, destination)
	}
	if strings.HasSuffix(content.Destination, "/") {
		destination = path.Join(destination, filepath.Base(source))
	}
	return c.file(content, source, destination)
}

// source returns the path of a source on this machine.
func (c *collector) source(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(c.dir, name)
}

// tree adds a directory with everything below it; links stay links.
func (c *collector) tree(content manifest.Content, source, destination string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no directory", content.Source)
	}
	return filepath.WalkDir(source, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(source, file)
		if err != nil {
			return err
		}
		at := path.Join(destination, filepath.ToSlash(relative))
		switch {
		case d.IsDir() && content.Type != manifest.TypeTree:
			return nil // made as a parent of what lies in it
		case d.IsDir():
			// file_info.mode is for the files of a tree.
			return c.add(content, debwriter.Entry{Path: at, Mode: fs.ModeDir | 0o755})
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(file)
			if err != nil {
				return err
			}
			c.sources = append(c.sources, file)
			return c.add(content, debwriter.Entry{Path: at, Mode: fs.ModeSymlink | 0o777, Link: target})
		}
		return c.file(content, file, at)
	})
}

// file adds one plain file.
func (c *collector) file(content manifest.Content, source, destination string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a plain file nor a directory", source)
	}
	normal := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 {
		normal = 0o755
	}
	c.sources = append(c.sources, source)
	entry, err := packManual(debwriter.Entry{
		Path:     destination,
		Mode:     mode(content, normal),
		Size:     info.Size(),
		Open:     func() (io.ReadCloser, error) { return os.Open(source) },
		Conffile: content.Type == manifest.TypeConfig,
	}, source)
	if err != nil {
		return err
	}
	return c.add(content, entry)
}

// add completes an entry. A directory may be given more than once.
func (c *collector) add(content manifest.Content, e debwriter.Entry) error {
	e.Owner, e.Group, e.ModTime = content.Owner, content.Group, content.ModTime
	if other, taken := c.taken[e.Path]; taken {
		if c.entries[other.index].Mode.IsDir() && e.Mode.IsDir() {
			return nil
		}
		return fmt.Errorf("%s is already taken by line %d", e.Path, other.line)
	}
	c.taken[e.Path] = place{len(c.entries), content.Line}
	c.entries = append(c.entries, e)
	return nil
}

// has reports whether the manifest itself brings a path.
func (c *collector) has(path string) bool {
	_, taken := c.taken[path]
	return taken
}

func mode(content manifest.Content, normal fs.FileMode) fs.FileMode {
	if content.Mode != nil {
		return *content.Mode
	}
	return normal
}
