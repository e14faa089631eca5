package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/protocol"
)

func newMirrorCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "mirror",
		Short:   "Upstream suites, filtered to what the products need",
		Example: `  repo-manager mirror update debian`,
	}
	group.AddCommand(newMirrorCreateCommand(c), newMirrorListCommand(c), newMirrorUpdateCommand(c))
	return group
}

func newMirrorCreateCommand(c *cli) *cobra.Command {
	var m protocol.Mirror
	var keyring, list string
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Add a mirror of an upstream suite to a pipeline",
		Long: `Add a mirror to a pipeline. "mirror update" then fetches the wanted packages
and everything they depend on. The upstream's InRelease must be signed by the
keyring, and every file must have the hash that it leads to.`,
		Example: `  repo-manager mirror create debian --url https://mirror.example/debian --suite trixie \
      --keyring /usr/share/keyrings/debian-archive-keyring.gpg --package systemd-sysv --package apt
  repo-manager mirror create debian --url https://mirror.example/debian --suite trixie \
      --keyring /usr/share/keyrings/debian-archive-keyring.gpg --package-list base.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := needs(cmd, "url", "suite", "keyring"); err != nil {
				return err
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			if m.Keyring, err = os.ReadFile(keyring); err != nil {
				return fmt.Errorf("cannot read the keyring: %w", err)
			}
			if list != "" {
				names, err := readNames(list)
				if err != nil {
					return err
				}
				m.Packages = append(m.Packages, names...)
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
	f := cmd.Flags()
	f.StringVar(&m.URL, "url", "", "base `URL` of the upstream archive, which holds dists/")
	f.StringVar(&m.Suite, "suite", "", "suite below dists/, e.g. trixie")
	f.StringSliceVar(&m.Components, "component", []string{"main"}, "upstream component; may be repeated")
	f.StringSliceVar(&m.Packages, "package", nil, "`name` of a wanted package; may be repeated")
	f.StringVar(&list, "package-list", "", "`file` with wanted packages, one a line, # begins a comment")
	f.BoolVar(&m.Recommends, "recommends", false, "follow Recommends like dependencies")
	f.StringVar(&keyring, "keyring", "", "`file` with the OpenPGP certificates that sign the upstream")
	return cmd
}

// readNames reads a list of names, one a line.
func readNames(path string) ([]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the list of packages: %w", err)
	}
	defer file.Close()
	var names []string
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		names = append(names, strings.Fields(line)...)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("cannot read %s: %w", path, err)
	}
	return names, nil
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
			table := c.io.NewTable("mirror", "url", "suite", "components", "packages")
			for _, component := range found {
				m := component.Mirror
				if m == nil {
					m = &protocol.Mirror{}
				}
				table.Row(component.Name, m.URL, m.Suite, m.Components, m.Packages)
			}
			table.Print("no mirrors yet: repo-manager mirror create NAME")
			return nil
		},
	}
}

func newMirrorUpdateCommand(c *cli) *cobra.Command {
	var noWait bool
	cmd := &cobra.Command{
		Use:   "update NAME",
		Short: "Bring a mirror up to date with its upstream",
		Long: `Bring a mirror up to date with its upstream, as a change of the server. The
command waits for it and shows how far it is; interrupting the command does not
stop the change ("repo-manager abort ID" does).`,
		Example: `  repo-manager mirror update debian
  repo-manager watch "$(repo-manager mirror update debian --no-wait)"`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.complete(componentNames(kindMirror)),
		RunE: func(cmd *cobra.Command, args []string) error {
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			change, err := api.UpdateMirror(cmd.Context(), pipeline, args[0])
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
	return cmd
}
