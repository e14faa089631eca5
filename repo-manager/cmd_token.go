package main

import (
	"time"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
)

func newTokenCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "token",
		Short:   "Secrets with which programs act for a user",
		Example: `  repo-manager token create ci --role uploader:demo/apps`,
	}
	group.AddCommand(newTokenCreateCommand(c), newTokenListCommand(c), newTokenRevokeCommand(c))
	return group
}

func newTokenCreateCommand(c *cli) *cobra.Command {
	var in protocol.NewToken
	cmd := &cobra.Command{
		Use:   "create USER",
		Short: "Make a token of a user",
		Long: `Make a token of a user. The secret is shown this once; in a pipe it is all that
is printed. Without --role the token may do what its user may now; it never may
what its user may not.

A token expires after a year, unless --expires says otherwise: after 90d, 12h or
2w, at a time like 2027-01-31T12:00:00Z, or never.

` + roleHelp,
		Example: `  repo-manager token create ci --label build-server --role uploader:demo/apps --expires 90d
  export APTFLEET_TOKEN="$(repo-manager token create ci)"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeUser(),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			in.User = args[0]
			made, err := api.CreateToken(cmd.Context(), in)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(made)
			}
			c.io.Result(made.Secret, "%s", made.Secret)
			if c.io.OutTerminal {
				c.io.Note("this is token %d of %s; it is not shown again; %s", made.ID, made.User, c.until(made.Expires))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&in.Label, "label", "", "what it is for, in lists and in the history")
	cmd.Flags().StringSliceVar(&in.Roles, "role", nil, "`role` of the token, one that its user has; may be repeated")
	cmd.Flags().StringVar(&in.Expires, "expires", "", "`when` it expires: 90d, 12h, 2w, an RFC 3339 time, or never; after 365d unless given")
	return cmd
}

// until says how long something is good.
func (c *cli) until(expires time.Time) string {
	switch {
	case expires.IsZero():
		return "it never expires"
	case !expires.After(c.io.Now()):
		return "it expired at " + expires.Format(time.RFC3339)
	}
	return "it expires at " + expires.Format(time.RFC3339)
}

func newTokenListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the tokens of all users",
		Long: `List the tokens of all users. A token without a time in "expires" never does; one
that has expired stays listed for 30 days. "used" may be minutes old after a crash.`,
		Example: `  repo-manager token list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			all, err := api.Tokens(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("id", "user", "label", "roles", "created", "expires", "used")
			for _, t := range all {
				table.Row(t.ID, t.User, t.Label, t.Roles, t.Created, t.Expires, t.Used)
			}
			table.Print("no tokens yet: repo-manager token create USER")
			return nil
		},
	}
}

func newTokenRevokeCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "End a token at once",
		Example: `  repo-manager token revoke 3`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := idArgument("token", args[0])
			if err != nil {
				return err
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			if err := api.RevokeToken(cmd.Context(), id); err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(struct {
					Revoked int64 `json:"revoked"`
				}{id})
			}
			c.io.Result(args[0], "revoked token %d", id)
			return nil
		},
	}
}
