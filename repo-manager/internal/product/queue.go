package product

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"aptfleet/internal/bom"
	"aptfleet/internal/faultpoint"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Status says how far the answer to a question is.
type Status int

// The statuses. Computing becomes one of the others, or starts again.
const (
	Computing Status = iota // queued, under way, or to be tried again
	Computed                // there is a bill of materials
	Failed                  // there is a verdict: it cannot be installed; or no such product or module
)

// Ready names a bill of materials that can be fetched.
type Ready struct {
	SHA256 string // lower-case hex
	Size   int64  // bytes
}

// entry is a question with its answer, or with those who wait for one.
type entry struct {
	key     entryKey
	product string
	modules []string
	state   snapshots.ID

	// Of an answer:
	status  Status
	sha256  [32]byte
	ready   Ready
	verdict string // one line
	// While there is none:
	question bom.BOM
	packages map[string][]string // of each module; of the product itself under ""
	first    uint64              // lookup that brought it up; 0: none did
	last     uint64              // newest lookup
	waiters  int                 // who stay until it is answered
	joined   uint64              // request of the first who ever stayed
	stale    bool                // the product is not defined like that any more
	done     chan struct{}       // closed when it is answered or given up
	err      error               // why the last try failed
	tries    int
	next     time.Time // when to try again
}

// settle makes an entry the answer.
func (e *entry) settle(a Answer) {
	e.status = Computed
	e.sha256, e.ready = a.SHA256, Ready{SHA256: hex.EncodeToString(a.SHA256[:]), Size: a.Size}
	if a.Verdict != nil {
		e.status, e.ready, e.verdict = Failed, Ready{}, a.Verdict.Summary
	}
	e.question, e.packages, e.err = bom.BOM{}, nil, nil
	if e.done != nil {
		close(e.done)
		e.done = nil
	}
}

// end tells those who wait that there will be no answer.
func (e *entry) end(err error) {
	e.err = err
	if e.done != nil {
		close(e.done)
		e.done = nil
	}
}

// maxQueue bounds what waits. What was asked for longest ago goes first; who
// still wants it asks again.
const maxQueue = 10_000

// Lookup tells from memory what the bill of materials of a product with modules
// in a state is. If it is not computed it is queued, and reason says what it
// waits for; of a failure, why. Ask again after an Event, or now and then: of
// several states of one product that wait, one that nobody asked for since a
// newer one came up may be skipped.
func (s *Service) Lookup(pipeline, product string, modules []string, state snapshots.ID) (r Ready, status Status, reason string) {
	modules = inOrder(modules)
	key := lookupKey{pipeline, product, strings.Join(modules, " "), state}
	s.mu.RLock()
	e := s.lookups[key]
	if e != nil && e.status != Computing {
		defer s.mu.RUnlock()
		return e.ready, e.status, e.verdict
	}
	s.mu.RUnlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := s.entry(key, modules)
	if err != nil {
		return Ready{}, Failed, err.Error()
	}
	if e.status != Computing {
		return e.ready, e.status, e.verdict
	}
	s.want(e)
	if e.err != nil {
		return Ready{}, Computing, fmt.Sprintf("the last try to compute its bill of materials failed: %v", e.err)
	}
	return Ready{}, Computing, "its bill of materials is being computed"
}

// inOrder returns modules sorted, without changing what it was given.
func inOrder(modules []string) []string {
	if slices.IsSorted(modules) {
		return slices.Compact(slices.Clone(modules))
	}
	return sorted(modules)
}

// entry finds or makes the entry of a question about a product as it is now.
// s.mu is held.
func (s *Service) entry(key lookupKey, modules []string) (*entry, error) {
	if e := s.lookups[key]; e != nil {
		return e, nil
	}
	p, ok := s.products[name{key.pipeline, key.product}]
	if !ok {
		return nil, &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot find product %q: pipeline %s has none of that name", key.product, key.pipeline), Hint: "repo-manager product list"}
	}
	if m := p.without(modules); m != "" {
		hint := "it has none"
		if names := p.moduleNames(); len(names) > 0 {
			hint = "it has " + strings.Join(names, ", ")
		}
		return nil, &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot find module %q of product %s", m, p.Name), Hint: hint}
	}
	question := p.question(modules, key.state)
	at := entryKey{key.pipeline, sha256.Sum256(question.Encode())}
	e := s.entries[at]
	if e == nil {
		packages := maps.Clone(p.Modules)
		packages[""] = p.Packages
		e = &entry{key: at, product: p.Name, modules: modules, state: key.state, question: question, packages: packages, done: make(chan struct{})}
		s.entries[at] = e
	}
	e.stale = false
	s.lookups[key] = e
	return e, nil
}

func (p Product) moduleNames() []string { return slices.Sorted(maps.Keys(p.Modules)) }

// want notes a lookup. What waits for its next try has its time, however many
// devices ask meanwhile. s.mu is held.
func (s *Service) want(e *entry) {
	s.asked++
	e.last = s.asked
	if e.next.IsZero() {
		s.wakeUp()
	}
	if e.first == 0 {
		e.first = e.last
		s.bound()
	}
}

// wakeUp has whoever answers look for a question.
func (s *Service) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// bound keeps the queue from growing without end. s.mu is held.
func (s *Service) bound() {
	var waiting []*entry
	for _, e := range s.entries {
		if e.status == Computing && e.waiters == 0 {
			waiting = append(waiting, e)
		}
	}
	if len(waiting) > maxQueue {
		s.forgetEntry(slices.MinFunc(waiting, func(a, b *entry) int { return int(int64(a.last - b.last)) }))
	}
}

// forgetEntry takes an unanswered question out. s.mu is held.
func (s *Service) forgetEntry(e *entry) {
	if s.entries[e.key] == e {
		delete(s.entries, e.key)
	}
	for key, other := range s.lookups {
		if other == e {
			delete(s.lookups, key)
		}
	}
}

// BOM returns the bill of materials of a product with modules in a state, and
// computes it if need be. A verdict is no error.
func (s *Service) BOM(ctx context.Context, pipeline, product string, modules []string, state snapshots.ID) (Bill, error) {
	e, done, err := s.join(pipeline, product, inOrder(modules), state)
	if err != nil {
		return Bill{}, err
	}
	if done != nil {
		select {
		case <-ctx.Done():
		case <-done:
		}
		if err := s.leave(ctx, e); err != nil {
			return Bill{}, trouble(product, err)
		}
	}
	return s.bill(ctx, e.key, product)
}

// join finds a question, and has the caller wait until done is closed if there
// is no answer yet; then leave has to follow.
func (s *Service) join(pipeline, product string, modules []string, state snapshots.ID) (e *entry, done chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err = s.entry(lookupKey{pipeline, product, strings.Join(modules, " "), state}, modules)
	if err != nil || e.status != Computing {
		return e, nil, err
	}
	if s.stopped {
		return nil, nil, errStopped
	}
	e.waiters++
	e.next = time.Time{} // a person who asks need not wait for the next try
	s.asked++
	if e.joined == 0 {
		e.joined = s.asked
	}
	s.wakeUp()
	return e, e.done, nil
}

// leave ends a wait and tells what it was good for.
func (s *Service) leave(ctx context.Context, e *entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.waiters--
	if e.status != Computing {
		return nil
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return e.err
}

// bill reads an answer.
func (s *Service) bill(ctx context.Context, at entryKey, product string) (Bill, error) {
	a, ok, err := s.config.Store.Answer(ctx, at.pipeline, at.question)
	if err != nil {
		return Bill{}, fmt.Errorf("cannot read the bill of materials of %s: %w", product, err)
	}
	if !ok {
		return Bill{}, gone(product)
	}
	b := Bill{Details: a.Details, Verdict: a.Verdict, Made: a.Made}
	if a.Verdict != nil {
		b.State, b.Product, b.Modules = a.State.String(), a.Product, a.Modules
		return b, nil
	}
	if b.BOM, err = bom.Decode(a.Text); err != nil {
		return Bill{}, err
	}
	b.Text, b.Size, b.SHA256 = a.Text, int64(len(a.Text)), bom.Sum(a.Text)
	return b, nil
}

// trouble is an error that is no verdict, for people.
func trouble(product string, err error) error {
	var known *release.Error
	text := fmt.Sprintf("cannot compute the bill of materials of %s: %v", product, err)
	switch {
	case errors.As(err, &known), errors.Is(err, context.Canceled):
		return err
	case isFull(err):
		return &release.Error{
			Code: release.NoSpace, Text: fmt.Sprintf("cannot compute the bill of materials of %s: no space left on the disk of the data directory", product),
			Hint: "free space there or make it larger, then try again; nothing was changed", Err: err,
		}
	}
	return &release.Error{Code: "internal", Text: text, Hint: "try again; the server's log tells more", Err: err}
}

// isFull tells whether a disk is full, from what we met or what apt says.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || strings.Contains(err.Error(), "No space left on device")
}

func gone(product string) error {
	return &release.Error{
		Code: release.NotFound, Text: fmt.Sprintf("cannot compute the bill of materials of %s: the state is not kept any more", product), Hint: "repo-manager snapshot list",
	}
}

// Run answers questions, one after the other, until ctx ends.
func (s *Service) Run(ctx context.Context) {
	defer s.stop()
	for ctx.Err() == nil {
		e, wait := s.next()
		if e != nil {
			s.answer(ctx, e)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

var errStopped = errors.New("the server stops")

// stop tells those who wait that nobody answers any more.
func (s *Service) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	for _, e := range s.entries {
		if e.status == Computing {
			e.end(errStopped)
		}
	}
}

// idle is how long the queue sleeps if nothing waits for its next try.
const idle = time.Hour

// next chooses a question: what somebody stays for, in their order; then what
// was asked for last. If there is none it says for how long.
func (s *Service) next() (chosen *entry, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wait := s.config.Clock(), idle
	newest := make(map[string]uint64) // of each product and modules: when the newest question was looked up first
	group := func(e *entry) string { return e.key.pipeline + "\n" + e.product + "\n" + strings.Join(e.modules, " ") }
	for _, e := range s.entries {
		if e.status == Computing {
			newest[group(e)] = max(newest[group(e)], e.first)
		}
	}
	for _, e := range s.entries {
		switch {
		case e.status != Computing:
		case e.waiters == 0 && (e.stale || e.last < newest[group(e)]):
			s.forgetEntry(e)
		case e.next.After(now):
			wait = min(wait, e.next.Sub(now))
		case chosen == nil || before(e, chosen):
			chosen = e
		}
	}
	return chosen, wait
}

func before(a, b *entry) bool {
	if (a.waiters > 0) != (b.waiters > 0) {
		return a.waiters > 0
	}
	if a.waiters > 0 {
		return a.joined < b.joined
	}
	return a.last > b.last
}

// answer computes one answer and keeps it.
func (s *Service) answer(ctx context.Context, e *entry) {
	began := time.Now()
	answer, err := s.compute(ctx, e)
	faultpoint.Hit("product:solved")
	if err == nil {
		err = s.keep(ctx, e, answer)
	}
	switch {
	case err == nil:
		s.config.Log.Info("bill of materials", "pipeline", e.key.pipeline, "product", e.product, "state", e.state, "verdict", e.verdict, "ms", time.Since(began).Milliseconds())
	case ctx.Err() != nil: // stop tells them
	default:
		s.postpone(e, err, s.isGone(ctx, e, err))
	}
}

// isGone tells whether a question cannot be answered because gc has removed its
// state.
func (s *Service) isGone(ctx context.Context, e *entry, err error) bool {
	if !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	kept, err := s.config.States(ctx, e.key.pipeline)
	return err == nil && !slices.Contains(kept, e.state)
}

func (s *Service) compute(ctx context.Context, e *entry) (Answer, error) {
	out, err := s.solver.solve(ctx, e.question, e.packages)
	if err != nil {
		return Answer{}, errors.Join(err, s.solver.forget())
	}
	a := Answer{
		Pipeline: e.key.pipeline, Question: e.key.question, State: e.state, Product: e.product, Modules: e.modules, Made: s.now(),
		Verdict: out.verdict, Text: out.text, Details: out.details, Size: int64(len(out.text)),
	}
	if a.Verdict == nil {
		a.SHA256 = sha256.Sum256(out.text)
	}
	return a, nil
}

// keep stores an answer, publishes a bill, and tells everybody. The file comes
// first: who reads the name in an answer finds it. A product that was deleted
// meanwhile has no answers.
func (s *Service) keep(ctx context.Context, e *entry, a Answer) error {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	if _, ok := s.Product(a.Pipeline, a.Product); !ok {
		return fmt.Errorf("product %s was deleted", a.Product)
	}
	if a.Verdict == nil {
		if err := s.tree.put(a.Pipeline, a.SHA256, a.Text); err != nil {
			return err
		}
		faultpoint.Hit("product:published")
	}
	if err := s.config.Store.PutAnswer(ctx, a); err != nil {
		return fmt.Errorf("cannot keep the bill of materials: %w", err)
	}
	faultpoint.Hit("product:kept")
	s.mu.Lock()
	e.settle(a)
	told := s.told
	event := Event{Pipeline: a.Pipeline, Product: a.Product, Modules: a.Modules, State: a.State, Status: e.status}
	s.mu.Unlock()
	for _, f := range told {
		f(event)
	}
	s.config.Announce("bom", a.Pipeline, a.Product)
	return nil
}

// Between two tries the wait doubles, between these.
const (
	firstRetry = 5 * time.Second
	lastRetry  = 10 * time.Minute
)

// postpone notes trouble. Those who stay are told; devices ask again. What can
// never be answered is forgotten.
func (s *Service) postpone(e *entry, err error, isGone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.entries[e.key] != e: // its product was deleted
		return
	case isGone:
		e.end(gone(e.product))
		s.forgetEntry(e)
		return
	}
	s.config.Log.Error("cannot compute a bill of materials; will try again", "pipeline", e.key.pipeline, "product", e.product, "state", e.state, "error", err)
	e.end(err)
	e.done = make(chan struct{})
	e.next = s.config.Clock().Add(min(firstRetry<<min(e.tries, 20), lastRetry))
	e.tries++
	if e.last == 0 { // nobody but those who were just told wanted it
		s.forgetEntry(e)
	}
}
