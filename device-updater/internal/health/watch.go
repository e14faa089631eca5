// Package health decides whether a deployment on trial is good: the units that
// were fine before still are, the default target and boot-complete.target are
// reached, the release's own checks pass, the server can be reached if it could
// before, and all of that holds for a while.
package health

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"aptfleet/device-updater/internal/evidence"
	"aptfleet/device-updater/internal/script"
	"aptfleet/device-updater/internal/uplink"
	"aptfleet/internal/protocol"
)

// CheckDir is where a release keeps its checks: executables in required/ and
// wanted/. A check passes with exit status 0; its last line of output says why
// it does not.
const CheckDir = "/usr/lib/aptfleet/health.d"

// Bad is the verdict that a deployment must not be committed.
type Bad struct {
	Reason   string
	Evidence []protocol.Excerpt // what is known of why; may be empty
}

func (b *Bad) Error() string { return b.Reason }

// Watcher watches one boot.
type Watcher struct {
	Dir       string                      // of the checks
	Baseline  Baseline                    // before the update
	Observe   time.Duration               // how long all must hold without a break
	Limit     time.Duration               // for one run of one check
	Pause     time.Duration               // between two looks
	Reachable func(context.Context) error // asks the server; nil: not asked
	// Explain finds out why the server does not answer, which did before: see
	// uplink.Explain. nil: nobody can tell.
	Explain  func(ctx context.Context, before *uplink.Path, r *uplink.Request, cause error) (uplink.Finding, bool)
	Progress func(string) // what is being waited for; may be nil
	Clock    func() time.Time
}

// Watch returns nil as soon as everything held for Observe, a *Bad as soon as
// something is wrong that will not mend, or when ctx ends: then its reason says
// what was still missing. Warnings are the wanted checks that did not pass.
//
// A unit that failed or keeps restarting is bad at once, for it was fine
// before. A required check may fail while things start; it is bad when it
// failed for Observe without passing. A service manager that does not answer
// may be starting itself anew: it is asked again. The server is waited for
// beside all that, until ctx ends; what then is shown to be outside of the
// device is a warning and no verdict.
func (w *Watcher) Watch(ctx context.Context) (warnings []string, err error) {
	server := w.seek(ctx)
	defer server.stop()
	var good, failing time.Time
	var restarts map[string]int
	wanted := false // its checks have been run
	waiting := missing{what: "its health did not hold long enough"}
	for {
		var bad *Bad
		var missing missing
		if restarts == nil {
			restarts, err = w.restarts(ctx)
		}
		if err == nil {
			missing, bad, err = w.look(ctx, restarts)
		}
		if err != nil {
			missing.what, err = err.Error(), nil
		}
		now := w.Clock()
		switch {
		case ctx.Err() != nil:
		case bad != nil:
			return nil, bad
		case missing.check:
			good = time.Time{}
			if failing.IsZero() {
				failing = now
			} else if now.Sub(failing) >= w.Observe {
				return nil, &Bad{missing.what, missing.evidence}
			}
		case missing.what != "":
			good = time.Time{}
		default:
			failing = time.Time{}
			if good.IsZero() {
				good = now
			}
			if now.Sub(good) >= w.Observe {
				if !wanted {
					warnings, wanted = w.wanted(ctx), true
				}
				if server.reached() {
					return warnings, nil
				}
				missing.what, missing.server = server.missing(), true
			}
		}
		if missing.what != "" && ctx.Err() == nil {
			waiting = missing
		}
		if w.Progress != nil {
			w.Progress(missing.what)
		}
		select {
		case <-ctx.Done():
			// What held until the time was up was only without the server.
			if waiting.server && !good.IsZero() {
				return server.verdict(warnings)
			}
			return nil, w.late(ctx, waiting)
		case <-server.news():
		case <-time.After(w.Pause):
		}
	}
}

// late is the verdict when the time is up and something was missing. Soon PID 1
// ends the trial: evidence must not take the time that the reason needs.
func (w *Watcher) late(ctx context.Context, m missing) *Bad {
	bad := &Bad{m.what + " when the time for the trial was up", m.evidence}
	if bad.Evidence == nil {
		short, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		bad.Evidence = evidence.Jobs(short)
	}
	return bad
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
	what     string
	check    bool // a required check failed
	server   bool // it is the server, and nothing else
	evidence []protocol.Excerpt
}

func (w *Watcher) look(ctx context.Context, restarts map[string]int) (m missing, bad *Bad, err error) {
	all, err := units(ctx)
	if err != nil {
		return missing{}, nil, err
	}
	if id, how := w.Baseline.broken(all, restarts); id != "" {
		return missing{}, &Bad{id + " " + how, evidence.Unit(ctx, id)}, nil
	}
	target, err := defaultTarget(ctx)
	if err != nil {
		return missing{}, nil, err
	}
	if !active(all, target) {
		return missing{what: target + " was not reached"}, nil, nil
	}
	if awaited(all) && !active(all, bootComplete) && !w.Baseline.Incomplete {
		return missing{what: bootComplete + " was not reached"}, nil, nil
	}
	if failed := w.run(ctx, "required"); len(failed) > 0 {
		return failed[0], nil, nil
	}
	return missing{}, nil, nil
}

func (w *Watcher) wanted(ctx context.Context) []string {
	var reasons []string
	for _, m := range w.run(ctx, "wanted") {
		reasons = append(reasons, m.what)
	}
	return reasons
}

// run runs the checks of one kind in the order of their names and returns why
// those that did not pass did not.
func (w *Watcher) run(ctx context.Context, kind string) []missing {
	checks, err := script.Executables(filepath.Join(w.Dir, kind))
	if err != nil {
		return []missing{{what: fmt.Sprintf("the %s checks cannot be read: %v", kind, err), check: true}}
	}
	var failed []missing
	for _, check := range checks {
		if err := script.Run(ctx, w.Limit, nil, check); err != nil {
			name := kind + " check " + filepath.Base(check)
			m := missing{what: fmt.Sprintf("%s: %v", name, err), check: true}
			if f := (*script.Failed)(nil); errors.As(err, &f) {
				m.evidence = evidence.Take("the output of "+name, f.Output)
			}
			failed = append(failed, m)
		}
	}
	return failed
}
