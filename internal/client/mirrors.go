package client

import (
	"context"
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
func (c *Client) DiffMirror(ctx context.Context, pipeline, name string, each func(done, total int64, unit string)) (diff protocol.MirrorDiff, err error) {
	r := request{method: http.MethodPost, path: pipelinePath(pipeline, "mirrors", name, "diff")}
	err = readLines(ctx, c, r, func(line protocol.MirrorDiffLine) (last bool, err error) {
		switch {
		case line.Error != nil:
			return true, errorOf(http.StatusInternalServerError, *line.Error)
		case line.Diff != nil:
			diff = *line.Diff
			return true, nil
		case each != nil:
			each(line.Done, line.Total, line.Unit)
		}
		return false, nil
	})
	return diff, err
}
