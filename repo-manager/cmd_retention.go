package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// retentionFlags adds the flags that say how much of a pipeline's past is
// kept.
func retentionFlags(cmd *cobra.Command, r *protocol.Retention) {
	cmd.Flags().IntVar(&r.States, "keep-states", 100, "keep the newest `number` of states of the first stage")
	cmd.Flags().IntVar(&r.Days, "keep-days", 30, "and those it offered within that `number` of days; 0: only the number counts")
}

// retentionText is a retention as people say it.
func retentionText(r *protocol.Retention) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf("%d states, %d days", r.States, r.Days)
}

func newPipelineSetCommand(c *cli) *cobra.Command {
	var r protocol.Retention
	var private, public bool
	cmd := &cobra.Command{
		Use:   "set [NAME]",
		Short: "Change how much of a pipeline's past is kept, and who may read it",
		Long: `Change how much of a pipeline's past is kept although nothing else needs it: the
newest states of its first stage, and those it offered within some days. Either
limit keeps a state. What is not given stays as it is. The next gc removes what
is not kept any more; "repo-manager gc --dry-run" shows it before.

With --private, everything below /PIPELINE/ of the archive needs credentials
from now on: a token, or those of a device; "pipeline sources" shows what apt
has to be told. Clients that have none get the answer 401.`,
		Example: `  repo-manager pipeline set demo --keep-states 20 --keep-days 7
  repo-manager pipeline set demo --private`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: firstOnly(c.completePipeline),
		RunE: func(cmd *cobra.Command, args []string) error {
			var in protocol.SetPipeline
			if cmd.Flags().Changed("keep-states") {
				in.KeepStates = &r.States
			}
			if cmd.Flags().Changed("keep-days") {
				in.KeepDays = &r.Days
			}
			if private && public {
				return &term.UsageError{Text: "cannot make a pipeline both private and public", Hint: cmd.CommandPath() + " --help"}
			}
			if cmd.Flags().Changed("public") {
				private = !public
			}
			if cmd.Flags().Changed("private") || cmd.Flags().Changed("public") {
				in.Private = &private
			}
			if in == (protocol.SetPipeline{}) {
				return &term.UsageError{Text: cmd.CommandPath() + " needs something to set", Hint: cmd.CommandPath() + " --help"}
			}
			if len(args) == 1 {
				c.pipeline = args[0]
			}
			api, name, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			p, err := api.SetPipeline(cmd.Context(), name, in)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(p)
			}
			c.io.Result(p.Name, "pipeline %s keeps %s and is read by %s", p.Name, retentionText(p.Retention), readersText(p.Private))
			return nil
		},
	}
	retentionFlags(cmd, &r)
	cmd.Flags().BoolVar(&private, "private", false, "reading it needs credentials")
	cmd.Flags().BoolVar(&public, "public", false, "everybody may read it")
	return cmd
}

// readersText is who may read a pipeline.
func readersText(private bool) string {
	if private {
		return "whoever has credentials"
	}
	return "everybody"
}

func newSnapshotPinCommand(c *cli) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "pin SNAPSHOT",
		Short: "Keep a snapshot from being deleted",
		Long: `Keep a snapshot from being deleted until the pin is taken off, as manufacturing
does with what it installs. Who did it, when and why is shown to whoever wants
to delete the snapshot.`,
		Example:           `  repo-manager snapshot pin 20261120T101500Z --reason "installed by line 3 until May"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(refNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needs(cmd, "reason"); err != nil {
				return err
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			s, err := api.PinSnapshot(cmd.Context(), pipeline, args[0], reason)
			return c.printSnapshotAct(s, err, "pinned")
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`why` it must stay")
	return cmd
}

func newSnapshotUnpinCommand(c *cli) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:               "unpin SNAPSHOT",
		Short:             "Let a pinned snapshot be deleted again",
		Long:              `Let a pinned snapshot be deleted again. It stays until somebody does.`,
		Example:           `  repo-manager snapshot unpin 20261120T101500Z --reason "line 3 has the next one"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(refNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			s, err := api.UnpinSnapshot(cmd.Context(), pipeline, args[0], reason)
			return c.printSnapshotAct(s, err, "unpinned")
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`why`; it stays in the audit trail")
	return cmd
}

func newSnapshotDeleteCommand(c *cli) *cobra.Command {
	var reason string
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "delete SNAPSHOT",
		Short: "Delete a snapshot",
		Long: `Delete a snapshot: its name, and its address in the archive. Its packages go
with the next gc, unless something else needs them. SNAPSHOT is an id or a
unique prefix.

It is refused, with the reason, while a stage offers the snapshot or can be
undone to it, while it is pinned, and while a device has it. On a terminal the
command asks first; elsewhere it needs --yes.`,
		Example: `  repo-manager snapshot delete 20261120T101500Z --dry-run
  repo-manager snapshot delete 20261120T101500Z --reason "never left the bench" --yes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstOnly(c.complete(snapshotNames)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			api, pipeline, err := c.inPipeline(ctx)
			if err != nil {
				return err
			}
			s, err := api.DeleteSnapshot(ctx, pipeline, args[0], reason, true)
			if err != nil {
				return err
			}
			what := fmt.Sprintf("snapshot %s of %d packages, made by %s on %s", s.ID, s.Packages, term.Printable(s.By), s.Created.Format("2006-01-02"))
			if dryRun {
				if c.io.JSON {
					return c.io.PrintJSON(s)
				}
				c.io.Result(s.ID, "would delete %s; nothing was changed", what)
				return nil
			}
			if err := c.confirm(yes, "delete "+what); err != nil {
				return err
			}
			s, err = api.DeleteSnapshot(ctx, pipeline, s.ID, reason, false)
			return c.printSnapshotAct(s, err, "deleted")
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`why`; it stays in the audit trail")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell whether it could be deleted")
	return cmd
}

func (c *cli) printSnapshotAct(s protocol.Snapshot, err error, done string) error {
	if err != nil {
		return err
	}
	if c.io.JSON {
		return c.io.PrintJSON(s)
	}
	c.io.Result(s.ID, "%s snapshot %s", done, s.ID)
	return nil
}

// confirm asks a person whether to do what cannot be taken back. Where there
// is nobody to ask it wants --yes.
func (c *cli) confirm(yes bool, what string) error {
	if yes {
		return nil
	}
	if !c.io.ErrTerminal || !term.IsTerminal(os.Stdin) {
		return &term.UsageError{Text: "cannot " + what + ": nobody is there to be asked", Hint: "repeat it with --yes"}
	}
	fmt.Fprintf(c.io.Err, "%s? [y/N] ", what)
	answer, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil && err != io.EOF {
		return fmt.Errorf("cannot read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return fmt.Errorf("cannot %s: the answer was no", what)
	}
	return nil
}

// pinText is who pinned a snapshot and why, or "".
func pinText(p *protocol.Pin) string {
	if p == nil {
		return ""
	}
	return p.By + ": " + p.Reason
}
