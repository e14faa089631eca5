package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newPipelineCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "pipeline",
		Short:   "Product lines: their architectures and stages",
		Example: `  repo-manager pipeline list`,
	}
	group.AddCommand(newPipelineCreateCommand(c), newPipelineListCommand(c), newPipelineShowCommand(c), newPipelineSetCommand(c), newPipelineSourcesCommand(c))
	return group
}

func newPipelineCreateCommand(c *cli) *cobra.Command {
	var p protocol.Pipeline
	var r protocol.Retention
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a pipeline",
		Long: `Make a pipeline. Its name, distribution and architectures can never change:
apt refuses a repository whose identity changes. How much of its past is kept
can, and who may read it: see "pipeline set".`,
		Example: `  repo-manager pipeline create demo --distribution trixie --architecture amd64
  repo-manager pipeline create demo --distribution trixie --architecture amd64 --architecture arm64 \
      --stage dev --stage canary --stage production`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			p.Name, p.Retention = args[0], &r
			made, err := api.CreatePipeline(cmd.Context(), p)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(made)
			}
			c.io.Result(made.Name, "created pipeline %s (%s) with the stages %s",
				made.Name, made.Distribution, strings.Join(made.Stages, ", "))
			return nil
		},
	}
	cmd.Flags().SetNormalizeFunc(bothWords)
	cmd.Flags().StringVar(&p.Distribution, "distribution", "trixie", "directory below dists/ and Codename of all its stages")
	cmd.Flags().StringSliceVar(&p.Architectures, "architecture", []string{"amd64"}, "Debian architecture it serves; may be repeated")
	cmd.Flags().StringSliceVar(&p.Stages, "stage", []string{"dev", "canary", "production"}, "stage in order of promotion; may be repeated")
	cmd.Flags().BoolVar(&p.Private, "private", false, "reading it needs a token, or the credentials of a device")
	retentionFlags(cmd, &r)
	return cmd
}

func newPipelineListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the pipelines",
		Example: `  repo-manager pipeline list --json`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			all, err := api.Pipelines(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("pipeline", "distribution", "architectures", "stages", "components", "created")
			for _, p := range all {
				table.Row(p.Name, p.Distribution, p.Architectures, p.Stages, componentList(p.Components), p.Created)
			}
			table.Print("no pipelines yet: repo-manager pipeline create NAME")
			return nil
		},
	}
}

func newPipelineShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "show [NAME]",
		Short:             "Show one pipeline",
		Example:           `  repo-manager pipeline show demo`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: firstOnly(c.completePipeline),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				c.pipeline = args[0]
			}
			api, name, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			p, err := api.Pipeline(cmd.Context(), name)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(p)
			}
			c.io.Facts(
				term.Fact{Name: "pipeline", Value: p.Name},
				term.Fact{Name: "distribution", Value: p.Distribution},
				term.Fact{Name: "architectures", Value: p.Architectures},
				term.Fact{Name: "stages", Value: p.Stages},
				term.Fact{Name: "components", Value: componentList(p.Components)},
				term.Fact{Name: "retention", Value: retentionText(p.Retention)},
				term.Fact{Name: "readers", Value: readersText(p.Private)},
				term.Fact{Name: "created", Value: p.Created},
			)
			return nil
		},
	}
}

// componentList names components with their kind.
func componentList(components []protocol.Component) []string {
	var names []string
	for _, component := range components {
		name := component.Name
		if component.Kind == kindMirror {
			name += " (mirror)"
		}
		names = append(names, name)
	}
	return names
}

// bothWords understands --arch, as builder calls it, for --architecture.
func bothWords(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	if name == "arch" {
		name = "architecture"
	}
	return pflag.NormalizedName(name)
}
