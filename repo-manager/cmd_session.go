package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"aptfleet/internal/term"
)

func newSessionCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:   "session",
		Short: "Browsers that are signed in",
		Example: `  repo-manager session list
  repo-manager session end --user alice`,
	}
	group.AddCommand(newSessionListCommand(c), newSessionEndCommand(c))
	return group
}

func newSessionListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the sessions of all users",
		Long: `List the sessions of all users. "from" is the address a session was opened from,
and the browser as it called itself. "seen" may be minutes old after a crash.`,
		Example: `  repo-manager session list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			all, err := api.Sessions(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("id", "user", "created", "expires", "seen", "from", "browser")
			for _, s := range all {
				table.Row(s.ID, s.User, s.Created, s.Expires, s.Seen, s.Address, s.Browser)
			}
			table.Print("nobody is signed in; a browser gets in with: repo-manager login-link USER")
			return nil
		},
	}
}

func newSessionEndCommand(c *cli) *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use:   "end ID | --user NAME",
		Short: "Sign a browser out, or all browsers of a user",
		Example: `  repo-manager session end 7
  repo-manager session end --user alice`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (user == "") == (len(args) == 0) {
				return &term.UsageError{Text: cmd.CommandPath() + " needs the id of a session or --user NAME, and not both", Hint: "repo-manager session list shows them"}
			}
			api, err := c.client()
			if err != nil {
				return err
			}
			n := 1
			if user != "" {
				n, err = api.EndSessions(cmd.Context(), user)
			} else {
				var id int64
				if id, err = idArgument("session", args[0]); err == nil {
					err = api.EndSession(cmd.Context(), id)
				}
			}
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(struct {
					Ended int `json:"ended"`
				}{n})
			}
			c.io.Result(strconv.Itoa(n), "ended %s", counted(n, "session"))
			return nil
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "end all sessions of this user, by `name`")
	return cmd
}

// idArgument reads the number that a list shows for one of what.
func idArgument(what, text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, &term.UsageError{
			Text: fmt.Sprintf("cannot use %q as the id of a %s: want a number", text, what),
			Hint: fmt.Sprintf("repo-manager %s list shows them", what),
		}
	}
	return id, nil
}

func newLoginLinkCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "login-link USER",
		Short: "Make a URL that logs a browser in, once",
		Long:  `Make a URL that logs a user's browser in. It works once and expires soon.`,
		Example: `  repo-manager login-link alice
  xdg-open "$(repo-manager login-link alice)"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeUser(),
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
