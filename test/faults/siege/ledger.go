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

// dated is an InRelease as apt compares it with the one that it has.
type dated struct {
	date     time.Time // its field Date
	modified time.Time // its time of modification, which HTTP tells to the second
	text     string
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

// saw notes the InRelease that a stage offers, and tells what is wrong with it.
// before is what was seen when the client began to ask: an answer that was
// overtaken by another one is no step back. apt keeps what it has if the server
// says that nothing was modified since, or if the Date is an earlier one.
func (l *ledger) saw(at subject, now, before dated) {
	now.modified = now.modified.Truncate(time.Second)
	wrong := func(what string, was, is time.Time) {
		l.problems = append(l.problems, fmt.Sprintf("%s/%s: %s: was %s, is %s", at.pipeline, at.name, what, was.UTC().Format(time.TimeOnly), is.UTC().Format(time.TimeOnly)))
	}
	l.record(func() {
		newest := l.dates[at]
		switch {
		case now.date.Before(before.date):
			wrong("the Date went back", before.date, now.date)
		case now.modified.Before(before.modified):
			wrong("the time of modification went back", before.modified, now.modified)
		case now.modified.Equal(newest.modified) && now.text != newest.text:
			wrong("two texts have one time of modification", newest.modified, now.modified)
		case now.modified.After(newest.modified):
			l.dates[at] = now
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
