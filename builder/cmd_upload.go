package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"aptfleet/internal/client"
	"aptfleet/internal/deb"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// uploadOptions are the flags of upload.
type uploadOptions struct {
	to         string
	server     string
	token      string
	allowOlder bool
}

// The waits between attempts to reach a server that does not answer.
var uploadWaits = [...]time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}

func (p *program) uploadCommand() *cobra.Command {
	var o uploadOptions
	cmd := &cobra.Command{
		Use:   "upload FILE.deb… --to REPOSITORY",
		Short: "Upload packages to a rolling repository",
		Long: `upload sends packages to a rolling repository of repo-manager. When it returns
without an error they are durable and published.

Each package is checked here before it is sent. A server that cannot be reached,
or says that it is busy, is tried again for about 15 seconds; that is safe,
because the same bytes again are answered with success.

The server and the token come from --server and --token, or better from
APTFLEET_SERVER and APTFLEET_TOKEN, which other users of the machine cannot
see. The token needs the role uploader.`,
		Example: `  export APTFLEET_SERVER=https://aptfleet.example:8443 APTFLEET_TOKEN=…
  builder upload hello_1.2.3_amd64.deb --to apps
  builder upload *.deb --to demo/apps --json`,
		Args: usage(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.upload(cmd.Context(), o, args)
		},
	}
	cmd.Flags().StringVar(&o.to, "to", "", "the rolling repository: `[PIPELINE/]REPOSITORY`")
	cmd.Flags().StringVar(&o.server, "server", "", "`URL` of repo-manager's admin listener (default $APTFLEET_SERVER)")
	cmd.Flags().StringVar(&o.token, "token", "", "access `TOKEN` (default $APTFLEET_TOKEN)")
	cmd.Flags().BoolVar(&o.allowOlder, "allow-older", false, "accept a version lower than the newest one there")
	return cmd
}

func (p *program) upload(ctx context.Context, o uploadOptions, files []string) error {
	if o.server == "" {
		o.server = p.getenv("APTFLEET_SERVER")
	}
	if o.token == "" {
		o.token = p.getenv("APTFLEET_TOKEN")
	}
	switch {
	case o.to == "":
		return &term.UsageError{Text: "cannot upload: --to is missing", Hint: "--to apps, or --to PIPELINE/apps"}
	case o.server == "":
		return &term.UsageError{Text: "cannot upload: it is not said where", Hint: "set APTFLEET_SERVER or give --server URL"}
	}
	c, err := client.New(client.Options{Server: o.server, Token: o.token, UserAgent: "aptfleet-builder"})
	if err != nil {
		return &term.UsageError{Text: err.Error()}
	}
	pipeline, repository, found := strings.Cut(o.to, "/")
	if !found {
		repository = pipeline
		if pipeline, err = onlyPipeline(ctx, c); err != nil {
			return err
		}
	}
	uploads := []protocol.Upload{}
	for _, file := range files {
		u, err := p.uploadFile(ctx, c, pipeline, repository, file, o.allowOlder)
		if err != nil {
			return uploadError{file, err}
		}
		uploads = append(uploads, u)
	}
	if p.io.JSON {
		return p.io.PrintJSON(uploads)
	}
	table := p.io.NewTable("PACKAGE", "VERSION", "ARCH", "SIZE", "RESULT")
	for _, u := range uploads {
		result := "published"
		switch {
		case u.Already:
			result = "was there already"
		case len(u.Replaced) > 0:
			result = "published, replaces " + strings.Join(u.Replaced, ", ")
		}
		table.Row(u.Name, u.Version, u.Architecture, term.Bytes(u.Size), result)
	}
	table.Print("")
	return nil
}

// onlyPipeline returns the name of the server's pipeline if there is but one.
func onlyPipeline(ctx context.Context, c *client.Client) (string, error) {
	var pipelines []protocol.Pipeline
	err := retry(ctx, func() (err error) {
		pipelines, err = c.Pipelines(ctx)
		return err
	})
	if err != nil {
		return "", err
	}
	if len(pipelines) != 1 {
		return "", &term.UsageError{Text: fmt.Sprintf("cannot upload: the server has %d pipelines", len(pipelines)), Hint: "--to PIPELINE/REPOSITORY names one"}
	}
	return pipelines[0].Name, nil
}

// uploadFile checks a file and sends it until the server has taken it or said
// why not.
func (p *program) uploadFile(ctx context.Context, c *client.Client, pipeline, repository, file string, allowOlder bool) (u protocol.Upload, err error) {
	f, err := os.Open(file)
	if err != nil {
		return u, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	pkg, err := deb.Read(f, deb.Limits{})
	if err != nil {
		return u, err
	}
	err = retry(ctx, func() error {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		progress := p.io.NewProgress("uploading "+filepath.Base(file), pkg.Size, "bytes")
		defer progress.Finish()
		var err error
		u, err = c.Upload(ctx, pipeline, repository, client.File{Name: filepath.Base(file), Body: progress.Reader(io.LimitReader(f, pkg.Size)), Size: pkg.Size, AllowOlder: allowOlder})
		return err
	})
	if err == nil && u.SHA256 != hex.EncodeToString(pkg.SHA256[:]) {
		err = fmt.Errorf("the server says it has the SHA-256 %s, the file has %x", u.SHA256, pkg.SHA256)
	}
	return u, err
}

// retry calls act until it succeeds or fails for good.
func retry(ctx context.Context, act func() error) error {
	for _, wait := range uploadWaits {
		err := act()
		if err == nil || !transient(err) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
	return act()
}

// transient reports whether a failure may pass by itself.
func transient(err error) bool {
	var unreachable *client.Unreachable
	if errors.As(err, &unreachable) {
		return true
	}
	var answer *client.Error
	if !errors.As(err, &answer) {
		return false
	}
	switch answer.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// uploadError names the file; exit status and hint stay the cause's.
type uploadError struct {
	file string
	err  error
}

func (e uploadError) Error() string { return fmt.Sprintf("cannot upload %s: %v", e.file, e.err) }
func (e uploadError) Unwrap() error { return e.err }
