package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/term"
)

func newKeyCommand(c *cli) *cobra.Command {
	group := &cobra.Command{
		Use:     "key",
		Short:   "The keys that sign Release files and what devices are told, and the CA for TLS",
		Example: `  repo-manager key show`,
	}
	group.AddCommand(newKeyShowCommand(c), newKeyExportCommand(c), newKeyCACommand(c))
	return group
}

func newKeyShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "show",
		Short:   "Show the archive key's fingerprint, and the assignment key's id",
		Example: `  repo-manager key show`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			key, err := api.Key(cmd.Context())
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(key)
			}
			c.io.Facts(
				term.Fact{Name: "fingerprint", Value: key.Fingerprint},
				term.Fact{Name: "assignment key", Value: key.Assignment},
			)
			return nil
		},
	}
}

func newKeyExportCommand(c *cli) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the archive key's certificate, for apt's Signed-By",
		Long: `Print the archive key's certificate, ASCII-armoured, for apt's Signed-By. It is
the public half: the private key never leaves the server's data directory.`,
		Example: `  repo-manager key export --output /etc/apt/keyrings/aptfleet.asc`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.client()
			if err != nil {
				return err
			}
			key, err := api.Key(cmd.Context())
			if err != nil {
				return err
			}
			if output != "" {
				if err := atomicfile.Write(output, []byte(key.Certificate), 0o644); err != nil {
					return fmt.Errorf("cannot write the certificate: %w", err)
				}
			}
			switch {
			case c.io.JSON:
				return c.io.PrintJSON(key)
			case output == "":
				_, err = fmt.Fprint(c.io.Out, key.Certificate)
				return err
			}
			c.io.Result(output, "wrote the certificate of %s to %s", key.Fingerprint, output)
			return nil
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "write to this `file` instead of standard output")
	return cmd
}
