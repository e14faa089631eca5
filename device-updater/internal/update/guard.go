package update

import (
	"context"
	"errors"
	"fmt"

	"aptfleet/device-updater/internal/journal"
)

const (
	// maxReboots is how many reboots one transaction may take: those that the
	// updater asks for, and the boots on trial that it sees. The loader allows
	// nine tries; each may be left by a reboot that was asked for, and one more
	// leads to the first. Whatever takes more would take them for ever.
	maxReboots = 20
	// maxCuts is how often in a row the updater may be cut off while it
	// installs the same release: an installation that crashes the machine would
	// do so for ever, too.
	maxCuts = 10
)

// counted enters a phase in which a reboot is about to be asked for once more.
// One that was refused and is asked for again is the same.
func (m *Machine) counted(tx journal.Record, phase journal.Phase) (journal.Record, error) {
	if m.rebootRefused && tx.Phase == phase {
		return tx, nil
	}
	tx.Reboots++
	return m.enter(tx, phase)
}

// reboot asks for a reboot that was counted.
func (m *Machine) reboot(ctx context.Context) error {
	err := m.System.Reboot(ctx)
	m.rebootRefused = err != nil
	return err
}

// seen counts this boot on trial, if it was not counted before. That it cannot
// be told from another one makes it another one.
func (m *Machine) seen(tx journal.Record) journal.Record {
	boot, err := m.System.BootID()
	if err == nil && boot == tx.Boot && tx.Phase != journal.Reboot {
		return tx
	}
	tx.Boot = boot
	tx.Reboots++
	return tx
}

// endless reports whether the transaction has rebooted the device more often
// than can be explained.
func endless(tx journal.Record) bool {
	class := tx.Recovery()
	return tx.Reboots >= maxReboots && class != journal.Over && class != journal.Committing
}

// breakLoop ends a transaction that is endless in what is committed. If the
// loader boots the trial again and again, whatever boot control is told, the
// deployment is put out of its sight. The running root does not mind.
func (m *Machine) breakLoop(ctx context.Context, tx journal.Record, current int) error {
	if !tx.Bad || tx.Phase != journal.RolledBack {
		reason := fmt.Sprintf("it came to no end in %d reboots", tx.Reboots)
		if tx.Bad {
			reason += ": " + tx.Reason
		}
		tx.Bad, tx.Reason = true, reason
	}
	if current != tx.Deployment {
		return m.rolledBack(ctx, tx)
	}
	tx, err := m.enter(tx, journal.RolledBack)
	if err != nil {
		return err
	}
	failed := m.Boot.MarkBad(current)
	if m.Roots.Exists(deployment(current)) {
		if err := m.Roots.Rename(deployment(current), deployment(current)+work); err != nil {
			return m.whyNot(errors.Join(failed, err))
		}
	}
	if err := m.Roots.Sync(); err != nil {
		return m.whyNot(errors.Join(failed, err))
	}
	return m.reboot(ctx)
}

// interrupted ends a transaction that was cut off before anything was staged.
func (m *Machine) interrupted(ctx context.Context, tx journal.Record) error {
	reason := "it was interrupted during " + string(tx.Phase)
	tx.Cut = tx.Phase == journal.Snapshot || tx.Phase == journal.Install || tx.Phase == journal.Verify
	if n := m.cuts(tx); tx.Cut && n >= maxCuts {
		reason = fmt.Sprintf("%s, as %d times before", reason, n)
		if err := m.blame(tx, reason); err != nil {
			return m.whyNot(err)
		}
		return m.alsoWhyNot(reason, m.discardAs(ctx, tx, reason, true))
	}
	return m.discard(ctx, tx, reason)
}

// cuts counts how often in a row the updater was cut off while it installed
// what tx is about.
func (m *Machine) cuts(tx journal.Record) int {
	n := 0
	past := journal.Transactions(m.Journal.Records())
	for i := len(past) - 2; i >= 0; i-- {
		t := past[i]
		if t.Result != journal.Ended || !t.Cut || t.State != tx.State || t.Local != tx.Local {
			break
		}
		n++
	}
	return n
}
