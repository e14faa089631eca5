package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/device-updater/internal/config"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/device-updater/internal/window"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func (p *program) statusCommand() *cobra.Command {
	var evidence bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what this device runs, what it should run, and why it does not",
		Long: `status reads what the updater wrote down; it needs neither the daemon nor the
network. What it says first is why the device does not run what it should; then
come its deployments, what wants somebody's attention, and what is as it should
be. --json has everything, the evidence of all failures too.`,
		Example: "  device-updater status --evidence\n  device-updater status --json",
		Args:    usage(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return p.status(evidence) },
	}
	cmd.Flags().BoolVar(&evidence, "evidence", false, "also what logs say about the newest release that failed")
	return cmd
}

func (p *program) status(evidence bool) error {
	v, err := p.look(p.control())
	if err != nil {
		return err
	}
	if p.io.JSON {
		return p.io.PrintJSON(v)
	}
	v.print(p.io)
	if !evidence {
		return nil
	}
	return printEvidence(p.io.Out, v.Report.Failed)
}

// look puts together what lies on the disk.
func (p *program) look(b update.Boot) (statusView, error) {
	c, err := p.load()
	if err != nil {
		return statusView{}, err
	}
	records, err := journal.Read(p.journalPath())
	if err != nil {
		return statusView{}, err
	}
	var last journal.Record
	if len(records) > 0 {
		last = records[len(records)-1]
	}
	store, err := update.OpenRecords(p.updaterDir())
	if err != nil {
		return statusView{}, err
	}
	view, err := update.Look(b, store, last, c.Follow)
	if err != nil {
		return statusView{}, err
	}
	p.unresolved(view.Etc)
	v := statusView{View: view, stateView: p.lookState(), Server: p.lookServer(c)}
	v.window, err = window.Parse(c.Window)
	return v, err
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

	window window.Window // when what is staged is booted by itself
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
