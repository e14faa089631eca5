package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newConfigCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:   "config",
		Short: "What devices are configured with",
		Long: `Keys with values, set for a product, a stage or a device. The nearest wins: the
value of the device, then that of its stage, then that of its product, then the
default of the product's schema. Devices get them with their assignment and
write them as JSON and as an environment file.

SCOPE is product:NAME, stage:NAME or device:NAME; a name alone will do where
only one has it.`,
		Example: `  repo-manager config set product:gateway interval 30 --type integer
  repo-manager config set device:bench-1 interval 5
  repo-manager config set stage:production api.token --secret <token.txt
  repo-manager config list device:bench-1 --effective`,
	}
	group.AddCommand(newConfigSetCommand(c), newConfigUnsetCommand(c), newConfigGetCommand(c), newConfigListCommand(c),
		newConfigHistoryCommand(c), newConfigSchemaCommand(c))
	return group
}

// inScope returns a client, the pipeline, and the scope that a text names.
func (c *cli) inScope(ctx context.Context, text string) (*client.Client, string, protocol.ConfigScope, error) {
	var scope protocol.ConfigScope
	api, pipeline, err := c.inPipeline(ctx)
	if err != nil {
		return nil, "", scope, err
	}
	if kind, name, ok := strings.Cut(text, ":"); ok {
		scope = protocol.ConfigScope{Kind: kind, Name: name}
		if kind != "product" && kind != "stage" && kind != "device" || name == "" {
			return nil, "", scope, &term.UsageError{Text: fmt.Sprintf("%q is no scope", text), Hint: "a scope is product:NAME, stage:NAME or device:NAME"}
		}
		return api, pipeline, scope, nil
	}
	found, err := api.ConfigScopes(ctx, pipeline, text)
	switch {
	case err != nil:
		return nil, "", scope, err
	case len(found) == 0:
		return nil, "", scope, term.WithHint(fmt.Errorf("cannot find %q: pipeline %s has no product, stage or device of that name", text, pipeline),
			"say which it is to be: product:"+text+", for example")
	case len(found) > 1:
		names := make([]string, len(found))
		for i, f := range found {
			names[i] = f.Kind + ":" + f.Name
		}
		return nil, "", scope, &term.UsageError{Text: fmt.Sprintf("cannot tell which %q is meant", text), Hint: "say " + strings.Join(names, " or ")}
	}
	return api, pipeline, found[0], nil
}

// completeScope completes scopes that have values, and the kinds.
func (c *cli) completeScope() cobra.CompletionFunc {
	return firstOnly(c.complete(func(ctx context.Context, api *client.Client, pipeline string) ([]string, error) {
		found, err := api.ConfigScopes(ctx, pipeline, "")
		names := []string{"product:", "stage:", "device:"}
		for _, f := range found {
			names = append(names, f.Kind+":"+f.Name)
		}
		return names, err
	}))
}

// configText is a value as people see it; nothing shows a secret.
func configText(v *protocol.ConfigValue) any {
	switch {
	case v == nil:
		return ""
	case v.Missing:
		return term.Styled{Text: "(missing, the product requires it)", Style: term.Bad}
	case v.Unreadable:
		return term.Styled{Text: "(secret, cannot be read any more: set it again)", Style: term.Bad}
	case v.Type == "secret" && v.By != "":
		return fmt.Sprintf("(secret, set %s by %s)", v.At.UTC().Format(time.DateOnly), v.By)
	case v.Type == "secret":
		return "(secret)"
	}
	return plainText(v.Value)
}

// plainText is a value as a script wants it.
func plainText(value any) string {
	if text, ok := value.(string); ok {
		return text
	}
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Sprint(value)
	}
	return string(raw)
}

func newConfigGetCommand(c *cli) *cobra.Command {
	var effective bool
	cmd := &cobra.Command{
		Use:   "get SCOPE KEY",
		Short: "Print the value of a key",
		Long: `Print the value that a key is set to for a scope or, with --effective, what a
device is configured with. A secret is refused: nobody can read one back.`,
		Example:           `  repo-manager config get device:bench-1 interval --effective`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeScope(),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, scope, err := c.inScope(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			v, err := api.ConfigValue(cmd.Context(), pipeline, scope, args[1], effective)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(v)
			}
			if v.Missing || v.Type == "secret" {
				return &refused{fmt.Sprintf("cannot show %s of %s:%s: %s", v.Key, scope.Kind, scope.Name, textOf(configText(&v)))}
			}
			fmt.Fprintln(c.io.Out, plainText(v.Value)) // as it is: a script may want its line feeds
			return nil
		},
	}
	cmd.Flags().BoolVar(&effective, "effective", false, "what the device gets, wherever it is set")
	return cmd
}

// textOf is a cell of a table as text.
func textOf(cell any) string {
	if s, ok := cell.(term.Styled); ok {
		return s.Text
	}
	return fmt.Sprint(cell)
}

// refused is an error that a policy is the reason of.
type refused struct{ text string }

func (e *refused) Error() string { return e.text }
func (*refused) ExitCode() int   { return term.ExitRefused }

func newConfigListCommand(c *cli) *cobra.Command {
	var effective bool
	cmd := &cobra.Command{
		Use:   "list [SCOPE]",
		Short: "List what is set for a scope, or all that a device gets",
		Long: `List the keys that are set for a scope, with who set them. With --effective the
scope is a device, and every key that it gets is listed with where its value
comes from. Without a scope, list the scopes that have values.`,
		Example: `  repo-manager config list
  repo-manager config list product:gateway
  repo-manager config list device:bench-1 --effective`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: c.completeScope(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.listScopes(cmd.Context())
			}
			api, pipeline, scope, err := c.inScope(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			all, err := api.Config(cmd.Context(), pipeline, scope, effective)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			header := []string{"key", "type", "value", "set", "by"}
			if effective {
				header = []string{"key", "type", "value", "from", "set", "by"}
			}
			table := c.io.NewTable(header...)
			for _, v := range all {
				row := []any{v.Key, v.Type, configText(&v)}
				if effective {
					row = append(row, v.From)
				}
				table.Row(append(row, v.At, v.By)...)
			}
			table.Print("nothing is set: repo-manager config set " + scope.Kind + ":" + scope.Name + " KEY VALUE")
			return nil
		},
	}
	cmd.Flags().BoolVar(&effective, "effective", false, "all that the device gets, with where it comes from")
	return cmd
}

func (c *cli) listScopes(ctx context.Context) error {
	api, pipeline, err := c.inPipeline(ctx)
	if err != nil {
		return err
	}
	all, err := api.ConfigScopes(ctx, pipeline, "")
	if err != nil {
		return err
	}
	if c.io.JSON {
		return c.io.PrintJSON(all)
	}
	table := c.io.NewTable("scope", "keys")
	for _, s := range all {
		table.Row(s.Kind+":"+s.Name, s.Keys)
	}
	table.Print("nothing is configured yet: repo-manager config set SCOPE KEY VALUE")
	return nil
}

func newConfigHistoryCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "history SCOPE KEY",
		Short:             "Show what a key was set to, by whom",
		Long:              `Show the edits of a key of a scope, newest first. Of a secret it is known that it was set, and no more.`,
		Example:           `  repo-manager config history product:gateway interval`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.completeScope(),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, scope, err := c.inScope(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			all, err := api.ConfigHistory(cmd.Context(), pipeline, scope, args[1])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("when", "by", "before", "after")
			for _, e := range all {
				before, after := configText(e.Old), configText(e.New)
				if e.Old == nil {
					before = "(not set)"
				}
				if e.New == nil {
					after = "(not set)"
				}
				table.Row(e.At, e.By, before, after)
			}
			table.Print("it was never set")
			return nil
		},
	}
}
