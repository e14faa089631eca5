package publish

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// supersededFile lies in the root of a stage's base and says since when index
// files are there that its InRelease no longer names: lines of a time
// (RFC 3339, UTC) and a path relative to dists/<distribution>. If it is lost,
// the files begin to age anew.
const supersededFile = ".superseded"

// aging is the superseded index files of a stage, by name relative to
// dists/<distribution>.
type aging map[string]aged

type aged struct {
	since time.Time
	size  int64 // bytes
}

// namedBefore returns the by-hash names that a base's InRelease lists, relative
// to dists/<distribution>, with their sizes; none if there is no InRelease.
func (p *Publisher) namedBefore(at place) (map[string]int64, error) {
	text, err := os.ReadFile(p.tree.path(path.Join(at.dists, inReleaseFile)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return byHashNames(text), nil
}

// byHashNames reads the entries of a Release or InRelease file; only entries
// begin with a space and have three words.
func byHashNames(text []byte) map[string]int64 {
	names := make(map[string]int64)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if line[0] != ' ' || len(words) != 3 || path.Base(words[2]) == "Packages" {
			continue
		}
		if size, err := strconv.ParseInt(words[1], 10, 64); err == nil {
			names[path.Join(path.Dir(words[2]), "by-hash", "SHA256", words[0])] = size
		}
	}
	return names
}

// supersede removes by-hash files that were superseded long enough ago, the
// oldest also before their time if all of them need more than the budget, and
// notes when the others were. What InRelease names now or will name next always
// stays. It returns what is left, to be remembered once InRelease has moved: if
// it does not, the directories tell what is there besides.
func (p *Publisher) supersede(at place, before map[string]int64, next []named) (aging, error) {
	now := p.now().UTC().Truncate(time.Second)
	old, err := p.agingOf(at, before, now)
	if err != nil {
		return nil, err
	}
	delete(p.aging, at.root)
	for name, size := range before {
		old[name] = aged{now, size}
	}
	for name := range byHashNames([]byte(section(next))) {
		delete(old, name)
	}
	names := slices.SortedFunc(maps.Keys(old), func(a, b string) int {
		return cmp.Or(old[a].since.Compare(old[b].since), cmp.Compare(a, b))
	})
	var total int64
	for _, o := range old {
		total += o.size
	}
	var lines strings.Builder
	for _, name := range names {
		o := old[name]
		_, named := before[name]
		if !named && (now.Sub(o.since) > p.keep || total > p.budget) {
			if err := p.tree.remove(path.Join(at.dists, name)); err != nil {
				return nil, err
			}
			total -= o.size
			delete(old, name)
			continue
		}
		fmt.Fprintf(&lines, "%s %s\n", o.since.Format(time.RFC3339), name)
	}
	return old, p.tree.write(path.Join(at.root, supersededFile), []byte(lines.String()))
}

// agingOf returns what was superseded before: as this process remembers, else
// as the file and the directories say.
func (p *Publisher) agingOf(at place, named map[string]int64, now time.Time) (aging, error) {
	if old, ok := p.aging[at.root]; ok {
		return old, nil
	}
	since := p.readSuperseded(at)
	files, err := p.byHashFiles(at)
	if err != nil {
		return nil, err
	}
	old := make(aging)
	for _, name := range files {
		if _, ok := named[name]; ok {
			continue
		}
		info, err := os.Lstat(p.tree.path(path.Join(at.dists, name)))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		when, known := since[name]
		if !known {
			when = now
		}
		old[name] = aged{when, info.Size()}
	}
	return old, nil
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
