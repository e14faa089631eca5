package release

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/faultpoint"
	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// sweep removes what is not live: rows first, then files. states are all that
// there were.
func (g *gc) sweep(ctx context.Context, states []Base) error {
	for _, phase := range []func(context.Context) error{
		func(ctx context.Context) error { return g.dropStates(ctx, states) },
		g.dropFiles, g.sweepBases, g.sweepIndices, g.sweepBlobs, g.sweepPool, g.forgetBills, g.compact,
	} {
		if err := phase(ctx); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	faultpoint.Hit("gc:done")
	return nil
}

// dropStates forgets states that no root keeps. From then on nobody can name
// or promote them.
func (g *gc) dropStates(ctx context.Context, states []Base) error {
	candidates := slices.DeleteFunc(states, func(b Base) bool { return g.live.kept[pipelineState{b.Pipeline, b.State}] })
	for group := range slices.Chunk(candidates, stepRows) {
		if err := g.keepReturned(ctx, group); err != nil { // so that the writer need not read much
			return err
		}
		err := g.inWriter(ctx, func(ctx context.Context) error {
			if err := g.keepReturned(ctx, group); err != nil {
				return err
			}
			var drop []BaseName
			for _, b := range group {
				if !g.live.kept[pipelineState{b.Pipeline, b.State}] {
					drop = append(drop, BaseName{b.Pipeline, b.Dir})
				}
			}
			if len(drop) == 0 {
				return nil
			}
			if err := g.e.Store.Commit(ctx, Batch{Dropped: Dropped{Bases: drop}}); err != nil {
				return err
			}
			g.report.Gone.States += len(drop)
			g.progress.Add(int64(len(drop)))
			return nil
		})
		if err != nil {
			return err
		}
		faultpoint.Hit("gc:states-dropped")
	}
	return nil
}

// keepReturned keeps those of states that a device has by now: one that was
// away may be back.
func (g *gc) keepReturned(ctx context.Context, states []Base) error {
	deployed, err := g.e.deployed(ctx)
	if err != nil {
		return err
	}
	there := make(map[pipelineState]bool, len(deployed))
	for _, d := range deployed {
		there[pipelineState{d.Pipeline, d.State}] = true
	}
	for _, b := range states {
		if at := (pipelineState{b.Pipeline, b.State}); there[at] {
			limit := noLimit
			if _, err := g.live.admit(ctx, at, &limit); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropFiles forgets files of the pool that no state needs.
func (g *gc) dropFiles(ctx context.Context) error {
	files, err := g.e.Store.Files(ctx)
	if err != nil {
		return err
	}
	candidates := slices.DeleteFunc(files, func(f File) bool { return g.live.needsFile(f.SHA256) })
	for group := range slices.Chunk(candidates, stepRows) {
		err := g.inWriter(ctx, func(ctx context.Context) error {
			var drop [][32]byte
			for _, f := range group {
				if !g.live.needsFile(f.SHA256) {
					drop = append(drop, f.SHA256)
				}
			}
			if len(drop) == 0 {
				return nil
			}
			return g.e.Store.Commit(ctx, Batch{Dropped: Dropped{Files: drop}})
		})
		if err != nil {
			return err
		}
		faultpoint.Hit("gc:files-dropped")
	}
	return nil
}

// sweepBases removes published bases that are not on record.
func (g *gc) sweepBases(ctx context.Context) error {
	var extra []BaseName
	for name := range g.e.all() {
		found, err := g.e.unknownBases(ctx, name)
		if err != nil {
			return err
		}
		extra = append(extra, found...)
	}
	return inSteps(ctx, g, extra, func(ctx context.Context, b BaseName) error {
		return g.e.withdraw(ctx, b)
	})
}

// unknownBases lists the fixed bases in the tree of a pipeline that are not on
// record, unless they are published at this moment.
func (e *Engine) unknownBases(ctx context.Context, pipeline string) ([]BaseName, error) {
	dirs, err := e.Publisher.Dirs(pipeline)
	if err != nil {
		return nil, err
	}
	bases, err := e.Store.BaseStates(ctx, pipeline)
	if err != nil {
		return nil, err
	}
	recorded := make(map[string]bool, len(bases))
	for _, b := range bases {
		recorded[b.Dir] = true
	}
	var unknown []BaseName
	for _, dir := range dirs {
		if !recorded[dir] {
			unknown = append(unknown, BaseName{pipeline, dir})
		}
	}
	return unknown, nil
}

// withdraw removes a published base, unless it is on record.
func (e *Engine) withdraw(ctx context.Context, b BaseName) error {
	known, err := e.Store.HasBase(ctx, b.Pipeline, b.Dir)
	if err != nil || known {
		return err
	}
	if err := e.Publisher.Withdraw(b.Pipeline, b.Dir); err != nil {
		return err
	}
	faultpoint.Hit("gc:base-removed")
	return nil
}

// sweepIndices removes index files of which no base has a name.
func (g *gc) sweepIndices(ctx context.Context) error {
	var extra []publish.IndexKey
	for key := range g.indices {
		if !g.live.needsIndex(key) {
			extra = append(extra, key)
		}
	}
	return inSteps(ctx, g, extra, func(_ context.Context, key publish.IndexKey) error {
		if g.live.needsIndex(key) {
			return nil
		}
		dropped, err := g.e.Publisher.DropIndex(key)
		if err != nil || !dropped {
			return err
		}
		g.report.Gone.Indices++
		g.report.Gone.Bytes += g.indices[key]
		g.progress.Add(1)
		faultpoint.Hit("gc:index-removed")
		return nil
	})
}

// sweepBlobs removes states and chunks.
func (g *gc) sweepBlobs(ctx context.Context) error {
	var extra []snapshots.ID
	for id := range g.blobs {
		if !g.live.needsBlob(id) {
			extra = append(extra, id)
		}
	}
	return inSteps(ctx, g, extra, func(_ context.Context, id snapshots.ID) error {
		if g.live.needsBlob(id) {
			return nil
		}
		dropped, err := g.e.Blobs.Drop(id)
		if err != nil || !dropped {
			return err
		}
		if !g.dropped[id] {
			g.report.Gone.Chunks++
			g.progress.Add(1)
		}
		g.report.Gone.Bytes += g.blobs[id]
		faultpoint.Hit("gc:blob-removed")
		return nil
	})
}

// sweepPool removes files of the pool that are not on record. One that a state
// needs all the same stays: its row was lost, which a repair mends.
func (g *gc) sweepPool(ctx context.Context) error {
	recorded, err := g.e.Store.Files(ctx)
	if err != nil {
		return err
	}
	known := make(map[[32]byte]bool, len(recorded))
	for _, f := range recorded {
		known[f.SHA256] = true
	}
	var extra [][32]byte
	for sum := range g.files {
		if !known[sum] && !g.live.needsFile(sum) {
			extra = append(extra, sum)
		}
	}
	return inSteps(ctx, g, extra, func(ctx context.Context, sum [32]byte) error {
		if g.live.needsFile(sum) {
			return nil
		}
		known, err := g.e.Store.HasFile(ctx, sum)
		if err != nil || known {
			return err
		}
		if err := g.e.Pool.Drop(sum); err != nil {
			return err
		}
		g.report.Gone.Files++
		g.report.Gone.Bytes += g.files[sum]
		g.progress.Add(1)
		faultpoint.Hit("gc:file-removed")
		return nil
	})
}

// forgetBills drops the bills of materials of states that went.
func (g *gc) forgetBills(ctx context.Context) error {
	if g.e.Bills == nil {
		return nil
	}
	return g.e.Bills.Forget(ctx)
}

// inSteps has the writer remove items, a few at a time, and leaves it to
// others as long as that took.
func inSteps[T any](ctx context.Context, g *gc, items []T, remove func(context.Context, T) error) error {
	for len(items) > 0 {
		var took time.Duration
		err := g.inWriter(ctx, func(ctx context.Context) error {
			began := time.Now()
			defer func() { took = time.Since(began) }()
			for n := 0; n < stepItems && len(items) > 0 && time.Since(began) < stepTime; n++ {
				if err := remove(ctx, items[0]); err != nil {
					return err
				}
				items = items[1:]
			}
			return nil
		})
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(took):
		}
	}
	return nil
}

// record adds a line to the audit trail, if anything went.
func (g *gc) record(ctx context.Context) error {
	gone := g.report.Gone
	if gone.States+gone.Chunks+gone.Indices+gone.Files == 0 {
		return nil
	}
	return g.e.do(&job{ctx: ctx, act: func(ctx context.Context) error {
		return g.e.Store.Commit(ctx, Batch{Acts: []Act{{
			At: g.e.now(), By: g.actor.Name, Via: g.actor.Via, Verb: "gc", Object: "archive", Detail: g.summary(false),
		}}})
	}})
}

// compact makes the database file smaller.
func (g *gc) compact(ctx context.Context) error {
	for {
		more, err := g.e.Store.Compact(ctx)
		if err != nil {
			return fmt.Errorf("cannot make the database smaller: %w", err)
		}
		if !more {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// isState tells the base of a state from that of a snapshot.
func (b Base) isState() bool { return strings.HasPrefix(b.Dir, "states/") }
