package cuts

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"aptfleet/test/lossydisk"
)

// marked is a round whose states take as many events as lengths say.
func marked(t *testing.T, bad bool, lengths map[string]int) *round {
	t.Helper()
	disk := lossydisk.NewDisk(4096)
	r := &round{bad: bad, recording: disk.Record()}
	for _, state := range []string{"CHECK", "DOWNLOAD", "SNAPSHOT", "INSTALL", "VERIFY", "STAGED", "FINALISE", "REBOOT", "kept", "TRIAL", "HEALTH", "firmware", "COMMIT", "ROLLED_BACK", "IDLE"} {
		if bad && state == "COMMIT" || !bad && state == "ROLLED_BACK" {
			continue
		}
		name := journalMark + state
		if slices.Contains(besideJournal, state) {
			name = state + ":x"
		}
		r.marks = append(r.marks, mark{name, r.recording.Len()})
		for range lengths[state] {
			if err := disk.WriteAt(make([]byte, 512), 0, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// TestEveryStateIsChosen: however short a state is, and although its images now
// and then turn out to be of the state before, each has its share of the images.
func TestEveryStateIsChosen(t *testing.T) {
	lengths := map[string]int{"DOWNLOAD": 2000, "INSTALL": 1500, "VERIFY": 100, "STAGED": 0, "kept": 30, "TRIAL": 1, "firmware": 40, "COMMIT": 3, "ROLLED_BACK": 20}
	for _, images := range []int{24, 200, 1000} {
		w := &world{Config: Config{Images: images}, result: &Result{Tally: newTally()}, random: rand.New(rand.NewPCG(1, 0))}
		rounds := max(2, (images+roundImages-1)/roundImages)
		all := 0
		for n := range rounds {
			r := marked(t, n%2 == 1, lengths)
			for i := range w.choose(r, images*(n+1)/rounds-images*n/rounds, images, rounds-n) {
				state := "CHECK"
				for _, m := range r.marks {
					if m.at <= i.at && (m.at < i.at || w.random.IntN(6) > 0) {
						state = strings.TrimSuffix(strings.TrimPrefix(m.name, journalMark), ":x")
					}
				}
				w.result.Tally.add(verdict{state: state, outcome: Old})
				all++
			}
		}
		// A state without any event of its own is what the next one is, mostly.
		missing := w.result.Tally.Missing(w.Least())
		t.Logf("%d of %d images in %d rounds\n%v", all, images, rounds, w.result.Tally)
		for _, state := range missing {
			if lengths[state] > 0 {
				t.Errorf("of %d images there are only %d in %s", images, w.result.Tally.In(state), state)
			}
		}
		if all < images || all > 2*images+20 {
			t.Errorf("%d images were made of %d", all, images)
		}
	}
}
