package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/term"
)

func (p *program) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "history",
		Short:   "Show the updates of this device and how they ended",
		Long:    "history reads the journal, newest update first. --json prints its records, oldest first.",
		Example: "  device-updater history",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			records, err := journal.Read(p.journalPath())
			if err != nil {
				return err
			}
			if p.io.JSON {
				return p.io.PrintJSON(records)
			}
			return p.printHistory(records)
		},
	}
}

// printHistory writes one line for each transaction: its last record says how
// it ended.
func (p *program) printHistory(records []journal.Record) error {
	w := tabwriter.NewWriter(p.io.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "UPDATE\tENDED\tRELEASE\tDEPLOYMENT\tRESULT\n")
	for i := len(records) - 1; i >= 0; i-- {
		r := records[i]
		if i+1 < len(records) && records[i+1].Transaction == r.Transaction {
			continue
		}
		committed := i > 0 && records[i-1].Transaction == r.Transaction && records[i-1].Phase == journal.Commit
		fmt.Fprintf(w, "%d\t%s\t%s\t%d\t%s\n", r.Transaction, r.At.UTC().Format(time.RFC3339), release(r.Snapshot, r.State)+onTop(r), r.Deployment, term.Printable(result(r, committed)))
	}
	return w.Flush()
}

// onTop marks a release with an overlay.
func onTop(r journal.Record) string {
	if r.Local == "" {
		return ""
	}
	return " + overlay"
}

func result(r journal.Record, committed bool) string {
	switch {
	case r.Phase == journal.Idle && committed && r.Reason == "":
		return "committed"
	case r.Phase == journal.Idle && committed:
		return "committed; " + r.Reason
	case r.Phase == journal.Idle:
		return "ended: " + r.Reason
	case r.Phase == journal.Failed:
		return "failed: " + r.Reason
	}
	return "in phase " + string(r.Phase)
}
