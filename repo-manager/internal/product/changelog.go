package product

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"aptfleet/internal/deb"
)

// Opener opens a package file of the pool.
type Opener func(sha256 [32]byte, name string) (io.ReadCloser, error)

// Entry is one version of a Debian changelog.
type Entry struct {
	Version string
	Text    string   // all of it, as it is written
	Bugs    []string // what it closes: "#123456", "LP: #42"
	CVEs    []string // "CVE-2026-0001"
}

// Bounds of a changelog: Debian's longest have some hundred kilobytes.
const (
	maxChangelog = 8 << 20 // bytes, unpacked
	maxEntries   = 2000
	// maxCached is how many bytes of changelogs are remembered.
	maxCached = 32 << 20
)

// changelogs reads them out of packages and remembers the last ones.
type changelogs struct {
	open Opener

	mu    sync.Mutex
	known map[[32]byte][]Entry
	order [][32]byte // used last last
	sizes map[[32]byte]int
	total int
}

// of returns the changelog of a package file, newest entry first; nil if it has
// none of its own.
func (c *changelogs) of(ctx context.Context, sha256 [32]byte, name, version, architecture string) ([]Entry, error) {
	c.mu.Lock()
	entries, ok := c.known[sha256]
	c.mu.Unlock()
	if ok {
		return entries, nil
	}
	file, err := c.open(sha256, deb.FileName(name, version, architecture))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := readChangelog(ctx, file, name)
	if err != nil {
		return nil, err
	}
	entries = parseChangelog(text)
	c.remember(sha256, entries, len(text))
	return entries, nil
}

func (c *changelogs) remember(sha256 [32]byte, entries []Entry, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.known[sha256]; ok {
		return
	}
	if c.known == nil {
		c.known, c.sizes = make(map[[32]byte][]Entry), make(map[[32]byte]int)
	}
	size += 200 // of the tables
	c.known[sha256], c.sizes[sha256] = entries, size
	c.order = append(c.order, sha256)
	for c.total += size; c.total > maxCached && len(c.order) > 1; c.order = c.order[1:] {
		oldest := c.order[0]
		c.total -= c.sizes[oldest]
		delete(c.known, oldest)
		delete(c.sizes, oldest)
	}
}

// errFound ends the reading of a package.
var errFound = errors.New("found")

// readChangelog returns the text of usr/share/doc/<name>/changelog.Debian.gz, or
// of changelog.gz in a package that is native to Debian (Policy 12.7). It stops
// unpacking there. A package that shares its documentation with another one has
// none.
func readChangelog(ctx context.Context, r io.Reader, name string) (text []byte, err error) {
	dir := "/usr/share/doc/" + name
	_, err = deb.Inspect(r, deb.Limits{}, deb.Visitor{Data: func(h *tar.Header, r io.Reader) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if h.Name == dir && h.Typeflag == tar.TypeSymlink {
			return errFound
		}
		if h.Typeflag != tar.TypeReg || path.Dir(h.Name) != dir {
			return nil
		}
		switch path.Base(h.Name) {
		case "changelog.Debian.gz", "changelog.Debian":
			text, err = unpack(r, h.Name)
			return errors.Join(errFound, err)
		case "changelog.gz", "changelog":
			// Of a package that is not native this is upstream's.
			text, err = unpack(r, h.Name)
			return err
		}
		return nil
	}})
	if errors.Is(err, errFound) {
		err = nil
	}
	return text, err
}

func unpack(r io.Reader, name string) ([]byte, error) {
	if strings.HasSuffix(name, ".gz") {
		z, err := gzip.NewReader(bufio.NewReader(r))
		if err != nil {
			return nil, err
		}
		r = z
	}
	return io.ReadAll(io.LimitReader(r, maxChangelog))
}

var (
	heading = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]* \(([^() ]+)\) [^;]+;`)
	closes  = regexp.MustCompile(`(?i)closes:\s*(?:bug)?#?\s?\d+(?:,\s*(?:bug)?#?\s?\d+)*`)
	lp      = regexp.MustCompile(`(?i)lp:\s*#\d+(?:,\s*#\d+)*`)
	number  = regexp.MustCompile(`\d+`)
	cve     = regexp.MustCompile(`CVE-\d{4}-\d{4,}`)
)

// parseChangelog reads the format of deb-changelog(5), forgivingly: what stands
// before the first heading is left out.
func parseChangelog(text []byte) []Entry {
	var entries []Entry
	var body bytes.Buffer
	end := func() {
		if len(entries) > 0 {
			entries[len(entries)-1].fill(strings.TrimSpace(body.String()))
		}
		body.Reset()
	}
	for line := range bytes.Lines(text) {
		if m := heading.FindSubmatch(line); m != nil {
			end()
			if len(entries) == maxEntries {
				return entries
			}
			entries = append(entries, Entry{Version: string(m[1])})
		}
		body.Write(line)
	}
	end()
	return entries
}

// fill finds what an entry says it closes; the patterns are those of dpkg
// (Dpkg::Vendor::Debian and ::Ubuntu).
func (e *Entry) fill(text string) {
	e.Text = strings.ToValidUTF8(text, "\uFFFD")
	add := func(list *[]string, item string) {
		if !slices.Contains(*list, item) {
			*list = append(*list, item)
		}
	}
	for _, group := range closes.FindAllString(e.Text, -1) {
		for _, n := range number.FindAllString(group, -1) {
			add(&e.Bugs, "#"+n)
		}
	}
	for _, group := range lp.FindAllString(e.Text, -1) {
		for _, n := range number.FindAllString(group, -1) {
			add(&e.Bugs, "LP: #"+n)
		}
	}
	for _, id := range cve.FindAllString(e.Text, -1) {
		add(&e.CVEs, id)
	}
}

// between returns the entries above one version up to another.
func between(entries []Entry, above, upTo string) []Entry {
	var in []Entry
	for _, e := range entries {
		if deb.Compare(e.Version, above) > 0 && deb.Compare(e.Version, upTo) <= 0 {
			in = append(in, e)
		}
	}
	return in
}
