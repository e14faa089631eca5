package main

import (
	"github.com/spf13/cobra"

	"aptfleet/internal/term"
)

func newWhoAmICommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "whoami",
		Short:   "Show who the server takes you for, and what you may do",
		Long:    `Show who the server takes you for, how it knows, and what you may do there.`,
		Example: `  APTFLEET_SERVER=https://aptfleet.example:8081 repo-manager whoami`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			me, err := api.WhoAmI(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(me)
			}
			c.io.Facts(term.Fact{Name: "user", Value: me.User}, term.Fact{Name: "roles", Value: me.Roles}, term.Fact{Name: "via", Value: me.Via})
			return nil
		},
	}
}
