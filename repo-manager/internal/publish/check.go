package publish

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"aptfleet/snapshots"

	"golang.org/x/sync/errgroup"
)

// Expected is what the database says is published.
type Expected struct {
	Bases []ExpectedBase
	Pool  []PoolFile        // every file of the pool, also those that no base needs
	Files map[string][]byte // other files, by path relative to the root: their content
	Named map[string]sum    // and more of them: the SHA-256 of each

	// Recorded says that Pool was read after Bases and should name every file
	// that they need: Report.Unrecorded is what it lacks.
	Recorded bool
}

// PoolFile is a file of the pool.
type PoolFile struct {
	SHA256 [sha256.Size]byte
	Name   string
	Size   int64 // bytes
}

// ExpectedBase is one base: a stage if Signed is nil, else a fixed one.
type ExpectedBase struct {
	Base
	Dir    string // the stage, "snapshots/<id>" or "states/<state id>"
	State  snapshots.ID
	Meta   Meta    // of a stage
	Signed *Signed // of a fixed base: its very files
	Row    string  // of a fixed base: how a finding calls the row that holds Signed
}

// Finding is one file, or one row of the database, that is not what it should
// be.
type Finding struct {
	Path     string   // relative to the directory that holds the published tree; or the name of a row
	Reason   string   // a sentence
	Repaired string   // what a repair did about it, if it is as it should be now
	Aside    string   // where a repair moved what was there, as Path
	Restore  string   // what a person must do, if nothing else helps
	SHA256   string   // of a pool file that must be restored
	NeededBy []string // of such a file: bases of stages and snapshots, then of some states
}

// Report is the answer of Check.
type Report struct {
	Files      int64 // that were read
	Bytes      int64 // that were read
	Findings   []Finding
	Usage      Usage
	Unrecorded []Unrecorded
}

// Unrecorded is a file that states need and Expected.Pool does not name so.
type Unrecorded struct {
	PoolFile
	Lost bool // Expected.Pool has nothing with its SHA256
}

// Check reads everything that is published and the blobs behind it, and holds
// it against what expected says: signatures, Release texts, index files, links
// to the pool, pool files, chunks with their frames; files that are missing and
// files that nothing needs. There is one finding per bad file, sorted by path.
//
// Publications may happen meanwhile: expected is called after Check began, and
// what is published later is not judged. progress, if not nil, is told the
// totals so far now and then, from one goroutine at a time. Errors are those of
// expected and of ctx; whatever cannot be read is a finding.
func (p *Publisher) Check(ctx context.Context, expected func(context.Context) (Expected, error), progress func(files, bytes int64)) (Report, error) {
	_, report, err := p.check(ctx, expected, progress, make(map[fileID]*hashed))
	return report, err
}

// check is Check; hashes is what an earlier run has read.
func (p *Publisher) check(ctx context.Context, expected func(context.Context) (Expected, error), progress func(files, bytes int64), hashes map[fileID]*hashed) (*checker, Report, error) {
	c := &checker{
		p: p, progress: progress,
		found: make(map[string]finding), hashes: hashes, copies: make(map[sum]string),
		wants: make(map[string]bool), judged: make(map[string]bool), chunks: make(map[snapshots.ID]snapshots.ChunkRef), pool: make(map[string]pooled),
		usage: usage{inodes: make(map[fileID]*inode)},
	}
	p.mu.Lock()
	c.seq = p.seq
	p.checks++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.checks--; p.checks == 0 {
			clear(p.touched)
		}
	}()
	err := c.begin()
	if err == nil {
		err = c.run(ctx, expected)
	}
	if err != nil {
		return nil, Report{}, fmt.Errorf("cannot check published tree: %w", err)
	}
	return c, c.report(), nil
}

// checker is one run of Check.
type checker struct {
	p     *Publisher
	seq   sequence  // of the last publication before the run
	began time.Time // files that appear later are not judged as too many

	mu       sync.Mutex
	progress func(files, bytes int64)
	files    int64
	bytes    int64
	found    map[string]finding // by path
	hashes   map[fileID]*hashed
	copies   map[sum]string  // index files that were read: a path where these bytes are
	wants    map[string]bool // paths below the root that should be there
	judged   map[string]bool // roots of bases whose files are all in wants
	chunks   map[snapshots.ID]snapshots.ChunkRef
	pool     map[string]pooled // by the field Filename
	expect   Expected          // what the run began with
	lacks    []Unrecorded      // for Report.Unrecorded
	usage    usage
}

// pooled is a file of the pool and who needs it.
type pooled struct {
	sum  sum
	size int64
	who  string
}

// finding is a Finding with the root of the base it concerns, if any.
type finding struct {
	root   string
	reason string
	needed []string // of a pool file
}

// fileID tells files apart, and a file from what it was before a change: index
// files have many names and are read once.
type fileID struct {
	dev, ino uint64
	changed  time.Time
}

type hashed struct {
	once sync.Once
	sum  sum
	size int64
	err  error
}

// tick is longer than the steps in which file systems keep time.
const tick = 20 * time.Millisecond

// begin takes the time from the file system: what was there before the call
// is older, what comes after it is not.
func (c *checker) begin() error {
	time.Sleep(tick)
	f, err := os.CreateTemp(c.p.tree.path(temporary), "")
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		c.began = changed(info)
	}
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

func (c *checker) run(ctx context.Context, expected func(context.Context) (Expected, error)) error {
	want, err := expected(ctx)
	if err != nil {
		return err
	}
	c.expect = want
	for name, content := range want.Files {
		c.wants[name] = true
		c.content("", name, content)
	}
	for name, sum := range want.Named {
		c.wants[name] = true
		c.hashIs("", c.p.tree.path(name), sum, -1, "the database")
	}
	if err := each(ctx, want.Bases, c.base); err != nil {
		return err
	}
	if err := each(ctx, slices.Collect(maps.Values(c.chunks)), c.chunk); err != nil {
		return err
	}
	c.lacks = c.recordedFiles(want.Pool)
	if err := each(ctx, slices.Collect(maps.Keys(c.pool)), c.poolFile); err != nil {
		return err
	}
	if err := c.needers(ctx); err != nil {
		return err
	}
	extra, err := c.walk(ctx)
	if err == nil {
		err = c.walkBlobs()
	}
	if err != nil || len(extra) == 0 {
		return err
	}
	return c.extras(ctx, extra, expected)
}

// report leaves out what a publication changed during the run.
func (c *checker) report() Report {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	r := Report{Files: c.files, Bytes: c.bytes, Usage: c.usage.total()}
	if c.expect.Recorded {
		r.Unrecorded = c.lacks
	}
	for path, f := range c.found {
		if f.root == "" || c.p.touched[f.root] <= c.seq {
			r.Findings = append(r.Findings, c.finding(path, f))
		}
	}
	slices.SortFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(a.Path, b.Path) })
	return r
}

// each calls work for every item, on all cores.
func each[T any](ctx context.Context, items []T, work func(context.Context, T) error) error {
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, item := range items {
		group.Go(func() error {
			if err := inner.Err(); err != nil {
				return err
			}
			return work(inner, item)
		})
	}
	return group.Wait()
}

// bad notes that the file at an absolute path is not what it should be. The
// first reason stays.
func (c *checker) bad(root, abs, format string, args ...any) {
	name, err := filepath.Rel(filepath.Dir(c.p.tree.root), abs)
	if err != nil {
		name = abs
	}
	c.note(root, name, format, args...)
}

// note is bad for what is called name in findings.
func (c *checker) note(root, name, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.found[name]; !ok {
		c.found[name] = finding{root: root, reason: fmt.Sprintf(format, args...)}
	}
}

// want notes that a path below the root should be there.
func (c *checker) want(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wants[name] = true
}

// count adds to the totals.
func (c *checker) count(bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.files++
	c.bytes += bytes
	if c.progress != nil {
		c.progress(c.files, c.bytes)
	}
}

// content holds a small file against the bytes it should have.
func (c *checker) content(root, name string, want []byte) {
	abs := c.p.tree.path(name)
	data, err := os.ReadFile(abs)
	c.count(int64(len(data)))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.bad(root, abs, "is missing")
	case err != nil:
		c.bad(root, abs, "cannot be read: %v", err)
	case string(data) != string(want):
		c.bad(root, abs, "has other content than the database says")
	}
}

// hash reads a plain file, once however many names it has.
func (c *checker) hash(abs string) (sum, int64, error) {
	info, err := os.Lstat(abs)
	if err != nil {
		return sum{}, 0, err
	}
	if !info.Mode().IsRegular() {
		return sum{}, 0, errors.New("it is no plain file")
	}
	id := idOf(info)
	c.mu.Lock()
	h := c.hashes[id]
	if h == nil {
		h = &hashed{}
		c.hashes[id] = h
	}
	c.mu.Unlock()
	h.once.Do(func() {
		h.sum, h.size, h.err = hashFile(abs)
		c.count(h.size)
	})
	if h.err == nil && isIndex(abs) {
		c.mu.Lock()
		c.copies[h.sum] = abs
		c.mu.Unlock()
	}
	return h.sum, h.size, h.err
}

func hashFile(abs string) (sum, int64, error) {
	f, err := os.Open(abs)
	if err != nil {
		return sum{}, 0, err
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	return sum(h.Sum(nil)), n, errors.Join(err, f.Close())
}

// hashIs holds a file against its SHA-256 and size; size -1 is any.
func (c *checker) hashIs(root, abs string, want sum, size int64, who string) {
	got, n, err := c.hash(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.bad(root, abs, "is missing; %s needs it", who)
	case err != nil:
		c.bad(root, abs, "cannot be read: %v", err)
	case size >= 0 && n != size:
		c.bad(root, abs, "has %d bytes instead of %d", n, size)
	case got != want:
		c.bad(root, abs, "has the SHA-256 %x instead of %x", got, want)
	}
}

// walk returns the files of the tree that should not be there, and holds
// superseded index files against their names.
func (c *checker) walk(ctx context.Context) (extra []string, err error) {
	root := c.p.tree.root
	err = filepath.WalkDir(root, func(abs string, entry fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		name, relErr := filepath.Rel(root, abs)
		if relErr != nil {
			return relErr
		}
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed since its directory was read
			return nil
		case err != nil:
			c.bad("", abs, "cannot be read: %v", err)
			return nil
		case entry.IsDir() && name == temporary:
			return fs.SkipDir
		}
		c.usage.file(name, entry, c.wants[name])
		switch {
		case entry.IsDir() || c.wants[name]:
			return nil
		case path.Base(name) == supersededFile:
			return nil
		case strings.HasPrefix(name, indexStore+"/"):
			if path.Base(name) == sumsFile {
				c.stored(abs)
			}
			return nil
		case path.Base(path.Dir(name)) == "SHA256" && c.isStage(rootOf(name)):
			c.superseded(abs, name)
			return nil
		}
		if !c.judged[rootOf(name)] && c.isBase(rootOf(name)) {
			return nil // its state could not be read: there is a finding already
		}
		extra = append(extra, name)
		return nil
	})
	return extra, err
}

// stored checks the index files beside a sums file: bases publish more names
// of them without reading them again.
func (c *checker) stored(abs string) {
	text, err := os.ReadFile(abs)
	if err != nil {
		c.bad("", abs, "cannot be read: %v", err)
		return
	}
	s, ok := parseSums(string(text))
	if !ok {
		c.bad("", abs, "is no list of index files")
		return
	}
	for i, suffix := range suffixes[1:] {
		c.hashIs("", filepath.Join(filepath.Dir(abs), "Packages"+suffix), s[i+1].sum, s[i+1].size, sumsFile)
	}
}

// superseded checks a by-hash file that no InRelease names any more: clients
// may still read it.
func (c *checker) superseded(abs, name string) {
	id, err := snapshots.ParseID(path.Base(name))
	if err != nil {
		c.bad(rootOf(name), abs, "is not called after its SHA-256")
		return
	}
	got, _, err := c.hash(abs)
	if err == nil && got != id {
		c.bad(rootOf(name), abs, "has the SHA-256 %x, not the one it is called after", got)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.bad(rootOf(name), abs, "cannot be read: %v", err)
	}
}

// extras judges files that nothing needed: not those that appeared since the
// run began, nor those that the database needs by now.
func (c *checker) extras(ctx context.Context, extra []string, expected func(context.Context) (Expected, error)) error {
	want, err := expected(ctx)
	if err != nil {
		return err
	}
	for _, base := range want.Bases {
		if state, err := snapshots.Load(ctx, c.p.blobs, base.State); err == nil {
			for _, ref := range c.newChunks(state) {
				if packages, err := snapshots.OpenChunk(ctx, c.p.blobs, ref); err == nil {
					c.needs(packages)
				}
			}
		}
	}
	c.recordedFiles(want.Pool)
	for _, name := range extra {
		abs := c.p.tree.path(name)
		info, err := os.Lstat(abs)
		_, named := want.Named[name]
		if err != nil || !changed(info).Before(c.began) || c.wants[name] || named {
			continue
		}
		c.bad(rootOf(name), abs, "is there, and nothing in the database needs it")
	}
	return nil
}
