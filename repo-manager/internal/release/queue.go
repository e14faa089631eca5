package release

import (
	"context"
	"errors"
	"sync"
	"time"
)

// job is one act that waits for the writer. Either act is set, which runs
// alone, or edit, which shares a batch with the other edits of its pipeline.
type job struct {
	ctx      context.Context // of whoever asked: once it is done, a job that waits is dropped
	pipeline string
	stage    string // that act will publish, "" for none
	act      func(ctx context.Context) error
	edit     func(ctx context.Context, d *draft) (answer func(), err error)
	upload   *Incoming // that edit will add; nil if it does something else
	done     chan error
}

// queue holds what waits. The writer takes all of it at once.
type queue struct {
	mu      sync.Mutex
	jobs    []*job
	closed  bool
	arrived chan struct{} // holds at most one signal
}

var errClosed = &Error{Code: Conflict, Text: "cannot act: the server is stopping", Hint: "try again when it is back"}

func (q *queue) init() { q.arrived = make(chan struct{}, 1) }

// put adds jobs, which share a batch if they can.
func (q *queue) put(jobs []*job) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return errClosed
	}
	q.jobs = append(q.jobs, jobs...)
	select {
	case q.arrived <- struct{}{}:
	default:
	}
	return nil
}

func (q *queue) take() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	jobs := q.jobs
	q.jobs = nil
	return jobs
}

func (q *queue) close() []*job {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	return q.take()
}

// do hands a job to the writer and waits for it. It does not return before
// the writer is finished with the job, so that what the job refers to (a
// file, a variable) is the caller's again.
func (e *Engine) do(j *job) error { return e.doAll([]*job{j})[0] }

// doAll is do for jobs that the writer gets together. It returns the error of
// each.
func (e *Engine) doAll(jobs []*job) []error {
	for _, j := range jobs {
		j.done = make(chan error, 1)
	}
	errs := make([]error, len(jobs))
	refused := e.queue.put(jobs)
	for i, j := range jobs {
		if errs[i] = refused; refused == nil {
			errs[i] = <-j.done
		}
	}
	return errs
}

// retryAfter is how long the writer waits before it publishes again what it
// could not.
const retryAfter = 15 * time.Second

// write is the writer: all acts of all pipelines, one round after the other.
func (e *Engine) write() {
	defer close(e.done)
	var waiting []*job
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-e.queue.arrived:
		case <-timer.C:
		case <-e.ctx.Done():
			for _, j := range append(waiting, e.queue.close()...) {
				j.done <- errClosed
			}
			return
		}
		// Acts finish even while the server stops: a batch is never cut in half.
		ctx := context.WithoutCancel(e.ctx)
		var wake time.Duration
		waiting, wake = e.round(ctx, append(waiting, e.queue.take()...))
		if again := e.refresh(ctx); again < wake {
			wake = again
		}
		timer.Reset(wake)
	}
}

// maxWait is how long a job may wait for its stage's next Date. Longer waits
// mean that the clock was set back; nobody should hang on that.
const maxWait = time.Minute

// errClock says that a stage cannot be published for long.
func errClock(wait time.Duration) error {
	return fail(Refused, "look at the clock of this machine: it may be wrong now, or was when it was published last",
		"cannot publish: the last Release is dated %s ahead of the clock, and apt ignores one with an earlier date", (wait + MaxAhead).Round(time.Second))
}

// round does what may be done now. It returns the jobs that must wait because
// their stage's Date would run too far ahead, and how long that is.
func (e *Engine) round(ctx context.Context, jobs []*job) (waiting []*job, wake time.Duration) {
	wake = time.Hour
	var order []string // pipelines with edits, first come first
	edits := make(map[string][]*job)
	for _, j := range jobs {
		if j.ctx.Err() != nil {
			j.done <- context.Cause(j.ctx)
			continue
		}
		if j.edit != nil {
			if edits[j.pipeline] == nil {
				order = append(order, j.pipeline)
			}
			edits[j.pipeline] = append(edits[j.pipeline], j)
			continue
		}
		wait := e.mustWait(j.pipeline, j.stage)
		switch {
		case wait > maxWait:
			j.done <- errClock(wait)
		case wait > 0:
			waiting, wake = append(waiting, j), min(wake, wait)
		default:
			j.done <- j.act(ctx)
		}
	}
	for _, pipeline := range order {
		group, wait := edits[pipeline], e.mustWait(pipeline, e.firstStage(pipeline))
		switch {
		case wait > maxWait:
			for _, j := range group {
				j.done <- errClock(wait)
			}
		case wait > 0:
			waiting, wake = append(waiting, group...), min(wake, wait)
		default:
			e.editAll(ctx, pipeline, group)
		}
	}
	return waiting, wake
}

// firstStage is the stage that edits publish; "" if there is no such pipeline.
func (e *Engine) firstStage(pipeline string) string {
	l, err := e.line(pipeline)
	if err != nil {
		return ""
	}
	return l.Stages[0]
}

// mustWait returns how long a stage may not be published because its Date is
// too far ahead of the clock; that is not long for one that does not exist,
// which the act itself complains about.
func (e *Engine) mustWait(pipeline, stage string) time.Duration {
	l, err := e.line(pipeline)
	if err != nil {
		return 0
	}
	for _, s := range l.standings {
		if s.Name == stage {
			return s.ahead(e.now())
		}
	}
	return 0
}

// ahead is how long the stage may not be published because its Date is too far
// in front of the clock; not above zero if it may.
func (s Standing) ahead(now time.Time) time.Duration { return s.Date.Add(-MaxAhead).Sub(now) }

// nextDate is the Date of a stage's next publication: the clock's second, or
// the last Date if the clock was set back behind it. apt keeps a Release whose
// Date is older than the one it has, and takes one whose Date is the same.
func nextDate(last, now time.Time) time.Time {
	if date := now.Truncate(time.Second); date.After(last) {
		return date
	}
	return last
}

// nextModified is when the signed files of a stage are said to be modified next:
// the clock's second, or the one after the last. HTTP compares whole seconds, so
// with less than that a client would not ask for the second of two publications.
func nextModified(last, now time.Time) time.Time {
	at := now.Truncate(time.Second)
	if !at.After(last) {
		at = last.Add(time.Second)
	}
	return at
}

// uploadsOf lists what jobs will add.
func uploadsOf(jobs []*job) []Incoming {
	var uploads []Incoming
	for _, j := range jobs {
		if j.upload != nil {
			uploads = append(uploads, *j.upload)
		}
	}
	return uploads
}

// editAll does a group of edits of one pipeline in one batch. An edit that is
// refused, or whose files cannot be stored, fails alone: the others are made as
// if it had not come. If the batch fails, all of them do.
func (e *Engine) editAll(ctx context.Context, pipeline string, group []*job) {
	l, err := e.line(pipeline)
	if err != nil {
		for _, j := range group {
			j.done <- err
		}
		return
	}
	d := newDraft(e, l)
	accepted, answers := d.edit(ctx, group)
	failed, err := d.place(ctx)
	for err == nil && len(failed) > 0 {
		var rest []*job
		for _, j := range accepted {
			if failed[j] == nil {
				rest = append(rest, j)
			} else {
				j.done <- failed[j]
			}
		}
		d = d.again()
		accepted, answers = d.edit(ctx, rest)
		failed, err = d.place(ctx)
	}
	if err == nil {
		err = d.commit(ctx)
	}
	if err != nil && !isUnpublished(err) {
		err = errors.Join(err, d.giveUp(ctx))
	}
	for i, j := range accepted {
		if err == nil {
			answers[i]()
		}
		j.done <- err
	}
}

// edit makes the edits of jobs, answers those that are refused, and returns the
// others, with what tells them the outcome.
func (d *draft) edit(ctx context.Context, group []*job) (accepted []*job, answers []func()) {
	d.expect(ctx, uploadsOf(group))
	for _, j := range group {
		d.job = j
		answer, err := j.edit(ctx, d)
		if err != nil {
			j.done <- err
			continue
		}
		accepted = append(accepted, j)
		answers = append(answers, answer)
	}
	return accepted, answers
}
