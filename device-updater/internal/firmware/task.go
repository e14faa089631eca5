package firmware

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/faultpoint"
)

const (
	// maxFailed is how often an image is put on a component that does not take
	// it, maxCut how often if that was cut off, maxLater how often a hook is
	// asked again that says not now. Each counts for one deployment.
	maxFailed = 3
	maxCut    = 10
	maxLater  = 20

	// A committed deployment asks a hook again that said not now after pauses
	// from the first to the last, which double. A trial has no such time.
	firstPause = time.Minute
	lastPause  = time.Hour
	trialPause = 2 * time.Second
	// retryPause is between two attempts at what failed.
	retryPause = time.Second
)

// task is one component that converges.
type task struct {
	*Converger
	Situation
	book     *Book
	d        Descriptor
	image    Image
	revision string
	hook     Hook
	log      *log
	silent   int // times that it could not be asked how it is
}

// gaveUp is the error of a component that is left alone because of what
// happened before.
type gaveUp struct{ why string }

func (g *gaveUp) Error() string { return g.why }

// errNoTime is that of an apply that may not end before the trial does.
var errNoTime = errors.New("what is left of the trial is too short for it")

// entry is what the book has about the component.
func (t *task) entry() *Component { return t.book.component(t.d.Component) }

// converge brings the component to what is wanted, unless against says why
// nothing may be touched, and returns what was done. The error is something
// that failed.
func (t *task) converge(ctx context.Context, against string) (change *Change, err error) {
	e := t.entry()
	e.Wanted, e.Why = "", against
	if against != "" {
		return nil, nil
	}
	var ok bool
	if t.image, ok = t.d.For(t.revision); !ok {
		e.Why = fmt.Sprintf("hardware revision %s is not supported: this release has firmware for %s", t.revision, t.d.supported())
		return nil, nil
	}
	e.Wanted = t.image.Version
	if t.Person {
		e.Attempts = Attempts{}
	}
	t.log = &log{path: filepath.Join(t.Dir, "logs", "firmware-"+t.d.Component), clock: t.Clock, left: maxLog}
	defer t.log.close()
	t.hook = Hook{Path: filepath.Join(t.Root, t.d.Hook), Limit: t.d.Timeout, Log: t.log, Env: []string{
		"APTFLEET_COMPONENT=" + t.d.Component, "APTFLEET_REVISION=" + t.revision, "APTFLEET_VERSION=" + t.image.Version,
	}}
	for {
		did, err := t.attempt(ctx)
		if did != nil && change == nil {
			change = did
		}
		switch {
		case err == nil:
			if !t.Trial {
				t.entry().Trouble = false
			}
			return change, nil
		case ctx.Err() != nil && !t.Trial:
			return change, context.Cause(ctx)
		}
		if pause := t.again(err); pause == 0 || !sleep(ctx, pause) {
			return change, t.failed(err)
		}
	}
}

// attempt looks how the component is and does what follows from that, once.
func (t *task) attempt(ctx context.Context) (*Change, error) {
	t.log.about("probe")
	has, err := t.hook.Probe(ctx)
	if err != nil {
		t.silent++
		return nil, t.postponed(fmt.Errorf("it cannot be asked how it is: %w", err))
	}
	e := t.entry()
	e.State, e.Version = has.State, has.Version
	put, err := t.decide(has)
	if err != nil || !put {
		return nil, err
	}
	change := &Change{t.d.Component, has.Version, t.image.Version}
	if t.DryRun {
		return change, nil
	}
	return change, t.put(ctx, has)
}

// decide says whether the image is to be put on a component that is so; if not,
// the entry has the reason. The error is that of a component that was tried too
// often.
func (t *task) decide(has Probe) (put bool, err error) {
	e := t.entry()
	e.Why = ""
	a := e.attempts(t.Deployment, t.image.Version)
	older := func(version string) bool { return deb.Compare(t.image.Version, version) < 0 }
	switch {
	case has.State == Absent:
		e.Why = "it is not fitted"
	case has.State == Running && has.Version == t.image.Version:
		*a = Attempts{}
	case t.d.Phase == PhaseCommit && t.Trial:
		e.Why = "it waits until the release is committed"
	case e.Floor != "" && older(e.Floor):
		e.Why = fmt.Sprintf("it cannot go back to %s: it has had %s, which cannot be undone", t.image.Version, e.Floor)
	case !*t.d.Reversible && has.State == Running && older(has.Version):
		e.Why = fmt.Sprintf("it cannot go back to %s from %s", t.image.Version, has.Version)
	case !*t.d.Reversible && t.Held != "":
		e.Why = "it cannot be undone, so it waits: " + t.Held
	case a.Failed >= maxFailed:
		return false, &gaveUp{fmt.Sprintf("it failed %d times: %s", a.Failed, a.Reason)}
	case a.Cut >= maxCut:
		return false, &gaveUp{fmt.Sprintf("it was cut off %d times", a.Cut)}
	case a.Later >= maxLater:
		return false, &gaveUp{fmt.Sprintf("it was put off %d times: %s", a.Later, a.Reason)}
	case a.resting(t.Clock()) && !t.Trial:
		e.Why = a.Reason
	default:
		return true, nil
	}
	return false, nil
}

// put puts the image on the component, with a durable record before and after.
func (t *task) put(ctx context.Context, has Probe) error {
	if deadline, ok := ctx.Deadline(); ok && t.Trial && time.Until(deadline) < t.d.Timeout {
		return fmt.Errorf("%w: it may take %s", errNoTime, t.d.Timeout)
	}
	image := filepath.Join(t.Root, t.image.File)
	if err := t.whole(image); err != nil {
		return t.count(err)
	}
	if t.Progress != nil {
		t.Progress(fmt.Sprintf("firmware %s of %s", t.image.Version, t.d.Component))
	}
	t.book.Acts = append(t.book.Acts, Act{
		At: t.now(), Component: t.d.Component, From: has.Version, To: t.image.Version, Revision: t.revision, Deployment: t.Deployment, Release: t.Release,
	})
	if !*t.d.Reversible {
		// From here on nobody knows whether it can go back.
		t.entry().cannotGoBelow(t.image.Version)
	}
	if err := t.keep(t.book, t.Situation); err != nil {
		return err
	}
	faultpoint.Hit("firmware:" + t.d.Component)
	defer faultpoint.Hit("flashed:" + t.d.Component)
	err := t.flash(context.WithoutCancel(ctx), image)
	err = t.count(err)
	act := &t.book.Acts[len(t.book.Acts)-1]
	act.Ended, act.Result = t.now(), Done
	if err != nil {
		act.Result, act.Reason = Failed, err.Error()
		if later := new(notNow); errors.As(err, &later) {
			act.Result = Later
		}
	}
	return errors.Join(err, t.keep(t.book, t.Situation))
}

// flash lets the hook do it and asks it whether that worked.
func (t *task) flash(ctx context.Context, image string) error {
	t.log.about("apply " + image)
	if err := t.hook.Apply(ctx, image); err != nil {
		return err
	}
	t.log.about("verify")
	has, err := t.hook.Verify(ctx)
	e := t.entry()
	switch {
	case err != nil:
		return fmt.Errorf("it cannot be asked whether it worked: %w", err)
	case has.State != Running:
		err = errors.New("it does not run afterwards")
	case has.Version != t.image.Version:
		err = fmt.Errorf("it has %s afterwards", has.Version)
	default:
		e.Attempts = Attempts{}
	}
	e.State, e.Version = has.State, has.Version
	return err
}

// whole reports why the image is not what the release ships.
func (t *task) whole(image string) error {
	f, err := os.Open(image)
	if err != nil {
		return fmt.Errorf("its image cannot be read: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return fmt.Errorf("its image cannot be read: %w", err)
	}
	if t.image.SHA256 != "" && hex.EncodeToString(sum.Sum(nil)) != t.image.SHA256 {
		return fmt.Errorf("its image %s is damaged", t.image.File)
	}
	return nil
}

// count counts an attempt that failed.
func (t *task) count(err error) error {
	if later := new(notNow); err == nil || errors.As(err, &later) {
		return t.postponed(err)
	}
	a := t.entry().attempts(t.Deployment, t.image.Version)
	a.Failed++
	a.Reason = err.Error()
	return err
}

// postponed counts an attempt that its hook does not want to make now.
func (t *task) postponed(err error) error {
	later := new(notNow)
	if !errors.As(err, &later) {
		return err
	}
	a := t.entry().attempts(t.Deployment, t.image.Version)
	a.NotBefore = t.now().Add(min(firstPause<<min(a.Later, 16), lastPause))
	a.Later++
	a.Reason = later.Error()
	return later
}

// again returns after which pause another attempt is worth it at once; 0: none
// is.
func (t *task) again(err error) time.Duration {
	a := t.entry().attempts(t.Deployment, t.image.Version)
	gave, later := new(gaveUp), new(notNow)
	switch {
	case t.DryRun, errors.As(err, &gave), errors.Is(err, errNoTime):
		return 0
	case errors.As(err, &later):
		if t.Trial && a.Later < maxLater {
			return trialPause
		}
		return 0
	case t.silent < maxFailed && a.Failed < maxFailed:
		return retryPause
	}
	return 0
}

// failed writes down why the component does not have what is wanted.
func (t *task) failed(err error) error {
	e := t.entry()
	e.Why = err.Error()
	gave, later := new(gaveUp), new(notNow)
	if errors.As(err, &gave) {
		e.Why += "; `device-updater firmware apply` tries again"
	}
	switch {
	case t.Trial && e.Trouble:
		return nil // so it was before the update
	case errors.As(err, &later) && !t.Trial && !t.Person:
		return nil
	case !t.Trial:
		e.Trouble = true
	}
	return fmt.Errorf("cannot bring %s to firmware %s: %w", t.d.Component, t.image.Version, err)
}

// sleep reports whether the pause was over before ctx ended.
func sleep(ctx context.Context, pause time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pause):
		return true
	}
}
