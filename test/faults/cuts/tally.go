package cuts

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// besideJournal are the states of a device that its journal does not know: it
// keeps or exchanges the data of a state unit, or flashes firmware. The updater
// passes fault points of these names meanwhile, as "firmware:…".
var besideJournal = []string{"kept", "firmware"}

// States are those in which a power cut must be tried, in their order.
var States = []string{"SNAPSHOT", "INSTALL", "VERIFY", "STAGED", "FINALISE", "REBOOT", "kept", "TRIAL", "HEALTH", "firmware", "COMMIT", "ROLLED_BACK"}

// others are shown, too.
var others = []string{"IDLE", "CHECK", "PREFLIGHT", "DOWNLOAD"}

// Tally counts images by state and outcome.
type Tally struct {
	counts map[string]map[Outcome]int
}

func newTally() *Tally { return &Tally{make(map[string]map[Outcome]int)} }

func (t *Tally) add(v verdict) {
	if t.counts[v.state] == nil {
		t.counts[v.state] = make(map[Outcome]int)
	}
	t.counts[v.state][v.outcome]++
}

// In returns how many images there were in a state.
func (t *Tally) In(state string) int {
	sum := 0
	for _, n := range t.counts[state] {
		sum += n
	}
	return sum
}

// Missing names the states of which there are fewer than least images.
func (t *Tally) Missing(least int) []string {
	var missing []string
	for _, state := range States {
		if t.In(state) < least {
			missing = append(missing, state)
		}
	}
	return missing
}

// String is the table of states and outcomes.
func (t *Tally) String() string {
	order := slices.Concat(others, States)
	for _, state := range slices.Sorted(maps.Keys(t.counts)) {
		if !slices.Contains(order, state) {
			order = append(order, state)
		}
	}
	outcomes := []Outcome{Old, New, Unbootable, Mixed}
	var b strings.Builder
	fmt.Fprintf(&b, "%-12s %6s", "cut in", "images")
	for _, o := range outcomes {
		fmt.Fprintf(&b, " %10s", o)
	}
	b.WriteByte('\n')
	for _, state := range order {
		if t.In(state) == 0 && !slices.Contains(States, state) {
			continue
		}
		fmt.Fprintf(&b, "%-12s %6d", state, t.In(state))
		for _, o := range outcomes {
			fmt.Fprintf(&b, " %10d", t.counts[state][o])
		}
		b.WriteByte('\n')
	}
	return b.String()
}
