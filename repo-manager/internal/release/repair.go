package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"aptfleet/internal/faultpoint"
	"aptfleet/repo-manager/internal/publish"
)

// Repair checks, mends what can be derived from what is left, and says what
// must be restored: rows first, as they say what should be published. Uploads
// and promotions go on meanwhile; what is published is mended between them. It
// is a change, so that there is one at a time and it goes on when whoever asked
// has left; then the error says which change to watch. progress may be nil.
func (e *Engine) Repair(ctx context.Context, a Actor, progress func(files, bytes int64)) (Report, error) {
	type answer struct {
		report Report
		err    error
	}
	done := make(chan answer, 1)
	var telling sync.Mutex
	tell := func(files, bytes int64) {
		telling.Lock()
		defer telling.Unlock()
		if progress != nil {
			progress(files, bytes)
		}
	}
	change, err := e.StartChange(ctx, a, Change{Kind: "repair", Summary: "repair of the archive"}, func(work context.Context, p *Progress) error {
		report, err := e.repair(work, a, func(files, bytes int64) {
			p.update(func(c *Change) { c.Done, c.Unit = files, "files" })
			tell(files, bytes)
		})
		for _, f := range report.Findings {
			p.Logf("%s %s: %s", f.Path, f.Reason, outcomeOf(f))
		}
		done <- answer{report, err}
		return err
	})
	if err != nil {
		return Report{}, err
	}
	select {
	case a := <-done:
		return a.report, a.err
	case <-ctx.Done():
		telling.Lock()
		defer telling.Unlock()
		progress = nil // whoever listens is about to leave
		return Report{}, fmt.Errorf("cannot wait for the repair: it goes on as change %d: %w", change.ID, context.Cause(ctx))
	}
}

func (e *Engine) repair(ctx context.Context, a Actor, progress func(files, bytes int64)) (Report, error) {
	if err := e.upkeep.Acquire(ctx, 1); err != nil {
		return Report{}, because(err, "cannot repair the published tree")
	}
	defer e.upkeep.Release(1)
	before, err := e.rows(ctx, true, e.alone)
	if err != nil {
		return Report{}, err
	}
	if err := e.mendRows(ctx, before); err != nil {
		return Report{}, err
	}
	restored, err := e.restoreBills(ctx)
	if err != nil {
		return Report{}, err
	}
	report, err := e.Publisher.Repair(ctx, publish.Repairs{
		Expected: e.expected, Progress: progress, Aside: e.Aside,
		Alone: func(ctx context.Context, base *publish.ExpectedBase, f func(context.Context) error) error {
			return e.alone(func(context.Context) error { return e.ifExpected(ctx, base, f) })
		},
		Restage: e.restage,
	})
	if err != nil && !unreadable(before) {
		return Report{}, because(err, "cannot repair the published tree")
	}
	if err != nil {
		report.Findings = append(report.Findings, unchecked(err))
	}
	report.Findings = append(report.Findings, restored...)
	files := e.fileRows(report)
	before = append(before, files...)
	strays, err := e.strayFiles(ctx, &report)
	if err != nil {
		return Report{}, err
	}
	if err := e.mendRows(ctx, append(files, strays...)); err != nil {
		return Report{}, err
	}
	after, err := e.rows(ctx, true, e.alone)
	if err != nil {
		return Report{}, err
	}
	report.Findings = append(report.Findings, outcome(before, after)...)
	report.Findings = append(report.Findings, outcome(strays, nil)...)
	slices.SortFunc(report.Findings, byPath)
	return report, e.record(ctx, a, report)
}

// restoreBills writes bills of materials anew where that is needed.
func (e *Engine) restoreBills(ctx context.Context) ([]Finding, error) {
	if e.Bills == nil {
		return nil, nil
	}
	paths, err := e.Bills.Restore(ctx)
	var findings []Finding
	for _, path := range paths {
		findings = append(findings, Finding{Path: "public/" + path, Reason: "was missing or altered", Repaired: "written again from the database"})
	}
	if err != nil {
		return nil, because(err, "cannot repair bills of materials")
	}
	return findings, nil
}

// alone runs f between two acts of the writer.
func (e *Engine) alone(f func(context.Context) error) error {
	return e.do(&job{ctx: e.changes.ctx, act: f})
}

// unreadable tells whether the store could not be read to its end.
func unreadable(found []rowFinding) bool {
	return slices.ContainsFunc(found, func(f rowFinding) bool {
		return f.mend == nil && strings.HasPrefix(f.Reason, "cannot be read any further")
	})
}

// unchecked is the finding that stands for a whole tree.
func unchecked(err error) Finding {
	return Finding{Path: "public", Reason: fmt.Sprintf("cannot be checked while the database cannot be read: %v", err), Restore: fromBackup}
}

// ifExpected runs f unless a fixed base is gone meanwhile.
func (e *Engine) ifExpected(ctx context.Context, base *publish.ExpectedBase, f func(context.Context) error) error {
	if base != nil && base.Signed != nil {
		there, err := e.Store.HasBase(ctx, base.Pipeline, base.Dir)
		if err != nil || !there {
			return err
		}
	}
	return f(ctx)
}

// restage publishes a stage as it stands, modified later than what it offered and
// than what lies in its place: after a database was restored from a backup,
// that may be newer.
func (e *Engine) restage(ctx context.Context, base publish.ExpectedBase) error {
	return e.do(&job{ctx: ctx, pipeline: base.Pipeline, stage: base.Dir, act: func(ctx context.Context) error {
		l, err := e.line(base.Pipeline)
		if err != nil {
			return err
		}
		position, err := l.position(base.Dir)
		if err != nil {
			return err
		}
		t := e.turn("repair", l)
		s := &t.line.standings[position]
		if signed, err := e.Publisher.Published(l.base(l.states[position]), s.Name); err == nil {
			s.Date = later(s.Date, publish.ParseRelease(signed.Text).Date)
		}
		s.Modified = later(s.Modified, e.Publisher.Modified(l.base(l.states[position]), s.Name))
		if wait := s.ahead(t.now); wait > 0 {
			return errClock(wait)
		}
		t.publish(position)
		return t.commit(ctx)
	}})
}

// mendRows makes rows again, all at once, or if that fails each by itself.
func (e *Engine) mendRows(ctx context.Context, found []rowFinding) error {
	var all []func(*Mending)
	for _, f := range found {
		if f.mend != nil {
			all = append(all, f.mend)
		}
	}
	if len(all) == 0 {
		return nil
	}
	err := e.alone(func(context.Context) error {
		if err := e.mend(ctx, all...); err != nil {
			var failed []error
			for _, one := range all {
				failed = append(failed, e.mend(ctx, one))
			}
			e.Log.Error("cannot mend all rows", "error", errors.Join(failed...))
		}
		for name := range e.all() {
			e.reload(ctx, name)
		}
		return nil
	})
	faultpoint.Hit("repair:rows-mended")
	return err
}

func (e *Engine) mend(ctx context.Context, mends ...func(*Mending)) error {
	var m Mending
	for _, mend := range mends {
		mend(&m)
	}
	return e.Store.Mend(ctx, m)
}

// fileRows are the rows of files that states need and the store does not have.
func (e *Engine) fileRows(report Report) []rowFinding {
	a := &audit{e: e}
	for _, f := range report.Unrecorded {
		a.file(File{SHA256: f.SHA256, Name: f.Name, Size: f.Size}, f.Lost, "a state")
	}
	return a.found
}

// strayFiles are rows of files that nothing refers to, and whose file is not
// there: an altered row. The findings of such files are about the rows then.
// Nothing is said while a blob is bad, as it may be what refers to them.
func (e *Engine) strayFiles(ctx context.Context, report *Report) ([]rowFinding, error) {
	if slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Repaired == "" && f.SHA256 == "" && strings.HasPrefix(f.Path, "blobs/") }) {
		return nil, nil
	}
	uploads, err := e.Store.Uploads(ctx)
	if err != nil {
		return nil, because(err, "cannot list uploads")
	}
	uploaded := make(map[string]bool)
	for _, u := range uploads {
		uploaded[fmt.Sprintf("%x", u.SHA256)] = true
	}
	files, err := e.Store.Files(ctx)
	if err != nil {
		return nil, because(err, "cannot list the files of the pool")
	}
	a := &audit{e: e}
	for _, f := range files {
		sum := fmt.Sprintf("%x", f.SHA256)
		at := slices.IndexFunc(report.Findings, func(g Finding) bool { return g.SHA256 == sum && g.Repaired == "" && len(g.NeededBy) == 0 })
		if at < 0 || uploaded[sum] || report.Findings[at].Aside != "" {
			continue
		}
		report.Findings = slices.Delete(report.Findings, at, at+1)
		a.mendable(e.row("files", sum), "is of a file that is not there, and nothing refers to it", "dropped", func(m *Mending) {
			m.Drop = append(m.Drop, RowName{Table: "files", SHA256: f.SHA256})
		})
	}
	return a.found, nil
}

// outcome turns what was found before a repair, and what still is found after
// it, into findings for people.
func outcome(before, after []rowFinding) []Finding {
	left := make(map[string]bool)
	for _, f := range after {
		left[f.key()] = true
	}
	var findings []Finding
	said := make(map[string]bool)
	for _, f := range slices.Concat(before, after) {
		if said[f.key()] {
			continue
		}
		said[f.key()] = true
		switch {
		case !left[f.key()] && f.did != "":
			f.Repaired, f.Restore = f.did, ""
		case !left[f.key()]:
			f.Repaired, f.Restore = "as it should be, now that what it depends on is", ""
		case f.Restore == "":
			f.Restore = fromBackup
		}
		findings = append(findings, f.Finding)
	}
	return findings
}

// outcomeOf is what became of a finding, for the log of a change.
func outcomeOf(f Finding) string {
	if f.Repaired != "" {
		return f.Repaired
	}
	return "not repaired: " + f.Restore
}

// record writes a repair that found something into the audit trail.
func (e *Engine) record(ctx context.Context, a Actor, report Report) error {
	if len(report.Findings) == 0 {
		return nil
	}
	repaired := 0
	for _, f := range report.Findings {
		if f.Repaired != "" {
			repaired++
		}
	}
	act := Act{
		At: e.now(), By: a.Name, Via: a.Via, Verb: "repair", Object: "archive",
		Detail: fmt.Sprintf("%d repaired, %d must be restored", repaired, len(report.Findings)-repaired),
	}
	if err := e.alone(func(context.Context) error { return e.Store.Commit(ctx, Batch{Acts: []Act{act}}) }); err != nil {
		e.Log.Error("cannot record a repair", "error", err) // a damaged database is what it may be about
	}
	return nil
}

// RestoreFile puts a package file back that the pool has lost: exactly the
// bytes that it is recorded with, whatever lies there now. When it returns nil
// the file is durable and served. A file that was never recorded is NotFound.
func (e *Engine) RestoreFile(ctx context.Context, a Actor, in Incoming) (Upload, error) {
	p, file := in.Package, in.file()
	answer := Upload{Name: p.Name, Version: p.Version, Architecture: p.Architecture, SHA256: fmt.Sprintf("%x", p.SHA256), Size: p.Size}
	err := e.do(&job{ctx: ctx, act: func(ctx context.Context) error {
		known, err := e.Store.HasFile(ctx, file.SHA256)
		if err != nil {
			return because(err, "cannot restore %s", in.Name)
		}
		if !known {
			return fail(NotFound, "a new package: repo-manager package add REPOSITORY "+in.Name,
				"cannot restore %s: no package with the SHA-256 %x was ever taken; what must be restored has exactly the bytes of then", in.Name, file.SHA256)
		}
		if answer.Already, err = e.putBack(file, in.Content); err != nil || answer.Already {
			return err
		}
		return e.Store.Commit(ctx, Batch{Acts: []Act{{
			At: e.now(), By: a.Name, Via: a.Via, Verb: "restore", Object: "file " + file.Name, Detail: answer.SHA256,
		}}})
	}})
	return answer, err
}

// putBack puts a recorded file into the pool, durably, unless it is there.
func (e *Engine) putBack(f File, content []byte) (already bool, err error) {
	already, err = e.intoPool(f, content)
	if err == nil {
		e.unsynced = e.unsynced || !already
		err = e.ensureSynced()
	}
	if err != nil {
		return already, because(err, "cannot put %s back into the pool", f.Name)
	}
	return already, nil
}

// intoPool moves a file from where it waits: in memory, if it has no path.
func (e *Engine) intoPool(f File, content []byte) (already bool, err error) {
	if f.Path == "" {
		return e.Pool.PutBytes(content, f.SHA256, f.Name)
	}
	return e.Pool.Put(f.Path, f.SHA256, f.Name)
}

// ensureSynced makes what was put into the pool durable, if it may not be.
func (e *Engine) ensureSynced() error {
	if !e.unsynced {
		return nil
	}
	return e.sync()
}

// sync makes everything durable.
func (e *Engine) sync() error {
	if err := e.Sync(); err != nil {
		return err
	}
	e.unsynced = false
	return nil
}
