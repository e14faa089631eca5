package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/config"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/term"
)

func (p *program) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show what this device runs, what it should run, and why it does not",
		Long:    "status reads what the updater wrote down; it needs neither the daemon nor the network.",
		Example: "  device-updater status --json",
		Args:    usage(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return p.status() },
	}
}

func (p *program) status() error {
	c, err := config.Load(p.configPath)
	if err != nil {
		return err
	}
	records, err := journal.Read(p.journalPath())
	if err != nil {
		return err
	}
	var last journal.Record
	if len(records) > 0 {
		last = records[len(records)-1]
	}
	store, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		return err
	}
	view, err := update.Look(p.control(), store, last, c.Follow)
	if err != nil {
		return err
	}
	if p.io.JSON {
		return p.io.PrintJSON(view)
	}
	return printView(p.io.Out, view)
}

// printView writes a screen for people. Reasons come from checks and scripts of
// a release.
func printView(out io.Writer, v update.View) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "DEPLOYMENT\tROLE\tRELEASE\tVERSION\n")
	for _, d := range v.Report.Deployments {
		role := d.Role
		if d.Role == "trial" {
			role = "booted, on trial"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", d.ID, role, release(d.Snapshot, d.State), d.Version)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	wanted := release(v.Report.WantedName, v.Report.Wanted)
	if !v.Checked.IsZero() {
		wanted += ", asked " + v.Checked.UTC().Format(time.RFC3339)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nfollows  %s\nwanted   %s\nphase    %s\n", v.Report.Follow, wanted, term.Printable(strings.TrimSuffix(v.Report.Phase+": "+v.Report.Progress, ": ")))
	if v.Report.WhyNot != "" {
		fmt.Fprintf(&b, "why not  %s\n", term.Printable(v.Report.WhyNot))
	}
	for i, o := range v.Overlay {
		title := "overlay"
		if i > 0 {
			title = ""
		}
		fmt.Fprintf(&b, "%-8s %s, from %s%s at %s\n", title, o, term.Printable(o.File), term.Printable(by(o.By)), o.At.UTC().Format(time.RFC3339))
	}
	if len(v.Overlay) > 0 {
		b.WriteString("         so it is not equal to its release; `device-updater rejoin` makes it so\n")
	}
	for _, f := range v.Report.Failed {
		fmt.Fprintf(&b, "failed   %s at %s: %s\n", release(f.Snapshot, f.State), f.At.UTC().Format(time.RFC3339), term.Printable(f.Reason))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func by(who string) string {
	if who == "" {
		return ""
	}
	return " by " + who
}

// release names a release: its snapshot, else the begin of its state's id.
func release(snapshot, state string) string {
	switch {
	case snapshot != "":
		return snapshot
	case state != "":
		return "state " + state[:min(12, len(state))]
	}
	return "unknown"
}
