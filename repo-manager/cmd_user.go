package main

import (
	"github.com/spf13/cobra"
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
	group.AddCommand(newUserCreateCommand(c), newUserListCommand(c))
	return group
}

func newUserCreateCommand(c *cli) *cobra.Command {
	var roles []string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a user",
		Long:  "Make a user. A user acts through tokens and browser sessions.\n\n" + roleHelp,
		Example: `  repo-manager user create alice --role releaser
  repo-manager user create ci --role uploader:demo/apps`,
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
			table := c.io.NewTable("user", "roles", "created")
			for _, u := range all {
				table.Row(u.Name, u.Roles, u.Created)
			}
			table.Print("no users yet: repo-manager user create NAME --role ROLE")
			return nil
		},
	}
}

func newLoginLinkCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "login-link USER",
		Short: "Make a URL that logs a browser in, once",
		Long:  `Make a URL that logs a user's browser in. It works once and expires soon.`,
		Example: `  repo-manager login-link alice
  xdg-open "$(repo-manager login-link alice)"`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			link, err := api.CreateLoginLink(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(link)
			}
			c.io.Result(link.URL, "%s", link.URL)
			return nil
		},
	}
}
