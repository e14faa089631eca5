package update

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/evidence"
	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/atomicfile"
	"aptfleet/internal/faultpoint"
	"aptfleet/internal/protocol"
)

// stage carries a new transaction from CHECK to STAGED. Nothing of the running
// system changes. If the release needs the very packages that are installed,
// the booted deployment is recorded as being that release and the returned
// record is IDLE.
func (m *Machine) stage(ctx context.Context, offer Offer, current int, booted Deployment) (journal.Record, error) {
	n, err := m.nextDeployment()
	if err != nil {
		return journal.Record{}, m.whyNot(err)
	}
	tx := journal.Record{
		Transaction: m.nextTransaction(), State: offer.State, Snapshot: offer.Snapshot, Deployment: n, From: current, Local: offer.Overlay.ID(),
	}
	if tx, err = m.enter(tx, journal.Check); err != nil {
		return tx, m.whyNot(err)
	}
	m.nothingAgainst()
	plan, err := m.fetch(ctx, &tx, offer, booted)
	if err == nil && plan.Empty() {
		return m.adopt(tx, offer, booted, plan)
	}
	if err == nil {
		err = m.build(ctx, &tx, offer, plan)
	}
	if err != nil {
		return tx, m.abort(ctx, tx, err)
	}
	// From here on the overlay is wanted on top of other releases too: a power
	// cut before STAGED lets it be tried once more.
	if err := m.want(offer.Overlay); err != nil {
		return tx, m.abort(ctx, tx, err)
	}
	tx, err = m.enter(tx, journal.Staged)
	return tx, err
}

// want makes an overlay the one that is wanted, if it is not. It also replaces a
// record that cannot be read.
func (m *Machine) want(o Overlay) error {
	if wanted, err := m.Records.Overlay(); err == nil && wanted.ID() == o.ID() {
		return nil
	}
	return m.Records.PutOverlay(o)
}

// fetch does PREFLIGHT and DOWNLOAD.
func (m *Machine) fetch(ctx context.Context, tx *journal.Record, offer Offer, booted Deployment) (plan apt.Plan, err error) {
	if *tx, err = m.enter(*tx, journal.Preflight); err != nil {
		return plan, err
	}
	if err := m.preflight(ctx, tx.From); err != nil {
		return plan, err
	}
	if _, err := m.askHooks(ctx, *tx, hook.BeforeDownload); err != nil {
		return plan, err
	}
	if *tx, err = m.enter(*tx, journal.Download); err != nil {
		return plan, err
	}
	root := m.Roots.Path(deployment(tx.From))
	if plan, err = m.Releases.Plan(ctx, offer, root, booted); err != nil || plan.Empty() {
		return plan, err
	}
	if err := m.room(plan); err != nil {
		return plan, err
	}
	return plan, m.Releases.Download(ctx, offer, plan, root, m.progress)
}

// preflight finds reasons not to begin.
func (m *Machine) preflight(ctx context.Context, current int) error {
	d, err := m.Boot.Default()
	if err != nil {
		return fmt.Errorf("cannot update: %w", err)
	}
	if d.Committed != current {
		return fmt.Errorf("cannot update: deployment %d is booted and %d is committed", current, d.Committed)
	}
	if t, ok := m.Boot.Trial(); ok && t.Tries > 0 && t.Deployment != current {
		return fmt.Errorf("cannot update: deployment %d waits for its trial", t.Deployment)
	}
	nested, err := m.Roots.Nested(ctx, deployment(current))
	if err != nil {
		return err
	}
	if len(nested) > 0 {
		return fmt.Errorf("cannot update: /%s is a subvolume of its own and would come out empty; move it to a state directory or make it a plain directory", nested[0])
	}
	if _, err := m.States.Live(); err != nil {
		return fmt.Errorf("cannot update: %w", err)
	}
	return m.room(apt.Plan{})
}

// adopt records that the booted deployment already is the release.
func (m *Machine) adopt(tx journal.Record, offer Offer, booted Deployment, plan apt.Plan) (journal.Record, error) {
	booted.State, booted.Snapshot, booted.BOM, booted.Origin, booted.Overlay = tx.State, tx.Snapshot, offer.bomText(), offer.Origin, offer.Overlay
	booted.TopLevel, booted.Packages = m.topLevel(offer), plan.List
	if err := m.Records.PutDeployment(booted); err != nil {
		return tx, m.whyNot(err)
	}
	if err := m.want(offer.Overlay); err != nil {
		return tx, m.whyNot(err)
	}
	tx.Reason = "the packages are the same"
	return m.enter(tx, journal.Idle)
}

// build does SNAPSHOT, INSTALL and VERIFY and leaves the pristine root of the
// new deployment on the disk.
func (m *Machine) build(ctx context.Context, tx *journal.Record, offer Offer, plan apt.Plan) (err error) {
	if *tx, err = m.enter(*tx, journal.Snapshot); err != nil {
		return err
	}
	clone := pristine(tx.Deployment) + work
	if err := m.Roots.Snapshot(deployment(tx.From), base(tx.Deployment), true); err != nil {
		return err
	}
	if err := m.Roots.Snapshot(base(tx.Deployment), clone, false); err != nil {
		return err
	}
	if *tx, err = m.enter(*tx, journal.Install); err != nil {
		return err
	}
	m.say(func(s *Status) {
		s.Progress = fmt.Sprintf("%d to install, %d to remove", len(plan.Fetch), len(plan.Remove))
	})
	if err := m.install(ctx, offer, plan, m.Roots.Path(clone), tx.Deployment); err != nil {
		return err
	}
	if *tx, err = m.enter(*tx, journal.Verify); err != nil {
		return err
	}
	if err := m.verify(ctx, plan, clone, tx.Deployment); err != nil {
		return err
	}
	units, err := m.acceptUnits(clone)
	if err != nil {
		return err
	}
	record := Deployment{
		ID: tx.Deployment, State: tx.State, Snapshot: tx.Snapshot, From: tx.From, Made: m.Clock().UTC(),
		TopLevel: m.topLevel(offer), Packages: plan.List, BOM: offer.bomText(), Origin: offer.Origin, Overlay: offer.Overlay,
		Units: units,
	}
	if err := m.Records.PutDeployment(record); err != nil {
		return err
	}
	if err := m.Roots.Snapshot(clone, pristine(tx.Deployment), true); err != nil {
		return err
	}
	if err := m.Roots.Delete(context.WithoutCancel(ctx), clone); err != nil {
		return err
	}
	return m.Roots.Sync()
}

func (m *Machine) install(ctx context.Context, offer Offer, plan apt.Plan, root string, n int) (err error) {
	file, err := os.OpenFile(m.Records.Log(n), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("cannot keep the log of the installation: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	log := &boundedLog{to: file, left: maxLog}
	late := fmt.Errorf("it took more than %s", m.Settings.InstallTimeout)
	limited, cancel := context.WithTimeoutCause(ctx, m.Settings.InstallTimeout, late)
	defer cancel()
	meter := &installMeter{to: log, total: len(plan.Fetch) + len(plan.Remove), tell: m.progress, clock: m.Clock}
	err = m.Releases.Install(limited, offer, plan, root, meter)
	if err = errors.Join(err, meter.flush()); err != nil {
		return log.explain(err)
	}
	return nil
}

func (m *Machine) verify(ctx context.Context, plan apt.Plan, clone string, n int) error {
	nested, err := m.Roots.Nested(ctx, clone)
	if err != nil {
		return err
	}
	if len(nested) > 0 {
		return fmt.Errorf("cannot accept what was installed: a package made /%s a subvolume", nested[0])
	}
	var manifest bytes.Buffer
	if err := m.Releases.Verify(ctx, plan, m.Roots.Path(clone), &manifest); err != nil {
		return err
	}
	return atomicfile.Write(m.Records.Manifest(n), manifest.Bytes(), 0o600)
}

// abort ends a transaction that could not be staged: what is unfinished is
// deleted, downloads stay. It returns the reason.
func (m *Machine) abort(ctx context.Context, tx journal.Record, reason error) error {
	forGood := permanent(ctx, tx.Phase, reason)
	var refused *Refused
	if free, err := m.Roots.Free(); forGood && err == nil && free < crowded {
		// Scripts fail in many words when there is no room.
		forGood = false
		reason = fmt.Errorf("%w; only %d MB were free", reason, free>>20)
	}
	if ctx.Err() == nil && !forGood {
		forGood, reason = m.killed.judge(tx.State, reason, m.Clock())
	}
	switch {
	case errors.Is(context.Cause(ctx), ErrCancelled):
		reason = fmt.Errorf("%w by a person during %s", ErrCancelled, tx.Phase)
		// What was to be on top is not wanted before it is staged.
		from, err := m.Records.Deployment(tx.From)
		if err == nil && !onTop(tx, from) {
			err = m.leaveAlone(tx.State, reason.Error())
		}
		if err != nil {
			reason = errors.Join(reason, err)
		}
	case ctx.Err() != nil:
		reason = fmt.Errorf("the updater was stopped during %s: %w", tx.Phase, ctx.Err())
	case errors.As(reason, &refused):
		// Hooks said so, and for how long.
	case !forGood:
		m.troubled(tx.State, reason)
	}
	m.whyNot(reason)
	ctx = context.WithoutCancel(ctx)
	if forGood {
		m.keepEvidence(tx, evidence.File("the installation's log", m.Records.Log(tx.Deployment)))
		if err := m.blame(tx, reason.Error()); err != nil {
			return errors.Join(reason, err)
		}
	}
	if err := m.discardAs(ctx, tx, reason.Error(), forGood); err != nil {
		return errors.Join(reason, err)
	}
	return reason
}

// remember keeps that the release of tx failed.
func (m *Machine) remember(tx journal.Record, reason string) error {
	return m.Records.Fail(protocol.Failure{
		State: tx.State, Snapshot: tx.Snapshot, Overlay: tx.Local, Reason: reason, At: m.recordTime(), Evidence: m.evidenceOf(tx),
	})
}

// discard throws away a transaction that was not tried.
func (m *Machine) discard(ctx context.Context, tx journal.Record, reason string) error {
	return m.discardAs(ctx, tx, reason, false)
}

func (m *Machine) discardAs(ctx context.Context, tx journal.Record, reason string, failed bool) error {
	if err := m.deleteDeployment(ctx, tx.Deployment); err != nil {
		return err
	}
	tx.Reason = reason
	phase := journal.Idle
	if failed {
		phase = journal.Failed
	}
	_, err := m.enter(tx, phase)
	return err
}

// deleteDeployment deletes all subvolumes and records of a deployment that is
// not wanted; it refuses the booted one, and the one that boots next. The log of
// its installation stays until the number is pruned.
func (m *Machine) deleteDeployment(ctx context.Context, n int) error {
	current, err := m.Boot.Current()
	if err != nil {
		return err
	}
	if n == current {
		return fmt.Errorf("cannot delete deployment %d: it is booted", n)
	}
	if d, err := m.Boot.Default(); err == nil && d.Committed == n {
		return fmt.Errorf("cannot delete deployment %d: it is committed", n)
	}
	for _, rel := range []string{deployment(n) + work, deployment(n), pristine(n) + work, pristine(n), base(n)} {
		if err := m.Roots.Delete(ctx, rel); err != nil {
			return err
		}
	}
	return m.Records.Forget(n)
}

// finalise makes the bootable root of a staged deployment from its pristine
// one, carries the local changes of /etc over, and puts it on trial. It is not
// cancelled any more.
func (m *Machine) finalise(ctx context.Context, tx journal.Record) error {
	m.setCancel(nil)
	if err := m.askBeforeFinalise(ctx, tx); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	tx, err := m.enter(tx, journal.Finalise)
	if err != nil {
		return m.whyNot(err)
	}
	m.nothingAgainst()
	if err := m.prepareTrial(ctx, tx); err != nil {
		// A failed merge means no switch. The next check begins anew, from
		// the root as it is then.
		err = fmt.Errorf("cannot prepare the trial of deployment %d: %w", tx.Deployment, err)
		m.whyNot(err)
		m.troubled(tx.State, err)
		return errors.Join(err, m.discard(ctx, tx, err.Error()))
	}
	return m.try(ctx, tx)
}

func (m *Machine) prepareTrial(ctx context.Context, tx journal.Record) error {
	if err := m.deleteBootable(ctx, tx.Deployment); err != nil {
		return err
	}
	fresh := deployment(tx.Deployment) + work
	if err := m.Roots.Snapshot(pristine(tx.Deployment), fresh, false); err != nil {
		return err
	}
	etc := func(rel string) string { return filepath.Join(m.Roots.Path(rel), "etc") }
	merged, err := m.Merge(etc(base(tx.Deployment)), etc(deployment(tx.From)), etc(fresh))
	if err != nil {
		return err
	}
	if err := m.Records.PutEtc(tx.Deployment, merged, m.recordTime()); err != nil {
		return err
	}
	if n := len(merged.Conflicts); n > 0 {
		m.say(func(s *Status) { s.Progress = fmt.Sprintf("local configuration stays; conflicts in /etc: %d", n) })
	}
	if err := m.System.ArmTrial(m.Roots.Path(fresh), m.Settings.TrialTimeout); err != nil {
		return err
	}
	return m.Roots.Rename(fresh, deployment(tx.Deployment))
}

// deleteBootable deletes what FINALISE makes of a staged deployment.
func (m *Machine) deleteBootable(ctx context.Context, n int) error {
	for _, rel := range []string{deployment(n) + work, deployment(n)} {
		if err := m.Roots.Delete(ctx, rel); err != nil {
			return err
		}
	}
	return nil
}

// try takes the baseline, makes everything durable, and only then tells the
// boot loader.
func (m *Machine) try(ctx context.Context, tx journal.Record) error {
	baseline, err := m.System.Baseline(ctx)
	if err == nil {
		baseline.AskServer(ctx, time.Second, m.Releases.Reachable)
		err = m.Records.PutBaseline(baseline)
	}
	if err == nil && !faultpoint.SkipTrySync {
		err = m.Roots.Sync()
	}
	if err == nil {
		err = m.Boot.SetTry(tx.Deployment, m.Settings.Tries)
	}
	if err != nil {
		err = fmt.Errorf("cannot put deployment %d on trial: %w", tx.Deployment, err)
		return errors.Join(m.whyNot(err), m.giveUpTry(ctx, tx, err))
	}
	if tx.Boot, err = m.System.BootID(); err != nil {
		return m.whyNot(err)
	}
	tx.Reboots++
	if tx, err = m.enter(tx, journal.Reboot); err != nil {
		return m.whyNot(err)
	}
	if err := m.reboot(ctx); err != nil {
		return m.whyNot(err)
	}
	return nil
}

// giveUpTry ends a transaction whose trial could not be set. What was written
// of it nevertheless is taken back: nobody would expect that boot.
func (m *Machine) giveUpTry(ctx context.Context, tx journal.Record, reason error) error {
	if t, ok := m.Boot.Trial(); ok && t.Deployment == tx.Deployment {
		if err := m.Boot.MarkBad(tx.Deployment); err != nil {
			return err
		}
	}
	if tx.Manual {
		tx.Reason = reason.Error()
		_, err := m.enter(tx, journal.Idle)
		return err
	}
	return m.discard(ctx, tx, reason.Error())
}
