package main

import (
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newCheckCommand(c *cli) *cobra.Command {
	var repair bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare every published file with what the database says, and repair",
		Long: `Compare every published file with what the database says: each package's hash,
each index, each Release file and its signature; and the database with itself
and with what is signed. What is bad is listed with the reason, and the exit
status is 1 if there is any. Rows of the database begin with "repo-manager.db".

With --repair, everything that follows from something else is made again:
index files from their frames, frames from index files, chunks and states from
either, signed files of snapshots and states from the database and the other way
round, rows from what is signed. Nothing is made that has other bytes than a
signed Release names; a stage's Release is signed anew with a later date. What
is damaged and cannot be made again is moved to damaged/ in the data directory.
Package files must be restored: "repo-manager package restore FILE" takes them.
The exit status is 0 if nothing is bad any more. A repair is a change: there is
one at a time, uploads and promotions go on meanwhile, and it goes on without
the one who asked for it.`,
		Example: `  repo-manager check
  repo-manager check --repair`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			check, what := api.Check, "check"
			if repair {
				check, what = api.Repair, "repair"
			}
			progress := c.io.NewProgress(what, 0, "files")
			report, err := check(cmd.Context(), func(files, _ int64) { progress.Set(files, 0, "files") })
			progress.Finish()
			if err != nil && repair && cmd.Context().Err() != nil {
				return term.WithHint(err, "the repair goes on: repo-manager changes")
			}
			if err != nil {
				return err
			}
			return c.printCheck(report, repair)
		},
	}
	cmd.Flags().BoolVar(&repair, "repair", false, "make again what follows from something else, and say what must be restored")
	return cmd
}

// printCheck prints a report; its error is the exit status.
func (c *cli) printCheck(report protocol.Check, repair bool) error {
	repaired := 0
	for _, f := range report.Findings {
		if f.Repaired != "" {
			repaired++
		}
	}
	left := len(report.Findings) - repaired
	if c.io.JSON {
		if err := c.io.PrintJSON(report); err != nil {
			return err
		}
	} else {
		table := c.io.NewTable("file", "reason", "repair")
		for _, f := range report.Findings {
			style := term.Bad
			if f.Repaired != "" {
				style = term.Good
			}
			table.Row(term.Styled{Text: f.Path, Style: style}, f.Reason, remedy(f))
		}
		table.Print("")
		u := report.Usage
		c.io.Note("packages %s; indices %s, superseded ones %s; states %s, chunks %s, frames %s", term.HumanBytes(u.Pool), term.HumanBytes(u.Indices),
			term.HumanBytes(u.Superseded), term.HumanBytes(u.States), term.HumanBytes(u.Chunks), term.HumanBytes(u.Frames))
		if repair {
			c.io.Note("checked %d files, %s: %d repaired, %d must be restored", report.Files, term.HumanBytes(report.Bytes), repaired, left)
		} else {
			c.io.Note("checked %d files, %s: %d bad", report.Files, term.HumanBytes(report.Bytes), left)
		}
	}
	if left > 0 {
		return term.Status(term.ExitFailed)
	}
	return nil
}

// remedy says what became of a finding, or what helps.
func remedy(f protocol.Finding) string {
	var words []string
	switch {
	case f.Repaired != "":
		words = append(words, f.Repaired)
	case f.Restore != "":
		words = append(words, f.Restore)
	default:
		words = append(words, "try repo-manager check --repair")
	}
	if f.Aside != "" {
		words = append(words, "what was there is "+f.Aside)
	}
	if len(f.NeededBy) > 0 {
		words = append(words, "needed by "+strings.Join(f.NeededBy, ", "))
	}
	return strings.Join(words, "; ")
}
