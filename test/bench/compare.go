package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// plan says how often operations run.
type plan struct {
	runs   int           // of an operation
	least  int           // even if the budget is used up
	budget time.Duration // for the runs of one operation of one tool
	// patience is how long a change may take to be seen after its tool said
	// that it is done.
	patience time.Duration
}

// repeat runs an operation as the plan says.
func (p plan) repeat(run func(i int) (cost, error)) ([]cost, error) {
	var all []cost
	var spent time.Duration
	for i := 0; i < p.runs && (i < p.least || spent < p.budget); i++ {
		c, err := run(i)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
		spent += c.wall
	}
	return all, nil
}

// contest is one tool at work on one corpus.
type contest struct {
	plan
	tool    tool
	corpus  *corpus
	scratch string // for newer packages and other small files
	rows    []row
	changed []changed // what was published one after the other
	fewest  int       // packages that an index must have
	dice    *rand.Rand
	changes int // how many newer packages were made
}

func newContest(p plan, t tool, c *corpus, scratch string) *contest {
	return &contest{plan: p, tool: t, corpus: c, scratch: scratch, dice: rand.New(rand.NewPCG(seed, uint64(c.count)))}
}

func (c *contest) note(op string, runs []cost) {
	c.rows = append(c.rows, summarize(op, c.corpus, c.tool.name(), runs))
}

// run does every operation and looks each time at what is published then.
func (c *contest) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{c.addAll, c.snapshots, c.publications, c.moves} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("%s with %d packages: %w", c.tool.name(), c.corpus.count, err)
		}
	}
	return nil
}

func (c *contest) addAll(ctx context.Context) error {
	// Aptfleet waits until all of the disk's file system is written, also what
	// others left in memory: the packages, and what tools did that sync nothing.
	unix.Sync()
	all, err := measure(ctx, c.tool, func(ctx context.Context) error { return c.tool.addAll(ctx, c.corpus.dir, c.corpus.files) })
	if err != nil {
		return err
	}
	c.note(opImport, []cost{all})
	if err := mustBeSigned(ctx, c.tool, c.scratch); err != nil {
		return err
	}
	if c.fewest, _, err = listed(ctx, c.tool.dists(dev), nil); err != nil {
		return err
	}
	if c.fewest < c.corpus.count {
		return fmt.Errorf("%d packages were imported and %d are published", c.corpus.count, c.fewest)
	}
	return c.tool.branch(ctx)
}

func (c *contest) snapshots(ctx context.Context) error {
	runs, err := c.repeat(func(i int) (cost, error) {
		return measure(ctx, c.tool, func(ctx context.Context) error { return c.tool.snapshot(ctx, fmt.Sprintf("unchanged%d", i+1)) })
	})
	c.note(opSnapshot, runs)
	return err
}

func (c *contest) publications(ctx context.Context) error {
	runs, err := c.repeat(func(int) (cost, error) { return c.publishOne(ctx) })
	c.note(opPublish, runs)
	return err
}

// publishOne publishes a new version of a package drawn at random. Time ends
// when GET InRelease names another index, which then must list the package.
func (c *contest) publishOne(ctx context.Context) (cost, error) {
	c.changes++
	newer, err := c.corpus.newer(ctx, c.scratch, c.dice.IntN(c.corpus.count), c.changes)
	if err != nil {
		return cost{}, err
	}
	dists := c.tool.dists(dev)
	before, err := named(ctx, dists)
	if err != nil {
		return cost{}, err
	}
	spent, err := measure(ctx, c.tool, func(ctx context.Context) error {
		if err := c.tool.addOne(ctx, newer.path); err != nil {
			return err
		}
		return awaitChange(ctx, dists, before, c.patience)
	})
	if err != nil {
		return cost{}, err
	}
	c.changed = append(c.changed, newer)
	return spent, errors.Join(c.mustOffer(ctx, dev, newer), os.Remove(newer.path))
}

// mustOffer fails if a stage has lost packages, or lacks one of wanted.
func (c *contest) mustOffer(ctx context.Context, stage string, wanted ...changed) error {
	want := make(map[string]bool)
	for _, one := range wanted {
		want[one.name+" "+one.version] = true
	}
	count, missing, err := listed(ctx, c.tool.dists(stage), want)
	switch {
	case err != nil:
		return err
	case len(missing) > 0:
		return fmt.Errorf("%s says that it published %s, and its index does not list it", c.tool.name(), strings.Join(missing, ", "))
	case count < c.fewest:
		return fmt.Errorf("the index of %s has %d packages, it had %d", stage, count, c.fewest)
	}
	return nil
}

// latest is what of the changes is offered: the newest of each name.
func (c *contest) latest() []changed {
	byName := make(map[string]changed)
	for _, one := range c.changed {
		byName[one.name] = one
	}
	var all []changed
	for _, one := range byName {
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b changed) int { return strings.Compare(a.name, b.name) })
	return all
}

// moves promotes canary to a snapshot with all changes and back, in turn, and
// lists the differences before each promotion.
func (c *contest) moves(ctx context.Context) error {
	const after = "after"
	if err := c.tool.snapshot(ctx, after); err != nil {
		return err
	}
	wanted := c.latest()
	var names []string
	for _, one := range wanted {
		names = append(names, one.name)
	}
	var undone, compared []cost
	promoted, err := c.repeat(func(int) (cost, error) {
		seen, err := measure(ctx, c.tool, func(ctx context.Context) error { return c.mustDiffer(ctx, after, names) })
		if err != nil {
			return cost{}, err
		}
		promotion, err := c.move(ctx, func(ctx context.Context) error { return c.tool.promote(ctx, after) }, wanted)
		if err != nil {
			return cost{}, err
		}
		back, err := c.move(ctx, func(ctx context.Context) error { return c.tool.undo(ctx, names) }, nil)
		compared, undone = append(compared, seen), append(undone, back)
		return promotion, err
	})
	c.note(opPromote, promoted)
	c.note(opUndo, undone)
	c.note(opDiff, compared)
	return err
}

// mustDiffer compares, and fails if a changed package is not in the answer.
func (c *contest) mustDiffer(ctx context.Context, snapshot string, names []string) error {
	text, err := c.tool.diff(ctx, snapshot)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !strings.Contains(text, name) {
			return fmt.Errorf("%s sees no difference in %s:\n%s", c.tool.name(), name, tail(text))
		}
	}
	return nil
}

// move measures a promotion or an undo of canary, which must list wanted then.
func (c *contest) move(ctx context.Context, act func(context.Context) error, wanted []changed) (cost, error) {
	dists := c.tool.dists(canary)
	before, err := named(ctx, dists)
	if err != nil {
		return cost{}, err
	}
	spent, err := measure(ctx, c.tool, func(ctx context.Context) error {
		if err := act(ctx); err != nil {
			return err
		}
		return awaitChange(ctx, dists, before, c.patience)
	})
	if err != nil {
		return cost{}, err
	}
	if wanted != nil {
		return spent, c.mustOffer(ctx, canary, wanted...)
	}
	// An undo must take every change away again.
	all := make(map[string]bool)
	for _, one := range c.changed {
		all[one.name+" "+one.version] = true
	}
	_, missing, err := listed(ctx, dists, all)
	if err == nil && len(missing) != len(all) {
		err = fmt.Errorf("%s still offers %d changes after its undo", c.tool.name(), len(all)-len(missing))
	}
	return spent, err
}
