package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
	"time"
)

// supersededFile lies in the root of a stage's base and says since when index
// files are there that its InRelease no longer names: lines of a time
// (RFC 3339, UTC) and a path relative to dists/<distribution>. If it is lost,
// the files begin to age anew.
const supersededFile = ".superseded"

// namedBefore returns the by-hash names that a base's InRelease lists,
// relative to dists/<distribution>; none if there is no InRelease.
func (p *Publisher) namedBefore(at place) (map[string]bool, error) {
	text, err := os.ReadFile(p.tree.path(path.Join(at.dists, inReleaseFile)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return byHashNames(text), nil
}

// byHashNames reads the entries of a Release or InRelease file; only entries
// begin with a space and have three words.
func byHashNames(text []byte) map[string]bool {
	names := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if line[0] == ' ' && len(words) == 3 && path.Base(words[2]) != "Packages" {
			names[path.Join(path.Dir(words[2]), "by-hash", "SHA256", words[0])] = true
		}
	}
	return names
}

// supersede removes by-hash files that were superseded long enough ago and
// notes when the others were. What InRelease names now or will name next
// always stays.
func (p *Publisher) supersede(at place, before map[string]bool, next []named) error {
	since := p.readSuperseded(at)
	stays := make(map[string]bool)
	for name := range byHashNames([]byte(section(next))) {
		stays[name] = true
	}
	now := p.now().UTC().Truncate(time.Second)
	var lines []string
	files, err := p.byHashFiles(at)
	if err != nil {
		return err
	}
	for _, name := range files {
		if stays[name] {
			continue
		}
		when, known := since[name]
		if !known || before[name] {
			when = now
		}
		if !before[name] && now.Sub(when) > p.keep {
			if err := p.tree.remove(path.Join(at.dists, name)); err != nil {
				return err
			}
			continue
		}
		lines = append(lines, fmt.Sprintf("%s %s\n", when.Format(time.RFC3339), name))
	}
	return p.tree.write(path.Join(at.root, supersededFile), []byte(strings.Join(lines, "")))
}

// dropPlain removes the names Packages.gz and Packages.zst of indices that the
// base no longer has, as after an undo to before a component was created. Only
// names by hash live on: a client that asks by them has an older InRelease.
func (p *Publisher) dropPlain(at place, now []named) error {
	stays := make(map[string]bool)
	for _, index := range now {
		stays[index.dir] = true
	}
	found, err := fs.Glob(os.DirFS(p.tree.path(at.dists)), "*/binary-*/Packages.*")
	if err != nil {
		return err
	}
	for _, name := range found {
		if stays[path.Dir(name)] {
			continue
		}
		if err := p.tree.remove(path.Join(at.dists, name)); err != nil {
			return err
		}
	}
	return nil
}

// readSuperseded reads what supersede wrote; lines that make no sense are as
// if they were not there.
func (p *Publisher) readSuperseded(at place) map[string]time.Time {
	since := make(map[string]time.Time)
	text, err := os.ReadFile(p.tree.path(path.Join(at.root, supersededFile)))
	if err != nil {
		return since
	}
	for line := range strings.Lines(string(text)) {
		stamp, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if when, err := time.Parse(time.RFC3339, stamp); err == nil {
			since[name] = when
		}
	}
	return since
}

// byHashFiles lists the by-hash files of a base, sorted, relative to
// dists/<distribution>.
func (p *Publisher) byHashFiles(at place) ([]string, error) {
	root := p.tree.path(at.dists)
	found, err := fs.Glob(os.DirFS(root), "*/binary-*/by-hash/SHA256/*")
	sort.Strings(found)
	return found, err
}
