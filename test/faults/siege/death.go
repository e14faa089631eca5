package siege

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// die has the server work, die, and come back, and looks at what is left. If
// it is to die while it starts, it does so once more before it is back. There
// are left kills to come.
func (w *world) die(ctx context.Context, left int) error {
	wish := w.result.Tally.wish(w.random, left)
	again := wish == starting
	if again {
		wish = ""
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	over := w.work(work, wish)
	w.wait(ctx, wish)
	err := w.fall(ctx, func() error {
		cancel()
		return over()
	})
	if err != nil || w.unsound {
		return err
	}
	if again {
		if err := w.launch(); err != nil {
			return err
		}
		sleep(ctx, time.Duration(w.random.Int64N(int64(w.starts))))
		if err := w.fall(ctx, func() error { return nil }); err != nil || w.unsound {
			return err
		}
	}
	return w.rise(ctx)
}

// wait returns when it is time to die: at a random moment, or a moment after
// the point that was wished for.
func (w *world) wait(ctx context.Context, wish string) {
	if wish == "" {
		longest := 1000
		if w.random.IntN(8) == 0 {
			longest = 5000 // so that what takes long comes to its end
		}
		sleep(ctx, time.Duration(50+w.random.IntN(longest))*time.Millisecond)
		return
	}
	sleep(ctx, time.Duration(w.random.IntN(100))*time.Millisecond)
	// Not every act comes by every point: after a while any of the phase will do.
	for _, points := range [][]string{{wish}, w.result.Tally.pointsOf(w.result.Tally.phaseOf(wish))} {
		select {
		case <-w.trace.passes(points...):
			if w.random.IntN(2) == 0 {
				sleep(ctx, time.Duration(w.random.IntN(3000))*time.Microsecond)
			}
			return
		case <-time.After(1500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// work lets everybody work until the server is gone or ctx ends. over waits
// for their end.
func (w *world) work(ctx context.Context, wish string) (over func() error) {
	c := &crowd{world: w, server: w.server, wish: wish}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	start := func(act func(random *rand.Rand) error) {
		random := rand.New(rand.NewPCG(w.random.Uint64(), 0))
		wait.Go(func() {
			if err := act(random); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	for _, pipeline := range pipelines {
		for who := range uploaders {
			start(func(random *rand.Rand) error { return c.upload(ctx, random, pipeline, who) })
		}
		for range movers {
			start(func(random *rand.Rand) error { return c.move(ctx, random, pipeline) })
		}
		for who := range readers {
			name := fmt.Sprintf("%s %d", pipeline, who)
			if w.readers[name] == nil {
				w.readers[name] = &reader{hasty: who%2 == 1}
			}
			start(func(random *rand.Rand) error { return c.read(ctx, random, w.readers[name], pipeline) })
		}
	}
	if w.FileSystem != nil {
		start(func(random *rand.Rand) error { return c.writeBack(ctx, random) })
	}
	start(func(random *rand.Rand) error { return c.keep(ctx, random) })
	if w.apt != nil && w.random.IntN(4) == 0 {
		start(func(random *rand.Rand) error { return c.aptUpdates(ctx, pipelines[random.IntN(len(pipelines))]) })
	}
	return func() error {
		wait.Wait()
		return errors.Join(errs...)
	}
}

// canceled is a context for a question that must not wait.
var canceled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// fall lets the server die and looks at the tree that it leaves. over waits for
// those who worked with it.
func (w *world) fall(ctx context.Context, over func() error) error {
	select {
	case <-w.server.Exited():
		w.mismatch("the server ended by itself: %v\n%s", w.server.State(), w.server.Log())
		return over()
	default:
	}
	var point, phase string
	var traced error
	writes, fell := w.place.fall(ctx, w.random, func() {
		w.server.Kill()
		point, traced = w.trace.now()
		phase = w.result.Tally.phaseOf(point)
		if w.server.Ready(canceled) != nil { // it never said that it was
			phase = starting
		}
	})
	if err := errors.Join(traced, over(), ctx.Err()); err != nil {
		return err
	}
	w.result.Reads += int(w.reads.Swap(0))
	w.result.Jobs += int(w.jobsDone.Swap(0))
	w.result.Kills++
	w.result.Tally.add(phase, point)
	w.story = fmt.Sprintf("kill %d, after %s (%s)", w.result.Kills, point, phase)
	if w.FileSystem != nil {
		w.result.Writes.Add(writes)
		w.story += "; " + writes.String()
	}
	var nothing *gone
	switch {
	case errors.As(fell, &nothing):
		w.lost(w.ledger.promises(), "the disk cannot be mounted: %v", fell)
		return nil
	case fell != nil:
		return fell
	}
	w.verifyTree()
	w.takeProblems()
	return nil
}

// rise starts a server on what is left and verifies everything.
func (w *world) rise(ctx context.Context) error {
	if err := w.launch(); err != nil {
		return err
	}
	if err := w.ready(ctx); err != nil {
		if ctx.Err() != nil {
			return err
		}
		w.lost(w.ledger.promises(), "the server does not come back: %v", err)
		return nil
	}
	w.ledger.reopen()
	err := w.verify(ctx)
	w.takeProblems()
	if refused(err) {
		w.lost(w.ledger.promises(), "the server does not know what it knew: %v", err)
		return nil
	}
	return err
}

// takeProblems makes findings of what clients saw.
func (w *world) takeProblems() {
	for _, problem := range w.ledger.takeProblems() {
		w.mismatch("%s", problem)
	}
}
