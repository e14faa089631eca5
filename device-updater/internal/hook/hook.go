// Package hook runs the executables by which the booted release takes part in a
// transaction: it may put it off or stop it before anything is at stake, and is
// told how it ended. They are not maintainer scripts: those of the
// deployment that runs are asked, never those of the one that is made.
package hook

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"aptfleet/device-updater/internal/script"
)

// Dir is where a release keeps its hooks, in a directory for each Point.
const Dir = "/usr/lib/aptfleet/hooks.d"

// Point is when hooks are run, after the phases of a transaction.
type Point string

// The points. Hooks of the first two are asked; those of the others are told,
// and their answers change nothing.
const (
	BeforeDownload  Point = "before-download"   // what is to be installed is known by name
	BeforeFinalise  Point = "before-finalise"   // it is staged; the reboot follows
	AfterCommit     Point = "after-commit"      // it runs, and is what boots from now on
	AfterRolledBack Point = "after-rolled-back" // the trial of it failed, and the loader went back
)

// asked reports whether the answers of a point's hooks count.
func (p Point) asked() bool { return p == BeforeDownload || p == BeforeFinalise }

// Later is the error of a hook that wants to be asked again.
type Later struct{ Hook, Said string }

func (l *Later) Error() string {
	if l.Said == "" {
		return "hook " + l.Hook + " wants to be asked later"
	}
	return fmt.Sprintf("hook %s wants to be asked later: %s", l.Hook, l.Said)
}

// Hooks are those of one root.
type Hooks struct {
	Dir   string
	Limit time.Duration // of each hook
}

// Any reports whether a point has hooks, also if that cannot be told.
func (h Hooks) Any(p Point) bool {
	all, err := script.Executables(filepath.Join(h.Dir, string(p)))
	return err != nil || len(all) > 0
}

// Run runs the hooks of a point in the order of their names, with env added to
// the environment. Of those that are asked, the first that does not say yes ends
// it: a *Later, or an error that says which hook and why. All that are told are
// run; their errors are joined, and none is a *Later. When ctx ends, so does the
// hook that runs.
func (h Hooks) Run(ctx context.Context, p Point, env []string) error {
	all, err := script.Executables(filepath.Join(h.Dir, string(p)))
	if err != nil {
		return fmt.Errorf("cannot find the hooks %s: %w", p, err)
	}
	env = append([]string{"APTFLEET_POINT=" + string(p)}, env...)
	var failures []error
	for _, path := range all {
		err := script.Run(ctx, h.Limit, env, path)
		var exit *script.Exit
		switch name := filepath.Base(path); {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case p.asked() && errors.As(err, &exit) && exit.Status == script.Later:
			err = &Later{name, exit.Said}
		default:
			err = fmt.Errorf("hook %s: %w", name, err)
		}
		if p.asked() {
			return err
		}
		failures = append(failures, err)
	}
	return errors.Join(failures...)
}
