package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func newProductCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:   "product",
		Short: "What each kind of device installs",
		Long: `A product is what one kind of device installs: top-level packages, whose
dependencies follow, for one architecture. A module is a part that some devices
of the product have, with packages of its own. The exact packages in one state
are the product's bill of materials.`,
		Example: `  repo-manager product bom gateway production`,
	}
	group.AddCommand(newProductCreateCommand(c), newProductSetCommand(c), newProductListCommand(c), newProductShowCommand(c),
		newProductBOMCommand(c), newProductDeleteCommand(c))
	return group
}

// productFlags are the flags of a definition.
type productFlags struct {
	architecture        string
	packages, revisions []string
	modules             []string // name=package,package
	recommends          bool
}

func (f *productFlags) add(cmd *cobra.Command) {
	cmd.Flags().SetNormalizeFunc(bothWords)
	cmd.Flags().StringVar(&f.architecture, "architecture", "", "`architecture` of the devices, one of the pipeline's")
	cmd.Flags().StringSliceVar(&f.packages, "package", nil, "top-level `package`; its dependencies follow; may be repeated")
	cmd.Flags().StringSliceVar(&f.revisions, "revision", nil, "hardware `revision` that there is; may be repeated")
	cmd.Flags().StringArrayVar(&f.modules, "module", nil, "`name=package,…`: more packages, of devices that have the module; may be repeated")
	cmd.Flags().BoolVar(&f.recommends, "recommends", false, "recommended packages count")
}

// parseModules reads the flags --module; a module without packages is one to
// take away.
func (f *productFlags) parseModules() (map[string][]string, error) {
	modules := make(map[string][]string)
	for _, text := range f.modules {
		name, packages, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, term.WithHint(term.Usagef("cannot use %q as --module: want NAME=PACKAGE,…", text), "for instance --module lte=modemmanager,ppp")
		}
		modules[name] = append(modules[name], strings.FieldsFunc(packages, func(r rune) bool { return r == ',' || r == ' ' })...)
	}
	return modules, nil
}

func newProductCreateCommand(c *cli) *cobra.Command {
	var f productFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Define a product",
		Long: `Define a product. Essential packages and those of priority required are part of
every product; all else comes by dependency from the top-level packages.`,
		Example: `  repo-manager product create gateway --architecture arm64 --package gateway-app --package openssh-server
  repo-manager product create gateway --architecture arm64 --package gateway-app \
    --revision A1 --revision B2 --module lte=modemmanager,ppp`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			modules, err := f.parseModules()
			if err != nil {
				return err
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			if f.architecture == "" {
				if f.architecture, err = onlyArchitecture(cmd, api, pipeline); err != nil {
					return err
				}
			}
			made, err := api.CreateProduct(cmd.Context(), pipeline, protocol.Product{
				Name: args[0], Architecture: f.architecture, Packages: f.packages, Revisions: f.revisions, Modules: modules, Recommends: f.recommends,
			})
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(made)
			}
			c.io.Result(made.Name, "created product %s: its packages are shown by repo-manager product bom %s", made.Name, made.Name)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

// onlyArchitecture is that of the pipeline, if there is one.
func onlyArchitecture(cmd *cobra.Command, api *client.Client, pipeline string) (string, error) {
	p, err := api.Pipeline(cmd.Context(), pipeline)
	if err != nil {
		return "", err
	}
	if len(p.Architectures) != 1 {
		return "", term.WithHint(term.Usagef("cannot tell for which architecture: the pipeline has %s", strings.Join(p.Architectures, ", ")), "name one with --architecture")
	}
	return p.Architectures[0], nil
}

func newProductSetCommand(c *cli) *cobra.Command {
	var f productFlags
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change a product",
		Long: `Change a product. What is given takes the place of what was: all --package
together are the top-level packages, all --revision the revisions. A --module is
set by itself; one without packages (--module lte=) is taken away. What is not
given stays. Devices get the new packages as soon as their bill of materials is
computed.`,
		Example: `  repo-manager product set gateway --package gateway-app --package dropbear
  repo-manager product set gateway --module lte=modemmanager --module gps=`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstOnly(c.complete(productNames)),
		RunE: func(cmd *cobra.Command, args []string) error {
			given := cmd.Flags().Changed
			if !slices.ContainsFunc([]string{"architecture", "package", "revision", "module", "recommends"}, given) {
				return &term.UsageError{Text: cmd.CommandPath() + " needs something to set", Hint: cmd.CommandPath() + " --help"}
			}
			changed, err := f.parseModules()
			if err != nil {
				return err
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			var in protocol.SetProduct
			if given("architecture") {
				in.Architecture = &f.architecture
			}
			if given("package") {
				in.Packages = &f.packages
			}
			if given("revision") {
				in.Revisions = &f.revisions
			}
			if given("recommends") {
				in.Recommends = &f.recommends
			}
			if given("module") {
				before, err := api.Product(cmd.Context(), pipeline, args[0])
				if err != nil {
					return err
				}
				modules := make(map[string][]string)
				maps.Copy(modules, before.Modules)
				maps.Copy(modules, changed)
				maps.DeleteFunc(modules, func(_ string, packages []string) bool { return len(packages) == 0 })
				in.Modules = &modules
			}
			p, err := api.SetProduct(cmd.Context(), pipeline, args[0], in)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(p)
			}
			c.io.Result(p.Name, "changed product %s", p.Name)
			return nil
		},
	}
	f.add(cmd)
	return cmd
}

func newProductListCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List the products of a pipeline",
		Example: `  repo-manager product list`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			all, err := api.Products(cmd.Context(), pipeline)
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(all)
			}
			table := c.io.NewTable("product", "architecture", "packages", "modules", "revisions", "devices")
			for _, p := range all {
				table.Row(p.Name, p.Architecture, p.Packages, slices.Sorted(maps.Keys(p.Modules)), p.Revisions, p.Devices)
			}
			table.Print("no products yet: repo-manager product create NAME --package PACKAGE")
			return nil
		},
	}
}

func newProductShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:               "show NAME",
		Short:             "Show a product",
		Example:           `  repo-manager product show gateway`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstOnly(c.complete(productNames)),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			p, err := api.Product(cmd.Context(), pipeline, args[0])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(p)
			}
			facts := []term.Fact{
				{Name: "product", Value: p.Name},
				{Name: "architecture", Value: p.Architecture},
				{Name: "packages", Value: p.Packages},
				{Name: "revisions", Value: p.Revisions},
				{Name: "recommends", Value: yesNo(p.Recommends)},
			}
			for _, m := range slices.Sorted(maps.Keys(p.Modules)) {
				facts = append(facts, term.Fact{Name: "module " + term.Printable(m), Value: p.Modules[m]})
			}
			c.io.Facts(append(facts, term.Fact{Name: "devices", Value: p.Devices}, term.Fact{Name: "created", Value: p.Created})...)
			return nil
		},
	}
}

func newProductDeleteCommand(c *cli) *cobra.Command {
	var reason string
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a product",
		Long: `Delete a product with its bills of materials. It is refused while devices are of
the product. On a terminal the command asks first; elsewhere it needs --yes.`,
		Example:           `  repo-manager product delete gateway --reason "the last one was retired" --yes`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: firstOnly(c.complete(productNames)),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			p, err := api.DeleteProduct(cmd.Context(), pipeline, args[0], reason, true)
			if err != nil {
				return err
			}
			what := fmt.Sprintf("product %s of %d top-level packages and %d devices", p.Name, len(p.Packages), p.Devices)
			done := "would delete " + what + "; nothing was changed"
			if !dryRun {
				if err := c.confirm(yes, "delete "+what); err != nil {
					return err
				}
				if p, err = api.DeleteProduct(cmd.Context(), pipeline, args[0], reason, false); err != nil {
					return err
				}
				done = "deleted product " + p.Name
			}
			if c.io.JSON {
				return c.io.PrintJSON(p)
			}
			c.io.Result(p.Name, "%s", done)
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`why`; it stays in the audit trail")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only tell whether it could be deleted")
	return cmd
}

// productNames completes a product.
func productNames(ctx context.Context, api *client.Client, pipeline string) ([]string, error) {
	all, err := api.Products(ctx, pipeline)
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.Name
	}
	return names, err
}
