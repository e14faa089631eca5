package cuts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"aptfleet/test/device/bootcontrol"
	"aptfleet/test/lossydisk"
)

// image is the disk as one cut leaves it.
type image struct {
	round    *round
	at       int // events of the recording that had happened
	disk     *lossydisk.Disk
	to       int // number of the new deployment: a release that is begun anew gets another
	losses   lossydisk.Losses
	random   *rand.Rand
	goOn     bool                 // the next update must succeed, too
	wentOn   bool                 // and did
	recovery *lossydisk.Recording // in which the power failed again; nil: it did not
	atAgain  int                  // events of it that had happened
}

// Outcome is what became of an image.
type Outcome string

// The outcomes. Old and New are what boots first after the cut, exactly.
const (
	Old        Outcome = "old"
	New        Outcome = "new"
	Unbootable Outcome = "unbootable"
	Mixed      Outcome = "mixed"
)

// verdict is what a judge found.
type verdict struct {
	state   string // the journal's last phase, which the next start goes by
	outcome Outcome
	why     string // Unbootable, Mixed
	half    bool   // the microcontroller holds no whole image
}

// wrong is a finding: the device is not as it must be.
type wrong struct {
	outcome Outcome
	why     string
}

func (w *wrong) Error() string { return w.why }

func mixed(format string, args ...any) error {
	return &wrong{Mixed, fmt.Sprintf(format, args...)}
}

// judge looks at an image: first as the loader and the kernel find it, then as
// the updater leaves it that starts in it. An error says that it could not be
// judged.
func (w *world) judge(ctx context.Context, i *image) (v verdict, err error) {
	d, err := attach(ctx, i.disk, w.judged)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	v.state = "unknown"
	boots, err := w.find(ctx, d, i, &v)
	if err == nil {
		err = w.recover(ctx, d, i, boots)
	}
	var found *wrong
	if ctx.Err() == nil && errors.As(err, &found) {
		v.outcome, v.why = found.outcome, found.why
		return v, nil
	}
	return v, err
}

// find lets the loader decide and compares what boots, which it returns.
func (w *world) find(ctx context.Context, d *device, i *image, v *verdict) (boots bootcontrol.Decision, err error) {
	if err := d.mountControl(ctx); err != nil {
		return boots, mixed("boot control: %v", err)
	}
	wanted, err := wantedTrial(d)
	if err != nil {
		return boots, err
	}
	if boots, err = d.decide(ctx); err != nil {
		return boots, &wrong{Unbootable, err.Error()}
	}
	if err := d.mountTop(ctx); err != nil {
		return boots, &wrong{Unbootable, err.Error()}
	}
	journal, err := readJournal(d.top())
	if err != nil {
		return boots, mixed("%v", err)
	}
	v.state = "IDLE"
	if len(journal) > 0 {
		v.state = journal[len(journal)-1].Phase
	}
	if state := i.round.during(i.at); state != "" {
		v.state = state
	}
	if told := i.round.before + i.round.told(i.at); len(journal) < told {
		return boots, mixed("the journal has %d records, and %d were on the disk", len(journal), told)
	}
	if wanted != "" && (!boots.Trial || strconv.Itoa(boots.Deployment) != wanted) {
		return boots, mixed("boot control wants deployment %s on trial, and the loader says: %s (%s)", wanted, boots, boots.Reason)
	}
	v.outcome = Old
	if boots.Deployment == i.to {
		v.outcome = New
	}
	if v.half, err = i.half(d.top()); err != nil {
		return boots, mixed("firmware: %v", err)
	}
	return boots, i.compare(d, boots.Deployment, false)
}

// wantedTrial is the deployment that boot control wants to be tried, "" if
// there is none.
func wantedTrial(d *device) (string, error) {
	committed, err := d.block(bootcontrol.CommittedFile)
	if err != nil {
		return "", mixed("boot control: %v", err)
	}
	trial, err := d.block(bootcontrol.TrialFile)
	if err != nil {
		return "", mixed("boot control: %v", err)
	}
	if committed["committed"] == "" || trial["tries"] == "" || trial["tries"] == "0" || trial["trial"] == committed["committed"] {
		return "", nil
	}
	return trial["trial"], nil
}

// compare compares the root of deployment n, which boots or is at rest, with the
// old or the new one.
func (i *image) compare(d *device, n int, rests bool) error {
	var want files
	switch n {
	case i.round.from:
		want = i.round.old(i.at)
	case i.to:
		want = i.round.asMade
	default:
		return mixed("it boots deployment %d, and there are %d and %d", n, i.round.from, i.to)
	}
	have, err := readFiles(deploymentRoot(d.top(), n))
	if err != nil {
		return mixed("deployment %d: %v", n, err)
	}
	if n == i.round.from && i.at > i.round.settled && i.at < i.round.edited {
		// Somebody was editing, and had not synced.
		if differs := have.among(i.round.asBegun, i.round.asEdited); differs != "" {
			return mixed("deployment %d: %s", n, differs)
		}
		return nil
	}
	differs := have.difference(want)
	switch {
	case n != i.to:
	case rests:
		differs = have.difference(i.round.asKept)
	case i.round.passed("COMMIT", i.at) || i.recovery != nil:
		// What limits a trial is taken away after the commit.
		differs = have.among(i.round.asMade, i.round.asKept)
	}
	if differs != "" {
		return mixed("deployment %d: %s", n, differs)
	}
	return nil
}

// mostBoots is how often a device may start until it comes to rest.
const mostBoots = 8

// recover starts the device, with the updater in it, until it comes to rest,
// and looks at what it has become then.
func (w *world) recover(ctx context.Context, d *device, i *image, boots bootcontrol.Decision) error {
	boots, err := w.rest(ctx, d, i, boots, updater("check"))
	if err == nil {
		err = w.look(d, i, boots.Deployment)
	}
	if err != nil || !i.goOn || i.round.bad || boots.Deployment == i.to {
		return err
	}
	// On to the release, in the steps of the undisturbed update.
	if boots, err = w.rest(ctx, d, i, boots, updater("update")); err != nil {
		return err
	}
	journal, err := readJournal(d.top())
	if err != nil || len(journal) == 0 || journal[len(journal)-1].Phase != "STAGED" {
		return mixed("the next update is not staged (%v)", err)
	}
	i.to = journal[len(journal)-1].Deployment
	if err := edit(d.top(), boots.Deployment, i.round.number); err != nil {
		return err
	}
	if boots, err = w.rest(ctx, d, i, boots, updater("update --reboot"), updater("check")); err != nil {
		return err
	}
	if boots.Deployment != i.to {
		return mixed("the next update did not succeed: deployment %d runs", boots.Deployment)
	}
	i.wentOn = true
	return w.look(d, i, boots.Deployment)
}

// rest runs the first command in the device, which has just booted, and the last
// after each reboot, until it does not reboot any more. It returns what runs
// then.
func (w *world) rest(ctx context.Context, d *device, i *image, boots bootcontrol.Decision, commands ...string) (bootcontrol.Decision, error) {
	for n := range mostBoots {
		again, _, err := w.start(ctx, d, boots.Deployment, false, i.random, commands[min(n, len(commands)-1)])
		if err != nil && ctx.Err() == nil {
			return boots, mixed("boot %d after the cut, %s: %v", n+1, boots, err)
		}
		if err != nil || !again {
			return boots, err
		}
		if err := d.off(); err != nil {
			return boots, err
		}
		if boots, err = d.on(ctx); err != nil {
			return boots, &wrong{Unbootable, fmt.Sprintf("boot %d after the cut: %v", n+2, err)}
		}
	}
	return boots, mixed("it does not come to rest in %d boots", mostBoots)
}

// look judges a device at rest: deployment n runs, exactly, and is committed;
// nothing is left behind; what outlives releases is what it was; a good release
// is held for nothing that it has not done.
func (w *world) look(d *device, i *image, n int) error {
	if err := i.compare(d, n, true); err != nil {
		return err
	}
	committed, err := d.block(bootcontrol.CommittedFile)
	if err != nil || committed["committed"] != strconv.Itoa(n) {
		return mixed("deployment %d runs, and %s is committed (%v)", n, committed["committed"], err)
	}
	if trial, err := wantedTrial(d); err != nil || trial != "" {
		return mixed("deployment %s is still on trial (%v)", trial, err)
	}
	phase, err := i.ended(n, d)
	if err != nil {
		return err
	}
	wanted := []int{i.round.from, i.round.previous}
	if n == i.to || phase == "STAGED" {
		wanted = append(wanted, i.to)
	}
	for _, dir := range []string{"deployments", "pristine", "base", "kept"} {
		entries, err := os.ReadDir(filepath.Join(d.top(), dir))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return mixed("%v", err)
		}
		for _, e := range entries {
			if dir == "kept" && e.Name() == "units.json" {
				continue
			}
			number, err := strconv.Atoi(e.Name())
			if err != nil || !slices.Contains(wanted, number) {
				return mixed("%s/%s is left behind", dir, e.Name())
			}
		}
	}
	if err := i.lookData(d.top(), n); err != nil {
		return err
	}
	if same, err := flashed(d.top(), n); err != nil || !same {
		return mixed("the firmware is not that of deployment %d (%v)", n, err)
	}
	failed, err := os.ReadFile(filepath.Join(d.top(), "updater/failed.json"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return mixed("%v", err)
	}
	var known []failure
	if len(failed) > 0 {
		if err := json.Unmarshal(failed, &known); err != nil {
			return mixed("failed.json: %v", err)
		}
	}
	blamed := slices.ContainsFunc(known, func(f failure) bool { return f.State == stateID(i.round.number) })
	switch {
	case !i.round.bad && blamed:
		return mixed("the release is good, and is not tried again: %v", known)
	case i.round.bad && n != i.round.from:
		return mixed("the release is bad, and runs")
	case i.round.bad && !blamed && i.round.passed("ROLLED_BACK", i.at):
		return mixed("the release is bad, and would be tried again")
	}
	return nil
}

// failure is a release that is not tried again.
type failure struct{ State, Reason string }

// ended returns the journal's last phase, at rest, and compares what runs with
// what had been told to be done before the power failed.
func (i *image) ended(n int, d *device) (phase string, err error) {
	journal, err := readJournal(d.top())
	if err != nil {
		return "", mixed("%v", err)
	}
	phase = "IDLE"
	if len(journal) > 0 {
		phase = journal[len(journal)-1].Phase
	}
	if !slices.Contains([]string{"IDLE", "FAILED", "STAGED"}, phase) {
		return phase, mixed("the journal's last record is %s, and nothing goes on", phase)
	}
	if i.round.passed("COMMIT", i.at) && n != i.to {
		return phase, mixed("the release was healthy, and %d runs", n)
	}
	return phase, nil
}

// story says which image it was.
func (i *image) story() string {
	kind := "good"
	if i.round.bad {
		kind = "bad"
	}
	last := "the beginning"
	for _, m := range i.round.marks {
		if m.at <= i.at {
			last = m.name
		}
	}
	again := ""
	if i.recovery != nil {
		again = fmt.Sprintf(", and behind event %d of %d when it recovered", i.atAgain, i.recovery.Len())
	}
	return fmt.Sprintf("release %d, which is %s: cut behind event %d of %d, after %s%s; %v", i.round.number, kind, i.at, i.round.recording.Len(), strings.TrimPrefix(last, journalMark), again, i.losses)
}
