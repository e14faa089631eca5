package release

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"aptfleet/internal/faultpoint"
	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// A gc removes what no root needs: rows of the database first, then files. It
// works beside everything else. What the roots need is found out in the
// background; then the writer removes, a few files at a time, between other
// acts. Whatever was committed since is found by what turns note down, and
// stays.
//
// Nothing of it has to be remembered across a crash: files go after the rows
// that made them needed, and a file without its row is found by the next gc,
// which looks through the directories.
//
// It rests on the rule in doc.go: an act puts chunks and files, and commits what
// needs them, within one job of the writer.

// A gc is a change of this kind, a dry run too: it gets in the way of others.
const (
	kindGC     = "gc"
	summaryGC  = "gc"
	summaryDry = "gc, dry run"
)

// IsGC tells whether a change is a gc that removes what it finds.
func (c Change) IsGC() bool { return c.Kind == kindGC && c.Summary == summaryGC }

// allUpkeep is more than there can be checks at a time.
const allUpkeep = 1 << 30

// The size of one job of the writer, so that uploads do not wait for it.
const (
	stepTime  = 10 * time.Millisecond // after which a step begins no further removal
	stepItems = 64                    // files or directories
	stepRows  = 200                   // of the database
	// stepChunks is how many chunks of states that were committed since the
	// last step the writer reads; for more, the gc catches up in the background.
	stepChunks = 16
	// stepTries is how often it does before the writer has to wait after all.
	stepTries = 20
)

// CollectGarbage starts a gc as a change. Its result is a protocol.GC: which
// root keeps what, and what went; of a dry run, what would go. One runs at a
// time. An aborted one leaves everything whole.
func (e *Engine) CollectGarbage(ctx context.Context, a Actor, reason string, dryRun bool) (Change, error) {
	if err := mustBeShort("start a gc", "reason", reason); err != nil {
		return Change{}, err
	}
	c := Change{Kind: kindGC, Summary: summaryGC, Reason: reason}
	if dryRun {
		c.Summary = summaryDry
	}
	return e.StartChange(ctx, a, c, func(ctx context.Context, p *Progress) error {
		g := &gc{e: e, actor: a, progress: p, live: newLive(e.Chunks)}
		return g.run(ctx, dryRun)
	})
}

// gc is one run.
type gc struct {
	e        *Engine
	actor    Actor
	progress *Progress
	live     *live

	kept    []root
	report  protocol.GC
	dropped map[snapshots.ID]bool // states that no pipeline has any more
	// What was there when the run began, with the bytes it takes.
	blobs   map[snapshots.ID]int64
	indices map[publish.IndexKey]int64
	files   map[[32]byte]int64
}

func (g *gc) run(ctx context.Context, dryRun bool) error {
	if !dryRun {
		// A check holds files against what the database said when it began.
		if err := g.e.upkeep.Acquire(ctx, allUpkeep); err != nil {
			return err
		}
		defer g.e.upkeep.Release(allUpkeep)
		defer g.e.Blobs.Protect()()
	}
	stop, err := g.watch(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := g.list(); err != nil {
		return because(err, "cannot collect garbage")
	}
	states, err := g.mark(ctx)
	if err != nil {
		return because(err, "cannot collect garbage")
	}
	g.tell(states, dryRun)
	faultpoint.Hit("gc:marked")
	if !dryRun {
		g.report.Gone = protocol.Amount{}
		err = g.sweep(ctx, states)
		g.e.indicesLeft.Store(g.e.Publisher.IndexBytes())
		err = errors.Join(err, g.record(context.WithoutCancel(ctx)))
	}
	g.progress.Logf("%s", g.summary(dryRun))
	result, marshalErr := json.Marshal(g.report)
	if err := errors.Join(err, marshalErr); err != nil {
		return because(err, "cannot finish the gc: nothing that is needed was removed, and the next one goes on")
	}
	return g.progress.Result(result)
}

// collecting is what turns note down for a gc that is under way.
type collecting struct {
	mu     sync.Mutex
	active bool
	fresh  []pipelineState
}

// note is told of a batch that is about to be committed.
func (c *collecting) note(b Batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.active {
		return
	}
	for _, base := range b.Bases {
		c.fresh = append(c.fresh, pipelineState{base.Pipeline, base.State})
	}
	for _, s := range b.Snapshots {
		c.fresh = append(c.fresh, pipelineState{s.Pipeline, s.State})
	}
	for _, m := range b.Moves {
		c.fresh = append(c.fresh, pipelineState{m.Pipeline, m.To.State})
	}
}

// watch has turns note down what they commit from now on. The jobs before are
// committed.
func (g *gc) watch(ctx context.Context) (stop func(), err error) {
	c := &g.e.collector
	set := func(active bool) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.active, c.fresh = active, nil
	}
	if err := g.e.do(&job{ctx: ctx, act: func(context.Context) error { set(true); return nil }}); err != nil {
		return nil, err
	}
	return func() { set(false) }, nil
}

// mark finds the roots and what they need, and returns all states there are.
func (g *gc) mark(ctx context.Context) (states []Base, err error) {
	if states, err = g.states(ctx); err != nil {
		return nil, err
	}
	known := make(map[pipelineState]bool, len(states))
	for _, b := range states {
		known[pipelineState{b.Pipeline, b.State}] = true
	}
	if err := g.mustBeWhole(ctx); err != nil {
		return nil, err
	}
	if g.kept, err = g.e.roots(ctx, g.e.now(), known, g.indices); err != nil {
		return nil, err
	}
	for i, r := range g.kept {
		for _, state := range r.states {
			g.live.keep(pipelineState{r.pipeline, state}, keeper(i))
		}
	}
	return states, g.live.mark(ctx)
}

// mustBeWhole refuses to go on where rows of bases are lost: what no row names
// goes, and then nothing is left from which such a row could be made again.
func (g *gc) mustBeWhole(ctx context.Context) error {
	for name, l := range g.e.all() {
		dirs := []string{"states/" + l.head().ID().String()}
		for _, s := range l.snapshots {
			dirs = append(dirs, "snapshots/"+s.ID)
		}
		for _, dir := range dirs {
			known, err := g.e.Store.HasBase(ctx, name, dir)
			if err != nil {
				return err
			}
			if !known {
				return fail(Refused, "repo-manager check --repair", "cannot collect garbage: the database has lost what it knew of %s of pipeline %s", dir, name)
			}
		}
	}
	return nil
}

// states lists the bases of states.
func (g *gc) states(ctx context.Context) ([]Base, error) {
	var states []Base
	for name := range g.e.all() {
		bases, err := g.e.Store.BaseStates(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, b := range bases {
			if b.isState() {
				states = append(states, b)
			}
		}
	}
	slices.SortFunc(states, func(a, b Base) int { return cmp.Or(cmp.Compare(a.Pipeline, b.Pipeline), cmp.Compare(a.Dir, b.Dir)) })
	return states, nil
}

// list reads the directories.
func (g *gc) list() error {
	g.blobs, g.indices, g.files = make(map[snapshots.ID]int64), make(map[publish.IndexKey]int64), make(map[[32]byte]int64)
	if err := g.e.Blobs.List(func(id snapshots.ID, bytes int64) { g.blobs[id] = bytes }); err != nil {
		return err
	}
	if err := g.e.Publisher.Indices(func(key publish.IndexKey, bytes int64) { g.indices[key] = bytes }); err != nil {
		return err
	}
	return g.e.Pool.List(func(sha256 [32]byte, bytes int64) { g.files[sha256] = bytes })
}

// maxRoots bounds a report; what is beyond is told in one line.
const maxRoots = 1000

// tell writes down which root keeps what, and what is not kept.
func (g *gc) tell(states []Base, dryRun bool) {
	r := &g.report
	r.DryRun, r.Roots = dryRun, make([]protocol.Root, len(g.kept))
	for i, root := range g.kept {
		distinct := make(map[snapshots.ID]bool)
		for _, state := range root.states {
			distinct[state] = true
		}
		r.Roots[i] = protocol.Root{Pipeline: root.pipeline, Kind: string(root.kind), Name: root.name, Note: root.note, States: len(distinct)}
	}
	account := func(by keeper, files int, bytes int64) {
		r.Kept.Files += files
		r.Kept.Bytes += bytes
		if by != shared {
			r.Roots[by].OnlyFiles += files
			r.Roots[by].OnlyBytes += bytes
		}
	}
	for id, by := range g.live.states {
		account(by, 0, g.blobs[id])
	}
	for id, chunk := range g.live.opened {
		account(chunk.by, 0, g.blobs[id])
	}
	for key, by := range g.live.indices {
		account(by, 0, g.indices[key])
	}
	for _, file := range g.live.files {
		account(file.by, 1, file.bytes)
	}
	r.Kept.States, r.Kept.Chunks, r.Kept.Indices = len(g.live.kept), len(g.live.opened), len(g.live.indices)
	gone := &r.Gone
	g.dropped = make(map[snapshots.ID]bool)
	for _, b := range states {
		if !g.live.kept[pipelineState{b.Pipeline, b.State}] {
			gone.States++
			g.dropped[b.State] = true
		}
	}
	for id, bytes := range g.blobs {
		if !g.live.needsBlob(id) {
			gone.Bytes += bytes
			if !g.dropped[id] {
				gone.Chunks++
			}
		}
	}
	for key, bytes := range g.indices {
		if !g.live.needsIndex(key) {
			gone.Bytes += bytes
			gone.Indices++
		}
	}
	for sum, bytes := range g.files {
		if !g.live.needsFile(sum) {
			gone.Bytes += bytes
			gone.Files++
		}
	}
	g.progress.Total(int64(gone.States+gone.Chunks+gone.Indices+gone.Files), "removals")
	if more := len(r.Roots) - maxRoots; more > 0 {
		r.Roots = r.Roots[:maxRoots]
		r.MoreRoots = more
	}
}

// summary is one line for people.
func (g *gc) summary(dryRun bool) string {
	verb := "removed"
	if dryRun {
		verb = "would remove"
	}
	a := g.report.Gone
	return fmt.Sprintf("%s %d states, %d chunks, %d index files, %d packages: %d bytes", verb, a.States, a.Chunks, a.Indices, a.Files, a.Bytes)
}

// inWriter has the writer do f once everything that was committed before is
// marked.
func (g *gc) inWriter(ctx context.Context, f func(ctx context.Context) error) error {
	for try := 1; ; try++ {
		limit := stepChunks
		if try > stepTries {
			limit = noLimit
		}
		if _, err := g.catchUp(ctx, noLimit); err != nil {
			return err
		}
		done := false
		err := g.e.do(&job{ctx: ctx, act: func(ctx context.Context) (err error) {
			if done, err = g.catchUp(ctx, limit); err != nil || !done {
				return err
			}
			return f(ctx)
		}})
		if err != nil || done {
			return err
		}
	}
}

// noLimit is a limit that is never reached.
const noLimit = -1

// catchUp marks what was committed since it was called last, reading at most
// limit chunks. It tells whether nothing is left to mark.
func (g *gc) catchUp(ctx context.Context, limit int) (bool, error) {
	for {
		c := &g.e.collector
		c.mu.Lock()
		fresh := c.fresh
		c.fresh = nil
		c.mu.Unlock()
		if len(fresh) == 0 {
			return true, nil
		}
		for i, at := range fresh {
			done, err := g.live.admit(ctx, at, &limit)
			if err != nil {
				return false, err
			}
			if !done {
				c.mu.Lock()
				c.fresh = append(fresh[i:], c.fresh...)
				c.mu.Unlock()
				return false, nil
			}
		}
	}
}
