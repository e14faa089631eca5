package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// onConflict are the rules of a merge.
var onConflict = []string{"refuse", "latest", "first"}

func newSnapshotMergeCommand(c *cli) *cobra.Command {
	var in protocol.Merge
	cmd := &cobra.Command{
		Use:   "merge SNAPSHOT SNAPSHOT...",
		Short: "Make one snapshot of several",
		Long: `Make one snapshot of several: it has every package of each. The stages and
snapshots that it is made from stay as they are.

All that a component has under one name comes from one of them, in all versions
and architectures. A package that several have and not alike is a conflict:

  refuse   nothing is made, and the conflicts are named
  latest   the package comes from where its highest version is
  first    it comes from the one that is named first

In a pipe the command prints the new id only.`,
		Example: `  repo-manager snapshot merge production dev --on-conflict first --dry-run
  repo-manager snapshot merge 20261120T101500Z 20261121T090000Z --on-conflict latest --note "both teams"`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: c.complete(refNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(onConflict, in.OnConflict) {
				return term.WithHint(term.Usagef("cannot use %q as --on-conflict: want %s", in.OnConflict, strings.Join(onConflict, ", ")), cmd.CommandPath()+" --help")
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			in.States = args
			made, err := api.Merge(cmd.Context(), pipeline, in)
			if err != nil {
				return err
			}
			return c.printComposed(made, args)
		},
	}
	cmd.Flags().StringVar(&in.OnConflict, "on-conflict", "refuse", "`rule` for packages that differ: refuse, latest or first")
	namingFlags(cmd, &in.Note, &in.Labels, &in.DryRun)
	mustComplete(cmd, "on-conflict", cobra.FixedCompletions(onConflict, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func newSnapshotPickCommand(c *cli) *cobra.Command {
	var in protocol.Pick
	cmd := &cobra.Command{
		Use:   "pick BASE NAME...",
		Short: "Make a snapshot with some packages of another one",
		Long: `Make a snapshot that is BASE, but with the named packages as another snapshot
has them: all their versions and architectures, in every component.

With --with-dependencies, what these packages depend on comes along if BASE does
not have it. What neither has is named.

In a pipe the command prints the new id only.`,
		Example: `  repo-manager snapshot pick production hello --from dev --note "hotfix for hello"
  repo-manager snapshot pick production hello --from dev --with-dependencies --dry-run`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: firstOnly(c.complete(refNames)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needs(cmd, "from"); err != nil {
				return err
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			in.Base, in.Names = args[0], args[1:]
			made, err := api.Pick(cmd.Context(), pipeline, in)
			if err != nil {
				return err
			}
			return c.printComposed(made, []string{in.Base, in.From})
		},
	}
	cmd.Flags().StringVar(&in.From, "from", "", "`snapshot` or stage that has the packages")
	cmd.Flags().BoolVar(&in.Dependencies, "with-dependencies", false, "bring what they depend on and BASE does not have")
	namingFlags(cmd, &in.Note, &in.Labels, &in.DryRun)
	mustComplete(cmd, "from", c.complete(refNames))
	return cmd
}

func newSnapshotFilterCommand(c *cli) *cobra.Command {
	var in protocol.Filter
	cmd := &cobra.Command{
		Use:   "filter SNAPSHOT QUERY",
		Short: "Make a snapshot of what a query takes",
		Long: `Make a snapshot that has of another one what a query takes.

` + queryHelp + `

In a pipe the command prints the new id only.`,
		Example: `  repo-manager snapshot filter dev '!Section (debug), !Name (% *-dbgsym)'
  repo-manager snapshot filter production 'hello | $Source (hello)' --dry-run`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: firstOnly(c.complete(refNames)),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			in.From, in.Query = args[0], args[1]
			made, err := api.Filter(cmd.Context(), pipeline, in)
			if err != nil {
				return err
			}
			return c.printComposed(made, args[:1])
		},
	}
	namingFlags(cmd, &in.Note, &in.Labels, &in.DryRun)
	return cmd
}

// queryHelp tells the language of queries.
const queryHelp = `Queries are those of aptly:

  hello, hello (>= 1.2), hello {arm64}   a package, or one that provides it
  hello_1.2_amd64                        exactly this one
  Name (% lib*), Section (~ ^doc)        a field: = << <= >= >> compare versions,
                                         % is a shell pattern, ~ a regular expression
  $Source, $SourceVersion, $Version, $Architecture
  a, b   a | b   !a   (a | b), c         and, or, not; ! binds closest and | least`

// namingFlags adds the flags of what makes a new snapshot.
func namingFlags(cmd *cobra.Command, note *string, labels *[]string, dryRun *bool) {
	cmd.Flags().StringVar(note, "note", "", "what people should know about it; how it was made unless given")
	cmd.Flags().StringSliceVar(labels, "label", nil, "label for programs; may be repeated")
	cmd.Flags().BoolVar(dryRun, "dry-run", false, "only show what would be made")
}

// printComposed tells what was made of the states that refs name, or would be.
func (c *cli) printComposed(made protocol.Composed, refs []string) error {
	if c.io.JSON {
		return c.io.PrintJSON(made)
	}
	const shown = 5
	for i, conflict := range made.Conflicts {
		if i == shown {
			c.io.Note("and %d more packages that differ", len(made.Conflicts)-shown)
			break
		}
		c.io.Note("%s", term.Printable(decision(conflict, refs)))
	}
	for i, u := range made.Unmet {
		if i == shown {
			c.io.Note("and %d more dependencies that are missing", len(made.Unmet)-shown)
			break
		}
		c.io.Note("%s", term.Printable(fmt.Sprintf("missing for %s: %s, which %s depends on", u.Architecture, u.Relation, u.Package)))
	}
	changes := fmt.Sprintf("compared with %s: %s", refs[0], summary(made.Differences))
	if made.Snapshot == nil {
		c.printDifferences(made.Differences)
		c.io.Note("a snapshot of %d packages would be made; %s; nothing was changed", made.Packages, changes)
		return nil
	}
	c.io.Result(made.Snapshot.ID, "created snapshot %s of %d packages; %s", made.Snapshot.ID, made.Packages, changes)
	return nil
}

// decision tells how a conflict was decided: "hello of apps from dev: 1.0 in
// production, 2.0 in dev".
func decision(conflict protocol.Conflict, refs []string) string {
	var held []string
	for i, versions := range conflict.Versions {
		if len(versions) > 0 {
			held = append(held, strings.Join(versions, " and ")+" in "+refs[i])
		}
	}
	return fmt.Sprintf("%s of %s from %s: %s", conflict.Name, conflict.Component, refs[conflict.Taken], strings.Join(held, ", "))
}
