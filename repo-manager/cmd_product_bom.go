package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// formats are the forms of a bill of materials besides the table.
var formats = []string{"table", "text", "json", "cyclonedx"}

func newProductBOMCommand(c *cli) *cobra.Command {
	var modules []string
	var format string
	cmd := &cobra.Command{
		Use:   "bom NAME [SNAPSHOT]",
		Short: "Show the exact packages of a product in a state",
		Long: `Show the bill of materials of a product: the exact packages that its devices
install in a state, with their sizes and why each is there. SNAPSHOT is a
snapshot, stage or state; the newest state unless given. apt computes it, from an
empty system; the answer is kept as long as the state.

If the product cannot be installed the command says why, in the words of apt and
of dose-debcheck, and fails.

--format text gives the very bytes that devices get, whose SHA-256 is the bill's
name; cyclonedx gives CycloneDX 1.6 in JSON, for programs that look for
vulnerabilities.`,
		Example: `  repo-manager product bom gateway production
  repo-manager product bom gateway production --module lte --format cyclonedx > gateway.cdx.json
  repo-manager product bom gateway dev --format text | sha256sum`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: c.completeBOM,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(formats, format) {
				return term.WithHint(term.Usagef("cannot use %q as --format: want %s", format, strings.Join(formats, ", ")), cmd.CommandPath()+" --help")
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			ref := ""
			if len(args) == 2 {
				ref = args[1]
			}
			if (format == "text" || format == "cyclonedx") && !c.io.JSON {
				text, err := api.BOMText(cmd.Context(), pipeline, args[0], modules, ref, format)
				if err != nil {
					return err
				}
				_, err = c.io.Out.Write(text)
				return err
			}
			b, err := api.BOM(cmd.Context(), pipeline, args[0], modules, ref)
			if err != nil {
				return err
			}
			if c.io.JSON || format == "json" {
				return c.printBOMJSON(b)
			}
			if b.Verdict != nil {
				return c.verdict(b)
			}
			table := c.io.NewTable("package", "version", "architecture", "download", "installed", "component", "reason")
			for _, p := range b.Packages {
				table.Row(p.Name, p.Version, p.Architecture, term.Bytes(p.Size), term.Bytes(p.Installed), p.Component, p.Reason)
			}
			table.Print("")
			c.io.Note("%s", bomSummary(b))
			return nil
		},
	}
	moduleFlag(cmd, &modules)
	cmd.Flags().StringVar(&format, "format", "table", "`format` of the answer: table, text, json or cyclonedx")
	mustComplete(cmd, "format", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func moduleFlag(cmd *cobra.Command, modules *[]string) {
	cmd.Flags().StringSliceVar(modules, "module", nil, "for devices that have this `module`; may be repeated")
}

// completeBOM completes a product, then what offers a state.
func (c *cli) completeBOM(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return c.complete(productNames)(cmd, args, prefix)
	case 1:
		return c.complete(refNames)(cmd, args, prefix)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// printBOMJSON prints a bill, or a verdict, which is a failure.
func (c *cli) printBOMJSON(b protocol.BOM) error {
	if err := c.io.PrintJSON(b); err != nil {
		return err
	}
	if b.Verdict != nil {
		return term.Status(term.ExitFailed)
	}
	return nil
}

// verdict explains why a product cannot be installed.
func (c *cli) verdict(b protocol.BOM) error {
	for _, part := range [][2]string{{"apt", b.Verdict.Apt}, {"dose-debcheck", b.Verdict.Dose}} {
		c.io.Note("%s says:", part[0])
		for line := range strings.Lines(part[1]) {
			c.io.Note("  %s", term.Printable(strings.TrimRight(line, "\n")))
		}
	}
	return term.WithHint(fmt.Errorf("cannot install product %s in %s: %s", b.Product, offer(b.Snapshot, b.State), b.Verdict.Summary),
		"change the product with repo-manager product set, or upload what is missing")
}

// bomSummary is a bill in one line.
func bomSummary(b protocol.BOM) string {
	with := ""
	if len(b.Modules) > 0 {
		with = " with " + strings.Join(b.Modules, ", ")
	}
	return fmt.Sprintf("%s%s in %s: %d packages, %s to download, %s installed; bill of materials %s",
		b.Product, with, offer(b.Snapshot, b.State), len(b.Packages), term.HumanBytes(b.Download), term.HumanBytes(b.Installed), term.ShortID(b.SHA256))
}

// bomFacts are the facts about a product in what a snapshot shows.
func bomFacts(b protocol.BOM) []term.Fact {
	facts := []term.Fact{{Name: "product", Value: b.Product}, {Name: "modules", Value: b.Modules}}
	if b.Verdict != nil {
		return append(facts, term.Fact{Name: "cannot be installed", Value: term.Styled{Text: b.Verdict.Summary, Style: term.Bad}})
	}
	return append(facts,
		term.Fact{Name: "its packages", Value: len(b.Packages)},
		term.Fact{Name: "download", Value: term.Bytes(b.Download)},
		term.Fact{Name: "installed", Value: term.Bytes(b.Installed)},
		term.Fact{Name: "bill of materials", Value: term.ID(b.SHA256)},
	)
}

// productDiff says what moving between two states changes for a product.
func (c *cli) productDiff(cmd *cobra.Command, from, to, product string, modules []string, changelogs bool) error {
	api, pipeline, err := c.inPipeline(cmd.Context())
	if err != nil {
		return err
	}
	diff, err := api.DiffProduct(cmd.Context(), pipeline, product, modules, from, to, changelogs)
	if err != nil {
		return err
	}
	if c.io.JSON {
		return c.io.PrintJSON(diff)
	}
	c.printDifferences(diff.Differences)
	for _, log := range diff.Changelogs {
		c.printChangelog(log)
	}
	for _, list := range []struct {
		what  string
		items []string
	}{{"closes", diff.Bugs}, {"names", diff.CVEs}} {
		if len(list.items) > 0 {
			c.io.Note("%s %s", list.what, term.Printable(strings.Join(list.items, ", ")))
		}
	}
	grows, bytes := "more", diff.Installed
	if bytes < 0 {
		grows, bytes = "less", -bytes
	}
	c.io.Note("%s; %s to download, %s %s installed", summary(diff.Differences), term.HumanBytes(diff.Download), term.HumanBytes(bytes), grows)
	return nil
}

func (c *cli) printChangelog(log protocol.Changelog) {
	way := "→"
	if log.Back {
		way = "back to"
	}
	c.io.Say("")
	c.io.Say("%s %s %s %s (%s)", term.Printable(log.Source), term.Printable(log.Old), way, term.Printable(log.New), term.Printable(strings.Join(log.Packages, ", ")))
	if log.Missing != "" {
		c.io.Say("  %s", term.Printable(log.Missing))
	}
	for _, e := range log.Entries {
		c.io.Say("")
		for line := range strings.Lines(e.Text) {
			c.io.Say("  %s", term.Printable(strings.TrimRight(line, "\n")))
		}
	}
}
