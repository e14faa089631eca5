package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

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
	ca         string
	allowOlder bool
}

// parallelUploads is how many files are sent at a time.
const parallelUploads = 32

// The waits between attempts to reach a server that does not answer.
var uploadWaits = [...]time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}

func (p *program) uploadCommand() *cobra.Command {
	var o uploadOptions
	cmd := &cobra.Command{
		Use:   "upload FILE.deb… --to REPOSITORY",
		Short: "Upload packages to a rolling repository",
		Long: `upload sends packages to a rolling repository of repo-manager. When it returns
without an error they are durable and published.

Each package is checked here before it is sent; several are sent side by side,
and one that fails does not keep the others back. A server that cannot be reached,
or says that it is busy, is tried again for about 15 seconds; that is safe,
because the same bytes again are answered with success.

The server and the token come from --server and --token, or better from
APTFLEET_SERVER and APTFLEET_TOKEN, which other users of the machine cannot
see. The token needs the role uploader. A server with a CA of its own is known
by the CA's certificate: --ca or APTFLEET_CA names the file.`,
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
	cmd.Flags().StringVar(&o.ca, "ca", "", "`file` with the certificate of the server's own CA, in PEM (default $APTFLEET_CA)")
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
	if o.ca == "" {
		o.ca = p.getenv("APTFLEET_CA")
	}
	switch {
	case o.to == "":
		return &term.UsageError{Text: "cannot upload: --to is missing", Hint: "--to apps, or --to PIPELINE/apps"}
	case o.server == "":
		return &term.UsageError{Text: "cannot upload: it is not said where", Hint: "set APTFLEET_SERVER or give --server URL"}
	}
	var ca []byte
	if o.ca != "" {
		var err error
		if ca, err = os.ReadFile(o.ca); err != nil {
			return fmt.Errorf("cannot read the CA certificate: %w", err)
		}
	}
	c, err := client.New(client.Options{Server: o.server, Token: o.token, CA: ca, UserAgent: "aptfleet-builder"})
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
	return p.uploadAll(files, func(parcel parcel, progress *term.Progress) (protocol.Upload, error) {
		return parcel.send(ctx, c, pipeline, repository, o.allowOlder, progress)
	})
}

// parcel is one file on its way.
type parcel struct {
	file string
	pkg  deb.Package
	sent protocol.Upload
	err  error
}

// uploadAll checks all files, then sends them side by side: a stage is
// published about once a second, and whatever waits then shares one
// publication. Versions of one package follow each other from the lowest,
// since a repository refuses a lower one after a higher. A file that fails
// does not keep the others from arriving. It prints what arrived and returns
// the failure of the first file that has one.
func (p *program) uploadAll(files []string, send func(parcel, *term.Progress) (protocol.Upload, error)) error {
	parcels := make([]parcel, len(files))
	versions := map[string][]*parcel{} // by package and architecture
	var total int64
	for i, file := range files {
		parcels[i].file = file
		if parcels[i].pkg, parcels[i].err = readPackage(file); parcels[i].err == nil {
			key := parcels[i].pkg.Name + " " + parcels[i].pkg.Architecture
			versions[key] = append(versions[key], &parcels[i])
			total += parcels[i].pkg.Size
		}
	}
	progress := p.io.NewProgress("uploading", total, "bytes")
	var group errgroup.Group
	group.SetLimit(parallelUploads)
	for _, line := range versions {
		slices.SortStableFunc(line, func(a, b *parcel) int { return deb.Compare(a.pkg.Version, b.pkg.Version) })
		group.Go(func() error {
			for _, parcel := range line {
				parcel.sent, parcel.err = send(*parcel, progress)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	progress.Finish()
	var first error
	arrived := []protocol.Upload{}
	for _, parcel := range parcels {
		switch {
		case parcel.err == nil:
			arrived = append(arrived, parcel.sent)
		case first == nil:
			first = uploadError{parcel.file, parcel.err}
		default:
			p.io.Note("builder: %s", term.Printable(uploadError{parcel.file, parcel.err}.Error()))
		}
	}
	if p.io.JSON {
		return errors.Join(p.io.PrintJSON(arrived), first)
	}
	table := p.io.NewTable("PACKAGE", "VERSION", "ARCH", "SIZE", "RESULT")
	for _, u := range arrived {
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
	return first
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

// readPackage checks a file before it is sent.
func readPackage(file string) (pkg deb.Package, err error) {
	f, err := os.Open(file)
	if err != nil {
		return pkg, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return deb.Read(f, deb.Limits{})
}

// send sends the file until the server has taken it or said why not.
func (p parcel) send(ctx context.Context, c *client.Client, pipeline, repository string, allowOlder bool, progress *term.Progress) (u protocol.Upload, err error) {
	f, err := os.Open(p.file)
	if err != nil {
		return u, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	err = retry(ctx, func() error {
		// The body is read through ReadAt, so that a request that still ends
		// in the background cannot move the position of the next one.
		body := &sentBody{r: io.NewSectionReader(f, 0, p.pkg.Size), progress: progress}
		var err error
		u, err = c.Upload(ctx, pipeline, repository, client.File{Name: filepath.Base(p.file), Body: body, Size: p.pkg.Size, AllowOlder: allowOlder})
		if err != nil {
			progress.Add(-body.sent.Load())
		}
		return err
	})
	if err == nil && u.SHA256 != hex.EncodeToString(p.pkg.SHA256[:]) {
		err = fmt.Errorf("the server says it has the SHA-256 %s, the file has %x", u.SHA256, p.pkg.SHA256)
	}
	return u, err
}

// sentBody counts what is sent, which an attempt that fails takes back.
type sentBody struct {
	r        io.Reader
	progress *term.Progress
	sent     atomic.Int64
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	b.sent.Add(int64(n))
	b.progress.Add(int64(n))
	return n, err
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
		// A certificate that is refused now is refused in a moment.
		var refused *tls.CertificateVerificationError
		return !errors.As(err, &refused)
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
