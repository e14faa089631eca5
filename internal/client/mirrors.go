package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"aptfleet/internal/protocol"
)

// CreateMirror adds a mirror; UpdateMirror fills it.
func (c *Client) CreateMirror(ctx context.Context, pipeline, name string, m protocol.Mirror) (protocol.Component, error) {
	in := protocol.Component{Name: name, Kind: "mirror", Mirror: &m}
	return post[protocol.Component](ctx, c, pipelinePath(pipeline, "mirrors"), in)
}

// Mirror returns one mirror, without its keyrings.
func (c *Client) Mirror(ctx context.Context, pipeline, name string) (protocol.Component, error) {
	return get[protocol.Component](ctx, c, pipelinePath(pipeline, "mirrors", name), nil)
}

// SetMirror replaces what a mirror takes from where, and returns what it is
// then. A suite without a keyring keeps that of its archive. With dryRun the
// server only tells whether it could be, and what it would be.
func (c *Client) SetMirror(ctx context.Context, pipeline, name string, m protocol.Mirror, dryRun bool) (protocol.Component, error) {
	query := url.Values{}
	if dryRun {
		query.Set("dry-run", "1")
	}
	var out protocol.Component
	_, err := c.call(ctx, request{method: http.MethodPut, path: pipelinePath(pipeline, "mirrors", name), query: query, json: m}, &out)
	return out, err
}

// UpdateMirror starts to bring a mirror up to date and returns the change
// that does it; see Wait.
func (c *Client) UpdateMirror(ctx context.Context, pipeline, name string, in protocol.MirrorUpdate) (protocol.Change, error) {
	return post[protocol.Change](ctx, c, pipelinePath(pipeline, "mirrors", name, "update"), in)
}

// DiffMirror tells what an update of a mirror would change. Each, if not nil,
// is told now and then how far the server is with asking upstream.
func (c *Client) DiffMirror(ctx context.Context, pipeline, name string, each func(done, total int64, unit string)) (protocol.MirrorDiff, error) {
	resp, err := c.send(ctx, request{
		method: http.MethodPost, path: pipelinePath(pipeline, "mirrors", name, "diff"), accept: "application/json, application/x-ndjson",
	})
	if err != nil {
		return protocol.MirrorDiff{}, err
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	for {
		var line protocol.MirrorDiffLine
		if err := lines.Decode(&line); err != nil {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return protocol.MirrorDiff{}, fmt.Errorf("cannot read the answer of %s: %w", c.where, err)
		}
		switch {
		case line.Error != nil:
			return protocol.MirrorDiff{}, &Error{Status: http.StatusInternalServerError, Code: line.Error.Code, Text: line.Error.Text, Hint: line.Error.Hint}
		case line.Diff != nil:
			return *line.Diff, nil
		case each != nil:
			each(line.Done, line.Total, line.Unit)
		}
	}
}
