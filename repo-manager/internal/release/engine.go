package release

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"

	"golang.org/x/sync/semaphore"
)

// MaxAhead is how far the Date of a stage may be ahead of the clock, as it is
// after the clock was set back. apt refuses a Date more than ten seconds in the
// future.
const MaxAhead = 5 * time.Second

// Pool is where package files lie by content. Nothing in it is ever changed.
// Package pooltest holds the suite that every implementation passes.
type Pool interface {
	// Put renames the file at path into the pool, or removes it and returns
	// true if the pool has it already. It is durable after the next Sync.
	Put(path string, sha256 [32]byte, name string) (already bool, err error)
	// PutBytes is Put for a small file that is in memory. Both are called by
	// many at once.
	PutBytes(content []byte, sha256 [32]byte, name string) (already bool, err error)
	// Remove takes a file away that no state refers to; an absent one is fine.
	Remove(sha256 [32]byte, name string) error
	// List calls f for all content there is, with the bytes it takes.
	List(f func(sha256 [32]byte, bytes int64)) error
	// Drop takes content away under all names; an absent one is fine.
	Drop(sha256 [32]byte) error
}

// Blobs is the store behind Chunks as a gc sees it: texts with the frames
// that belong to them. Package blobstest holds the suite that every
// implementation passes.
type Blobs interface {
	// List calls f for every text there is, or of which a frame is left, with
	// the bytes that it and its frames take.
	List(f func(id snapshots.ID, bytes int64)) error
	// Protect keeps texts that are put from now on from being dropped, until
	// release is called.
	Protect() (release func())
	// Drop takes a text and its frames away and returns true, unless it is
	// protected. An absent one is fine.
	Drop(id snapshots.ID) (bool, error)
}

// Publisher writes the tree that apt reads.
type Publisher interface {
	// ReleaseText is the Release of st. Equal arguments give equal bytes.
	ReleaseText(ctx context.Context, base publish.Base, st snapshots.State, meta publish.Meta) ([]byte, error)
	// Sign signs a Release text as of now.
	Sign(text []byte) (publish.Signed, error)
	// Publish makes bases offer what they should, one after the other. It may
	// be repeated; a complete base costs one read.
	Publish(ctx context.Context, updates ...publish.Update) error
	// Published returns what lies in a directory of a pipeline, if its
	// signatures are good.
	Published(base publish.Base, dir string) (publish.Signed, error)
	// Modified is when the InRelease there says it was modified.
	Modified(base publish.Base, dir string) time.Time
	// PublishedParts returns what there is of it, good or not.
	PublishedParts(base publish.Base, dir string) publish.Signed
	// Verify checks both signatures, VerifyPart one that is left.
	Verify(signed publish.Signed) error
	VerifyPart(signed publish.Signed) (text []byte, err error)
	// RestoreState makes the lost text of a state again, from one of bases.
	RestoreState(ctx context.Context, bases []publish.ExpectedBase, id snapshots.ID) error
	// Repair mends what is derived.
	Repair(ctx context.Context, with publish.Repairs) (publish.Report, error)
	// Dirs lists the fixed bases of a pipeline that are in the tree.
	Dirs(pipeline string) ([]string, error)
	// Withdraw takes a fixed base out of the tree, all at once; an absent one
	// is fine.
	Withdraw(pipeline, dir string) error
	// Indices calls f for all index files there are, with the bytes they take.
	Indices(f func(key publish.IndexKey, bytes int64)) error
	// IndexBytes is how many bytes all of them take.
	IndexBytes() int64
	// DropIndex takes index files away that no base needs, and returns false
	// if a publication that is not finished needs them. Absent ones are fine.
	DropIndex(key publish.IndexKey) (bool, error)
	// Check compares the tree with what should be there once it has begun.
	Check(ctx context.Context, want func(context.Context) (publish.Expected, error), progress func(files, bytes int64)) (publish.Report, error)
}

// Config is what an Engine works with.
type Config struct {
	Store     Store
	Chunks    snapshots.Chunks
	Blobs     Blobs // behind Chunks
	Pool      Pool
	Publisher Publisher
	Sync      func() error      // makes all that pool and chunks wrote durable: one syncfs
	Intents   string            // file that notes what a batch puts into the pool until it is committed
	Files     map[string][]byte // other files of the published tree, for Check
	Database  string            // how findings call the store; "" is "database"
	Aside     string            // directory for bad files that a repair moves away, on the pool's file system
	Archive   string            // URL of the public listener, for the field Snapshots; "" leaves it out
	ValidFor  time.Duration     // from the Date of a stage to its Valid-Until; 0 is seven days
	Keep      time.Duration     // how long a gc keeps what a stage does not offer any more; 0 is publish.DefaultKeep

	// IndexBudget is how many bytes the index files of past states may have,
	// of all pipelines together; 0 is DefaultIndexBudget. Retention and Keep end
	// where it does.
	IndexBudget int64

	// Devices lists what the devices of all pipelines have; nil: there are none.
	// It is called by the writer, so it must not wait for the engine.
	Devices func(context.Context) ([]Deployed, error)

	// Bills are the bills of materials of products; nil: there are none.
	Bills Bills

	Clock func() time.Time
	Log   *slog.Logger
}

// Bills are the bills of materials, files of the published tree that are derived
// from rows which the engine does not know. Its methods must not wait for the
// engine.
type Bills interface {
	// Files lists them by path below the tree, with the SHA-256 of each.
	Files() map[string][32]byte
	// Restore writes those anew that are missing or altered, and returns their
	// paths.
	Restore(ctx context.Context) ([]string, error)
	// Forget drops those about states that their pipeline does not have any more.
	Forget(ctx context.Context) error
}

// DefaultIndexBudget is the IndexBudget that is not configured.
const DefaultIndexBudget = 16 << 30

// OverBudget tells whether index files have grown well beyond their budget, and
// beyond what the last gc had to leave, so that the next should not wait for its
// hour.
func (e *Engine) OverBudget() bool {
	return e.Publisher.IndexBytes() > max(e.IndexBudget, e.indicesLeft.Load())+e.IndexBudget/4
}

// defaultValidFor is how long a stage's InRelease is good if nobody refreshes it.
const defaultValidFor = 7 * 24 * time.Hour

// Engine knows every pipeline and is the only one that changes them. Its
// methods may be called concurrently.
type Engine struct {
	Config
	hub       hub
	queue     queue
	changes   changes
	collector collecting
	upkeep    *semaphore.Weighted // all of it for a gc that removes files, 1 for each check

	indicesLeft atomic.Int64 // bytes of index files after the last gc

	mu    sync.RWMutex
	lines map[string]*line // each value is replaced, never modified

	publishedMu sync.RWMutex
	published   map[string]*published // by pipeline

	// Of the writer goroutine alone:
	unpublished map[string]time.Time // pipelines whose last publication failed, and when to try again
	unsynced    bool                 // the pool may have files that are not durable

	ctx  context.Context
	stop context.CancelFunc
	done chan struct{} // closed when the writer has ended
}

// line is one pipeline as it stands.
type line struct {
	Pipeline
	standings []Standing        // in order of promotion
	states    []snapshots.State // what each stage offers; zero: nothing
	snapshots []Snapshot        // oldest first
	lastMove  int64
}

// head is the newest state: what the first stage offers.
func (l *line) head() snapshots.State { return l.states[0] }

// clone returns a line whose slices can be written to.
func (l *line) clone() *line {
	c := *l
	c.Components = append([]Component(nil), l.Components...)
	c.standings = append([]Standing(nil), l.standings...)
	c.states = append([]snapshots.State(nil), l.states...)
	c.snapshots = append([]Snapshot(nil), l.snapshots...)
	return &c
}

// Open reads what the store knows, takes back what a crash left in the pool
// without a commit, fails the changes it interrupted, publishes whatever is
// committed and not published, and starts the writer. The engine works until
// Close.
func Open(ctx context.Context, config Config) (*Engine, error) {
	config.IndexBudget = cmp.Or(config.IndexBudget, DefaultIndexBudget)
	if config.ValidFor == 0 {
		config.ValidFor = defaultValidFor
	}
	config.Database = cmp.Or(config.Database, "database")
	e := &Engine{
		Config:      config,
		lines:       make(map[string]*line),
		unpublished: make(map[string]time.Time),
		unsynced:    true, // the process before may have died
		upkeep:      semaphore.NewWeighted(allUpkeep),
		done:        make(chan struct{}),
	}
	if e.Keep == 0 {
		e.Keep = publish.DefaultKeep
	}
	e.queue.init()
	if err := e.takeBack(ctx); err != nil {
		return nil, fmt.Errorf("cannot clean up the pool: %w", err)
	}
	if err := e.failInterrupted(ctx); err != nil {
		return nil, err
	}
	pipelines, err := e.Store.Pipelines(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pipelines {
		l, err := e.load(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("cannot open pipeline %s: %w", p.Name, err)
		}
		e.lines[p.Name] = l
		if err := e.republish(ctx, l); err != nil {
			e.Log.Error("cannot publish everything; will try again", "pipeline", p.Name, "error", err)
			e.unpublished[p.Name] = e.now().Add(retryAfter)
		}
	}
	e.ctx, e.stop = context.WithCancel(context.WithoutCancel(ctx))
	e.changes.ctx, e.changes.cancel = context.WithCancelCause(e.ctx)
	go e.write()
	return e, nil
}

// Close lets the batch under way finish, refuses everything that waits, stops
// changes and returns when all of that is done.
func (e *Engine) Close() error {
	e.changes.stopAll()
	e.stop()
	<-e.done
	return nil
}

// reload reads a pipeline again after a commit that reported a failure: a
// database that fails at the very end may have kept it.
func (e *Engine) reload(ctx context.Context, pipeline string) {
	pipelines, err := e.Store.Pipelines(ctx)
	if err != nil {
		e.Log.Error("cannot read pipelines", "error", err)
		return
	}
	for _, p := range pipelines {
		if p.Name != pipeline {
			continue
		}
		l, err := e.load(ctx, p)
		if err != nil {
			e.Log.Error("cannot read pipeline", "pipeline", pipeline, "error", err)
			return
		}
		e.setLine(l)
		e.unpublished[pipeline] = e.now()
	}
}

// line returns a pipeline as it stands now.
func (e *Engine) line(pipeline string) (*line, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if l, ok := e.lines[pipeline]; ok {
		return l, nil
	}
	return nil, fail(NotFound, "repo-manager pipeline list", "cannot find pipeline %q: there is none of that name", pipeline)
}

func (e *Engine) setLine(l *line) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines[l.Name] = l
}

// now is the time as it is stored: UTC, to the microsecond.
func (e *Engine) now() time.Time { return e.Clock().UTC().Truncate(time.Microsecond) }
