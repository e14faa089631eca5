package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/access"
)

func newAuditCommand(c *cli) *cobra.Command {
	var user, since string
	var limit int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who did what, newest first",
		Long: `Show who did what, newest first: every act that changed something, with the user,
and how the server knew it (the Unix socket, a token by its label, a session).
Only acts in a pipeline are shown if --pipeline names one. This takes the role
admin, for it tells of users and of every pipeline.`,
		Example: `  repo-manager audit --since 7d
  repo-manager audit --user alice --pipeline demo --limit 1000 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			from, err := sinceWhen(since, c.io.Now())
			if err != nil {
				return err
			}
			if limit < 1 {
				return &term.UsageError{Text: fmt.Sprintf("cannot show %d acts: want at least 1", limit), Hint: cmd.CommandPath() + " --help"}
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			acts, err := api.Acts(cmd.Context(), client.ActFilter{User: user, Pipeline: c.pipeline, Since: from, Limit: limit})
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(acts)
			}
			table := c.io.NewTable("when", "who", "via", "did", "pipeline", "what", "detail")
			for _, a := range acts {
				table.Row(a.At, a.By, a.Via, a.Verb, a.Pipeline, a.Object, a.Detail)
			}
			table.Print("nobody did such a thing")
			if len(acts) == limit && c.io.OutTerminal {
				c.io.Note("there may be more: --limit %d shows some", 10*limit)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "only acts of this user, by `name`")
	cmd.Flags().StringVar(&since, "since", "", "only acts since `when`: 7d, 12h, 2w, a day like 2026-11-20, or an RFC 3339 time")
	cmd.Flags().IntVar(&limit, "limit", 50, "the newest `number` of acts, at most 10000")
	return cmd
}

// sinceWhen reads a moment before now; "" is the zero time.
func sinceWhen(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if span, ok := access.Span(text); ok {
		return now.Add(-span), nil
	}
	if day, err := time.ParseInLocation(time.DateOnly, text, now.Location()); err == nil {
		return day, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, &term.UsageError{
			Text: fmt.Sprintf("cannot use %q as --since: it is neither a span nor a time", text),
			Hint: "want 7d, 12h, 2026-11-20 or 2026-11-20T12:00:00Z",
		}
	}
	return at, nil
}
