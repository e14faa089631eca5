package update

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"aptfleet/device-updater/internal/health"
	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
)

// trial watches the deployment that is booted on trial and commits it, or gives
// it up and reboots. If ctx ends first the trial goes on with the next start
// of the updater, or PID 1 ends it.
func (m *Machine) trial(ctx context.Context, tx journal.Record) error {
	tx, err := m.enter(m.seen(tx), journal.Trial)
	if err != nil {
		return err
	}
	baseline, err := m.Records.Baseline()
	if err != nil {
		return err
	}
	if tx, err = m.enter(tx, journal.Health); err != nil {
		return err
	}
	if err := m.unsettled(tx.Deployment); err != nil {
		return m.giveUp(ctx, tx, err.Error())
	}
	gone, err := m.System.Uptime(ctx)
	if err != nil {
		return err
	}
	// Earlier than PID 1, so that the reason can be written down.
	margin := max(m.Settings.TrialTimeout/10, 2*time.Second)
	limited, cancel := context.WithTimeout(ctx, m.Settings.TrialTimeout-margin-gone)
	defer cancel()
	if err := m.tryFirmware(limited); err != nil {
		return m.firmwareFailed(ctx, tx, err)
	}
	warnings, err := m.System.Watch(limited, baseline, m.Settings.Observe, func(waiting string) {
		m.say(func(s *Status) { s.Progress = waiting })
	})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var bad *health.Bad
	switch {
	case errors.As(err, &bad):
		m.keepEvidence(tx, bad.Evidence)
		return m.giveUp(ctx, tx, bad.Reason)
	case err != nil:
		return m.giveUp(ctx, tx, err.Error())
	}
	if len(warnings) > 0 {
		tx.Reason = strings.Join(warnings, "; ")
	}
	return m.commit(ctx, tx)
}

// giveUp writes down why the trial failed, takes it from the boot loader, and
// reboots into what is committed.
func (m *Machine) giveUp(ctx context.Context, tx journal.Record, reason string) error {
	tx.Bad, tx.Reason = true, reason
	tx.Reboots++
	tx, err := m.enter(tx, journal.Health)
	if err != nil {
		return err
	}
	m.say(func(s *Status) { s.WhyNot, s.LastError = reason, reason })
	return m.leave(ctx, tx.Deployment)
}

// commit makes the booted deployment the default. All its steps may be
// repeated.
func (m *Machine) commit(ctx context.Context, tx journal.Record) error {
	ctx = context.WithoutCancel(ctx)
	tx, err := m.enter(tx, journal.Commit)
	if err != nil {
		return err
	}
	if err := m.Boot.Commit(tx.Deployment); err != nil {
		return m.whyNot(err)
	}
	if err := m.System.DisarmTrial(ctx); err != nil {
		// PID 1 will reboot into this deployment: it is committed.
		m.say(func(s *Status) { s.LastError = err.Error() })
	}
	if tx.Manual {
		left, err := m.Records.Deployment(tx.From)
		if err != nil {
			return m.whyNot(err)
		}
		kept, err := m.Records.Deployment(tx.Deployment)
		if err != nil {
			return m.whyNot(err)
		}
		// What was on top then is what is wanted on top.
		if err := m.want(kept.Overlay); err != nil {
			return m.whyNot(err)
		}
		if left.State != "" && (left.State != kept.State || left.Overlay.ID() == kept.Overlay.ID()) {
			undone := tx
			undone.State, undone.Snapshot, undone.Local = left.State, left.Snapshot, ""
			if err := m.remember(undone, "a person rolled it back"); err != nil {
				return m.whyNot(err)
			}
		}
	}
	if tx, err = m.tellHooks(ctx, tx, hook.AfterCommit); err == nil {
		tx, err = m.enter(tx, journal.Idle)
	}
	if err != nil {
		return m.whyNot(err)
	}
	m.nothingAgainst()
	m.tidy(ctx)
	return m.Releases.Clean()
}

// rolledBack records that the boot loader went back, and why, and forgets the
// deployment.
func (m *Machine) rolledBack(ctx context.Context, tx journal.Record) error {
	reason := tx.Reason
	if !tx.Bad {
		m.keepEvidence(tx, slices.Concat(m.triesOf(tx), m.System.LastWords(ctx, tx.At, tx.Boot)))
		switch tx.Phase {
		case journal.Trial, journal.Health:
			reason = "its trial was ended from outside before it was healthy: the time was up, or the power went, until no tries were left"
		case journal.Commit:
			reason = "its trial ended while it was being committed"
		default:
			reason = "it did not boot far enough to start the updater"
		}
	}
	tx.Reason = reason
	if tx.Phase != journal.RolledBack {
		tx.Told = 0
	}
	tx, err := m.enter(tx, journal.RolledBack)
	if err != nil {
		return err
	}
	if err := m.Boot.MarkBad(tx.Deployment); err != nil {
		return m.whyNot(err)
	}
	if tx.Manual {
		tx.Reason = fmt.Sprintf("deployment %d was not healthy when a person rolled back to it: %s", tx.Deployment, reason)
		why := tx.Reason
		if tx, err = m.tellHooks(ctx, tx, hook.AfterRolledBack); err == nil {
			_, err = m.enter(tx, journal.Idle)
		}
		return m.alsoWhyNot(why, err)
	}
	if err := m.blame(tx, reason); err != nil {
		return m.whyNot(err)
	}
	if err := m.saveEdits(ctx, tx); err != nil {
		reason += "; " + err.Error()
	}
	if err := errors.Join(m.States.Drop(tx.Deployment), m.deleteDeployment(ctx, tx.Deployment)); err != nil {
		return m.whyNot(err)
	}
	if tx, err = m.tellHooks(ctx, tx, hook.AfterRolledBack); err == nil {
		_, err = m.enter(tx, journal.Failed)
	}
	what := releaseName(tx.State, tx.Snapshot)
	if tx.Local != "" {
		what += " with local packages on top"
	}
	return m.alsoWhyNot(fmt.Sprintf("%s failed here: %s", what, reason), err)
}

func (m *Machine) alsoWhyNot(reason string, err error) error {
	m.say(func(s *Status) { s.WhyNot, s.LastError = reason, reason })
	return err
}
