package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
)

// source is an apt source: what a machine needs to install from a base.
type source struct {
	URI           string   `json:"uri"`
	Suite         string   `json:"suite"`
	Components    []string `json:"components"`
	Architectures []string `json:"architectures"`
	Private       bool     `json:"private"`
	Certificate   string   `json:"certificate"`  // of the archive key, armoured
	CA            string   `json:"ca,omitempty"` // of the server's own CA, PEM
}

func newPipelineSourcesCommand(c *cli) *cobra.Command {
	var signedBy string
	cmd := &cobra.Command{
		Use:   "sources [NAME] STAGE",
		Short: "Print the apt source of a stage or a snapshot",
		Long: `Print what apt needs to install from a stage or a snapshot, as a .sources file
(deb822): with the certificate of the archive key in it, or with --signed-by the
name of a file that has it. Its comments say what else has to be on the machine:
credentials, if the pipeline is private, and the certificate of the server's own
CA, if it has one.`,
		Example: `  repo-manager pipeline sources demo canary >/etc/apt/sources.list.d/demo.sources
  repo-manager pipeline sources 20261120T101500Z --signed-by /etc/apt/keyrings/aptfleet.asc`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: c.complete(refNames),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				c.pipeline = args[0]
			}
			api, pipeline, err := c.inPipeline(cmd.Context())
			if err != nil {
				return err
			}
			s, err := readSource(cmd.Context(), api, pipeline, args[len(args)-1])
			if err != nil {
				return err
			}
			if c.io.JSON {
				return c.io.PrintJSON(s)
			}
			_, err = fmt.Fprint(c.io.Out, s.text(pipeline, signedBy))
			return err
		},
	}
	cmd.Flags().StringVar(&signedBy, "signed-by", "", "`path` of the archive key's certificate on the machine, instead of the certificate itself")
	return cmd
}

// readSource asks a server for all of a source. ref is a stage or a snapshot.
func readSource(ctx context.Context, api *client.Client, pipeline, ref string) (s source, err error) {
	p, err := api.Pipeline(ctx, pipeline)
	if err != nil {
		return s, err
	}
	base := ref
	if !slices.Contains(p.Stages, ref) {
		snapshot, err := api.Snapshot(ctx, pipeline, ref)
		if err != nil {
			return s, err
		}
		base = "snapshots/" + snapshot.ID
	}
	system, err := api.System(ctx)
	key, keyErr := api.Key(ctx)
	if err := errors.Join(err, keyErr); err != nil {
		return s, err
	}
	s = source{
		URI: system.Archive + "/" + p.Name + "/" + base + "/", Suite: p.Distribution, Components: []string{}, Architectures: p.Architectures,
		Private: p.Private, Certificate: key.Certificate, CA: key.CA,
	}
	for _, component := range p.Components {
		s.Components = append(s.Components, component.Name)
	}
	return s, nil
}

// text is the source as apt reads it: sources.list(5).
func (s source) text(pipeline, signedBy string) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if s.CA != "" {
		say("# The server's certificate is of its own CA. Put what \"repo-manager key ca\" prints into")
		say("# /etc/apt/aptfleet-ca.pem, and this line into /etc/apt/apt.conf.d/50aptfleet:")
		say("#   Acquire::https::%s::CAInfo \"/etc/apt/aptfleet-ca.pem\";", hostOf(s.URI))
	}
	if s.Private {
		say("# The pipeline is private. Put this into /etc/apt/auth.conf.d/aptfleet-%s.conf, for root alone (mode 0600),", pipeline)
		say("# with a token that \"repo-manager token create NAME\" prints:")
		say("#   machine %s login NAME password TOKEN", machineOf(s.URI, pipeline))
	}
	say("Types: deb")
	say("URIs: %s", s.URI)
	say("Suites: %s", s.Suite)
	say("Components: %s", strings.Join(s.Components, " "))
	say("Architectures: %s", strings.Join(s.Architectures, " "))
	if signedBy != "" {
		say("Signed-By: %s", signedBy)
		return b.String()
	}
	say("Signed-By:")
	for line := range strings.Lines(s.Certificate) {
		if line = strings.TrimRight(line, "\n"); line == "" {
			line = "."
		}
		say(" %s", line)
	}
	return b.String()
}

// hostOf is the host of a URI, as apt names it in options.
func hostOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return uri
	}
	return u.Hostname()
}

// machineOf is what apt_auth.conf(5) calls the machine: it sends credentials
// to the path below it, and without encryption only if http:// says so.
func machineOf(uri, pipeline string) string {
	uri = strings.TrimPrefix(uri, "https://")
	at := strings.Index(uri, "/"+pipeline+"/")
	if at < 0 {
		return uri
	}
	return uri[:at+len(pipeline)+2]
}
