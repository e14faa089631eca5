// Package health decides whether a deployment on trial is good: the units that
// were fine before still are, the default target is reached, the release's own
// checks pass, the server can be reached if it could before, and all of that
// holds for a while.
package health

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"aptfleet/device-updater/internal/script"
)

// CheckDir is where a release keeps its checks: executables in required/ and
// wanted/. A check passes with exit status 0; its last line of output says why
// it does not.
const CheckDir = "/usr/lib/aptfleet/health.d"

// Bad is the verdict that a deployment must not be committed.
type Bad struct{ Reason string }

func (b *Bad) Error() string { return b.Reason }

// Watcher watches one boot.
type Watcher struct {
	Dir       string                      // of the checks
	Baseline  Baseline                    // before the update
	Observe   time.Duration               // how long all must hold without a break
	Limit     time.Duration               // for one run of one check
	Pause     time.Duration               // between two looks
	Reachable func(context.Context) error // asks the server; nil: not asked
	Progress  func(string)                // what is being waited for; may be nil
	Clock     func() time.Time
}

// Watch returns nil as soon as everything held for Observe, a *Bad as soon as
// something is wrong that will not mend, or when ctx ends: then its reason says
// what was still missing. Warnings are the wanted checks that did not pass.
//
// A unit that failed or keeps restarting is bad at once, for it was fine
// before. A required check may fail while things start; it is bad when it
// failed for Observe without passing. A service manager that does not answer
// may be starting itself anew: it is asked again.
func (w *Watcher) Watch(ctx context.Context) (warnings []string, err error) {
	var good, failing time.Time
	var restarts map[string]int
	reached := w.Reachable == nil || !w.Baseline.Reachable
	waiting := "its health did not hold long enough"
	for {
		var bad string
		var missing missing
		if restarts == nil {
			restarts, err = w.restarts(ctx)
		}
		if err == nil {
			missing, bad, err = w.look(ctx, restarts, &reached)
		}
		if err != nil {
			missing.what, err = err.Error(), nil
		}
		now := w.Clock()
		if missing.what != "" && ctx.Err() == nil {
			waiting = missing.what
		}
		switch {
		case ctx.Err() != nil:
		case bad != "":
			return nil, &Bad{bad}
		case missing.check:
			good = time.Time{}
			if failing.IsZero() {
				failing = now
			} else if now.Sub(failing) >= w.Observe {
				return nil, &Bad{missing.what}
			}
		case missing.what != "":
			good = time.Time{}
		default:
			failing = time.Time{}
			if good.IsZero() {
				good = now
			}
			if now.Sub(good) >= w.Observe {
				return w.wanted(ctx), nil
			}
		}
		if w.Progress != nil {
			w.Progress(missing.what)
		}
		select {
		case <-ctx.Done():
			return nil, &Bad{waiting + " when the time for the trial was up"}
		case <-time.After(w.Pause):
		}
	}
}

// restarts returns how often units were restarted before the observation:
// while the machine comes up a unit may need a second try.
func (w *Watcher) restarts(ctx context.Context) (map[string]int, error) {
	all, err := units(ctx)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int)
	for _, u := range all {
		counts[u.id] = u.restarts
	}
	return counts, nil
}

// missing is something that is not good yet.
type missing struct {
	what  string
	check bool // a required check failed
}

func (w *Watcher) look(ctx context.Context, restarts map[string]int, reached *bool) (m missing, bad string, err error) {
	all, err := units(ctx)
	if err != nil {
		return missing{}, "", err
	}
	if broken := w.Baseline.broken(all, restarts); broken != "" {
		return missing{}, broken, nil
	}
	target, err := defaultTarget(ctx)
	if err != nil {
		return missing{}, "", err
	}
	if !slices.ContainsFunc(all, func(u unit) bool { return u.id == target && u.active == "active" }) {
		return missing{what: target + " was not reached"}, "", nil
	}
	if reason := w.run(ctx, "required"); len(reason) > 0 {
		return missing{reason[0], true}, "", nil
	}
	if !*reached {
		if err := w.Reachable(ctx); err != nil {
			return missing{what: fmt.Sprintf("the server could not be reached (%v)", err)}, "", nil
		}
		*reached = true
	}
	return missing{}, "", nil
}

func (w *Watcher) wanted(ctx context.Context) []string { return w.run(ctx, "wanted") }

// run runs the checks of one kind in the order of their names and returns why
// those that did not pass did not.
func (w *Watcher) run(ctx context.Context, kind string) []string {
	checks, err := script.Executables(filepath.Join(w.Dir, kind))
	if err != nil {
		return []string{fmt.Sprintf("the %s checks cannot be read: %v", kind, err)}
	}
	var reasons []string
	for _, check := range checks {
		if err := script.Run(ctx, w.Limit, nil, check); err != nil {
			reasons = append(reasons, fmt.Sprintf("%s check %s: %v", kind, filepath.Base(check), err))
		}
	}
	return reasons
}
