package main

import (
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func (p *program) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "history",
		Short:   "Show the updates of this device and how they ended",
		Long:    "history reads the journal, newest update first. --json prints its records, oldest first, with the evidence of those that failed.",
		Example: "  device-updater history",
		Args:    usage(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			records, err := journal.Read(p.journalPath())
			if err != nil {
				return err
			}
			if p.io.JSON {
				return p.historyJSON(records)
			}
			return p.printHistory(records)
		},
	}
}

// historyRecord is a record of the journal with what is known of why it ended
// so.
type historyRecord struct {
	journal.Record
	Evidence []protocol.Excerpt `json:"evidence,omitempty"` // FAILED: for as long as the release is remembered
}

// historyJSON writes all records. A release that failed again is remembered
// with its last failure alone.
func (p *program) historyJSON(records []journal.Record) error {
	store, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		return err
	}
	failed, err := store.Failed()
	if err != nil {
		failed = nil // the journal is what was asked for
	}
	last := make(map[string]int) // the last failure of each release
	for i, r := range records {
		if r.Phase == journal.Failed {
			last[r.State+" "+r.Local] = i
		}
	}
	all := make([]historyRecord, len(records))
	for i, r := range records {
		all[i].Record = r
	}
	for _, f := range failed {
		if i, ok := last[f.State+" "+f.Overlay]; ok {
			all[i].Evidence = f.Evidence
		}
	}
	return p.io.PrintJSON(all)
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
