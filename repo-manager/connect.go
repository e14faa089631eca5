package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/term"
)

// defaultData is the data directory of a server that was installed from its
// Debian package.
const defaultData = "/var/lib/aptfleet"

// cli is what every command that asks a server shares.
type cli struct {
	io     *term.IO
	getenv func(string) string

	server   string
	token    string
	ca       string
	socket   string
	data     string
	pipeline string
}

// flags adds the flags that every command takes. Each but --json has an
// environment variable behind it.
func (c *cli) flags(root *cobra.Command) {
	f := root.PersistentFlags()
	env := func(p *string, name, variable, value, usage string) {
		if v := c.getenv(variable); v != "" {
			value = v
		}
		f.StringVar(p, name, value, usage+" ["+variable+"]")
		// The default may be a secret; help shows where it comes from instead.
		f.Lookup(name).DefValue = ""
	}
	env(&c.server, "server", "APTFLEET_SERVER", "", "`URL` of a server's admin listener; without it the Unix socket is used")
	env(&c.token, "token", "APTFLEET_TOKEN", "", "`token` to act with; other users of the machine cannot see it in the variable")
	env(&c.ca, "ca", "APTFLEET_CA", "", "`file` with the certificate of the server's own CA, in PEM: see \"key ca\"")
	env(&c.socket, "socket", "APTFLEET_SOCKET", "", "`path` of the server's Unix socket, instead of DATA/run/repo-manager.sock")
	env(&c.data, "data", "APTFLEET_DATA", defaultData, "the server's data `directory`, "+defaultData+" unless given")
	env(&c.pipeline, "pipeline", "APTFLEET_PIPELINE", "", "`name` of the pipeline; may be left out when there is only one")
	mustComplete(root, "pipeline", c.completePipeline)
	f.BoolVar(&c.io.JSON, "json", c.io.JSON, "print one JSON value, and errors as JSON too")
	f.Lookup("json").DefValue = "false" // execute may have seen it already
}

// client returns a client of the server that the flags name.
func (c *cli) client() (*client.Client, error) {
	if c.server != "" {
		o := client.Options{Server: c.server, Token: c.token, UserAgent: "repo-manager"}
		if c.ca != "" {
			var err error
			if o.CA, err = os.ReadFile(c.ca); err != nil {
				return nil, fmt.Errorf("cannot read the CA certificate: %w", err)
			}
		}
		return client.New(o)
	}
	socket := c.socket
	if socket == "" {
		socket = filepath.Join(c.data, "run", "repo-manager.sock")
	}
	path, err := filepath.Abs(socket)
	if err != nil {
		return nil, err
	}
	return client.New(client.Options{Socket: path, Token: c.token, UserAgent: "repo-manager"})
}

// inPipeline returns a client and the pipeline to work in: the one that the
// flags name, or the only one.
func (c *cli) inPipeline(ctx context.Context) (*client.Client, string, error) {
	api, err := c.client()
	if err != nil || c.pipeline != "" {
		return api, c.pipeline, err
	}
	all, err := api.Pipelines(ctx)
	switch {
	case err != nil:
		return nil, "", err
	case len(all) == 0:
		return nil, "", term.WithHint(
			term.Usagef("cannot tell which pipeline: there is none yet"),
			"repo-manager pipeline create NAME --distribution trixie --architecture amd64")
	case len(all) > 1:
		names := make([]string, len(all))
		for i, p := range all {
			names[i] = p.Name
		}
		return nil, "", term.WithHint(
			term.Usagef("cannot tell which pipeline: there are %d", len(all)),
			"name one with --pipeline: "+strings.Join(names, ", "))
	}
	return api, all[0].Name, nil
}

// completionTime bounds what a press of the tab key may wait for the server.
const completionTime = 2 * time.Second

// complete returns a completion of one argument from what a server knows. A
// server that does not answer completes nothing.
func (c *cli) complete(names func(ctx context.Context, api *client.Client, pipeline string) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		api, pipeline, err := c.inPipeline(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, err := names(ctx, api, pipeline)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// firstOnly completes the first argument of a command and none of the others,
// which are something else.
func firstOnly(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, prefix)
	}
}

// completePipeline completes the name of a pipeline.
func (c *cli) completePipeline(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
	defer cancel()
	var names []string
	if api, err := c.client(); err == nil {
		if all, err := api.Pipelines(ctx); err == nil {
			for _, p := range all {
				names = append(names, p.Name)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// stageNames completes a stage.
func stageNames(ctx context.Context, api *client.Client, pipeline string) ([]string, error) {
	p, err := api.Pipeline(ctx, pipeline)
	return p.Stages, err
}

// refNames completes whatever offers a state: stages and snapshots.
func refNames(ctx context.Context, api *client.Client, pipeline string) ([]string, error) {
	names, err := stageNames(ctx, api, pipeline)
	if err != nil {
		return nil, err
	}
	snapshots, err := snapshotNames(ctx, api, pipeline)
	return append(names, snapshots...), err
}

// snapshotNames completes a snapshot where a stage will not do.
func snapshotNames(ctx context.Context, api *client.Client, pipeline string) ([]string, error) {
	snapshots, err := api.Snapshots(ctx, pipeline)
	names := make([]string, len(snapshots))
	for i, s := range snapshots {
		names[i] = s.ID
	}
	return names, err
}

// componentNames completes the components of one kind.
func componentNames(kind string) func(context.Context, *client.Client, string) ([]string, error) {
	return func(ctx context.Context, api *client.Client, pipeline string) ([]string, error) {
		p, err := api.Pipeline(ctx, pipeline)
		var names []string
		for _, component := range p.Components {
			if component.Kind == kind {
				names = append(names, component.Name)
			}
		}
		return names, err
	}
}
