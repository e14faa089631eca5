package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newSnapshotCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "snapshot",
		Short:   "Named, immutable releases",
		Example: `  repo-manager snapshot diff production dev`,
	}
	group.AddCommand(newSnapshotCreateCommand(c), newSnapshotListCommand(c), newSnapshotShowCommand(c), newSnapshotDiffCommand(c),
		newSnapshotMergeCommand(c), newSnapshotPickCommand(c), newSnapshotFilterCommand(c),
		newSnapshotPinCommand(c), newSnapshotUnpinCommand(c), newSnapshotDeleteCommand(c))
	return group
}

func newSnapshotCreateCommand(c *cli) *cobra.Command {
	var in protocol.NewSnapshot
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Name a state",
		Long: `Name a state, so that it is kept and can be promoted. Its packages can never
change. In a pipe the command prints the new id only.`,
		Example: `  repo-manager snapshot create --note "sprint 12"
  repo-manager promote "$(repo-manager snapshot create)" --to canary --reason "sprint 12"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			made, err := api.CreateSnapshot(cmd.Context(), pipeline, in)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(made)
			}
			c.io.Result(made.ID, "created snapshot %s of %d packages", made.ID, made.Packages)
			return nil
		},
	}
	cmd.Flags().StringVar(&in.From, "from", "", "stage, snapshot or state to name; the newest state unless given")
	cmd.Flags().StringVar(&in.Note, "note", "", "what people should know about it")
	cmd.Flags().StringSliceVar(&in.Labels, "label", nil, "label for programs; may be repeated")
	mustComplete(cmd, "from", c.complete(refNames))
	return cmd
}

func newSnapshotListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the snapshots, newest first",
		Example: `  repo-manager snapshot list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			all, err := api.Snapshots(cmd.Context(), pipeline)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("snapshot", "packages", "stages", "created", "by", "labels", "note")
			for _, s := range all {
				table.Row(s.ID, s.Packages, s.Stages, s.Created, s.By, s.Labels, s.Note)
			}
			table.Print("no snapshots yet: repo-manager snapshot create")
			return nil
		},
	}
}

func newSnapshotShowCommand(c *cli) *cobra.Command {
	var product string
	var modules []string
	cmd := &cobra.Command{
		Use:   "show SNAPSHOT",
		Short: "Show one snapshot",
		Long: `Show one snapshot, given by its id, a unique prefix, or a stage that offers it.
With --product also what a product is in it; product bom has all its packages.`,
		Example: `  repo-manager snapshot show 20261120T101500Z
  repo-manager snapshot show production --product gateway`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(refNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			s, err := api.Snapshot(cmd.Context(), pipeline, args[0])
			if err != nil {
				return err
			}
			var bom *protocol.BOM
			if product != "" {
				b, err := api.BOM(cmd.Context(), pipeline, product, modules, s.ID)
				if err != nil {
					return err
				}
				bom = &b
			}
			if c.io.JSON {
				return c.io.PrintJSON(struct {
					protocol.Snapshot
					BOM *protocol.BOM `json:"bom,omitempty"`
				}{s, bom})
			}
			c.io.Facts(
				term.Fact{Name: "snapshot", Value: s.ID},
				term.Fact{Name: "state", Value: s.State},
				term.Fact{Name: "packages", Value: s.Packages},
				term.Fact{Name: "stages", Value: s.Stages},
				term.Fact{Name: "created", Value: s.Created},
				term.Fact{Name: "by", Value: s.By},
				term.Fact{Name: "labels", Value: s.Labels},
				term.Fact{Name: "note", Value: s.Note},
				term.Fact{Name: "pinned", Value: pinText(s.Pin)},
			)
			if bom != nil {
				c.io.Facts(bomFacts(*bom)...)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "`name` of a product to show too")
	moduleFlag(cmd, &modules)
	mustComplete(cmd, "product", c.complete(productNames))
	return cmd
}

func newSnapshotDiffCommand(c *cli) *cobra.Command {
	var product string
	var modules []string
	var changelogs bool
	cmd := &cobra.Command{
		Use:   "diff FROM TO",
		Short: "Show what moving from one state to another changes",
		Long: `Show what moving from one state to another changes, a package a line:

  +  new          -  gone
  ↑  upgraded     ↓  downgraded     ≠  the same version with other bytes
  ≈  the same file, described otherwise

FROM and TO are snapshots, stages or states. With --product only what differs in
what the product installs is shown, and with --changelogs what the packages say
about it, with the bugs and vulnerabilities that they name.`,
		Example: `  repo-manager snapshot diff production canary
  repo-manager snapshot diff production canary --product gateway --changelogs
  repo-manager snapshot diff 20261120T101500Z dev`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: c.complete(refNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if product != "" {
				return c.productDiff(cmd, args[0], args[1], product, modules, changelogs)
			}
			if changelogs || len(modules) > 0 {
				return term.WithHint(term.Usagef("--changelogs and --module are for the packages of a product"), "name one with --product")
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			diff, err := api.Diff(cmd.Context(), pipeline, args[0], args[1])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(diff)
			}
			c.printDifferences(diff.Differences)
			c.io.Note("%s", summary(diff.Differences))
			return nil
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "`name` of a product: only what it installs")
	moduleFlag(cmd, &modules)
	cmd.Flags().BoolVar(&changelogs, "changelogs", false, "show what the changelogs say; with --product")
	mustComplete(cmd, "product", c.complete(productNames))
	return cmd
}

// kinds are the kinds of difference in the order of a summary, with the sign
// and the look of each.
var kinds = []struct {
	name, sign string
	style      term.Style
}{
	{"new", "+", term.Good},
	{"upgraded", "↑", term.Good},
	{"downgraded", "↓", term.Warning},
	{"rebuilt", "≠", term.Warning},
	{"relisted", "≈", term.Plain},
	{"gone", "-", term.Bad},
}

// printDifferences prints one line for each difference. On a terminal the
// versions are joined as people write it.
func (c *cli) printDifferences(differences []protocol.Difference) {
	signs := map[string]term.Styled{}
	for _, k := range kinds {
		signs[k.name] = term.Styled{Text: k.sign, Style: k.style}
	}
	if !c.io.OutTerminal {
		table := c.io.NewTable("", "component", "package", "architecture", "from", "to")
		for _, d := range differences {
			table.Row(signs[d.Kind], d.Component, d.Name, d.Architecture, d.Old, d.New)
		}
		table.Print("")
		return
	}
	table := c.io.NewTable("", "package", "architecture", "version", "component")
	for _, d := range differences {
		version := d.Old + d.New // new or gone: one of them is empty
		if d.Old != "" && d.New != "" && d.Old != d.New {
			version = d.Old + " → " + d.New
		} else if d.Old == d.New {
			version = d.New
		}
		table.Row(signs[d.Kind], d.Name, d.Architecture, version, d.Component)
	}
	table.Print("")
}

// summary counts differences: "2 upgraded, 1 new".
func summary(differences []protocol.Difference) string {
	count := map[string]int{}
	for _, d := range differences {
		count[d.Kind]++
	}
	var parts []string
	for _, k := range kinds {
		if n := count[k.name]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, k.name))
		}
	}
	if len(parts) == 0 {
		return "no difference"
	}
	return strings.Join(parts, ", ")
}
