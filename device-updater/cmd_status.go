package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/config"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func (p *program) statusCommand() *cobra.Command {
	var evidence bool
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Show what this device runs, what it should run, and why it does not",
		Long:    "status reads what the updater wrote down; it needs neither the daemon nor the network. --json has all evidence of failures.",
		Example: "  device-updater status --evidence\n  device-updater status --json",
		Args:    usage(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return p.status(evidence) },
	}
	cmd.Flags().BoolVar(&evidence, "evidence", false, "also what logs say about the newest release that failed")
	return cmd
}

func (p *program) status(evidence bool) error {
	c, err := p.load()
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
	p.unresolved(view.Etc)
	all := statusView{View: view, stateView: p.lookState(), Server: p.lookServer(c), now: p.io.Now()}
	if p.io.JSON {
		return p.io.PrintJSON(all)
	}
	if err := printView(p.io.Out, all); err != nil || !evidence {
		return err
	}
	return printEvidence(p.io.Out, all.Report.Failed)
}

// printEvidence writes what is known of why the newest release failed. It comes
// from logs of that release.
func printEvidence(out io.Writer, failed []protocol.Failure) error {
	var b strings.Builder
	if len(failed) == 0 || len(failed[len(failed)-1].Evidence) == 0 {
		b.WriteString("\nThere is no evidence of a failure.\n")
	} else {
		for _, e := range failed[len(failed)-1].Evidence {
			fmt.Fprintf(&b, "\n%s:\n", term.Printable(e.From))
			for line := range strings.Lines(e.Text) {
				fmt.Fprintf(&b, "  %s\n", term.Printable(strings.TrimRight(line, "\n")))
			}
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// statusView is a device with its server.
type statusView struct {
	update.View
	stateView
	Server *serverView `json:"server,omitempty"` // nil: it has none

	now time.Time // holds that have ended are not shown
}

// serverView is a device's server as the device knows it.
type serverView struct {
	URL    string `json:"url"`
	Device string `json:"device,omitempty"` // name; "": not enrolled
	contact
}

// lookServer reads what is known about the server; nil if there is none.
func (p *program) lookServer(c config.Config) *serverView {
	e, enrolled, err := p.identity().Enrolment()
	if err == nil && !enrolled && c.Server == "" {
		return nil
	}
	v := &serverView{URL: e.Server, Device: e.Device}
	if !enrolled {
		v.URL = c.Server
	}
	// Beside the socket lies what the updater last said, if it runs.
	if text, err := os.ReadFile(p.contactPath()); err != nil || json.Unmarshal(text, &v.contact) != nil {
		v.contact = contact{}
	}
	switch {
	case err != nil:
		v.Waits = err.Error()
	case enrolled:
		v.Waits = ""
	case v.Waits == "":
		v.Waits = "this device is not enrolled"
	}
	return v
}

// printView writes a screen for people. Reasons come from checks and scripts of
// a release.
func printView(out io.Writer, v statusView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "DEPLOYMENT\tROLE\tRELEASE\tVERSION\n")
	for _, d := range v.Report.Deployments {
		role := d.Role
		if d.Role == "trial" {
			role = "booted, on trial"
		}
		if d.Pinned && d.Role != "pinned" {
			role += ", pinned"
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
	b.WriteString(v.Server.lines())
	for _, h := range v.Report.Holds {
		if h.Until.IsZero() || v.now.Before(h.Until) {
			fmt.Fprintf(&b, "held     here%s; `device-updater unhold` ends it\n", whose(h))
		}
	}
	if v.Develop != nil {
		fmt.Fprintf(&b, "develops it follows nothing%s; `device-updater rejoin` ends it\n", whose(*v.Develop))
	}
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
	b.WriteString(firmwareLines(v.Report.Firmware))
	b.WriteString(v.stateView.lines())
	b.WriteString(etcLines(v.View))
	for _, f := range v.Report.Failed {
		what := release(f.Snapshot, f.State)
		if f.Overlay != "" {
			what += " + overlay"
		}
		fmt.Fprintf(&b, "failed   %s at %s: %s\n", what, f.At.UTC().Format(time.RFC3339), term.Printable(f.Reason))
	}
	if n := len(v.Report.Failed); n > 0 && len(v.Report.Failed[n-1].Evidence) > 0 {
		b.WriteString("         `device-updater status --evidence` shows what its logs say\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// skewed is how far the clocks may differ without a word.
const skewed = 10 * time.Second

// lines are what people read about the server.
func (v *serverView) lines() string {
	if v == nil {
		return ""
	}
	var b strings.Builder
	switch {
	case v.Waits != "":
		fmt.Fprintf(&b, "server   %s: %s\n", v.URL, term.Printable(v.Waits))
		return b.String()
	case v.Last.IsZero():
		fmt.Fprintf(&b, "server   %s, as %s\n", v.URL, v.Device)
	default:
		fmt.Fprintf(&b, "server   %s, as %s, last at %s\n", v.URL, v.Device, v.Last.UTC().Format(time.RFC3339))
	}
	if v.Error != "" {
		fmt.Fprintf(&b, "         since %s: %s\n", v.Since.UTC().Format(time.RFC3339), term.Printable(v.Error))
	}
	if a := v.Assignment; a != nil {
		fmt.Fprintf(&b, "assigned %d, of stage %s, until %s\n", a.Counter, term.Printable(a.Stage), a.Expires.UTC().Format(time.RFC3339))
		if a.Against != "" {
			fmt.Fprintf(&b, "         %s\n", term.Printable(a.Against))
		}
	}
	if r := v.Refused; r != nil {
		fmt.Fprintf(&b, "refused  assignment %d (%s): %s\n", r.Counter, r.Reason, term.Printable(r.Text))
	}
	if v.Failed != "" {
		fmt.Fprintf(&b, "config   %s\n", term.Printable(v.Failed))
	}
	switch {
	case v.Skew >= skewed:
		fmt.Fprintf(&b, "clock    %s behind the server\n", v.Skew)
	case v.Skew <= -skewed:
		fmt.Fprintf(&b, "clock    %s ahead of the server\n", -v.Skew)
	}
	return b.String()
}

// whose says by whom, until when and why.
func whose(h protocol.Hold) string {
	said := term.Printable(by(h.By))
	if !h.Until.IsZero() {
		said += " until " + h.Until.UTC().Format(time.RFC3339)
	}
	return said + ": " + term.Printable(h.Reason)
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
