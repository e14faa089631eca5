package release

import (
	"context"

	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// Report is what Check found.
type Report struct {
	Files    int64 // looked at
	Bytes    int64 // read
	Findings []Finding
}

// Finding is one bad file of the published tree.
type Finding = publish.Finding

// Check compares the published tree with what the database says: every file
// that should be there with the right bytes, and none that should not.
// progress may be nil. Publications go on meanwhile; if one of them got in the
// way of a check that found something, it is repeated while they wait.
func (e *Engine) Check(ctx context.Context, progress func(files, bytes int64)) (Report, error) {
	report, quiet, err := e.checkOnce(ctx, progress)
	if err != nil || quiet || len(report.Findings) == 0 {
		return report, err
	}
	err = e.do(&job{ctx: ctx, act: func(context.Context) error {
		// The asker's context, so that a long check ends when nobody waits.
		report, _, err = e.checkOnce(ctx, progress)
		return err
	}})
	return report, err
}

// checkOnce also tells whether nothing was published meanwhile.
func (e *Engine) checkOnce(ctx context.Context, progress func(files, bytes int64)) (report Report, quiet bool, err error) {
	before := e.all()
	want, err := e.expected(ctx, before)
	if err != nil {
		return Report{}, false, err
	}
	report.Findings, err = e.Publisher.Check(ctx, want, func(files, bytes int64) {
		report.Files, report.Bytes = files, bytes
		if progress != nil {
			progress(files, bytes)
		}
	})
	if err != nil {
		return Report{}, false, because(err, "cannot check the published tree")
	}
	after := e.all()
	quiet = len(after) == len(before)
	for name, l := range before {
		quiet = quiet && after[name] == l
	}
	return report, quiet, nil
}

// all is every pipeline as it stands.
func (e *Engine) all() map[string]*line {
	e.mu.RLock()
	defer e.mu.RUnlock()
	lines := make(map[string]*line, len(e.lines))
	for name, l := range e.lines {
		lines[name] = l
	}
	return lines
}

// expected is every base that pipelines have.
func (e *Engine) expected(ctx context.Context, lines map[string]*line) (publish.Expected, error) {
	want := publish.Expected{Files: e.Files}
	for _, l := range lines {
		bases, err := e.Store.Bases(ctx, l.Name)
		if err != nil {
			return want, because(err, "cannot list the bases of pipeline %s", l.Name)
		}
		for _, b := range bases {
			state, err := snapshots.Load(ctx, e.Chunks, b.State)
			if err != nil {
				return want, because(err, "cannot check %s", b.Dir)
			}
			want.Bases = append(want.Bases, publish.ExpectedBase{Base: l.base(state), Dir: b.Dir, State: b.State, Signed: b.signed()})
		}
		for position, s := range l.standings {
			if s.Offer.State.IsZero() {
				continue
			}
			state := l.states[position]
			want.Bases = append(want.Bases, publish.ExpectedBase{Base: l.base(state), Dir: s.Name, State: state.ID(), Meta: s.meta()})
		}
	}
	return want, nil
}
