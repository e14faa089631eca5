package siege

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/lossydisk"
	"aptfleet/test/rig"
)

// Config says what a siege is like.
type Config struct {
	Program    string                // repo-manager, built with -tags faults
	Kills      int                   // how many
	Seed       uint64                // of everything that is chosen; timing is not
	FileSystem *lossydisk.FileSystem // nil: kill -9; else power cuts of a disk with it
	Deaf       bool                  // the disk ignores flushes
	Apt        bool                  // let a real apt read, too
	UntilFound bool                  // end with the first loss or mismatch
	Say        func(format string, args ...any)
}

// Result is what a siege found.
type Result struct {
	Kills      int
	Lost       int // answers that did not hold
	Mismatches int // what no client may ever see
	Findings   []string
	Tally      *Tally
	Promises   int // answers that were checked
	Reads      int // files that clients fetched and verified
	Jobs       int // commands of keepers that ended well
	Took       time.Duration
}

// roundKills is how many deaths one data directory lives through.
const roundKills = 25

// Run besieges one server after the other. An error says that the siege itself
// could not go on; the result holds what was found until then.
func Run(ctx context.Context, c Config) (*Result, error) {
	able, unable, err := known(ctx, c.Program)
	if err != nil {
		return &Result{Tally: newTally(nil)}, err
	}
	for _, name := range unable {
		c.Say("this program has no command %s: nobody uses it", name)
	}
	result := &Result{Tally: newTally(able)}
	began := time.Now()
	defer func() { result.Took = time.Since(began) }()
	for round := 0; result.Kills < c.Kills; round++ {
		w := &world{
			Config: c, result: result, jobs: able, ledger: newLedger(), last: began,
			random: rand.New(rand.NewPCG(c.Seed, uint64(round))), http: &http.Client{Timeout: patience},
		}
		if err := w.round(ctx, min(roundKills, c.Kills-result.Kills)); err != nil {
			return result, fmt.Errorf("seed %d, round %d, kill %d: %w", c.Seed, round, result.Kills, err)
		}
		if c.UntilFound && result.Lost+result.Mismatches > 0 {
			break
		}
	}
	return result, nil
}

// patience is how long one answer may take.
const patience = 30 * time.Second

// world is one data directory and who works with it.
type world struct {
	Config
	result   *Result
	jobs     []job
	ledger   *ledger
	random   *rand.Rand
	http     *http.Client
	dir      string
	address  string // of the public listener
	place    place
	trace    *tracer
	server   *rig.Server
	keyring  []byte
	readers  map[string]*reader
	reads    atomic.Int64
	jobsDone atomic.Int64
	apt      *aptClient
	last     time.Time // of progress

	launched time.Time     // when the server was started
	starts   time.Duration // how long the last start took

	story string // what the last death was, for findings
}

// round lets one data directory live through some deaths.
func (w *world) round(ctx context.Context, kills int) (err error) {
	// Unix sockets have little room for their paths.
	if w.dir, err = os.MkdirTemp("", "af-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
	if w.address, err = freeAddress(w.random); err != nil {
		return err
	}
	if w.trace, err = newTracer(filepath.Join(w.dir, "trace")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.trace.close()) }()
	if err := w.open(ctx); err != nil {
		return err
	}
	defer func() {
		if w.server != nil {
			w.server.Kill()
		}
		err = errors.Join(err, w.place.close())
	}()
	if err := w.found(ctx); err != nil {
		return err
	}
	for range kills {
		sound, err := w.die(ctx)
		if err != nil {
			return err
		}
		if !sound {
			return nil // what follows would only find the same again
		}
	}
	if err := w.server.Stop(); err != nil {
		return err
	}
	return w.restore(ctx)
}

func (w *world) open(ctx context.Context) (err error) {
	if w.FileSystem == nil {
		w.place = directory{w.dir}
		return nil
	}
	w.place, err = newDisk(ctx, w.dir, *w.FileSystem, w.Deaf, w.ledger.doom)
	return err
}

// launch starts a server and does not wait for it. It always has the same
// address, so a restart publishes nothing new.
func (w *world) launch() error {
	w.trace.reset()
	w.launched = time.Now()
	var err error
	w.server, err = rig.Launch(rig.Config{
		Program: w.Program, Data: w.place.data(), Settings: w.settings(), Args: []string{"--listen", w.address},
		Env: []string{"APTFLEET_FAULT_TRACE=" + w.trace.path},
	})
	return err
}

// settings are the lines of the server's configuration.
func (w *world) settings() []string {
	lines := []string{"url: http://" + w.address}
	for _, j := range w.jobs {
		lines = append(lines, j.settings...)
	}
	return lines
}

func (w *world) ready(ctx context.Context) error {
	if w.server == nil {
		return nil // it could not be launched
	}
	err := w.server.Ready(ctx)
	w.starts = time.Since(w.launched)
	return err
}

// freeAddress is one of the loopback that nobody else will take: programs that
// connect to somewhere take ports of 127.0.0.1.
func freeAddress(random *rand.Rand) (string, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.%d:0", 1+random.IntN(250), random.IntN(250), 1+random.IntN(250)))
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// found makes the archive.
func (w *world) found(ctx context.Context) error {
	if err := errors.Join(w.launch(), w.ready(ctx)); err != nil {
		return err
	}
	for _, name := range pipelines {
		if _, err := w.server.API.CreatePipeline(ctx, protocol.Pipeline{Name: name, Distribution: distribution, Architectures: []string{architecture}, Stages: stages}); err != nil {
			return err
		}
		if _, err := w.server.API.CreateRepository(ctx, name, repository, 1); err != nil {
			return err
		}
		for _, j := range w.jobs {
			if j.prepare == nil {
				continue
			}
			if out, err := w.command(ctx, append(j.prepare, name)...); err != nil {
				return fmt.Errorf("cannot prepare %s: %w: %s", j.name, err, out)
			}
		}
	}
	var err error
	if w.keyring, err = os.ReadFile(filepath.Join(w.place.data(), "public", "archive-keyring.asc")); err != nil {
		return err
	}
	w.readers = make(map[string]*reader)
	if w.Apt {
		w.apt, err = newAptClient(filepath.Join(w.dir, "apt"), w.keyring)
	}
	return err
}

// die has the server work, die, and come back, and looks at what is left. It
// is sound if that is all that was promised.
func (w *world) die(ctx context.Context) (sound bool, err error) {
	wish := w.result.Tally.wish(w.random, w.Kills-w.result.Kills)
	if wish == starting {
		if err := w.server.Stop(); err != nil {
			return false, err
		}
		if err := w.launch(); err != nil {
			return false, err
		}
		sleep(ctx, time.Duration(w.random.Int64N(int64(w.starts))))
		return w.fall(ctx, func() error { return nil })
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	over := w.work(work, wish)
	w.wait(ctx, wish)
	return w.fall(ctx, func() error {
		cancel()
		return over()
	})
}

// canceled is a context for a question that must not wait.
var canceled = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// wait returns when it is time to die: at a random moment, or a moment after
// the point that was wished for.
func (w *world) wait(ctx context.Context, wish string) {
	if wish == "" {
		sleep(ctx, time.Duration(50+w.random.IntN(1000))*time.Millisecond)
		return
	}
	sleep(ctx, time.Duration(w.random.IntN(100))*time.Millisecond)
	select {
	case <-w.trace.passes(wish):
	case <-time.After(time.Second):
		// Not every act comes by there: any point of the phase will do.
		select {
		case <-w.trace.passes(w.result.Tally.pointsOf(w.result.Tally.phaseOf(wish))...):
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	case <-ctx.Done():
	}
	if w.random.IntN(2) == 0 {
		sleep(ctx, time.Duration(w.random.IntN(3000))*time.Microsecond)
	}
}

// work lets everybody work until the server is gone or ctx ends. over waits
// for their end.
func (w *world) work(ctx context.Context, wish string) (over func() error) {
	c := &crowd{world: w, server: w.server, wish: wish}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	start := func(act func(random *rand.Rand) error) {
		random := rand.New(rand.NewPCG(w.random.Uint64(), 0))
		wait.Go(func() {
			if err := act(random); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	for _, pipeline := range pipelines {
		for who := range uploaders {
			start(func(random *rand.Rand) error { return c.upload(ctx, random, pipeline, who) })
		}
		for range movers {
			start(func(random *rand.Rand) error { return c.move(ctx, random, pipeline) })
		}
		for who := range readers {
			name := fmt.Sprintf("%s %d", pipeline, who)
			if w.readers[name] == nil {
				w.readers[name] = &reader{hasty: who%2 == 1}
			}
			start(func(random *rand.Rand) error { return c.read(ctx, random, w.readers[name], pipeline) })
		}
	}
	if len(w.jobs) > 0 {
		start(func(random *rand.Rand) error { return c.keep(ctx, random) })
	}
	if w.apt != nil && w.random.IntN(4) == 0 {
		start(func(random *rand.Rand) error { return c.aptUpdates(ctx, pipelines[random.IntN(len(pipelines))]) })
	}
	return func() error {
		wait.Wait()
		return errors.Join(errs...)
	}
}

// fall lets the server die, starts it again and verifies everything. over
// waits for those who worked with it.
func (w *world) fall(ctx context.Context, over func() error) (sound bool, err error) {
	var point, phase string
	var traced error
	note, fell := w.place.fall(ctx, w.random, func() {
		w.server.Kill()
		point, traced = w.trace.now()
		phase = w.result.Tally.phaseOf(point)
		if w.server.Ready(canceled) != nil { // it never said that it was
			phase = starting
		}
	})
	if err := errors.Join(traced, over(), ctx.Err()); err != nil {
		return false, err
	}
	w.result.Reads += int(w.reads.Swap(0))
	w.result.Jobs += int(w.jobsDone.Swap(0))
	w.result.Kills++
	w.result.Tally.add(phase, point)
	w.story = fmt.Sprintf("kill %d, after %s (%s)", w.result.Kills, point, phase)
	if note != "" {
		w.story += "; " + note
	}
	var nothing *gone
	switch {
	case errors.As(fell, &nothing):
		w.lost(w.ledger.promises(), "the disk cannot be mounted: %v", fell)
		return false, nil
	case fell != nil:
		return false, fell
	}
	before := w.result.Lost + w.result.Mismatches
	w.verifyTree()
	for _, problem := range w.ledger.takeProblems() {
		w.mismatch("%s", problem)
	}
	if err := w.launch(); err != nil {
		return false, err
	}
	if err := w.ready(ctx); err != nil {
		if ctx.Err() != nil {
			return false, err
		}
		w.lost(w.ledger.promises(), "the server does not come back: %v", err)
		return false, nil
	}
	w.ledger.reopen()
	switch err := w.verify(ctx); {
	case refused(err):
		w.lost(w.ledger.promises(), "the server does not know what it knew: %v", err)
	case err != nil:
		return false, err
	}
	w.progress()
	return w.result.Lost+w.result.Mismatches == before, nil
}

// lost notes n answers that did not hold, and why.
func (w *world) lost(n int, format string, args ...any) {
	w.result.Lost += max(n, 1)
	w.finding("lost", format, args...)
}

func (w *world) mismatch(format string, args ...any) {
	w.result.Mismatches++
	w.finding("mismatch", format, args...)
}

func (w *world) finding(kind, format string, args ...any) {
	text := fmt.Sprintf("%s: %s (%s)", kind, strings.TrimSpace(fmt.Sprintf(format, args...)), w.story)
	w.result.Findings = append(w.result.Findings, text)
	w.Say("%s", text)
}

// progressEvery is how often a person is told how far it is.
const progressEvery = 10 * time.Second

func (w *world) progress() {
	if time.Since(w.last) < progressEvery {
		return
	}
	w.last = time.Now()
	w.Say("%d of %d kills, %d lost, %d mismatches", w.result.Kills, w.Kills, w.result.Lost, w.result.Mismatches)
}
