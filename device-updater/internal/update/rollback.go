package update

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"aptfleet/device-updater/internal/hook"
	"aptfleet/device-updater/internal/journal"
)

// Rollback boots the previous deployment, on trial like any other. When it is
// committed, the release that was left is remembered, so that it does not
// come back by itself.
//
// It is refused where the previous deployment cannot read what was written since:
// RollbackState does it nevertheless.
func (m *Machine) Rollback(ctx context.Context) error { return m.rollback(ctx, false) }

// RollbackState is Rollback that takes the state with it: units of another epoch
// are put back as the previous deployment last wrote them.
func (m *Machine) RollbackState(ctx context.Context) error { return m.rollback(ctx, true) }

func (m *Machine) rollback(ctx context.Context, withState bool) error {
	tx := m.Journal.Last()
	if tx.Open() && tx.Phase != journal.Staged {
		return &Refused{Reason: fmt.Sprintf("cannot roll back: an update is in phase %s", tx.Phase), Hint: "device-updater status"}
	}
	if err := m.refuseLoss(withState); err != nil {
		return err
	}
	current, d, err := m.boots()
	if err != nil {
		return err
	}
	if !d.HasPrevious || d.Previous == current || !m.Roots.Exists(deployment(d.Previous)) {
		return &Refused{Reason: "cannot roll back: there is no previous deployment"}
	}
	previous, err := m.Records.Deployment(d.Previous)
	if err != nil {
		return err
	}
	if tx.Phase == journal.Staged {
		if err := m.discard(ctx, tx, "a person rolls back"); err != nil {
			return err
		}
	}
	tx = journal.Record{
		Transaction: m.nextTransaction(), State: previous.State, Snapshot: previous.Snapshot,
		Deployment: d.Previous, From: current, Manual: true, Reason: "a person rolls back",
	}
	if m.Hooks != nil {
		// They are told: a person who goes back is not kept from it.
		if err := m.Hooks.Run(ctx, hook.BeforeFinalise, hookEnv(tx)); err != nil {
			tx = tx.With(err.Error())
		}
	}
	if tx, err = m.enter(tx, journal.Finalise); err != nil {
		return err
	}
	// Its time limit is the one of its own first trial, or of the factory.
	if err := m.System.ArmTrial(m.Roots.Path(deployment(d.Previous)), m.Settings.TrialTimeout); err != nil {
		return errors.Join(m.whyNot(err), m.giveUpTry(ctx, tx, err))
	}
	return m.try(ctx, tx)
}

// refuseLoss refuses to go back to a previous deployment that cannot read the
// state, unless a person said that the state is to go back, too.
func (m *Machine) refuseLoss(withState bool) error {
	d, err := m.Boot.Default()
	if err != nil || !d.HasPrevious || !m.Roots.Exists(deployment(d.Previous)) || withState {
		return err
	}
	lost, err := m.lost(d.Previous)
	if err != nil {
		return &Refused{Reason: fmt.Sprintf("cannot roll back: %v", err), Hint: rollbackState}
	}
	if len(lost) > 0 {
		return &Refused{Reason: "cannot roll back: " + strings.Join(lost, "; "), Hint: rollbackState}
	}
	return nil
}

const rollbackState = "device-updater rollback --restore-state puts the state of that time back; what is there now is put aside, below /sysroot/kept"
