package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/term"
)

func newKeyCACommand(c *cli) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Print the certificate of the server's own CA, with its fingerprint",
		Long: `Print the certificate of the CA that a server with "tls: self" has made for
itself, in PEM, and its fingerprint on standard error: the SHA-256 of the DER,
as "openssl x509 -noout -fingerprint -sha256" shows it. Whoever cannot ask this
server by a way that is safe already fetches /ca.pem and compares fingerprints.

The file is what --ca and APTFLEET_CA take, apt's Acquire::https::CAInfo, and
"curl --cacert". The private half never leaves the server's data directory.`,
		Example: `  repo-manager key ca --output /etc/apt/aptfleet-ca.pem`,
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
			if key.CA == "" {
				return term.WithHint(errors.New("cannot show the CA: the server has none of its own"), "repo-manager serve --tls self makes one; docs/tls.md tells when it is wanted")
			}
			if output != "" {
				if err := atomicfile.Write(output, []byte(key.CA), 0o644); err != nil {
					return fmt.Errorf("cannot write the certificate: %w", err)
				}
			}
			switch {
			case c.io.JSON:
				return c.io.PrintJSON(key)
			case output == "":
				c.io.Note("SHA-256 %s", key.CAFingerprint)
				_, err = fmt.Fprint(c.io.Out, key.CA)
				return err
			}
			c.io.Note("SHA-256 %s", key.CAFingerprint)
			c.io.Result(output, "wrote the certificate of the CA to %s", output)
			return nil
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "write to this `file` instead of standard output")
	return cmd
}
