package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

const roleHelp = `Roles:
  viewer[:PIPELINE]                reads; whoever has a role reads its pipeline
  uploader[:PIPELINE[/REPOSITORY]] adds and removes packages
  releaser[:PIPELINE[/STAGE]]      names, pins and deletes snapshots, promotes, undoes
  manufacturing[:PIPELINE]         registers devices, pins and unpins snapshots
  operator[:PIPELINE[/PRODUCT]]    devices
  admin                            everything
A role without a scope holds in every pipeline.`

func newUserCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "user",
		Short:   "People and machines with a name",
		Example: `  repo-manager user create alice --role releaser`,
	}
	group.AddCommand(newUserCreateCommand(c), newUserListCommand(c), newUserShowCommand(c), newUserSetCommand(c),
		newUserDisableCommand(c), newUserEnableCommand(c), newUserDeleteCommand(c))
	return group
}

func newUserCreateCommand(c *cli) *cobra.Command {
	var roles []string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a user",
		Long:  "Make a user. A user acts through tokens and browser sessions.\n\n" + roleHelp,
		Example: `  repo-manager user create alice --role releaser
  repo-manager user create ci --role uploader:demo/apps
  repo-manager user create line3 --role manufacturing:demo`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			made, err := api.CreateUser(cmd.Context(), args[0], roles)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(made)
			}
			c.io.Result(made.Name, "created user %s; a browser gets in with: repo-manager login-link %s", made.Name, made.Name)
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&roles, "role", nil, "`role` of the user; may be repeated")
	return cmd
}

func newUserListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the users",
		Example: `  repo-manager user list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			all, err := api.Users(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("user", "roles", "created", "disabled")
			for _, u := range all {
				table.Row(u.Name, u.Roles, u.Created, u.Disabled)
			}
			table.Print("no users yet: repo-manager user create NAME --role ROLE")
			return nil
		},
	}
}

func newUserShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a user with its tokens and sessions",
		Example:           `  repo-manager user show ci`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeUser(),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			u, err := api.User(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(u)
			}
			facts := []term.Fact{{Name: "user", Value: u.Name}, {Name: "roles", Value: u.Roles}, {Name: "created", Value: u.Created}, {Name: "disabled", Value: u.Disabled}}
			for _, t := range u.Tokens {
				facts = append(facts, term.Fact{Name: fmt.Sprintf("token %d", t.ID), Value: fmt.Sprintf("%s %v, %s", t.Label, t.Roles, c.until(t.Expires))})
			}
			for _, s := range u.Sessions {
				facts = append(facts, term.Fact{Name: fmt.Sprintf("session %d", s.ID), Value: fmt.Sprintf("%s, %s, %s", s.Address, s.Browser, c.until(s.Expires))})
			}
			c.io.Facts(facts...)
			return nil
		},
	}
}

func newUserSetCommand(c *cli) *cobra.Command {
	var roles []string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Give a user other roles",
		Long: `Give a user other roles, instead of those it has. Its sessions have them at once;
so have its tokens, as far as they were made with them: a role that is taken from
a user is taken from its tokens.

` + roleHelp,
		Example:           `  repo-manager user set alice --role releaser,operator:demo`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeUser(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(roles) == 0 {
				return &term.UsageError{Text: cmd.CommandPath() + " needs --role ROLE", Hint: cmd.CommandPath() + " --help"}
			}
			return c.changeUser(cmd.Context(), func(ctx context.Context, api *client.Client) (protocol.UserChange, error) {
				return api.SetUser(ctx, args[0], protocol.SetUser{Roles: roles})
			}, func(u protocol.UserChange) string { return fmt.Sprintf("user %s has %v", u.Name, u.Roles) })
		},
	}
	cmd.Flags().StringSliceVar(&roles, "role", nil, "`role` of the user, instead of all it has; may be repeated")
	return cmd
}

func newUserDisableCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "disable NAME",
		Short: "Let a user act no more, until it is enabled",
		Long: `Let a user act no more: its sessions and login links end at once, and its tokens
are refused until the user is enabled again. What it did stays on record.`,
		Example:           `  repo-manager user disable alice`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeUser(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.changeUser(cmd.Context(), func(ctx context.Context, api *client.Client) (protocol.UserChange, error) {
				return api.SetUser(ctx, args[0], protocol.SetUser{Disabled: new(true)})
			}, func(u protocol.UserChange) string {
				return fmt.Sprintf("disabled user %s: %s ended, %s without effect", u.Name, counted(u.EndedSessions, "session"), counted(u.EndedTokens, "token"))
			})
		},
	}
}

func newUserEnableCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "enable NAME",
		Short:             "Let a disabled user act again",
		Long:              `Let a disabled user act again, with the roles and tokens it had. It signs in anew.`,
		Example:           `  repo-manager user enable alice`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeUser(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.changeUser(cmd.Context(), func(ctx context.Context, api *client.Client) (protocol.UserChange, error) {
				return api.SetUser(ctx, args[0], protocol.SetUser{Disabled: new(false)})
			}, func(u protocol.UserChange) string { return "enabled user " + u.Name })
		},
	}
}

func newUserDeleteCommand(c *cli) *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove a user with its tokens and sessions",
		Long: `Remove a user with its tokens and sessions. What it did stays on record. The last
admin may go too: whoever may open the server's Unix socket is still one.`,
		Example: `  repo-manager user delete alice --dry-run
  repo-manager user delete alice --yes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeUser(),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			would, err := api.DeleteUser(cmd.Context(), args[0], true)
			if err != nil {
				return err
			}
			if dryRun {
				return c.userChanged(would, "would delete user "+with(would))
			}
			if err := c.confirm(yes, "delete user "+with(would)); err != nil {
				return err
			}
			return c.changeUser(cmd.Context(), func(ctx context.Context, api *client.Client) (protocol.UserChange, error) {
				return api.DeleteUser(ctx, args[0], false)
			}, func(u protocol.UserChange) string { return "deleted user " + with(u) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell what would end")
	return cmd
}

// changeUser does something to a user and tells what became of it.
func (c *cli) changeUser(ctx context.Context, change func(context.Context, *client.Client) (protocol.UserChange, error), told func(protocol.UserChange) string) error {
	api, err := c.client()
	if err != nil {
		return err
	}
	u, err := change(ctx, api)
	if err != nil {
		return err
	}
	return c.userChanged(u, told(u))
}

// userChanged prints a change, and says if nobody is an admin after it.
func (c *cli) userChanged(u protocol.UserChange, told string) error {
	if c.io.JSON {
		return c.io.PrintJSON(u)
	}
	c.io.Result(u.Name, "%s", told)
	if u.NoAdmin {
		c.io.Note("no user is an admin after that; whoever may open the server's Unix socket still is")
	}
	return nil
}

// with names a user and what it takes along.
func with(u protocol.UserChange) string {
	return fmt.Sprintf("%s with %s and %s", u.Name, counted(u.EndedSessions, "session"), counted(u.EndedTokens, "token"))
}

// counted is a number of things: "1 token", "2 tokens".
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// completeUser completes the name of a user.
func (c *cli) completeUser() cobra.CompletionFunc {
	return firstOnly(c.complete(func(ctx context.Context, api *client.Client, _ string) ([]string, error) {
		all, err := api.Users(ctx)
		names := make([]string, len(all))
		for i, u := range all {
			names[i] = u.Name
		}
		return names, err
	}))
}
