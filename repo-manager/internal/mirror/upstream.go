package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/sign"
	"aptfleet/repo-manager/internal/release"
)

const (
	attempts      = 3                // tries for one file before an update fails
	stallLimit    = 60 * time.Second // without a byte, a transfer is given up
	maxInRelease  = 1 << 20          // bytes; Debian's largest has about 250 kB
	maxIndex      = 1 << 30          // bytes of one index, uncompressed
	maxPackage    = 8 << 30          // bytes of one .deb
	maxIndexEntry = 1 << 20          // bytes of one stanza
)

// errNotFound is the cause of an answer with status 404.
var errNotFound = errors.New("the server has no such file (404)")

// upstream is one suite of an archive.
type upstream struct {
	client *http.Client
	base   *url.URL // holds dists/ and pool/
	pause  time.Duration
	config release.MirrorConfig
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   30 * time.Second,
		ResponseHeaderTimeout: stallLimit,
		MaxIdleConnsPerHost:   parallelDownloads,
		IdleConnTimeout:       stallLimit,
		DisableCompression:    true, // sizes and ranges are those of the file
	}}
}

func newUpstream(client *http.Client, pause time.Duration, config release.MirrorConfig) (*upstream, error) {
	base, err := url.Parse(config.URL)
	if err != nil {
		return nil, fmt.Errorf("cannot mirror %q: %w", config.URL, err)
	}
	if base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("cannot mirror %q: want an http or https URL", config.URL)
	}
	if err := localPath(config.Suite); err != nil {
		return nil, fmt.Errorf("cannot mirror suite %q: %w", config.Suite, err)
	}
	return &upstream{client: client, base: base, pause: pause, config: config}, nil
}

// Validate refuses a mirror that no update could ever fill: it cannot be
// changed once it exists.
func Validate(name string, config release.MirrorConfig) error {
	_, err := newUpstream(nil, 0, config)
	for _, component := range config.Components {
		if bad := localPath(component); bad != nil && err == nil {
			err = fmt.Errorf("the upstream component %q: %w", component, bad)
		}
	}
	for _, wanted := range config.Packages {
		err = cmp.Or(err, deb.ValidPackageName(wanted))
	}
	if len(config.Keyring) > 0 {
		err = cmp.Or(err, sign.CheckKeyring(config.Keyring))
	}
	if err != nil {
		return &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot create mirror %s: %v", name, err), Hint: "repo-manager mirror create --help", Err: err}
	}
	return nil
}

// localPath refuses what would lead out of the archive.
func localPath(name string) error {
	if name == "" || name != path.Clean(name) || strings.HasPrefix(name, "/") || name == ".." || strings.HasPrefix(name, "../") {
		return errors.New("it is not a plain path below the archive")
	}
	return nil
}

func (u *upstream) url(name string) string {
	return u.base.JoinPath(strings.Split(name, "/")...).String()
}

// fetch copies the file called name, from byte offset on, to w: at most limit
// bytes, else it is an error. It calls start before the first byte with the
// offset at which the server really begins: offset, or 0 where ranges are not
// supported.
func (u *upstream) fetch(ctx context.Context, name string, offset, limit int64, start func(at int64) (io.Writer, error)) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url(name), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "aptfleet")
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := u.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusOK:
		offset = 0
	case response.StatusCode == http.StatusPartialContent && offset > 0 &&
		strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)):
	case response.StatusCode == http.StatusNotFound:
		return errNotFound
	default:
		return fmt.Errorf("the server answers %s", response.Status)
	}
	w, err := start(offset)
	if err != nil {
		return err
	}
	watch := time.AfterFunc(stallLimit, func() { stop(fmt.Errorf("no byte arrived for %s", stallLimit)) })
	defer watch.Stop()
	body := &watchedReader{r: response.Body, progress: func() { watch.Reset(stallLimit) }}
	n, err := io.Copy(w, io.LimitReader(body, limit-offset+1))
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return err
	}
	if offset+n > limit {
		return fmt.Errorf("it is longer than %d bytes", limit)
	}
	return nil
}

// retry calls try until it succeeds, at most `attempts` times, with growing
// pauses. A missing file and an ended ctx are final.
func (u *upstream) retry(ctx context.Context, try func() error) error {
	delay := u.pause
	for n := 1; ; n++ {
		err := try()
		if err == nil || n == attempts || errors.Is(err, errNotFound) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
			delay *= 2
		}
	}
}

// watchedReader tells about every read that brought something.
type watchedReader struct {
	r        io.Reader
	progress func()
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if n > 0 {
		w.progress()
	}
	return n, err
}
