package siege

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
)

// A phase is what the server does, told by the fault point that it passed last.
type phase struct {
	name   string
	points []string
}

// acts are the phases in which a server has to have been killed for a siege to
// count, besides starting, which has no point of its own, and jobs.
var acts = []phase{
	{"ingest", []string{"upload:received", "upload:in-pool", "upload:chunks-written", "upload:synced"}},
	{"publish", []string{
		"upload:committed", "publish:indices-written", "publish:inrelease-renamed",
		"upload:published", "upload:answered",
	}},
	{"promote", []string{
		"promote:decided", "promote:chunks-written", "promote:synced", "promote:committed",
		"promote:published", "promote:answered",
	}},
	{"undo", []string{"undo:chunks-written", "undo:synced", "undo:committed", "undo:published"}},
	{"snapshot", []string{"snapshot:chunks-written", "snapshot:synced", "snapshot:committed", "snapshot:published"}},
}

// starting is the phase between the start of the server and its first answer.
const starting = "start"

// elsewhere is for points that belong to no phase: a stage that is signed anew.
const elsewhere = "other"

// Tally counts kills by phase and by the point that was passed last.
type Tally struct {
	all    []phase
	phases map[string]int
	points map[string]int
}

func newTally() *Tally {
	t := &Tally{all: acts, phases: make(map[string]int), points: make(map[string]int)}
	for _, j := range jobs {
		t.all = append(t.all[:len(t.all):len(t.all)], j.phase)
	}
	return t
}

// phaseOf is the phase that a point belongs to: the one that lists it, or else
// the one that it is called after.
func (t *Tally) phaseOf(point string) string {
	called, _, _ := strings.Cut(point, ":")
	found := elsewhere
	for _, p := range t.all {
		switch {
		case slices.Contains(p.points, point):
			return p.name
		case p.name == called:
			found = p.name
		}
	}
	return found
}

// add counts a kill. point is "" if none was passed.
func (t *Tally) add(phase, point string) {
	t.phases[phase]++
	if phase != starting && point != "" {
		t.points[point]++
	}
}

// wish chooses when to kill next, if left kills are: at a random moment (""),
// while the server starts, which takes two kills, or at a point. Every phase
// has to have its kills in the end, so those with the fewest come first.
func (t *Tally) wish(random *rand.Rand, left int) string {
	if left > 3*len(t.Missing()) && random.IntN(2) == 0 {
		return ""
	}
	names := t.names()
	if left < 2 {
		names = names[1:]
	}
	name := rarest(random, names, t.phases)
	if points := t.pointsOf(name); points != nil {
		return rarest(random, points, t.points)
	}
	return name
}

// pointsOf returns the points of a phase.
func (t *Tally) pointsOf(name string) []string {
	for _, p := range t.all {
		if p.name == name {
			return p.points
		}
	}
	return nil
}

// rarest is one of those that were counted least often.
func rarest(random *rand.Rand, of []string, counts map[string]int) string {
	var rare []string
	for _, one := range of {
		switch {
		case len(rare) == 0 || counts[one] < counts[rare[0]]:
			rare = []string{one}
		case counts[one] == counts[rare[0]]:
			rare = append(rare, one)
		}
	}
	return rare[random.IntN(len(rare))]
}

// Missing lists the phases in which the server was never killed.
func (t *Tally) Missing() []string {
	var missing []string
	for _, name := range t.names() {
		if t.phases[name] == 0 {
			missing = append(missing, name)
		}
	}
	return missing
}

// Phases iterates over the phases and how often the server was killed in each.
func (t *Tally) Phases() iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for _, name := range t.names() {
			if !yield(name, t.phases[name]) {
				return
			}
		}
	}
}

// names are the phases, starting first.
func (t *Tally) names() []string {
	all := []string{starting}
	for _, p := range t.all {
		all = append(all, p.name)
	}
	return all
}

// String is a table: a line for each phase, with its points.
func (t *Tally) String() string {
	var b strings.Builder
	for _, name := range t.names() {
		fmt.Fprintf(&b, "%-10s %4d", name, t.phases[name])
		for _, point := range t.pointsOf(name) {
			fmt.Fprintf(&b, "  %s %d", strings.TrimPrefix(point, name+":"), t.points[point])
		}
		b.WriteByte('\n')
	}
	if n := t.phases[elsewhere]; n > 0 {
		fmt.Fprintf(&b, "%-10s %4d\n", elsewhere, n)
	}
	return b.String()
}
