package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newPackageCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "package",
		Short:   "Packages: add to and remove from repositories, list",
		Example: `  repo-manager package add apps hello_1.0_amd64.deb`,
	}
	group.AddCommand(newPackageAddCommand(c), newPackageRemoveCommand(c), newPackageListCommand(c), newPackageShowCommand(c), newPackageRestoreCommand(c))
	return group
}

func newPackageAddCommand(c *cli) *cobra.Command {
	var older, tell bool
	cmd := &cobra.Command{
		Use:   "add REPOSITORY FILE...",
		Short: "Upload packages to a rolling repository",
		Long: `Upload packages to a rolling repository. When the command returns 0 they are
durable and published. Each file is taken or refused by itself.`,
		Example: `  repo-manager package add apps hello_1.0_amd64.deb
  repo-manager package add apps --allow-older hello_0.9_amd64.deb`,
		Args: cobra.MinimumNArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return []string{"deb"}, cobra.ShellCompDirectiveFilterFileExt
			}
			return c.complete(componentNames(kindRepository))(cmd, args, prefix)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			added, err := c.upload(cmd.Context(), api, pipeline, args[0], args[1:], older)
			if err != nil {
				return err
			}
			return unchanged(tell && added == 0)
		},
	}
	cmd.Flags().BoolVar(&older, "allow-older", false, "take a version lower than the newest one too")
	tellUnchanged(cmd, &tell)
	return cmd
}

// worst returns the first error and tells the others, each text once.
func (c *cli) worst(failed []error) error {
	var first error
	told := map[string]bool{}
	for _, err := range failed {
		if err == nil || told[err.Error()] {
			continue
		}
		told[err.Error()] = true
		if first == nil {
			first = err
		} else {
			c.io.Fail("repo-manager", err)
		}
	}
	return first
}

func newPackageRemoveCommand(c *cli) *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "remove REPOSITORY NAME[=VERSION]...",
		Short: "Take packages out of a rolling repository",
		Long: `Take packages out of a rolling repository: the given version, or all versions.
The pipeline's first stage no longer offers them; snapshots, and stages that
offer one, keep what they have.`,
		Example: `  repo-manager package remove apps hello=1.0
  repo-manager package remove apps hello --dry-run`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: c.complete(componentNames(kindRepository)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			api, pipeline, err := c.inPipeline(ctx)
			if err != nil {
				return err
			}
			removed := []protocol.Package{}
			var failed []error
			for _, arg := range args[1:] {
				name, version, _ := strings.Cut(arg, "=")
				var gone []protocol.Package
				if dryRun {
					gone, err = wouldRemove(ctx, api, pipeline, args[0], name, version)
				} else {
					gone, err = api.Remove(ctx, pipeline, args[0], name, version)
				}
				removed = append(removed, gone...)
				failed = append(failed, err)
			}
			if c.io.JSON {
				if err := c.io.PrintJSON(removed); err != nil {
					return err
				}
			} else {
				c.packageTable(removed).Print("")
				if dryRun {
					c.io.Note("%d packages would leave; nothing was changed", len(removed))
				}
			}
			return c.worst(failed)
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would leave")
	return cmd
}

// wouldRemove lists what a removal would take out.
func wouldRemove(ctx context.Context, api *client.Client, pipeline, repository, name, version string) ([]protocol.Package, error) {
	found, err := api.Packages(ctx, pipeline, client.PackageQuery{Component: repository, Name: name})
	if err != nil {
		return nil, err
	}
	kept := found[:0]
	for _, p := range found {
		if version == "" || p.Version == version {
			kept = append(kept, p)
		}
	}
	return kept, nil
}

func (c *cli) packageTable(packages []protocol.Package) *term.Table {
	table := c.io.NewTable("component", "package", "version", "architecture", "size")
	for _, p := range packages {
		table.Row(p.Component, p.Name, p.Version, p.Architecture, term.Bytes(p.Size))
	}
	return table
}

// queryFlags adds the flags that narrow a list of packages.
func (c *cli) queryFlags(cmd *cobra.Command, q *client.PackageQuery) {
	cmd.Flags().StringVar(&q.Ref, "in", "", "stage, snapshot or state to look in; the newest state unless given")
	cmd.Flags().StringVar(&q.Component, "component", "", "only packages of this repository or mirror")
	mustComplete(cmd, "in", c.complete(refNames))
}

// mustComplete gives a flag that was just defined a completion.
func mustComplete(cmd *cobra.Command, name string, f cobra.CompletionFunc) {
	if err := cmd.RegisterFlagCompletionFunc(name, f); err != nil {
		panic(err) // only if the command has no such flag
	}
}

func newPackageListCommand(c *cli) *cobra.Command {
	var q client.PackageQuery
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the packages of a stage, snapshot or state",
		Long: `List the packages of a stage, snapshot or state: all of them, or what a query
takes.

` + queryHelp,
		Example: `  repo-manager package list --component apps
  repo-manager package list --query 'Name (% lib*), !$Architecture (arm64)'
  repo-manager package list --in production --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			found, err := api.Packages(cmd.Context(), pipeline, q)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(found)
			}
			none := "no packages: repo-manager package add REPOSITORY FILE..."
			if q.Query != "" {
				none = "no such packages"
			}
			c.packageTable(found).Print(none)
			return nil
		},
	}
	c.queryFlags(cmd, &q)
	cmd.Flags().StringVar(&q.Query, "query", "", "only packages that this `query` takes")
	cmd.Flags().IntVar(&q.Limit, "limit", 0, "at most this many; 0 means all")
	return cmd
}

func newPackageShowCommand(c *cli) *cobra.Command {
	var q client.PackageQuery
	cmd := &cobra.Command{
		Use:   "show NAME",
		Short: "Show every version of a package",
		Example: `  repo-manager package show hello
  repo-manager package show hello --in production`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			q.Name = args[0]
			found, err := api.Packages(cmd.Context(), pipeline, q)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				where := q.Ref
				if where == "" {
					where = "the newest state"
				}
				return term.WithHint(fmt.Errorf("cannot find package %q in %s", q.Name, where), "repo-manager package list")
			}
			if c.io.JSON {
				return c.io.PrintJSON(found)
			}
			for i, p := range found {
				if i > 0 {
					c.io.Say("")
				}
				c.io.Facts(
					term.Fact{Name: "package", Value: p.Name},
					term.Fact{Name: "version", Value: p.Version},
					term.Fact{Name: "architecture", Value: p.Architecture},
					term.Fact{Name: "component", Value: p.Component},
					term.Fact{Name: "size", Value: term.Bytes(p.Size)},
					term.Fact{Name: "sha256", Value: p.SHA256},
				)
			}
			return nil
		},
	}
	c.queryFlags(cmd, &q)
	return cmd
}
