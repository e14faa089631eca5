package release

import (
	"context"
	"slices"

	"aptfleet/repo-manager/internal/publish"
	"aptfleet/snapshots"
)

// Report is what Check found, and Finding one bad file of it.
type (
	Report  = publish.Report
	Finding = publish.Finding
)

// Check compares the published tree with what the database says: every file
// that should be there with the right bytes, and none that should not; and the
// database with itself and with what is signed. progress may be nil.
// Publications go on meanwhile; what they move is not judged. A gc that removes
// files is waited for.
func (e *Engine) Check(ctx context.Context, progress func(files, bytes int64)) (Report, error) {
	if err := e.upkeep.Acquire(ctx, 1); err != nil {
		return Report{}, because(err, "cannot check the published tree")
	}
	defer e.upkeep.Release(1)
	rows, err := e.rows(ctx, false, e.alone)
	if err != nil {
		return Report{}, err
	}
	report, err := e.Publisher.Check(ctx, e.expected, progress)
	if err != nil && !unreadable(rows) {
		return Report{}, because(err, "cannot check the published tree")
	}
	if err != nil {
		report.Findings = append(report.Findings, unchecked(err))
	}
	for _, f := range append(rows, e.fileRows(report)...) {
		report.Findings = append(report.Findings, f.Finding)
	}
	slices.SortFunc(report.Findings, byPath)
	return report, nil
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

// expected is every base that pipelines have, and every file of the pool: that
// of an upload which another of its batch replaced is in no state at all. What a
// check has seen of a batch under way is committed before this looks.
func (e *Engine) expected(ctx context.Context) (publish.Expected, error) {
	want := publish.Expected{Files: e.Files, Recorded: true}
	if e.Bills != nil {
		want.Named = e.Bills.Files()
	}
	if err := e.alone(func(context.Context) error { return nil }); err != nil {
		return want, err
	}
	for _, l := range e.all() {
		bases, err := e.Store.Bases(ctx, l.Name)
		if err != nil {
			return want, because(err, "cannot list the bases of pipeline %s", l.Name)
		}
		for _, b := range bases {
			state, err := snapshots.Load(ctx, e.Chunks, b.State)
			if err != nil {
				// The publisher finds the same and names the bad blob.
				state = snapshots.State{}
			}
			want.Bases = append(want.Bases, publish.ExpectedBase{Base: l.base(state), Dir: b.Dir, State: b.State, Signed: b.signed(), Row: e.row("bases", l.Name, b.Dir)})
		}
		for position, s := range l.standings {
			if s.Offer.State.IsZero() {
				continue
			}
			state := l.states[position]
			want.Bases = append(want.Bases, publish.ExpectedBase{Base: l.base(state), Dir: s.Name, State: state.ID(), Meta: s.meta()})
		}
	}
	files, err := e.Store.Files(ctx)
	if err != nil {
		return want, because(err, "cannot list the files of the pool")
	}
	for _, f := range files {
		want.Pool = append(want.Pool, publish.PoolFile{SHA256: f.SHA256, Name: f.Name, Size: f.Size})
	}
	return want, nil
}
