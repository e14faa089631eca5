package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newMirrorCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "mirror",
		Short:   "Upstream suites, filtered to what the products need",
		Example: `  repo-manager mirror update debian`,
	}
	group.AddCommand(newMirrorCreateCommand(c), newMirrorListCommand(c), newMirrorShowCommand(c),
		newMirrorSetCommand(c), newMirrorDiffCommand(c), newMirrorUpdateCommand(c))
	return group
}

func newMirrorCreateCommand(c *cli) *cobra.Command {
	var flags mirrorFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Add a mirror of upstream suites to a pipeline",
		Long: `Add a mirror to a pipeline. "mirror update" then fetches the wanted packages
and everything they depend on. The InRelease of each suite must be signed by its
keyring, and every file must have the hash that it leads to.

Suites of one archive are named with --url and --suite, those of other archives
each with a --source, which is what stands in apt's sources.list, without "deb":

  [signed-by=FILE priority=N] URL SUITE COMPONENT...

Of a package that several suites have, the highest version is taken, unless
their priorities differ (0 if it is not said): then the highest priority has it.
The same version with different bytes in two suites of one priority is refused.

What is wanted:
  --package, --package-list   names, with dependencies, Essential packages and apt
  --filter                    what a package query matches, and nothing else
  --filter-with-deps          what it matches, with the same additions as names
  --all                       everything`,
		Example: `  repo-manager mirror create debian --url https://mirror.example/debian \
      --suite trixie --suite trixie-updates \
      --source 'https://mirror.example/debian-security trixie-security main' \
      --keyring /usr/share/keyrings/debian-archive-keyring.gpg --package-list base.txt
  repo-manager mirror create net --url https://mirror.example/debian --suite trixie \
      --keyring /usr/share/keyrings/debian-archive-keyring.gpg \
      --filter 'Priority (required) | nginx (>= 1.26)' --filter-with-deps`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !flags.source.given(cmd) {
				if err := needs(cmd, "url", "suite", "keyring"); err != nil {
					return err
				}
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			var m protocol.Mirror
			if err := flags.apply(cmd, &m); err != nil {
				return err
			}
			made, err := api.CreateMirror(cmd.Context(), pipeline, args[0], m)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(made)
			}
			c.io.Result(made.Name, "created mirror %s in pipeline %s; fill it with: repo-manager mirror update %s", made.Name, pipeline, made.Name)
			return nil
		},
	}
	flags.define(cmd)
	return cmd
}

func newMirrorSetCommand(c *cli) *cobra.Command {
	var flags mirrorFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change what a mirror takes from where",
		Long: `Change what a mirror takes from where. What is not named stays: without --suite
and --source the suites, without the wishes (--package, --package-list,
--filter, --all) what is wanted. Lists are replaced, not added to. Suites that are
named have the URL and the components of the first one that the mirror has, and
the keyring that it has for their archive, unless other ones are said; --url,
--component and --keyring without names change all suites.

What the mirror holds changes with its next update; "mirror diff" shows how.`,
		Example: `  repo-manager mirror set debian --package-list base.txt
  repo-manager mirror set debian --suite trixie --suite trixie-updates \
      --source 'https://mirror.example/debian-security trixie-security main'
  repo-manager mirror set net --filter '' --package nginx --dry-run`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(componentNames(kindMirror)),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			before, err := api.Mirror(cmd.Context(), pipeline, args[0])
			if err != nil {
				return err
			}
			if err := flags.apply(cmd, before.Mirror); err != nil {
				return err
			}
			after, err := api.SetMirror(cmd.Context(), pipeline, args[0], *before.Mirror, dryRun)
			if err != nil {
				return err
			}
			switch {
			case c.io.JSON:
				return c.io.PrintJSON(after)
			case dryRun:
				c.io.Facts(mirrorFacts(after)...)
				c.io.Note("mirror %s would be set to this", args[0])
			default:
				c.io.Result(after.Name, "mirror %s is set; see what that changes with: repo-manager mirror diff %s", after.Name, after.Name)
			}
			return nil
		},
	}
	flags.define(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what it would be set to")
	return cmd
}

func newMirrorListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the mirrors of a pipeline",
		Example: `  repo-manager mirror list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := c.components(cmd, kindMirror)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(found)
			}
			table := c.io.NewTable("mirror", "suites", "wanted")
			for _, component := range found {
				m := component.Mirror
				if m == nil {
					m = &protocol.Mirror{}
				}
				var suites []string
				for _, s := range m.Suites {
					suites = append(suites, s.Suite)
				}
				table.Row(component.Name, suites, wishes(*m))
			}
			table.Print("no mirrors yet: repo-manager mirror create NAME")
			return nil
		},
	}
}

// wishes says in short what a mirror wants.
func wishes(m protocol.Mirror) string {
	var parts []string
	if m.All {
		parts = append(parts, "everything")
	}
	if len(m.Packages) > 0 {
		parts = append(parts, strings.Join(m.Packages, ", "))
	}
	if m.Filter != "" {
		parts = append(parts, "filter "+m.Filter)
	}
	return strings.Join(parts, "; ")
}

func newMirrorShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show what a mirror takes from where",
		Example:           `  repo-manager mirror show debian`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(componentNames(kindMirror)),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			found, err := api.Mirror(cmd.Context(), pipeline, args[0])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(found)
			}
			c.io.Facts(mirrorFacts(found)...)
			return nil
		},
	}
}

// mirrorFacts lists what a mirror takes from where.
func mirrorFacts(component protocol.Component) []term.Fact {
	m := component.Mirror
	facts := []term.Fact{{Name: "mirror", Value: component.Name}}
	for _, s := range m.Suites {
		text := s.URL + " " + s.Suite + " " + strings.Join(s.Components, " ")
		if s.Priority != 0 {
			text = "[priority=" + strconv.Itoa(s.Priority) + "] " + text
		}
		facts = append(facts, term.Fact{Name: "source", Value: text})
	}
	if len(m.Packages) > 0 {
		facts = append(facts, term.Fact{Name: "packages", Value: m.Packages})
	}
	if m.Filter != "" {
		name := "filter"
		if m.FilterDeps {
			name = "filter with dependencies"
		}
		facts = append(facts, term.Fact{Name: name, Value: m.Filter})
	}
	if m.All {
		facts = append(facts, term.Fact{Name: "packages", Value: "everything"})
	}
	return append(facts, term.Fact{Name: "recommends", Value: yesNo(m.Recommends)})
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func newMirrorDiffCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:   "diff NAME",
		Short: "Show what an update of a mirror would change",
		Long: `Show what an update of a mirror would change now, a package a line, as
"snapshot diff" does. The server asks upstream and verifies what it says, but
downloads no package and changes nothing.`,
		Example: `  repo-manager mirror diff debian
  repo-manager mirror diff debian --json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(componentNames(kindMirror)),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			progress := c.io.NewProgress("mirror "+args[0], 0, "bytes")
			diff, err := api.DiffMirror(cmd.Context(), pipeline, args[0], progress.Set)
			progress.Finish()
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(diff)
			}
			c.printDifferences(diff.Differences)
			for _, r := range diff.Releases {
				c.io.Note("%s of %s", r.URL, r.Date.Format("2006-01-02 15:04:05 UTC"))
			}
			c.io.Note("%s; %s to download", summary(diff.Differences), term.HumanBytes(diff.Download))
			return nil
		},
	}
}

func newMirrorUpdateCommand(c *cli) *cobra.Command {
	var noWait bool
	var in protocol.MirrorUpdate
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Bring a mirror up to date with its upstream",
		Long: `Bring a mirror up to date with its upstream, as a change of the server. The
command waits for it and shows how far it is; interrupting the command does not
stop the change ("repo-manager abort ID" does). Where nothing changed upstream,
nothing is done.

An upstream that has other bytes than before under the same name, version and
architecture is refused: to apt and to devices both are the same package.`,
		Example: `  repo-manager mirror update debian
  repo-manager watch "$(repo-manager mirror update debian --no-wait)"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(componentNames(kindMirror)),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			change, err := api.UpdateMirror(cmd.Context(), pipeline, args[0], in)
			if err != nil {
				return err
			}
			if noWait {
				return c.printChange(change)
			}
			return c.follow(cmd.Context(), api, change.ID)
		},
	}
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "return at once and print the change's id")
	cmd.Flags().BoolVar(&in.AllowRebuilt, "allow-rebuilt", false, "take other bytes under a version that the mirror has")
	return cmd
}
