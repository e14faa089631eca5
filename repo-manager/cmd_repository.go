package main

import (
	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
)

// The kinds of component, as the API names them.
const (
	kindRepository = "repository"
	kindMirror     = "mirror"
)

func newRepositoryCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "repository",
		Short:   "Rolling repositories, which receive uploads",
		Example: `  repo-manager repository create apps`,
	}
	group.AddCommand(newRepositoryCreateCommand(c), newRepositoryListCommand(c))
	return group
}

func newRepositoryCreateCommand(c *cli) *cobra.Command {
	var keep int
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Add a rolling repository to a pipeline",
		Long: `Add a rolling repository to a pipeline. What is uploaded to it is published in
the pipeline's first stage at once. A new version takes the place of the older
one of the same name and architecture, unless --keep says to hold more.`,
		Example: `  repo-manager repository create apps
  repo-manager repository create nightly --keep 5 --pipeline demo`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			made, err := api.CreateRepository(cmd.Context(), pipeline, args[0], keep)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(made)
			}
			c.io.Result(made.Name, "created repository %s in pipeline %s", made.Name, pipeline)
			return nil
		},
	}
	cmd.Flags().IntVar(&keep, "keep", 1, "versions to hold of each package")
	return cmd
}

func newRepositoryListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the rolling repositories of a pipeline",
		Example: `  repo-manager repository list --pipeline demo`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			found, err := c.components(cmd, kindRepository)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(found)
			}
			table := c.io.NewTable("repository", "keep")
			for _, component := range found {
				table.Row(component.Name, component.Keep)
			}
			table.Print("no repositories yet: repo-manager repository create NAME")
			return nil
		},
	}
}

// components lists the components of one kind; never nil.
func (c *cli) components(cmd *cobra.Command, kind string) ([]protocol.Component, error) {
	api, pipeline, err := c.inPipeline(cmd.Context())
	if err != nil {
		return nil, err
	}
	p, err := api.Pipeline(cmd.Context(), pipeline)
	if err != nil {
		return nil, err
	}
	found := []protocol.Component{}
	for _, component := range p.Components {
		if component.Kind == kind {
			found = append(found, component)
		}
	}
	return found, nil
}
