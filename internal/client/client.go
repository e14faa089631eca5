// Package client speaks the HTTP API of repo-manager, over its Unix socket
// or over the network with a token. Bodies are those of package protocol;
// docs/architecture.md lists the routes.
//
// A Client is safe for concurrent use. Every method takes a context and
// gives up when it ends. An answer with a status of 400 or above becomes an
// *Error; a server that cannot be reached an *Unreachable.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"aptfleet/internal/tlspin"
)

// maxAnswer bounds the bytes read of one JSON answer: the package list of a
// 100,000-package state fits.
const maxAnswer = 256 << 20

// expectContinue is how long an upload waits for the server to say that it
// wants the body; a wrong token is answered before any of it is sent.
const expectContinue = 2 * time.Second

// Options say where the server is. Exactly one of Server and Socket is set.
type Options struct {
	Server    string // base URL of the admin listener, e.g. https://aptfleet.example:8443
	Token     string // bearer token, used with Server
	Socket    string // path of the Unix socket
	UserAgent string
	CA        []byte            // PEM: the only CA that Server's certificate may be of; nil: those of the system
	Transport http.RoundTripper // instead of a new one, for Server; may be nil
}

// Client is a connection to one server.
type Client struct {
	http  *http.Client
	base  *url.URL
	where string // for error messages
	token string
	agent string
}

// New returns a client. It does not connect yet.
func New(o Options) (*Client, error) {
	c := &Client{token: o.Token, agent: o.UserAgent, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	switch {
	case (o.Server == "") == (o.Socket == ""):
		return nil, errors.New("cannot make a client: want either a server or a socket")
	case o.Socket != "":
		c.base, c.where = &url.URL{Scheme: "http", Host: "localhost"}, o.Socket
		var d net.Dialer
		c.http.Transport = &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return d.DialContext(ctx, "unix", o.Socket)
			},
			DisableCompression:    true,
			ExpectContinueTimeout: expectContinue,
		}
		return c, nil
	}
	base, err := url.Parse(strings.TrimRight(o.Server, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("cannot use the server %q: want a URL such as https://aptfleet.example:8443", o.Server)
	}
	if base.User != nil {
		return nil, errors.New("cannot use a server URL with a password in it: give the token with --token or APTFLEET_TOKEN")
	}
	c.base, c.where, c.http.Transport = base, base.String(), o.Transport
	if o.CA != nil {
		if base.Scheme != "https" {
			return nil, fmt.Errorf("cannot use a CA certificate with %s: it is not reached by https", base)
		}
		transport, err := tlspin.Transport(o.CA, nil)
		if err != nil {
			return nil, err
		}
		transport.ExpectContinueTimeout = expectContinue
		c.http.Transport = transport
	}
	return c, nil
}

// segments joins path segments, escaping each.
func segments(parts ...string) string {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString("/" + url.PathEscape(p))
	}
	return b.String()
}

func pipelinePath(pipeline string, parts ...string) string {
	return segments(append([]string{"api", "v1", "pipelines", pipeline}, parts...)...)
}

// request is one call of the API.
type request struct {
	method string
	path   string // escaped
	query  url.Values
	json   any       // body to encode, or nil
	body   io.Reader // body to stream, or nil
	size   int64     // of body; -1 when unknown
	accept string    // default application/json
}

// send performs a request and returns an answer with a status below 400.
// The caller closes its body.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	body, size, contentType := r.body, r.size, ""
	if body != nil {
		contentType = "application/octet-stream"
	}
	if r.json != nil {
		encoded, err := json.Marshal(r.json)
		if err != nil {
			return nil, fmt.Errorf("cannot encode a request: %w", err)
		}
		body, size, contentType = bytes.NewReader(encoded), int64(len(encoded)), "application/json"
	}
	target := c.base.String() + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("cannot make a request: %w", err)
	}
	if body != nil {
		req.ContentLength = size
		if size == 0 {
			req.Body = http.NoBody
		}
		req.Header.Set("Content-Type", contentType)
	}
	if r.body != nil {
		req.Header.Set("Expect", "100-continue")
	}
	req.Header.Set("Accept", "application/json")
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if c.agent != "" {
		req.Header.Set("User-Agent", c.agent)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("cannot finish the request: %w", ctx.Err())
		}
		return nil, &Unreachable{Where: c.where, Err: bare(err)}
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

// bare takes the method and URL off an error of net/http: the message that
// wraps it names the server already.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// call performs a request and decodes its JSON answer into out, which may be
// nil. It returns the status.
func (c *Client) call(ctx context.Context, r request, out any) (int, error) {
	resp, err := c.send(ctx, r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if out == nil {
		return resp.StatusCode, nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return 0, fmt.Errorf("cannot read the answer of %s: %w", c.where, err)
	}
	return resp.StatusCode, nil
}

// readLines performs a request whose answer is one JSON value a line, and hands
// each to read until that says it was the last or returns an error.
func readLines[T any](ctx context.Context, c *Client, r request, read func(line T) (last bool, err error)) error {
	r.accept = "application/json, application/x-ndjson"
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	for {
		var line T
		if err := lines.Decode(&line); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return fmt.Errorf("cannot read the answer of %s: %w", c.where, err)
		}
		if last, err := read(line); last || err != nil {
			return err
		}
	}
}

// get asks for a value.
func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var out T
	_, err := c.call(ctx, request{method: http.MethodGet, path: path, query: query}, &out)
	return out, err
}

// post sends in, if it is not nil, and returns the answer.
func post[T any](ctx context.Context, c *Client, path string, in any) (T, error) {
	var out T
	_, err := c.call(ctx, request{method: http.MethodPost, path: path, json: in}, &out)
	return out, err
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
