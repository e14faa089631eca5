package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newPromoteCommand(c *cli) *cobra.Command {
	var in protocol.Promote
	var to string
	var tell bool
	cmd := &cobra.Command{
		Use:   "promote SNAPSHOT",
		Short: "Move a stage to a snapshot",
		Long: `Move a stage to a snapshot: the same index files and packages that were tested.
SNAPSHOT is an id, a unique prefix, a state, or the name of a stage whose offer
is meant; a state without a name gets one.

The move is decided on ids. With --expect STATE it is refused if the stage
offers another state by now.`,
		Example: `  repo-manager promote dev --to canary --reason "bench tests passed"
  repo-manager promote 20261120T101500Z --to production --reason "a week in canary" --dry-run`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(refNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needs(cmd, "to"); err != nil {
				return err
			}
			ctx := cmd.Context()
			api, pipeline, err := c.inPipeline(ctx)
			if err != nil {
				return err
			}
			in.Snapshot = args[0]
			move, err := api.Promote(ctx, pipeline, to, in)
			if err != nil {
				return err
			}
			if err := c.printMove(ctx, api, pipeline, move, in.DryRun); err != nil {
				return err
			}
			return unchanged(tell && move.FromState == move.ToState)
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "`stage` to move")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why; it stays in the stage's history")
	cmd.Flags().StringVar(&in.Expect, "expect", "", "`state` that the stage must still offer")
	cmd.Flags().BoolVar(&in.DryRun, "dry-run", false, "only show what would change")
	tellUnchanged(cmd, &tell)
	mustComplete(cmd, "to", c.complete(stageNames))
	return cmd
}

func newUndoCommand(c *cli) *cobra.Command {
	var in protocol.Promote
	cmd := &cobra.Command{
		Use:   "undo STAGE",
		Short: "Move a stage back to what it offered before",
		Long: `Move a stage back to what it offered before its last promotion. Undoing again
goes further back. Devices and apt clients follow, to older versions too.`,
		Example:           `  repo-manager undo canary --reason "crashes on cold boot"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(stageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			api, pipeline, err := c.inPipeline(ctx)
			if err != nil {
				return err
			}
			move, err := api.Undo(ctx, pipeline, args[0], in)
			if err != nil {
				return err
			}
			return c.printMove(ctx, api, pipeline, move, false)
		},
	}
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why; it stays in the stage's history")
	cmd.Flags().StringVar(&in.Expect, "expect", "", "`state` that the stage must still offer")
	return cmd
}

// printMove tells what a stage does, or would do: where it went, and what
// that changes for whoever follows it.
func (c *cli) printMove(ctx context.Context, api *client.Client, pipeline string, move protocol.Move, dryRun bool) error {
	if c.io.JSON {
		return c.io.PrintJSON(move)
	}
	to := name(move.ToSnapshot, move.ToState)
	if move.FromState == move.ToState {
		c.io.Result(to, "nothing to do: %s offers %s already", move.Stage, to)
		return nil
	}
	from := name(move.FromSnapshot, move.FromState)
	changes := ""
	if move.FromState != "" && (dryRun || c.io.OutTerminal) { // else nobody reads it
		diff, err := api.Diff(ctx, pipeline, move.FromState, move.ToState)
		if err != nil {
			return err
		}
		if dryRun {
			c.printDifferences(diff.Differences)
		}
		changes = ": " + summary(diff.Differences)
	}
	arrow := fmt.Sprintf("%s → %s%s", from, to, changes)
	if dryRun {
		c.io.Note("%s would move: %s; nothing was changed", move.Stage, arrow)
		return nil
	}
	c.io.Result(to, "%s moved: %s", move.Stage, arrow)
	return nil
}

// name is what a person calls an offer.
func name(snapshot, state string) string {
	switch {
	case snapshot != "":
		return snapshot
	case state == "":
		return "nothing"
	}
	return term.ShortID(state)
}
