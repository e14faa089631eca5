package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newGCCommand(c *cli) *cobra.Command {
	var in protocol.StartGC
	var noWait bool
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Remove what nothing needs any more",
		Long: `Remove states that nothing keeps, with their index files and packages, as a
change of the server. The command waits for it and then says what keeps what,
a root a line: pipeline, root, states, and the packages and bytes that would go
if this root alone went.

What keeps a state:
  a stage that offers it, or that can be undone to it
  a snapshot, until it is deleted: snapshot delete, pin, unpin
  a device that has it, or is to have it
  the pipeline's retention: pipeline set --keep-states N --keep-days D
  having been offered a moment ago, as clients may be half-way

The server does this by itself every day (setting gc_every). Uploads and
everything else go on meanwhile; aborting it is harmless.`,
		Example: `  repo-manager gc --dry-run
  repo-manager gc --reason "the disk is filling up"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			change, err := api.StartGC(cmd.Context(), in)
			if err != nil {
				return err
			}
			if noWait {
				return c.printChange(change)
			}
			return c.follow(cmd.Context(), api, change.ID)
		},
	}
	cmd.Flags().BoolVar(&in.DryRun, "dry-run", false, "only show what keeps what, and what would go")
	cmd.Flags().StringVar(&in.Reason, "reason", "", "why; it stays with the change")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "return at once and print the change's id")
	return cmd
}

// rootWords are the kinds of root as people read them, before the name.
var rootWords = map[string]string{
	"stage": "stage ", "history": "undo of ", "pin": "pinned snapshot ", "snapshot": "snapshot ", "device": "device ",
}

// printGC prints the result of a gc.
func (c *cli) printGC(result json.RawMessage) error {
	var gc protocol.GC
	if err := json.Unmarshal(result, &gc); err != nil {
		return fmt.Errorf("cannot read the result of the gc: %w", err)
	}
	table := c.io.NewTable("pipeline", "kept by", "states", "only its packages", "only its bytes", "note")
	for _, r := range gc.Roots {
		table.Row(r.Pipeline, rootWords[r.Kind]+r.Name, r.States, r.OnlyFiles, term.Bytes(r.OnlyBytes), r.Note)
	}
	table.Print("")
	if gc.MoreRoots > 0 {
		c.io.Note("and %d more", gc.MoreRoots)
	}
	c.io.Note("kept: %s", amountOf(gc.Kept))
	verb := "removed"
	if gc.DryRun {
		verb = "would go"
	}
	c.io.Note("%s: %s", verb, amountOf(gc.Gone))
	return nil
}

func amountOf(a protocol.Amount) string {
	return fmt.Sprintf("%d states, %d packages, %d chunks, %d index files; %s", a.States, a.Files, a.Chunks, a.Indices, term.HumanBytes(a.Bytes))
}
