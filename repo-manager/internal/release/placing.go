package release

import (
	"context"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// wanted is a file that edits of a batch want in the pool.
type wanted struct {
	File
	content  []byte // of a file without a path
	records  bool   // it is new to some component
	restores bool   // some component has it, so that the pool has it unless it was lost
	by       []*job
}

// poolName names a file of the pool.
type poolName struct {
	sum  [32]byte
	name string
}

func (f File) poolName() poolName { return poolName{f.SHA256, f.Name} }

// want notes what the edit under way wants in the pool: what is to be recorded,
// or restored.
func (d *draft) want(f File, content []byte, restores bool) {
	w := d.wants[f.poolName()]
	if w == nil {
		w = &wanted{File: f, content: content}
		d.wants[f.poolName()] = w
		d.wanted = append(d.wanted, w)
	}
	w.records, w.restores = w.records || !restores, w.restores || restores
	w.by = append(w.by, d.job)
}

// place puts the files that the edits want into the pool, as many at once as
// there are processors: making files is a good part of what an import costs. It
// returns the jobs whose files could not be stored. All other files are there.
func (d *draft) place(ctx context.Context) (failed map[*job]error, err error) {
	var missing []*wanted
	var coming []File
	for _, w := range d.wanted {
		if d.placed[w.poolName()] {
			continue
		}
		missing = append(missing, w)
		if !w.restores {
			coming = append(coming, w.File)
		}
	}
	if err := d.announce(ctx, coming); err != nil {
		return nil, because(err, "cannot put packages into the pool")
	}
	already, errs := make([]bool, len(missing)), make([]error, len(missing))
	var group errgroup.Group
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i, w := range missing {
		group.Go(func() error {
			already[i], errs[i] = d.e.intoPool(w.File, w.content)
			return nil
		})
	}
	_ = group.Wait() // each file has an error of its own
	failed = make(map[*job]error)
	for i, w := range missing {
		if errs[i] != nil {
			for _, j := range w.by {
				failed[j] = because(errs[i], "cannot put %s into the pool", w.Name)
			}
			continue
		}
		d.placed[w.poolName()] = true
		if already[i] {
			continue
		}
		d.e.unsynced = true
		if !w.restores {
			d.put = append(d.put, w.File)
		}
	}
	return failed, nil
}

// again is a new draft after one of which some jobs failed. What that put into
// the pool is there.
func (d *draft) again() *draft {
	next := newDraft(d.e, d.base)
	next.announced, next.placed, next.put = d.announced, d.placed, d.put
	return next
}

// tidy takes back what the draft put into the pool: all of it, or, if it was
// committed, what failed jobs wanted. What is on record stays: a commit that
// reported a failure may have happened all the same.
func (d *draft) tidy(ctx context.Context, committed bool) error {
	for _, f := range d.put {
		if committed && d.wants[f.poolName()] != nil {
			continue
		}
		known, err := d.e.Store.HasFile(ctx, f.SHA256)
		if err == nil && !known {
			err = d.e.Pool.Remove(f.SHA256, f.Name)
		}
		if err != nil {
			return err // the intents stay: the next batch, or start, takes it back
		}
	}
	if !d.announced {
		return nil
	}
	return d.e.clearIntents()
}

// giveUp takes back all that the draft put into the pool.
func (d *draft) giveUp(ctx context.Context) error { return d.tidy(ctx, false) }
