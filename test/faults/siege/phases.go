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

// phases are those in which a server has to have been killed for a siege to
// count, besides starting, which has no point of its own.
var phases = []phase{
	{"ingest", []string{"upload:incoming-written", "upload:pool-renamed", "upload:chunks-written", "upload:synced"}},
	{"publish", []string{
		"upload:committed", "upload:base-published", "publish:indices-written", "publish:inrelease-renamed",
		"upload:published", "upload:answered",
	}},
	{"promote", []string{
		"promote:decided", "promote:chunks-written", "promote:synced", "promote:committed", "promote:base-published",
		"promote:published", "promote:answered",
	}},
	{"undo", []string{"undo:chunks-written", "undo:synced", "undo:committed", "undo:base-published", "undo:published"}},
	{"snapshot", []string{"snapshot:chunks-written", "snapshot:synced", "snapshot:committed", "snapshot:base-published", "snapshot:published"}},
}

// starting is the phase between the start of the server and its first answer.
const starting = "start"

// elsewhere is for points that belong to no phase: a stage that is signed anew.
const elsewhere = "other"

// Tally counts kills by phase and by the point that was passed last.
type Tally struct {
	phases map[string]int
	points map[string]int
}

func newTally() *Tally { return &Tally{phases: make(map[string]int), points: make(map[string]int)} }

func phaseOf(point string) string {
	for _, p := range phases {
		if slices.Contains(p.points, point) {
			return p.name
		}
	}
	return elsewhere
}

// add counts a kill. point is "" if none was passed.
func (t *Tally) add(phase, point string) {
	t.phases[phase]++
	if phase != starting && point != "" {
		t.points[point]++
	}
}

// wish chooses when to kill next, if left kills are: at a random moment (""),
// while the server starts, or at a point. Every phase has to have its kills
// in the end, so those with the fewest come first.
func (t *Tally) wish(random *rand.Rand, left int) string {
	if left > 3*len(t.Missing()) && random.IntN(2) == 0 {
		return ""
	}
	name := rarest(random, names(), t.phases)
	for _, p := range phases {
		if p.name == name {
			return rarest(random, p.points, t.points)
		}
	}
	return name
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
	for _, name := range names() {
		if t.phases[name] == 0 {
			missing = append(missing, name)
		}
	}
	return missing
}

// Phases iterates over the phases and how often the server was killed in each.
func (t *Tally) Phases() iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for _, name := range names() {
			if !yield(name, t.phases[name]) {
				return
			}
		}
	}
}

func names() []string {
	all := []string{starting}
	for _, p := range phases {
		all = append(all, p.name)
	}
	return all
}

// String is a table: a line for each phase, with its points.
func (t *Tally) String() string {
	var b strings.Builder
	for _, name := range names() {
		fmt.Fprintf(&b, "%-10s %4d", name, t.phases[name])
		for _, p := range phases {
			if p.name != name {
				continue
			}
			for _, point := range p.points {
				fmt.Fprintf(&b, "  %s %d", point, t.points[point])
			}
		}
		b.WriteByte('\n')
	}
	if n := t.phases[elsewhere]; n > 0 {
		fmt.Fprintf(&b, "%-10s %4d\n", elsewhere, n)
	}
	return b.String()
}
