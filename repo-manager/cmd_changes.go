package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// The statuses of a change that has ended badly, as the API names them.
const (
	changeFailed  = "failed"
	changeAborted = "aborted"
)

// kindGC is the kind of a change that was a gc, as the API names it.
const kindGC = "gc"

func newChangesCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "changes",
		Short:   "List the long acts of the server, newest first",
		Example: `  repo-manager changes`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			all, err := api.Changes(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("id", "status", "what", "by", "begun", "done")
			for _, change := range all {
				table.Row(change.ID, statusCell(change.Status), change.Summary, change.By, change.Created, amount(change))
			}
			table.Print("no changes yet")
			return nil
		},
	}
}

// statusCell colours the status of a change.
func statusCell(status string) term.Styled {
	switch status {
	case changeFailed, changeAborted:
		return term.Styled{Text: status, Style: term.Bad}
	case "done":
		return term.Styled{Text: status, Style: term.Good}
	}
	return term.Styled{Text: status, Style: term.Warning}
}

// amount says how far a change is.
func amount(change protocol.Change) string {
	switch {
	case change.Done == 0 && change.Total == 0:
		return ""
	case change.Total == 0:
		return fmt.Sprintf("%d %s", change.Done, change.Unit)
	}
	return fmt.Sprintf("%d of %d %s", change.Done, change.Total, change.Unit)
}

func newWatchCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "watch ID",
		Short: "Follow a change until it ends",
		Long: `Follow a change until it ends: progress on standard error, its log and how it
ended on standard output. The exit status is 1 if it failed or was aborted.`,
		Example: `  repo-manager watch 7`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, id, err := c.changeArgument(args[0])
			if err != nil {
				return err
			}
			return c.follow(cmd.Context(), api, id)
		},
	}
}

func newAbortCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "abort ID",
		Short: "Ask a change to stop",
		Long: `Ask a change to stop. It publishes nothing any more, and a mirror's next update
goes on from what was downloaded. "repo-manager watch" shows when it has ended.`,
		Example: `  repo-manager abort 7`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, id, err := c.changeArgument(args[0])
			if err != nil {
				return err
			}
			change, err := api.AbortChange(cmd.Context(), id)
			if err != nil {
				return err
			}
			return c.printChange(change)
		},
	}
}

func (c *cli) changeArgument(text string) (*client.Client, int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return nil, 0, &term.UsageError{
			Text: fmt.Sprintf("cannot use %q as the id of a change: want a number", text),
			Hint: "repo-manager changes lists them",
		}
	}
	api, err := c.client()
	return api, id, err
}

// printChange prints a change that need not have ended.
func (c *cli) printChange(change protocol.Change) error {
	if c.io.JSON {
		return c.io.PrintJSON(change)
	}
	c.io.Result(strconv.FormatInt(change.ID, 10), "change %d: %s (%s)", change.ID, term.Printable(change.Summary), change.Status)
	return nil
}

// follow shows a change until it ends and turns a bad end into an error.
func (c *cli) follow(ctx context.Context, api *client.Client, id int64) error {
	progress := c.io.NewProgress(fmt.Sprintf("change %d", id), 0, "")
	defer progress.Finish()
	told := 0
	change, err := api.Wait(ctx, id, func(now protocol.Change) {
		if len(now.Log) > told {
			progress.Finish()
			for _, line := range now.Log[told:] {
				c.io.Note("%s", term.Printable(line))
			}
			told = len(now.Log)
		}
		progress.Set(now.Done, now.Total, now.Unit)
	})
	progress.Finish()
	if err != nil && ctx.Err() != nil {
		return term.WithHint(err, fmt.Sprintf("the change goes on in the server: repo-manager watch %d", id))
	}
	if err != nil {
		return err
	}
	if c.io.JSON {
		if err := c.io.PrintJSON(change); err != nil {
			return err
		}
	}
	switch change.Status {
	case changeFailed:
		return fmt.Errorf("change %d failed: %s", id, change.Error)
	case changeAborted:
		return fmt.Errorf("change %d was aborted", id)
	}
	if c.io.JSON {
		return nil
	}
	if change.Kind == kindGC && len(change.Result) > 0 {
		return c.printGC(change.Result)
	}
	c.io.Result(strconv.FormatInt(id, 10), "change %d is done: %s", id, term.Printable(change.Summary))
	return nil
}
