package release

import (
	"context"
	"fmt"
)

// Retention says how much of a pipeline's past is kept although nothing else
// needs it: what its first stage offered. Either limit keeps a state.
type Retention struct {
	States int // the newest different states, at least 1
	Days   int // what was offered within so many days; 0: only the number counts
}

// DefaultRetention is that of a pipeline for which nobody said anything.
var DefaultRetention = Retention{States: 100, Days: 30}

// Limits that keep arithmetic with times and lists sane.
const (
	maxKeepStates = 1_000_000
	maxKeepDays   = 36_500
)

// String is the retention as people say it.
func (r Retention) String() string {
	states := fmt.Sprintf("the last %d states", r.States)
	if r.States == 1 {
		states = "the newest state"
	}
	switch r.Days {
	case 0:
		return states
	case 1:
		return states + " and those of the last day"
	}
	return fmt.Sprintf("%s and those of the last %d days", states, r.Days)
}

func (r Retention) validate(pipeline string) error {
	refuse := func(cause string, limit int) error {
		return fail(Invalid, "repo-manager pipeline set --help", "cannot set the retention of pipeline %s: "+cause, pipeline, limit)
	}
	switch {
	case r.States < 1 || r.States > maxKeepStates:
		return refuse("it keeps 1 to %d states", maxKeepStates)
	case r.Days < 0 || r.Days > maxKeepDays:
		return refuse("it keeps states for 0 to %d days", maxKeepDays)
	}
	return nil
}

// SetRetention says from now on how much of a pipeline's past is kept; change
// is given what was said before. What the new retention no longer keeps stays
// until the next gc.
func (e *Engine) SetRetention(ctx context.Context, a Actor, pipeline string, change func(Retention) Retention) (Pipeline, error) {
	var changed Pipeline
	err := e.do(&job{ctx: ctx, pipeline: pipeline, act: func(ctx context.Context) error {
		l, err := e.line(pipeline)
		if err != nil {
			return err
		}
		retention := change(l.Retention)
		if err := retention.validate(pipeline); err != nil {
			return err
		}
		t := e.turn("retention", l)
		t.line.Retention = retention
		if retention != l.Retention {
			t.batch.Retentions = []Retained{{pipeline, retention}}
			t.act(a, "set", "pipeline "+pipeline, "keeps "+retention.String())
			t.event("pipeline", pipeline)
			if err := t.commit(ctx); err != nil {
				return err
			}
		}
		changed = t.line.Pipeline
		return nil
	}})
	return changed, err
}
