// Package update is the state machine that moves a device from one deployment
// to the next.
//
//	IDLE → CHECK → PREFLIGHT → DOWNLOAD → SNAPSHOT → INSTALL → VERIFY → STAGED → FINALISE → REBOOT
//	     → TRIAL → HEALTH → COMMIT → IDLE
//	     └ bad, or tries used up → ROLLED_BACK → FAILED → IDLE
//
// Each phase is announced in the journal before it acts, so that after a power
// cut Recover knows from the journal and boot control alone what to do: until
// SetTry the running system has not changed and what is unfinished is thrown
// away; after SetTry the boot loader has decided, and the deployment that is
// mounted as the root says how.
package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/inhibit"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/merge"
	"aptfleet/device-updater/internal/sandbox"
	"aptfleet/device-updater/internal/window"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

// Offer is the release that the device should run.
type Offer struct {
	State    string   // "": nobody says
	Snapshot string   // its name; "" if it has none
	BOM      *bom.BOM // its exact packages; nil: what apt computes
	Against  string   // why nothing may be begun now, a sentence; "": nothing speaks against it
	Overlay  Overlay  // what is wanted on top of it
	Booted   bool     // it is the release that is booted, whatever the server offers now
	Origin   *Origin  // where its packages lie; nil: as the configuration says
}

// Origin is where an archive has the packages of a release.
type Origin struct {
	Base         string   `json:"base"` // below the archive
	Distribution string   `json:"distribution"`
	Components   []string `json:"components"`
}

// String names the offer for people.
func (o Offer) String() string { return releaseName(o.State, o.Snapshot) }

func releaseName(state, snapshot string) string {
	if snapshot != "" {
		return "snapshot " + snapshot
	}
	return "state " + state[:min(12, len(state))]
}

// Releases is where releases come from.
type Releases interface {
	// Offer asks the server what the device should run, and verifies the
	// answer.
	Offer(ctx context.Context) (Offer, error)
	// Held returns why an operator wants the device to stay as it is, whoever
	// asks for what; "" if nobody does.
	Held() string
	// Plan computes what must change in root, which is d, for the release.
	Plan(ctx context.Context, o Offer, root string, d Deployment) (apt.Plan, error)
	// Download fetches what the plan needs and verifies it. Interrupted, it
	// keeps what it has.
	Download(ctx context.Context, o Offer, plan apt.Plan, root string, progress func(Progress)) error
	// Install turns root into what the plan says; what it prints goes to log.
	Install(ctx context.Context, o Offer, plan apt.Plan, root string, log io.Writer) error
	// Verify judges root after Install and writes the list of its files.
	Verify(ctx context.Context, plan apt.Plan, root string, manifest io.Writer) error
	// Reachable asks the server for nothing but an answer.
	Reachable(ctx context.Context) error
	// Clean deletes the downloads.
	Clean() error
}

// Roots are the subvolumes, named relative to the top level.
type Roots interface {
	Path(rel string) string
	Snapshot(src, dst string, readOnly bool) error
	Delete(ctx context.Context, rel string) error
	Rename(src, dst string) error
	Exists(rel string) bool
	Nested(ctx context.Context, rel string) ([]string, error)
	List(dir string) ([]string, error)
	Sync() error
	Free() (bytes int64, err error)
}

// Boot is the boot control and what was booted.
type Boot interface {
	Current() (int, error)
	Default() (boot.Default, error)
	Trial() (boot.Trial, bool)
	SetTry(deployment, tries int) error
	Commit(deployment int) error
	MarkBad(deployment int) error
}

// System is the running machine.
type System interface {
	// BootID differs between any two boots.
	BootID() (string, error)
	// Reboot asks for an orderly reboot and returns.
	Reboot(ctx context.Context) error
	// ArmTrial makes the deployment at root end its trial by itself after
	// timeout, whatever becomes of the updater in it.
	ArmTrial(root string, timeout time.Duration) error
	// DisarmTrial stops that in the running deployment; it may be repeated.
	DisarmTrial(ctx context.Context) error
	// Uptime is how long PID 1 runs: what it counts the time of a trial from.
	Uptime(ctx context.Context) (time.Duration, error)
	// Baseline says what is wrong with the running units.
	Baseline(ctx context.Context) (health.Baseline, error)
	// LastWords returns what is left of the boots since a time, other than the
	// boot notThis: a deployment that never came to its updater is judged by it.
	LastWords(ctx context.Context, since time.Time, notThis string) []protocol.Excerpt
	// Watch judges the running deployment; see health.Watcher.
	Watch(ctx context.Context, b health.Baseline, observe time.Duration, progress func(string)) (warnings []string, err error)
}

// Journal is the updater's own record of what it does: a *journal.Journal.
type Journal interface {
	// Append returns when the record is on the disk, with its number and time.
	Append(r journal.Record) (journal.Record, error)
	// Last returns the newest record; the zero Record if there is none.
	Last() journal.Record
	// Records returns those that are kept, oldest first.
	Records() []journal.Record
	Close() error
}

// Settings are the parts of the configuration that the machine itself uses.
type Settings struct {
	Follow         string
	TopLevel       []string
	RebootAuto     bool
	Tries          int
	TrialTimeout   time.Duration
	Observe        time.Duration
	InstallTimeout time.Duration
	Window         window.Window // when a staged deployment is booted by itself
	InhibitMax     time.Duration // how long locks keep it from being booted; 0: not at all
	Keep           int           // deployments that stay, besides pinned ones; below 2: the booted and the previous one
	HookRetries    int           // how often hooks may put a release off
	HookWait       time.Duration // and for how long
}

// Machine is the state machine of one device. One process at a time may run
// it; its methods must not be called at the same time, but for Status and
// Cancel.
type Machine struct {
	Settings Settings
	Releases Releases
	Roots    Roots
	States   States
	Boot     Boot
	System   System
	Firmware Firmware // nil: there is none
	Merge    func(base, running, target string) (merge.Result, error)
	Journal  Journal
	Records  Records
	Hooks    Hooks // nil: none
	Clock    func() time.Time
	// Locks are held by applications that do not want a reboot now; nil: none.
	Locks func(context.Context) []inhibit.Lock
	// Notify is told about every change of the status; it must not block.
	Notify func(Status)
	// Secrets are looked for in evidence, and taken out; nil: there are none.
	Secrets func() []string

	pause     pause
	cancelled cancelled
	killed    starved
	waiting   waiting
	// rebootRefused says that the last reboot that was asked for was refused.
	rebootRefused bool
	mu            sync.Mutex
	status        Status
	cancel        context.CancelCauseFunc
}

// ErrCancelled is the cause of a transaction that a person stopped.
var ErrCancelled = errors.New("cancelled")

// Refused says that the updater will not do what was asked, and why.
type Refused struct{ Reason, Hint string }

func (r *Refused) Error() string { return r.Reason }

// ExitCode is that of something refused by policy.
func (r *Refused) ExitCode() int { return 3 }

// NextStep returns the hint.
func (r *Refused) NextStep() string { return r.Hint }

// Options of one Update.
type Options struct {
	Reboot bool // boot the result even where the configuration leaves that to people
	Retry  bool // also a release that failed before
	// Patient waits longer after each attempt at the same release that came to
	// nothing. For those that nobody asked for.
	Patient bool
}

// Check asks what the device should run and returns it; the status says what
// speaks against it.
func (m *Machine) Check(ctx context.Context) (Offer, error) {
	offer, err := m.Releases.Offer(ctx)
	if err == nil {
		offer.Overlay, err = m.Records.Overlay()
	}
	if err != nil {
		m.say(func(s *Status) { s.WhyNot, s.LastError, s.Checked = err.Error(), err.Error(), m.Clock() })
		return Offer{}, err
	}
	m.stays(&offer)
	if offer.State != "" && !m.isCancelled(offer.State) {
		m.forgetCancelled()
	}
	why, trouble := m.against(offer)
	m.say(func(s *Status) {
		s.Wanted, s.WantedName, s.WhyNot, s.LastError, s.Checked = offer.State, offer.Snapshot, why, trouble, m.Clock()
	})
	return offer, nil
}

// against says what is known to speak against an offer before anything is
// tried, and which error that was: a check that finds nothing new changes
// nothing in the status but its time.
func (m *Machine) against(offer Offer) (why, trouble string) {
	if offer.State == "" {
		return offer.Against, ""
	}
	current, err := m.Boot.Current()
	if err != nil {
		return err.Error(), err.Error()
	}
	if booted, err := m.Records.Deployment(current); err != nil || m.is(booted, offer) {
		return "", ""
	}
	if offer.Against != "" {
		return offer.Against, ""
	}
	if refused := m.failedBefore(offer); refused != nil {
		return refused.Error(), ""
	}
	if m.isCancelled(offer.State) {
		return m.cancelled.Reason, m.cancelled.Reason
	}
	if d, err := m.Records.Deferral(); err == nil && d.of(offer) {
		return d.Reason, ""
	}
	if tx := m.Journal.Last(); tx.Phase == journal.Staged {
		if staged, err := m.Records.Deployment(tx.Deployment); err == nil && m.is(staged, offer) {
			if !m.Settings.RebootAuto && !m.asked(tx) {
				return stagedWaits, ""
			}
			if m.Waits() {
				return m.waiting.why, ""
			}
		}
	}
	why = m.rests(offer.State)
	return why, why
}

// Update brings the device to what the server offers: as far as STAGED, and on
// to the reboot if that is wanted. It returns nil if there is nothing to do. A
// release that failed before is refused.
func (m *Machine) Update(ctx context.Context, o Options) error {
	if o.Patient {
		m.keepFirmware(ctx, true)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.setCancel(cancel)
	defer m.setCancel(nil)
	offer, err := m.Check(ctx)
	if err != nil {
		return err
	}
	current, err := m.Boot.Current()
	if err != nil {
		return m.whyNot(err)
	}
	booted, err := m.Records.Deployment(current)
	if err != nil {
		return m.whyNot(err)
	}
	if tx := m.Journal.Last(); offer.Against != "" && (o.Patient && m.asked(tx) || o.Reboot) && m.ownIsStaged(tx, booted) {
		if off, err := m.putOff(offer, tx, o); off {
			return err
		}
		return m.bootStaged(ctx, tx, o.Reboot)
	}
	if offer.Against != "" {
		return m.keepStill(offer, booted, o)
	}
	if !o.Patient {
		m.forgetCancelled()
	}
	if tx := m.Journal.Last(); tx.Open() && tx.Phase != journal.Staged {
		return m.whyNot(&Refused{Reason: fmt.Sprintf("cannot update: the last update is still in phase %s", tx.Phase), Hint: "device-updater status"})
	}
	tx, err := m.discardUnless(ctx, current, func(staged Deployment) bool {
		// What a person tries on the release that is booted stays, if the one
		// that is offered would not be installed.
		return m.is(staged, offer) || staged.State == booted.State && m.failedBefore(offer) != nil && !o.Retry
	})
	if err != nil {
		return m.whyNot(err)
	}
	if m.is(booted, offer) {
		return nil
	}
	if err := m.refuseFailed(offer, o.Retry); err != nil {
		return err
	}
	if why := m.rests(offer.State); tx.Phase != journal.Staged && o.Patient && why != "" {
		m.say(func(s *Status) { s.WhyNot, s.LastError = why, why })
		return nil
	}
	if off, err := m.putOff(offer, tx, o); off {
		return err
	}
	if tx.Phase != journal.Staged {
		if tx, err = m.stage(ctx, offer, current, booted); err != nil || tx.Phase != journal.Staged {
			return err
		}
	}
	if offer.BOM != nil {
		// The server may have said meanwhile that the device is to stay, or to
		// become something else.
		switch now, err := m.Releases.Offer(ctx); {
		case err != nil:
			return m.whyNot(err)
		case now.Against != "":
			return m.whyNot(&Refused{Reason: now.Against})
		case now.State != offer.State || now.bomText() != offer.bomText():
			return m.whyNot(&Refused{Reason: "it is staged, and something else is assigned now"})
		}
	}
	if why := m.develops(); why != "" {
		// Somebody said so while it was staged.
		return m.whyNot(&Refused{Reason: why})
	}
	if !o.Reboot && !m.Settings.RebootAuto && !m.asked(tx) {
		m.say(func(s *Status) { s.WhyNot = stagedWaits })
		return nil
	}
	return m.bootStaged(ctx, tx, o.Reboot)
}

// discardUnless gives up what is staged, unless that is of what is booted and
// fits, and returns the newest record.
func (m *Machine) discardUnless(ctx context.Context, current int, fits func(staged Deployment) bool) (journal.Record, error) {
	tx := m.Journal.Last()
	if tx.Phase != journal.Staged {
		return tx, nil
	}
	staged, err := m.Records.Deployment(tx.Deployment)
	if err != nil || tx.From == current && fits(staged) {
		return tx, err
	}
	err = m.discard(ctx, tx, "something else is wanted now")
	return m.Journal.Last(), err
}

// keepStill ends an Update that may begin nothing. What is staged stays.
func (m *Machine) keepStill(offer Offer, booted Deployment, o Options) error {
	if o.Patient || offer.State != "" && m.is(booted, offer) {
		return nil // Check has said why
	}
	return m.whyNot(&Refused{Reason: offer.Against, Hint: m.nextStep(offer)})
}

// Preview says what Update would change, and changes nothing: only apt's
// private lists are brought up to date.
func (m *Machine) Preview(ctx context.Context) ([]apt.Change, error) {
	offer, err := m.Check(ctx)
	if err != nil {
		return nil, err
	}
	current, err := m.Boot.Current()
	if err != nil {
		return nil, err
	}
	booted, err := m.Records.Deployment(current)
	if err != nil {
		return nil, err
	}
	if offer.State != "" && m.is(booted, offer) {
		return []apt.Change{}, nil
	}
	if offer.Against != "" {
		return nil, m.whyNot(&Refused{Reason: offer.Against, Hint: m.nextStep(offer)})
	}
	plan, err := m.Releases.Plan(ctx, offer, m.Roots.Path(deployment(current)), booted)
	if err != nil {
		return nil, m.whyNot(err)
	}
	return plan.Changes(), nil
}

// is reports whether a deployment is what the offer and the configuration want.
func (m *Machine) is(d Deployment, offer Offer) bool {
	if d.State != offer.State || d.Overlay.ID() != offer.Overlay.ID() || d.BOM != offer.bomText() {
		return false
	}
	return offer.BOM != nil || slices.Equal(d.TopLevel, m.Settings.TopLevel)
}

// bomText is the bill of materials as it is signed, "" if there is none.
func (o Offer) bomText() string {
	if o.BOM == nil {
		return ""
	}
	return string(o.BOM.Encode())
}

// topLevel is what must be installed: as the offer says, else the configuration.
func (m *Machine) topLevel(offer Offer) []string {
	if offer.BOM != nil {
		return offer.BOM.TopLevel
	}
	return m.Settings.TopLevel
}

const stagedWaits = "it is staged and waits for `device-updater update --reboot`"

func (m *Machine) refuseFailed(offer Offer, retry bool) error {
	if retry {
		return m.Records.Forgive(offer.State)
	}
	if err := m.failedBefore(offer); err != nil {
		return m.whyNot(err)
	}
	return nil
}

// failedBefore returns why the release is not tried again, nil if nothing keeps
// it.
func (m *Machine) failedBefore(offer Offer) error {
	failed, err := m.Records.Failed()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(failed, func(f protocol.Failure) bool { return speaksAgainst(f, offer) })
	if i < 0 {
		return nil
	}
	refused := &Refused{
		Reason: fmt.Sprintf("%s failed here: %s", offer, failed[i].Reason),
		Hint:   "another release is taken when it is offered; this one only if you say so: device-updater update --retry",
	}
	if failed[i].Overlay != "" {
		refused.Reason = fmt.Sprintf("%s failed here with local packages on top: %s", offer, failed[i].Reason)
		refused.Hint = "device-updater rejoin installs it without them"
	}
	return refused
}

// whyNot puts err into the status and returns it.
func (m *Machine) whyNot(err error) error {
	m.say(func(s *Status) {
		s.WhyNot = err.Error()
		var refused *Refused
		if !errors.As(err, &refused) {
			s.LastError = err.Error()
		}
	})
	return err
}

// nothingAgainst takes the reason of before out of the status: it is being
// tried.
func (m *Machine) nothingAgainst() {
	m.say(func(s *Status) { s.WhyNot, s.LastError = "", "" })
}

// Cancel stops a transaction that has not reached FINALISE and reports whether
// there was one.
func (m *Machine) Cancel() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cancel == nil {
		return false
	}
	m.cancel(ErrCancelled)
	return true
}

func (m *Machine) setCancel(cancel context.CancelCauseFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cancel = cancel
}

// enter announces a phase: durably in the journal, then to whoever listens. What
// the last record says already needs no other: what fails is tried again every
// few seconds.
func (m *Machine) enter(tx journal.Record, phase journal.Phase) (journal.Record, error) {
	tx.Phase = phase
	if last := m.Journal.Last(); !last.Same(tx) {
		var err error
		if tx, err = m.Journal.Append(tx); err != nil {
			return tx, err
		}
	}
	m.say(func(s *Status) { s.Phase, s.Progress, s.Done, s.Total, s.Unit = string(phase), "", 0, 0, "" })
	return tx, nil
}

// Rebooting reports whether a reboot was asked for and has not come yet:
// nothing else may begin.
func (m *Machine) Rebooting() bool {
	tx := m.Journal.Last()
	return tx.Phase == journal.Reboot || tx.Phase == journal.RolledBack || tx.Phase == journal.Health && tx.Bad
}

// Unfinished reports whether a transaction is open that goes on by itself. If
// the act that left it so failed, Recover must bring it to an end.
func (m *Machine) Unfinished() bool {
	tx := m.Journal.Last()
	return tx.Open() && tx.Phase != journal.Staged
}

// Retry forgets that releases failed.
func (m *Machine) Retry() error { return m.Records.Forgive("") }

func (m *Machine) nextTransaction() int64 { return m.Journal.Last().Transaction + 1 }

// nextDeployment returns a number that was never used.
func (m *Machine) nextDeployment() (int, error) {
	highest := 0
	for _, dir := range []string{"deployments", "pristine", "base"} {
		names, err := m.Roots.List(dir)
		if err != nil {
			return 0, err
		}
		for _, name := range names {
			if n, ok := number(name); ok {
				highest = max(highest, n)
			}
		}
	}
	for _, r := range m.Journal.Records() {
		// Before SNAPSHOT a number is only thought of.
		if r.Phase == journal.Snapshot {
			highest = max(highest, r.Deployment)
		}
	}
	return highest + 1, nil
}

// work marks a subvolume that is not finished.
const work = ".work"

// number is that of the deployment to which a subvolume belongs.
func number(name string) (n int, ok bool) {
	n, err := strconv.Atoi(strings.TrimSuffix(name, work))
	return n, err == nil
}

func deployment(n int) string { return "deployments/" + strconv.Itoa(n) }
func pristine(n int) string   { return "pristine/" + strconv.Itoa(n) }
func base(n int) string       { return "base/" + strconv.Itoa(n) }

// permanent reports whether a release that stopped like this would stop like
// this again: then it is remembered as failed.
func permanent(ctx context.Context, phase journal.Phase, err error) bool {
	if ctx.Err() != nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errDisturbed) || errors.Is(err, sandbox.ErrKilled) {
		return false
	}
	return phase == journal.Install || phase == journal.Verify
}
