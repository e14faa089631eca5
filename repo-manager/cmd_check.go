package main

import (
	"github.com/spf13/cobra"

	"aptfleet/internal/term"
)

func newCheckCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Compare every published file with what the database says",
		Long: `Compare every published file with what the database says: each package's hash,
each index, each Release file and its signature. Bad files are listed with the
reason, and the exit status is 1 if there is any.`,
		Example: `  repo-manager check`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			progress := c.io.NewProgress("check", 0, "files")
			report, err := api.Check(cmd.Context(), func(files, _ int64) { progress.Set(files, 0, "files") })
			progress.Finish()
			if err != nil {
				return err
			}
			if c.io.JSON {
				if err := c.io.PrintJSON(report); err != nil {
					return err
				}
			} else {
				table := c.io.NewTable("file", "reason")
				for _, f := range report.Findings {
					table.Row(term.Styled{Text: f.Path, Style: term.Bad}, f.Reason)
				}
				table.Print("")
				c.io.Note("checked %d files, %s: %d bad", report.Files, term.HumanBytes(report.Bytes), len(report.Findings))
			}
			if len(report.Findings) > 0 {
				return term.Status(term.ExitFailed)
			}
			return nil
		},
	}
}
