package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/release"
)

const (
	attempts      = 3                // tries for one file before an update fails
	stallLimit    = 60 * time.Second // in which a transfer must bring leastBytes
	leastBytes    = 1 << 10          // else it is given up
	maxInRelease  = 1 << 20          // bytes; Debian's largest has about 250 kB
	maxIndex      = 1 << 30          // bytes of one index, uncompressed
	maxPackage    = 8 << 30          // bytes of one .deb
	maxIndexEntry = 1 << 20          // bytes of one stanza
)

// errNotFound is the cause of an answer with status 404.
var errNotFound = errors.New("the server has no such file (404)")

// upstream is one suite of an archive.
type upstream struct {
	client   *http.Client
	base     *url.URL // holds dists/ and pool/
	pause    time.Duration
	stall    time.Duration
	suite    release.MirrorSuite
	position int // among the suites of the mirror
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

func (u *Updater) upstream(suite release.MirrorSuite, position int) (*upstream, error) {
	base, err := suiteURL(suite)
	if err != nil {
		return nil, err
	}
	return &upstream{
		client: u.config.Client, base: base, pause: u.config.Pause, stall: u.config.Stall,
		suite: suite, position: position,
	}, nil
}

// what names the suite for people.
func (u *upstream) what() string { return u.base.String() + " " + u.suite.Suite }

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
	watch := time.AfterFunc(u.stall, func() { stop(fmt.Errorf("the server brought less than %d bytes in %s", leastBytes, u.stall)) })
	defer watch.Stop()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url(name), nil)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "aptfleet")
	if offset > 0 {
		request.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	response, err := u.client.Do(request)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusOK:
		offset = 0
	case response.StatusCode == http.StatusPartialContent && offset > 0 &&
		strings.HasPrefix(response.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)):
	case response.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0:
		return nil // the server has no byte more than we
	case response.StatusCode == http.StatusNotFound:
		return errNotFound
	default:
		return fmt.Errorf("the server answers %s", response.Status)
	}
	w, err := start(offset)
	if err != nil {
		return err
	}
	body := &watchedReader{r: response.Body, progress: func() { watch.Reset(u.stall) }}
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

// watchedReader tells about every leastBytes that arrived.
type watchedReader struct {
	r        io.Reader
	progress func()
	n        int // since progress was called
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if w.n += n; w.n >= leastBytes {
		w.n = 0
		w.progress()
	}
	return n, err
}
