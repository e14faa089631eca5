package health

import (
	"context"
	"fmt"
	"sync"
	"time"

	"aptfleet/device-updater/internal/evidence"
	"aptfleet/device-updater/internal/uplink"
	"aptfleet/internal/protocol"
)

// seeker asks the server until it answers once, and finds out meanwhile why it
// does not.
type seeker struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when it has ended

	mu      sync.Mutex
	ok      bool
	told    chan struct{} // closed when ok becomes true
	cause   error         // why the last request failed
	finding uplink.Finding
	found   bool // there is a finding
	asked   int
}

// seek begins to ask, if the server answered before the update.
func (w *Watcher) seek(ctx context.Context) *seeker {
	ctx, cancel := context.WithCancel(ctx)
	s := &seeker{cancel: cancel, done: make(chan struct{}), told: make(chan struct{})}
	if w.Reachable == nil || !w.Baseline.Reachable {
		s.ok = true
		close(s.done)
		return s
	}
	go func() {
		defer close(s.done)
		for ctx.Err() == nil && !s.ask(ctx, w) {
			select {
			case <-ctx.Done():
			case <-time.After(w.Pause):
			}
		}
	}()
	return s
}

// ask asks once.
func (s *seeker) ask(ctx context.Context, w *Watcher) bool {
	traced, request := uplink.Trace(ctx)
	err := w.Reachable(traced)
	if ctx.Err() != nil {
		return false // that says nothing
	}
	s.mu.Lock()
	s.cause, s.asked = err, s.asked+1
	if err == nil {
		s.ok = true
		close(s.told)
	}
	s.mu.Unlock()
	if err == nil || w.Explain == nil {
		return err == nil
	}
	finding, found := w.Explain(ctx, w.Baseline.Uplink, request, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if found {
		s.finding, s.found = finding, true
	}
	return false
}

// stop ends it and waits until it has ended.
func (s *seeker) stop() {
	s.cancel()
	<-s.done
}

// reached reports whether the server has answered, or need not.
func (s *seeker) reached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ok
}

// news returns what is closed as soon as the server has answered; nil if it
// has.
func (s *seeker) news() <-chan struct{} {
	if s.reached() {
		return nil
	}
	return s.told
}

// missing words that the server is waited for.
func (s *seeker) missing() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := "the server could not be reached"
	if s.cause != nil {
		text += fmt.Sprintf(" (%v)", s.cause)
	}
	if s.found {
		text += ": " + s.finding.What
	}
	return text
}

// verdict is what a trial ends with in which all was well but the server.
func (s *seeker) verdict(warnings []string) ([]string, error) {
	missing := s.missing()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ok || s.found && s.finding.Outside {
		if !s.ok {
			warnings = append(warnings, "committed without a word from the server: "+s.finding.What)
		}
		return warnings, nil
	}
	return nil, &Bad{missing + " when the time for the trial was up", s.evidence()}
}

// evidence says how the server was sought.
func (s *seeker) evidence() []protocol.Excerpt {
	text := fmt.Sprintf("asked %d times; the last time: %v\n", s.asked, s.cause)
	if s.found {
		text += s.finding.What + "\n"
	}
	return evidence.Take("the way to the server", text)
}

// A server that is just being started anew must not make a trial do without it:
// it is asked again. A silent one must not hold an update up.
const (
	baselineTries = 3
	baselineTime  = 5 * time.Second
)

// AskServer notes whether the server answers, and by which way. pause is
// between two tries. It takes five seconds at most, and three more where the
// server answers and the next hop does not.
func (b *Baseline) AskServer(ctx context.Context, pause time.Duration, reachable func(context.Context) error) {
	ctx, cancel := context.WithTimeout(ctx, baselineTime)
	defer cancel()
	for try := range baselineTries {
		if try > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
		}
		traced, request := uplink.Trace(ctx)
		if b.Reachable = reachable(traced) == nil; b.Reachable {
			b.Uplink = uplink.Look(request)
			return
		}
	}
}
