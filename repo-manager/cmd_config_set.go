package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newConfigSetCommand(c *cli) *cobra.Command {
	var in protocol.SetConfig
	var secret bool
	var file string
	cmd := &cobra.Command{
		Use:   "set SCOPE KEY [VALUE]",
		Short: "Set a key for a product, a stage or a device",
		Long: `Set a key for a product, a stage or a device. The nearest wins: device, then
stage, then product, then the default of the product's schema.

The type of the value is that of the product's schema; without one it is what
--type says, or else the type that the key has where it is set already, or else
string. With a schema, a key that it does not have and a value that does not fit
are refused.

A secret is read from standard input or from --file, never from the command
line, where other users of the machine see it; one line feed at its end is not
part of it. It is encrypted at once, and nobody can read it back.`,
		Example: `  repo-manager config set product:gateway interval 30 --type integer
  repo-manager config set device:bench-1 interval 5
  repo-manager config set stage:production api.token --secret --file token.txt
  repo-manager config set stage:production interval 60 --dry-run`,
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: c.completeScope(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if secret {
				if in.Type != "" && in.Type != "secret" {
					return &term.UsageError{Text: "--secret is a type of its own", Hint: "leave --type out"}
				}
				in.Type = "secret"
			}
			if err := c.readConfig(args, file, &in); err != nil {
				return err
			}
			return c.editConfig(cmd.Context(), args[0], func(ctx context.Context, api *client.Client, pipeline string, s protocol.ConfigScope) (protocol.ConfigSet, error) {
				return api.SetConfig(ctx, pipeline, s, args[1], in)
			}, in.DryRun)
		},
	}
	cmd.Flags().StringVar(&in.Type, "type", "", "`type` of the value: string, integer, number, boolean, secret")
	cmd.Flags().BoolVar(&secret, "secret", false, "the value is a secret; it is read from standard input or --file")
	cmd.Flags().StringVar(&file, "file", "", "read the value from a `file`; -: from standard input")
	cmd.Flags().BoolVar(&in.DryRun, "dry-run", false, "only tell how many devices would get a new revision")
	mustComplete(cmd, "type", cobra.FixedCompletions([]string{"string", "integer", "number", "boolean", "secret"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// readConfig finds the value: on the command line, or in a file.
func (c *cli) readConfig(args []string, file string, in *protocol.SetConfig) error {
	isSecret := in.Type == "secret"
	switch {
	case len(args) == 3 && isSecret:
		return &term.UsageError{Text: "a secret does not belong on a command line: other users of the machine see it there", Hint: "give it on standard input, or with --file; if this one is in use, change it"}
	case len(args) == 3 && file != "":
		return &term.UsageError{Text: "the value is given twice: on the command line and with --file", Hint: "leave one out"}
	case len(args) == 3:
		in.Value = args[2]
		return nil
	case file == "" && !isSecret:
		return &term.UsageError{Text: "a value is missing", Hint: "give one behind the key, or with --file, or --secret for a secret on standard input"}
	}
	text, err := c.readText(file, args[1], isSecret)
	in.Value = text
	return err
}

// readText reads a value from a file, or from standard input; on a terminal a
// secret is not shown while it is typed.
func (c *cli) readText(file, key string, hidden bool) (string, error) {
	if (file == "" || file == "-") && hidden && term.IsTerminal(os.Stdin) {
		return term.ReadHidden(c.io.Err, key+": ")
	}
	source := os.Stdin
	if file != "" && file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return "", fmt.Errorf("cannot read the value: %w", err)
		}
		defer opened.Close()
		source = opened
	}
	// One byte more than is allowed, and a line feed: the server says the rest.
	raw, err := io.ReadAll(io.LimitReader(source, protocol.MaxConfigValue+2))
	if err != nil {
		return "", fmt.Errorf("cannot read the value: %w", err)
	}
	return strings.TrimSuffix(string(raw), "\n"), nil
}

func newConfigUnsetCommand(c *cli) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "unset SCOPE KEY",
		Short: "Remove a key from a product, a stage or a device",
		Long: `Remove a key from a product, a stage or a device. What is set farther away counts
again. Devices that would lack a key which their product requires keep the
configuration that they have.`,
		Example:           `  repo-manager config unset device:bench-1 interval`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeScope(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.editConfig(cmd.Context(), args[0], func(ctx context.Context, api *client.Client, pipeline string, s protocol.ConfigScope) (protocol.ConfigSet, error) {
				return api.UnsetConfig(ctx, pipeline, s, args[1], dryRun)
			}, dryRun)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell how many devices would get a new revision")
	return cmd
}

// editConfig does an edit and says what it did.
func (c *cli) editConfig(ctx context.Context, scope string, edit func(context.Context, *client.Client, string, protocol.ConfigScope) (protocol.ConfigSet, error), dryRun bool) error {
	api, pipeline, s, err := c.inScope(ctx, scope)
	if err != nil {
		return err
	}
	done, err := edit(ctx, api, pipeline, s)
	if err != nil {
		return err
	}
	if c.io.JSON {
		return c.io.PrintJSON(done)
	}
	what := "(not set)"
	if done.New != nil {
		what = textOf(configText(done.New))
	}
	switch {
	case done.Unchanged:
		c.io.Result(done.Key, "%s of %s is %s already", done.Key, done.Scope, term.Printable(what))
	case dryRun:
		c.io.Result(done.Key, "%s of %s would be %s; %s would get a new revision; nothing was changed", done.Key, done.Scope, term.Printable(what), devicesText(done.Devices))
	default:
		c.io.Result(done.Key, "%s of %s is %s now; %s will get a new revision", done.Key, done.Scope, term.Printable(what), devicesText(done.Devices))
	}
	return nil
}

func devicesText(n int) string {
	if n == 1 {
		return "1 device"
	}
	return fmt.Sprintf("%d devices", n)
}
