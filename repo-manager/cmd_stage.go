package main

import (
	"github.com/spf13/cobra"

	"aptfleet/internal/term"
)

func newStageCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "stage",
		Short:   "What each stage offers, and what it offered before",
		Example: `  repo-manager stage list`,
	}
	group.AddCommand(newStageListCommand(c), newStageShowCommand(c), newStageHistoryCommand(c))
	return group
}

func newStageListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the stages in order of promotion",
		Example: `  repo-manager stage list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			all, err := api.Stages(cmd.Context(), pipeline)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("stage", "snapshot", "state", "packages", "since", "by", "reason")
			for _, s := range all {
				table.Row(s.Name, s.Snapshot, term.ID(s.State), s.Packages, s.Since, s.By, s.Reason)
			}
			table.Print("")
			return nil
		},
	}
}

func newStageShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "show STAGE",
		Short:             "Show what a stage offers",
		Example:           `  repo-manager stage show canary`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(stageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			s, err := api.Stage(cmd.Context(), pipeline, args[0])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(s)
			}
			c.io.Facts(
				term.Fact{Name: "stage", Value: s.Name},
				term.Fact{Name: "snapshot", Value: s.Snapshot},
				term.Fact{Name: "state", Value: s.State},
				term.Fact{Name: "packages", Value: s.Packages},
				term.Fact{Name: "since", Value: s.Since},
				term.Fact{Name: "by", Value: s.By},
				term.Fact{Name: "reason", Value: s.Reason},
			)
			return nil
		},
	}
}

func newStageHistoryCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "history STAGE",
		Short:             "List the moves of a stage, newest first",
		Example:           `  repo-manager stage history production`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(stageNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			moves, err := api.History(cmd.Context(), pipeline, args[0])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(moves)
			}
			table := c.io.NewTable("when", "move", "from", "to", "by", "reason")
			for _, m := range moves {
				table.Row(m.At, m.Kind, offer(m.FromSnapshot, m.FromState), offer(m.ToSnapshot, m.ToState), m.By, m.Reason)
			}
			table.Print("the stage has not moved yet")
			return nil
		},
	}
}

// offer is what a state goes by: its snapshot's id, or its own.
func offer(snapshot, state string) any {
	if snapshot != "" {
		return snapshot
	}
	return term.ID(state)
}
