package cuts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"aptfleet/test/lossydisk"
)

// Config says how many images are made, and of what.
type Config struct {
	Program    string   // device-updater, built with -tags faults
	Images     int      // how many
	Seed       uint64   // of everything that is chosen; timing is not
	Deaf       bool     // the disk ignores flushes
	Only       []string // the cuts are in these states; nil: in all, and anywhere
	UntilFound bool     // end with the first image that is not as it must be
	GRUB       float64  // share of images about which GRUB is asked, too
	Worlds     int      // devices side by side; 0 is 1
	Keep       string   // directory for disks that are not as they must be; "" for none
	Say        func(format string, args ...any)
}

// Result is what was found.
type Result struct {
	Images     int
	Unbootable int
	Mixed      int
	Tally      *Tally
	Rounds     int
	Booted     int // images about which GRUB was asked
	Twice      int // images of a second cut, while the device recovered from one
	GoneOn     int // images in which the next update was made, too
	Half       int // images with half a firmware in the microcontroller
	Writes     lossydisk.Losses
	Took       time.Duration

	mu sync.Mutex
}

// Least is how many images each of the States must have.
func (c Config) Least() int { return max(1, c.Images/20) }

// roundImages is how many images one recording is good for.
const roundImages = 90

// Run makes and judges images. An error says that this could not go on; the
// result holds what was found until then.
func Run(ctx context.Context, c Config) (*Result, error) {
	r := &Result{Tally: newTally()}
	began := time.Now()
	defer func() { r.Took = time.Since(began) }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	worlds := max(c.Worlds, 1)
	errs := make([]error, worlds)
	var wait sync.WaitGroup
	for n := range worlds {
		wait.Go(func() {
			if err := c.world(ctx, cancel, r, n, worlds); err != nil && ctx.Err() == nil {
				errs[n] = fmt.Errorf("seed %d, device %d: %w", c.Seed, n, err)
				cancel(errs[n])
			}
		})
	}
	wait.Wait()
	err := errors.Join(errs...)
	if err == nil && !errors.Is(context.Cause(ctx), errFound) {
		err = ctx.Err()
	}
	return r, err
}

// errFound ends a run that was to end with its first finding.
var errFound = errors.New("found")

// world is one device and its archive.
type world struct {
	Config
	result  *Result
	cancel  context.CancelCauseFunc
	random  *rand.Rand
	dir     string
	lend    string // what a device is lent
	live    string // where the device of a round is attached
	judged  string // and where an image is
	archive *archive
	disk    *lossydisk.Disk // of the device, between rounds
	loader  string          // disk with GRUB; "" as long as it was not needed
	last    time.Time       // of progress
}

// world makes one device's share of the images.
func (c Config) world(ctx context.Context, cancel context.CancelCauseFunc, r *Result, number, worlds int) (err error) {
	w := &world{Config: c, result: r, cancel: cancel, random: rand.New(rand.NewPCG(c.Seed, uint64(number))), last: time.Now()}
	if w.dir, err = os.MkdirTemp("", "cuts-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
	for path, name := range map[*string]string{&w.lend: "lend", &w.live: "live", &w.judged: "judged"} {
		*path = filepath.Join(w.dir, name)
		if err := os.Mkdir(*path, 0o755); err != nil {
			return err
		}
	}
	if w.archive, err = openArchive(ctx, filepath.Join(w.dir, "archive")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.archive.close()) }()
	if err := w.manufacture(ctx); err != nil {
		return err
	}
	share := c.Images / worlds
	if number == 0 {
		share += c.Images % worlds
	}
	rounds := max(2, (share+roundImages-1)/roundImages)
	for n := range rounds {
		bad := n%2 == 1
		played, err := w.play(ctx, n+2, bad)
		if err != nil {
			return err
		}
		for i := range w.choose(played, share*(n+1)/rounds-share*n/rounds, share, rounds-n) {
			if err := w.examine(ctx, i); err != nil {
				if errors.Is(context.Cause(ctx), errFound) {
					return nil
				}
				return err
			}
		}
		r.mu.Lock()
		r.Rounds++
		r.mu.Unlock()
	}
	return nil
}

// moment is a cut that is to be made.
type moment struct {
	at                int
	seed              uint64
	goOn, again, grub bool
}

// choose chooses at least n moments of a round: of each state that has too few
// images its share, the others anywhere. share is how many images this device is
// good for, and left how many rounds there are with this one.
func (w *world) choose(r *round, n, share, left int) iter.Seq[*chosen] {
	length := r.recording.Len()
	var all []moment
	add := func(from, to int) {
		also := w.random.IntN(8)
		all = append(all, moment{
			at: from + w.random.IntN(max(to-from, 0)+1), seed: w.random.Uint64(),
			goOn: also == 0, again: also == 1, grub: w.random.Float64() < w.GRUB,
		})
	}
	intervals := r.intervals()
	if w.Only != nil {
		maps.DeleteFunc(intervals, func(state string, _ [][2]int) bool { return !slices.Contains(w.Only, state) })
	}
	for _, state := range slices.Sorted(maps.Keys(intervals)) {
		// A little more than its part: a record that is not on the disk yet
		// makes it an image of the state before.
		want := float64(max(1, share/20)) * 1.35
		rounds := (left + 1) / 2
		if state != "COMMIT" && state != "ROLLED_BACK" {
			rounds = left
		}
		count := int(max(1, (want-w.have(state))/float64(rounds)+0.99))
		if w.Only != nil {
			count = max(count, n/len(intervals))
		}
		for range count {
			i := intervals[state][w.random.IntN(len(intervals[state]))]
			if w.random.IntN(4) == 0 {
				i[1] = i[0] // at once: nothing was written since
			}
			// At its end the next state has begun.
			add(i[0], max(i[0], i[1]-1))
		}
	}
	for len(all) < n && w.Only == nil {
		add(0, length)
	}
	slices.SortStableFunc(all, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	player := r.recording.Play(w.Deaf)
	return func(yield func(*chosen) bool) {
		for _, m := range all {
			i := &image{round: r, at: m.at, to: r.to, random: rand.New(rand.NewPCG(m.seed, 0)), goOn: m.goOn}
			i.disk, i.losses = player.Cut(m.at, i.random, tear)
			if !yield(&chosen{i, m.again, m.grub}) {
				return
			}
		}
	}
}

// chosen is an image, whether the power fails once more while it recovers, and
// whether GRUB is asked about it.
type chosen struct {
	*image
	again, grub bool
}

// have is how many images this device has in a state, about.
func (w *world) have(state string) float64 {
	w.result.mu.Lock()
	defer w.result.mu.Unlock()
	return float64(w.result.Tally.In(state)) / float64(max(w.Worlds, 1))
}

// intervals are the events within which the journal's last record, or what else
// the updater was in, was that of each of the States.
func (r *round) intervals() map[string][][2]int {
	all := make(map[string][][2]int)
	for n, m := range r.marks {
		end := r.recording.Len()
		if n+1 < len(r.marks) {
			end = r.marks[n+1].at
		}
		kind, phase, _ := strings.Cut(m.name, ":")
		switch {
		case slices.Contains(besideJournal, kind):
			all[kind] = append(all[kind], [2]int{m.at, end})
		case kind+":" == journalMark && slices.Contains(States, phase):
			all[phase] = append(all[phase], [2]int{m.at, end})
		}
	}
	return all
}

// examine judges an image, and what a second cut leaves of it.
func (w *world) examine(ctx context.Context, i *chosen) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	said := ""
	if i.grub {
		var err error
		if said, err = w.askGRUB(ctx, i.image); err != nil {
			return err
		}
	}
	var recovery *lossydisk.Recording
	if i.again {
		recovery = i.disk.Record()
	}
	if sound, err := w.conclude(ctx, i, said); err != nil || !sound || !i.again {
		return err
	}
	recovery.Stop()
	second := *i.image
	second.goOn, second.wentOn, second.recovery = false, false, recovery
	second.atAgain = i.random.IntN(recovery.Len() + 1)
	second.disk, second.losses = recovery.Play(w.Deaf).Cut(second.atAgain, i.random, tear)
	_, err := w.conclude(ctx, &chosen{image: &second}, "")
	return err
}

// conclude judges an image and counts it. It reports whether it is as it must
// be. said is what else is wrong with it, if not "".
func (w *world) conclude(ctx context.Context, i *chosen, said string) (sound bool, err error) {
	var kept *lossydisk.Disk
	if w.Keep != "" {
		kept = i.disk.Clone()
	}
	v, err := w.judge(ctx, i.image)
	if err != nil {
		return false, fmt.Errorf("%s: %w", i.story(), err)
	}
	if said != "" && v.why == "" {
		v.outcome, v.why = Mixed, said
	}
	w.count(v, i)
	if v.why == "" {
		return true, nil
	}
	w.Say("%s: %s (%s; %s)", v.outcome, v.why, v.state, i.story())
	if kept != nil {
		if err := keep(kept, filepath.Join(w.Keep, fmt.Sprintf("%d-%d-%d-%d.img", w.Seed, i.round.number, i.at, i.atAgain))); err != nil {
			return false, err
		}
	}
	if w.UntilFound {
		w.cancel(errFound)
		return false, errFound
	}
	return false, nil
}

// progressEvery is how often a person is told how far it is.
const progressEvery = 10 * time.Second

func (w *world) count(v verdict, i *chosen) {
	r := w.result
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Images++
	r.Tally.add(v)
	r.Writes.Add(i.losses)
	if i.grub {
		r.Booted++
	}
	if i.recovery != nil {
		r.Twice++
	}
	if i.wentOn {
		r.GoneOn++
	}
	if v.half {
		r.Half++
	}
	switch v.outcome {
	case Unbootable:
		r.Unbootable++
	case Mixed:
		r.Mixed++
	}
	if time.Since(w.last) >= progressEvery {
		w.last = time.Now()
		w.Say("%d of %d images, %d unbootable, %d mixed", r.Images, w.Images, r.Unbootable, r.Mixed)
	}
}
