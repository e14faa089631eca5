package siege

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
	Tally      *Tally
	Promises   int              // answers that were checked
	Reads      int              // files that clients fetched and verified
	Jobs       int              // commands of keepers that ended well
	Writes     lossydisk.Losses // of the disk, if its power failed
	Took       time.Duration
}

// roundKills is how many deaths one data directory lives through.
const roundKills = 25

// Run besieges one server after the other. An error says that the siege itself
// could not go on; the result holds what was found until then.
func Run(ctx context.Context, c Config) (*Result, error) {
	result := &Result{Tally: newTally()}
	began := time.Now()
	defer func() { result.Took = time.Since(began) }()
	for round := 0; result.Kills < c.Kills; round++ {
		w := &world{
			Config: c, result: result, ledger: newLedger(), last: began,
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

	story   string // what the last death was, for findings
	unsound bool   // there is a finding
}

// round lets one data directory live through some deaths.
func (w *world) round(ctx context.Context, kills int) (err error) {
	// Unix sockets have little room for their paths.
	if w.dir, err = os.MkdirTemp("", "af-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(w.dir)) }()
	if w.address, err = rig.FreeAddress(); err != nil {
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
	for end := w.result.Kills + kills; w.result.Kills < end; w.progress() {
		if err := w.die(ctx, end-w.result.Kills); err != nil {
			return err
		}
		if w.unsound {
			return nil // what follows would only find the same again
		}
	}
	if err := w.server.Stop(); err != nil {
		return err
	}
	return w.restore(ctx)
}

// open makes the place of the data directory.
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
	for _, j := range jobs {
		lines = append(lines, j.settings...)
	}
	return lines
}

// ready waits until the server answers.
func (w *world) ready(ctx context.Context) error {
	err := w.server.Ready(ctx)
	w.starts = time.Since(w.launched)
	return err
}

// found makes the archive.
func (w *world) found(ctx context.Context) error {
	if err := w.launch(); err != nil {
		return err
	}
	if err := w.ready(ctx); err != nil {
		return err
	}
	for _, name := range pipelines {
		if _, err := w.server.API.CreatePipeline(ctx, protocol.Pipeline{Name: name, Distribution: distribution, Architectures: []string{architecture}, Stages: stages}); err != nil {
			return err
		}
		if _, err := w.server.API.CreateRepository(ctx, name, repository, 1); err != nil {
			return err
		}
		for _, j := range jobs {
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
	w.unsound = true
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
