package siege

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"aptfleet/internal/protocol"
)

// ledger is what clients were told. Once the power has failed, answers that
// still arrive come from a world that does not count any more.
type ledger struct {
	mu        sync.Mutex
	doomed    bool
	uploads   map[subject]*versions
	moves     map[subject][]protocol.Move // by stage, as answered
	snapshots map[string][]protocol.Snapshot
	dates     map[subject]dated // newest InRelease that a client has seen, by stage
	problems  []string          // mismatches and what nobody should be answered
	backups   int               // that were made
	backed    map[subject]int   // what was accepted before the newest of them
}

// subject is a package or a stage of a pipeline.
type subject struct{ pipeline, name string }

// versions are those of one package: version n is "1.<n>", tried in order.
type versions struct {
	sums  []string // SHA-256 of version n+1
	acked int      // the newest one that was accepted, 0 for none
}

// dated is an InRelease by its Date.
type dated struct {
	date time.Time
	text string
}

func newLedger() *ledger {
	return &ledger{
		uploads: make(map[subject]*versions), moves: make(map[subject][]protocol.Move),
		snapshots: make(map[string][]protocol.Snapshot), dates: make(map[subject]dated),
	}
}

// doom ends what counts; reopen begins anew after a restart.
func (l *ledger) doom() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doomed = true
}

func (l *ledger) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doomed = false
}

// record notes an answer, if it still counts.
func (l *ledger) record(note func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.doomed {
		note()
	}
}

// tries notes that a version of a package is about to be sent and returns its
// number.
func (l *ledger) tries(at subject, sum func(n int) string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.uploads[at]
	if v == nil {
		v = &versions{}
		l.uploads[at] = v
	}
	n := len(v.sums) + 1
	v.sums = append(v.sums, sum(n))
	return n
}

// accepted notes that a version was answered with success.
func (l *ledger) accepted(at subject, n int) {
	l.record(func() { l.uploads[at].acked = max(l.uploads[at].acked, n) })
}

// moved notes a promotion or an undo. One that moved nothing has no number.
func (l *ledger) moved(at subject, m protocol.Move) {
	l.record(func() {
		if m.Seq > 0 {
			l.moves[at] = append(l.moves[at], m)
		}
	})
}

func (l *ledger) named(pipeline string, s protocol.Snapshot) {
	l.record(func() { l.snapshots[pipeline] = append(l.snapshots[pipeline], s) })
}

// saw notes the InRelease that a stage offers, and tells what is wrong with it
// after what was seen before. began is when the client asked: an answer that
// was overtaken by another one is no step back.
func (l *ledger) saw(at subject, date time.Time, text string, before dated) {
	l.record(func() {
		newest := l.dates[at]
		switch {
		case date.Before(before.date):
			l.problems = append(l.problems, fmt.Sprintf("%s/%s: the Date went back from %s to %s", at.pipeline, at.name, before.date.Format(time.TimeOnly), date.Format(time.TimeOnly)))
		case date.Equal(newest.date) && text != newest.text:
			l.problems = append(l.problems, fmt.Sprintf("%s/%s: two texts have the Date %s", at.pipeline, at.name, date.Format(time.TimeOnly)))
		case date.After(newest.date):
			l.dates[at] = dated{date, text}
		}
	})
}

// seen is the newest InRelease of a stage so far.
func (l *ledger) seen(at subject) dated {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dates[at]
}

// problem notes a mismatch that a client saw.
func (l *ledger) problem(format string, args ...any) {
	l.record(func() { l.problems = append(l.problems, fmt.Sprintf(format, args...)) })
}

// takeProblems returns the mismatches so far and forgets them.
func (l *ledger) takeProblems() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.problems
	l.problems = nil
	return taken
}

// promises counts what was answered with success.
func (l *ledger) promises() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, v := range l.uploads {
		if v.acked > 0 {
			n++
		}
	}
	for _, moves := range l.moves {
		n += len(moves)
	}
	for _, named := range l.snapshots {
		n += len(named)
	}
	return n
}

func versionName(n int) string { return "1." + strconv.Itoa(n) }

// versionNumber is the inverse of versionName; 0 for what is none.
func versionNumber(version string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(version, "1."))
	if err != nil {
		return 0
	}
	return n
}

// unanswered is a version that was tried, newer than any that was accepted; 0
// if there is none.
func (l *ledger) unanswered(at subject) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if v := l.uploads[at]; v != nil && v.acked < len(v.sums) {
		return len(v.sums)
	}
	return 0
}
