package update

import (
	"context"
	"errors"
	"fmt"

	"aptfleet/device-updater/internal/boot"
	"aptfleet/device-updater/internal/journal"
)

// Recover brings the transaction that the journal leaves open to where it can
// go on, whatever interrupted it. It must be called before anything else. If
// the booted deployment is on trial it watches it and returns after COMMIT or
// after having asked for a reboot. It may itself be interrupted anywhere.
func (m *Machine) Recover(ctx context.Context) error {
	if kept, err := m.Records.Status(); err == nil {
		m.mu.Lock()
		m.status = kept
		m.mu.Unlock()
	}
	m.remindOfCancelled()
	tx := m.Journal.Last()
	m.say(func(s *Status) { s.Phase, s.Progress = string(journal.Idle), "" })
	if tx.Open() {
		m.say(func(s *Status) { s.Phase = string(tx.Phase) })
	}
	current, err := m.Boot.Current()
	if err != nil {
		return m.whyNot(err)
	}
	if err := m.repairDefault(tx, current); err != nil {
		return m.whyNot(err)
	}
	if class := tx.Recovery(); current == tx.Deployment && (class == journal.Unfinished || class == journal.Waiting) {
		// What is booted counts more than what is written: the journal has lost
		// its end.
		tx.Phase = journal.Finalise
	}
	if endless(tx) {
		return m.breakLoop(ctx, tx, current)
	}
	switch tx.Phase {
	case journal.Check, journal.Preflight, journal.Download, journal.Snapshot, journal.Install, journal.Verify:
		err = m.interrupted(ctx, tx)
	case journal.Staged:
		err = m.recoverStaged(ctx, tx, current)
	case journal.Finalise:
		err = m.recoverFinalise(ctx, tx, current)
	case journal.Reboot:
		err = m.recoverReboot(ctx, tx, current)
	case journal.Trial, journal.Health:
		err = m.recoverTrial(ctx, tx, current)
	case journal.Commit:
		if current == tx.Deployment {
			err = m.commit(ctx, tx)
		} else {
			err = m.rolledBack(ctx, tx)
		}
	case journal.RolledBack:
		if current == tx.Deployment {
			// The loader had not used up its tries: it could not count them.
			return m.leaveAgain(ctx, tx)
		}
		err = m.rolledBack(ctx, asBad(tx))
	default:
		err = m.recoverIdle(ctx, current)
	}
	if err != nil {
		return err
	}
	m.tidy(ctx)
	m.keepFirmware(ctx, false)
	return nil
}

// repairDefault writes anew what is committed if that cannot be read any more:
// the loader found a root nevertheless. While a transaction is open, what it
// began from is committed.
func (m *Machine) repairDefault(tx journal.Record, current int) error {
	if _, err := m.Boot.Default(); !errors.Is(err, boot.ErrUnreadable) {
		return err
	}
	if tx.Open() && m.Roots.Exists(deployment(tx.From)) {
		current = tx.From
	}
	return m.Boot.Commit(current)
}

// leave takes the booted deployment from the boot loader and reboots.
func (m *Machine) leave(ctx context.Context, current int) error {
	return errors.Join(m.Boot.MarkBad(current), m.reboot(ctx))
}

// leaveAgain is leave in a later boot, or where no reboot came.
func (m *Machine) leaveAgain(ctx context.Context, tx journal.Record) error {
	tx, err := m.counted(tx, tx.Phase)
	if err != nil {
		return err
	}
	return m.leave(ctx, tx.Deployment)
}

// asBad keeps the reason that a record of ROLLED_BACK already has.
func asBad(tx journal.Record) journal.Record {
	tx.Bad = true
	return tx
}

func (m *Machine) recoverStaged(ctx context.Context, tx journal.Record, current int) error {
	if m.isCancelled(tx.State) {
		return m.discard(ctx, tx, m.cancelled.Reason)
	}
	if current == tx.From && m.Roots.Exists(pristine(tx.Deployment)) && m.Roots.Exists(base(tx.Deployment)) {
		// A FINALISE that came to nothing is deleted before STAGED is written,
		// and perhaps after it on the disk.
		if err := m.deleteBootable(ctx, tx.Deployment); err != nil {
			return m.whyNot(err)
		}
		return nil
	}
	return m.discard(ctx, tx, "what was staged does not fit what is booted")
}

// recoverFinalise tells by boot control whether SetTry was done: it is the last
// act of FINALISE. The loader was not asked since.
func (m *Machine) recoverFinalise(ctx context.Context, tx journal.Record, current int) error {
	if current == tx.Deployment {
		return m.trial(ctx, tx)
	}
	t, ok := m.Boot.Trial()
	if !ok || t.Deployment != tx.Deployment {
		if tx.Manual {
			tx.Reason = "it was interrupted during " + string(tx.Phase)
			_, err := m.enter(tx, journal.Idle)
			return err
		}
		if err := m.deleteBootable(ctx, tx.Deployment); err != nil {
			return m.whyNot(err)
		}
		tx.Reboots++ // it came to nothing once, and may do so again and again
		staged, err := m.enter(tx, journal.Staged)
		if err != nil {
			return err
		}
		return m.recoverStaged(ctx, staged, current)
	}
	if t.Tries < 1 {
		return m.rolledBack(ctx, tx)
	}
	// On trial and not booted yet: this is still the boot that set it.
	boot, err := m.System.BootID()
	if err != nil {
		return m.whyNot(err)
	}
	tx.Boot = boot
	if _, err := m.counted(tx, journal.Reboot); err != nil {
		return err
	}
	return m.reboot(ctx)
}

// recoverReboot: either the reboot has not happened yet, or the loader has
// decided.
func (m *Machine) recoverReboot(ctx context.Context, tx journal.Record, current int) error {
	if current == tx.Deployment {
		return m.trial(ctx, tx)
	}
	boot, err := m.System.BootID()
	if err != nil {
		return m.whyNot(err)
	}
	if boot == tx.Boot {
		return m.recoverFinalise(ctx, tx, current)
	}
	return m.rolledBack(ctx, tx)
}

func (m *Machine) recoverTrial(ctx context.Context, tx journal.Record, current int) error {
	switch {
	case current != tx.Deployment:
		return m.rolledBack(ctx, tx)
	case tx.Bad:
		return m.leaveAgain(ctx, tx)
	}
	return m.trial(ctx, tx)
}

// recoverIdle repairs boot control when the loader had to take the previous
// deployment because the committed one does not load.
func (m *Machine) recoverIdle(ctx context.Context, current int) error {
	d, err := m.Boot.Default()
	if err != nil {
		return m.whyNot(err)
	}
	if d.Committed == current {
		// A trial that no record knows: the journal was lost.
		if t, ok := m.Boot.Trial(); ok && t.Tries > 0 && t.Deployment != current {
			if err := m.Boot.Commit(current); err != nil {
				return m.whyNot(err)
			}
		}
		return m.System.DisarmTrial(ctx)
	}
	if !d.HasPrevious || d.Previous != current {
		return m.whyNot(fmt.Errorf("cannot tell why deployment %d is booted: %d is committed", current, d.Committed))
	}
	broken, err := m.Records.Deployment(d.Committed)
	if err != nil {
		return m.whyNot(err)
	}
	reason := fmt.Sprintf("deployment %d was committed and does not load any more", d.Committed)
	if broken.State != "" {
		if err := m.remember(journal.Record{State: broken.State, Snapshot: broken.Snapshot, Local: broken.Overlay.ID()}, reason); err != nil {
			return m.whyNot(err)
		}
	}
	if err := m.Boot.MarkBad(d.Committed); err != nil {
		return m.whyNot(err)
	}
	return m.alsoWhyNot(reason, nil)
}
