package siege

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/test/rig"
)

// A job is what the keeper of a server does now and then, from the command line.
type job struct {
	phase             // named like the command
	settings []string // that the server needs for it
	prepare  []string // command for each pipeline, once
	args     func(w *world) []string
	done     func(w *world, before map[subject]int) // notes what success promises; the ledger is held
}

// jobs are those of every keeper.
var jobs = []job{
	{
		phase: phase{"gc", []string{
			"gc:marked", "gc:states-dropped", "gc:files-dropped", "gc:base-removed", "gc:index-removed", "gc:blob-removed", "gc:file-removed", "gc:done",
		}},
		settings: []string{fmt.Sprintf("keep_superseded: %v", keepSuperseded), "gc_every: -1s"},
		prepare:  []string{"pipeline", "set", "--keep-states", "2", "--keep-days", "0"},
		args:     func(*world) []string { return []string{"gc"} },
	},
	{
		phase: phase{"backup", []string{"backup:begun", "backup:planned", "backup:copied", "backup:synced", "backup:committed"}},
		args:  func(w *world) []string { return []string{"backup", w.backups()} },
		done: func(w *world, before map[subject]int) {
			w.ledger.backups++
			w.ledger.backed = before
		},
	},
}

// keepSuperseded is how long index files stay that no InRelease names any
// more, where gc removes them; a client that takes longer is too slow.
const keepSuperseded = 12 * time.Second

// backups is the directory that backups go to: on the disk that fails, too.
func (w *world) backups() string { return filepath.Join(filepath.Dir(w.place.data()), "backup") }

// command runs repo-manager for the server.
func (w *world) command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.Program, args...)
	cmd.Env = append(os.Environ(), "APTFLEET_DATA="+w.place.data())
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// locked is repo-manager's exit status for what another change prevents.
const locked = 11

// keep is one keeper.
func (c *crowd) keep(ctx context.Context, random *rand.Rand) error {
	for ctx.Err() == nil {
		j := jobs[random.IntN(len(jobs))]
		wished := c.result.Tally.phaseOf(c.wish)
		for _, other := range jobs {
			if other.name == wished {
				j = other
			}
		}
		before := c.ledger.accepts()
		out, err := c.command(ctx, j.args(c.world)...)
		var exit *exec.ExitError
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			c.jobsDone.Add(1)
			if j.done != nil {
				c.ledger.record(func() { j.done(c.world, before) })
			}
		case !errors.As(err, &exit):
			return err
		case exit.ExitCode() == locked:
		case c.away():
			return nil
		default:
			c.ledger.problem("%s: %v: %s", j.name, err, out)
		}
		if j.name != wished {
			sleep(ctx, time.Duration(100+random.IntN(500))*time.Millisecond)
		}
	}
	return nil
}

// away tells whether the server has died, a moment after a command failed.
func (c *crowd) away() bool {
	select {
	case <-c.server.Exited():
		return true
	case <-time.After(2 * time.Second):
		return false
	}
}

// finish ends what a death left of a gc, as the next one does.
func (w *world) finish(ctx context.Context) {
	if out, err := w.command(ctx, "gc"); err != nil && ctx.Err() == nil {
		w.mismatch("gc after a restart: %v: %s", err, out)
	}
}

// verifyBackups looks at the backups that were answered.
func (w *world) verifyBackups(ctx context.Context) {
	if w.ledger.backups == 0 {
		return
	}
	out, err := w.command(ctx, "backup", "list", w.backups())
	if ctx.Err() != nil {
		return // the time is up: nothing is known
	}
	if there := strings.Count(out, "\n"); err != nil || there < w.ledger.backups {
		w.lost(1, "%d backups were made and %d are there: %v %s", w.ledger.backups, there, err, out)
		return
	}
	w.result.Promises += w.ledger.backups
	if out, err := w.command(ctx, "backup", "verify", w.backups()); err != nil && ctx.Err() == nil {
		w.lost(1, "the backups are damaged: %v: %s", err, out)
	}
}

// restore brings the newest backup back elsewhere, and looks for what was
// accepted before it was begun. The server has ended.
func (w *world) restore(ctx context.Context) error {
	if w.ledger.backups == 0 {
		return nil
	}
	data := filepath.Join(w.dir, "restored")
	out, err := w.command(ctx, "restore", w.backups(), "--data", data)
	if ctx.Err() != nil {
		return ctx.Err() // the time is up: nothing is known
	}
	if err != nil {
		w.lost(len(w.ledger.backed), "the newest backup cannot be restored: %v: %s", err, out)
		return nil
	}
	server, err := rig.Start(ctx, rig.Config{Program: w.Program, Data: data, Settings: w.settings()})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		w.lost(len(w.ledger.backed), "a restored server does not start: %v", err)
		return nil
	}
	defer server.Kill()
	for _, pipeline := range pipelines {
		_, there, err := w.offers(data, pipeline+"/dev")
		if err != nil {
			w.mismatch("restored %s/dev: %v", pipeline, err)
			continue
		}
		for at, n := range w.ledger.backed {
			if at.pipeline == pipeline && versionNumber(there[at.name].Version) < n {
				w.lost(1, "%s/%s %s was accepted before a backup and is not in it", pipeline, at.name, versionName(n))
			}
		}
	}
	report, err := server.API.Check(ctx, nil)
	if err != nil {
		return err
	}
	for _, f := range report.Findings {
		w.mismatch("check of a restored server: %s: %s", f.Path, f.Reason)
	}
	return server.Stop()
}

// accepts is the newest accepted version of every package.
func (l *ledger) accepts() map[subject]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	accepts := make(map[subject]int)
	for at, v := range l.uploads {
		accepts[at] = v.acked
	}
	return accepts
}
