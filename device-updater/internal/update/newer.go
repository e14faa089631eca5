package update

import (
	"context"
	"fmt"
	"slices"

	"aptfleet/device-updater/internal/journal"
)

// recoverNewer ends a transaction that another updater, newer than this one,
// left in a phase that this one does not know: it installed itself with its
// release, and the device went back to a release that has this one. Boot control
// and the phases that the transaction was in before say how far it came.
func (m *Machine) recoverNewer(ctx context.Context, tx journal.Record, current int) error {
	d, err := m.Boot.Default()
	if err != nil {
		return m.whyNot(err)
	}
	reason := fmt.Sprintf("it was interrupted during %s, which this updater does not know", tx.Phase)
	t, onTrial := m.Boot.Trial()
	switch {
	case current == tx.Deployment && current == d.Committed:
		return m.commit(ctx, tx)
	case current == tx.Deployment:
		return m.trial(ctx, tx)
	case m.wasSwitched(tx):
		if boot, err := m.System.BootID(); err != nil {
			return m.whyNot(err)
		} else if boot == tx.Boot {
			return m.recoverFinalise(ctx, tx, current)
		}
		tx.Bad, tx.Reason = true, reason
		return m.rolledBack(ctx, tx)
	case onTrial && t.Deployment == tx.Deployment:
		tx.Bad, tx.Reason = true, reason
		return m.rolledBack(ctx, tx)
	case tx.Manual:
		// What a person wanted to go back to stays.
		tx.Reason = reason
		_, err := m.enter(tx, journal.Idle)
		return err
	}
	return m.discard(ctx, tx, reason)
}

// wasSwitched reports whether the journal has that the reboot into the
// deployment of tx was asked for.
func (m *Machine) wasSwitched(tx journal.Record) bool {
	return slices.ContainsFunc(m.Journal.Records(), func(r journal.Record) bool {
		return r.Transaction == tx.Transaction && r.Deployment == tx.Deployment &&
			slices.Contains([]journal.Phase{journal.Reboot, journal.Trial, journal.Health, journal.Commit}, r.Phase)
	})
}
