package main

import (
	"slices"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
)

func (p *program) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "Show the updates of this device and how they ended",
		Long: `history reads the journal, newest update first: when each ended, or what it does
now, how long it took from its first phase to its last, and why it ended so. The
journal keeps the newest updates; of attempts in a row at one release that came
to nothing it keeps the last. --json has the time in each phase, too, and the
evidence of those that failed, the oldest update first.`,
		Example: "  device-updater history\n  device-updater history --json | jq '.[-1].phases'",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			records, err := journal.Read(p.journalPath())
			if err != nil {
				return err
			}
			past := append([]journal.Transaction{}, journal.Transactions(records)...)
			if p.io.JSON {
				return p.historyJSON(past)
			}
			p.printHistory(past)
			return nil
		},
	}
}

// historyEntry is a transaction with what is known of why it ended so.
type historyEntry struct {
	journal.Transaction
	Evidence []protocol.Excerpt `json:"evidence,omitempty"` // FAILED: for as long as the release is remembered
}

// historyJSON writes all transactions. A release that failed again is remembered
// with its last failure alone.
func (p *program) historyJSON(past []journal.Transaction) error {
	store, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		return err
	}
	failed, err := store.Failed()
	if err != nil {
		failed = nil // the journal is what was asked for
	}
	last := make(map[string]int) // the last failure of each release
	all := make([]historyEntry, len(past))
	for i, t := range past {
		all[i].Transaction = t
		if t.Result == journal.Remains {
			last[t.State+" "+t.Local] = i
		}
	}
	for _, f := range failed {
		if i, ok := last[f.State+" "+f.Overlay]; ok {
			all[i].Evidence = f.Evidence
		}
	}
	return p.io.PrintJSON(all)
}

// printHistory writes one line for each transaction.
func (p *program) printHistory(past []journal.Transaction) {
	table := p.io.NewTable("update", "ended", "took", "release", "deployment", "result").Whole()
	for _, t := range slices.Backward(past) {
		took := time.Duration(t.Seconds * float64(time.Second)).Round(time.Second)
		table.Row(t.ID, t.Last, took.String(), release(t.Snapshot, t.State)+onTop(t), t.Deployment, result(t))
	}
	table.Print("this device was never updated")
}

// onTop marks a release with an overlay.
func onTop(t journal.Transaction) string {
	if t.Local == "" {
		return ""
	}
	return " + overlay"
}

func result(t journal.Transaction) string {
	switch {
	case t.Result == journal.Committed && t.Reason != "":
		return "committed; " + t.Reason
	case t.Result == journal.Committed:
		return "committed"
	case t.Result == journal.Ended:
		return "ended: " + t.Reason
	case t.Result == journal.Remains:
		return "failed: " + t.Reason
	}
	return "in phase " + string(t.Phases[len(t.Phases)-1].Phase)
}
