package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"aptfleet/internal/manual"
	"aptfleet/internal/term"
)

// execute runs one command line and returns the exit status.
func execute(ctx context.Context, io *term.IO, args []string) int {
	end := slices.Index(args, "--")
	if end < 0 {
		end = len(args)
	}
	// A command line that cannot be parsed is told in JSON too.
	io.JSON = slices.Contains(args[:end], "--json")
	root := newRootCommand(io)
	root.SetArgs(args)
	root.SetOut(io.Out)
	root.SetErr(io.Err)
	return io.Fail("repo-manager", root.ExecuteContext(ctx))
}

// newRootCommand returns repo-manager's command tree.
func newRootCommand(io *term.IO) *cobra.Command {
	c := &cli{io: io, getenv: os.Getenv}
	root := &cobra.Command{
		Use:   "repo-manager",
		Short: "Keep packages, name releases, and move them from stage to stage",
		Long: `repo-manager keeps Debian packages in rolling repositories, names what they
hold as snapshots, and moves stages from one snapshot to another. Every stage
and every snapshot is an ordinary signed apt repository.

"repo-manager serve" is the server; every other command asks a server to act:
the one on this machine through its Unix socket, or another with --server and
a token.

Exit status: 0 done, or nothing to do; 1 failed; 2 wrong usage; 3 refused by a
policy; 5 not authorised; 11 locked by another change; 77 nothing changed (with
--unchanged-exit-77); 130 interrupted.`,
		Example: `  repo-manager serve --data /srv/aptfleet
  repo-manager package add apps hello_1.0_amd64.deb
  repo-manager snapshot create --note "first release"
  repo-manager promote dev --to canary --reason "tested on the bench"`,
		Version:       term.Version(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate(term.VersionTemplate)
	c.flags(root)
	root.AddGroup(
		&cobra.Group{ID: "release", Title: "Packages and releases:"},
		&cobra.Group{ID: "server", Title: "The server:"},
	)
	release := []*cobra.Command{
		newPackageCommand(c), newSnapshotCommand(c), newStageCommand(c), newPromoteCommand(c), newUndoCommand(c),
		newPipelineCommand(c), newRepositoryCommand(c), newMirrorCommand(c), newProductCommand(c),
	}
	server := []*cobra.Command{
		newServeCommand(io), newChangesCommand(c), newWatchCommand(c), newAbortCommand(c), newCheckCommand(c),
		newGCCommand(c), newBackupCommand(c), newRestoreCommand(c),
		newUserCommand(c), newTokenCommand(c), newSessionCommand(c), newLoginLinkCommand(c), newWhoAmICommand(c), newAuditCommand(c), newDeviceCommand(c), newConfigCommand(c), newKeyCommand(c),
	}
	for _, command := range release {
		command.GroupID = "release"
	}
	for _, command := range server {
		command.GroupID = "server"
	}
	root.AddCommand(release...)
	root.AddCommand(server...)
	root.AddCommand(manual.Command())
	finish(root, io)
	return root
}

// needs returns an error unless each of the named flags was given a value.
func needs(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if flag := cmd.Flags().Lookup(name); flag.Value.String() == "" {
			value, _ := pflag.UnquoteUsage(flag)
			return &term.UsageError{
				Text: fmt.Sprintf("%s needs --%s %s", cmd.CommandPath(), name, strings.ToUpper(value)),
				Hint: cmd.CommandPath() + " --help",
			}
		}
	}
	return nil
}

// finish makes wrong usage of every command one kind of error, and gives
// commands that only hold others something to say.
func finish(command *cobra.Command, io *term.IO) {
	hint := command.CommandPath() + " --help"
	command.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &term.UsageError{Text: err.Error(), Hint: hint}
	})
	if args := command.Args; args != nil {
		command.Args = func(cmd *cobra.Command, given []string) error {
			if err := args(cmd, given); err != nil {
				return &term.UsageError{Text: err.Error(), Hint: "usage: " + cmd.UseLine()}
			}
			return nil
		}
	}
	if command.HasSubCommands() && command.RunE == nil {
		command.Args = cobra.ArbitraryArgs
		command.RunE = func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 && !io.JSON {
				cmd.SetOut(io.Err)
				return errors.Join(cmd.Help(), term.Status(term.ExitUsage))
			}
			if len(given) == 0 {
				return &term.UsageError{Text: fmt.Sprintf("%s needs a command", cmd.CommandPath()), Hint: hint}
			}
			cmd.SuggestionsMinimumDistance = 2
			text := fmt.Sprintf("unknown command %q for %q", given[0], cmd.CommandPath())
			if near := cmd.SuggestionsFor(given[0]); len(near) > 0 {
				text += ": did you mean " + strings.Join(near, " or ") + "?"
			}
			return &term.UsageError{Text: text, Hint: hint}
		}
	}
	for _, child := range command.Commands() {
		finish(child, io)
	}
}

// tellUnchanged gives a command the flag that tells scripts "nothing to do"
// from "done".
func tellUnchanged(cmd *cobra.Command, tell *bool) {
	cmd.Flags().BoolVar(tell, "unchanged-exit-77", false, "exit with 77 if nothing had to be changed")
}

// unchanged is the exit status for that, if it is asked for and true.
func unchanged(is bool) error {
	if is {
		return term.Status(term.ExitUnchanged)
	}
	return nil
}
