package e2e

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// times collects how long things took, for the table at the end of a run.
// Nothing is judged by it.
var times timetable

type timetable struct {
	mu    sync.Mutex
	names []string
	took  map[string][]time.Duration
}

// start begins a measurement; the returned function ends it.
func (t *timetable) start(name string) (done func()) {
	begin := time.Now()
	return func() { t.add(name, time.Since(begin)) }
}

func (t *timetable) add(name string, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.took == nil {
		t.took = map[string][]time.Duration{}
	}
	if _, ok := t.took[name]; !ok {
		t.names = append(t.names, name)
	}
	t.took[name] = append(t.took[name], d)
}

func (t *timetable) print(w io.Writer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(w, "%-65s %5s %10s %10s %10s\n", "what took how long", "count", "shortest", "median", "longest")
	for _, name := range t.names {
		all := slices.Sorted(slices.Values(t.took[name]))
		fmt.Fprintf(w, "%-65s %5d %10v %10v %10v\n", name, len(all),
			all[0].Round(time.Millisecond), all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond))
	}
}
