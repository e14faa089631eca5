package client

import (
	"context"
	"net/http"
	"net/url"

	"aptfleet/internal/protocol"
)

// SetPipeline changes the given settings of a pipeline.
func (c *Client) SetPipeline(ctx context.Context, name string, in protocol.SetPipeline) (protocol.Pipeline, error) {
	var out protocol.Pipeline
	_, err := c.call(ctx, request{method: http.MethodPatch, path: pipelinePath(name), json: in}, &out)
	return out, err
}

// PinSnapshot keeps a snapshot from being deleted.
func (c *Client) PinSnapshot(ctx context.Context, pipeline, ref, reason string) (protocol.Snapshot, error) {
	return post[protocol.Snapshot](ctx, c, pipelinePath(pipeline, "snapshots", ref, "pin"), protocol.NewPin{Reason: reason})
}

// UnpinSnapshot takes the pin off.
func (c *Client) UnpinSnapshot(ctx context.Context, pipeline, ref, reason string) (protocol.Snapshot, error) {
	var out protocol.Snapshot
	_, err := c.call(ctx, request{method: http.MethodDelete, path: pipelinePath(pipeline, "snapshots", ref, "pin"), query: because(reason)}, &out)
	return out, err
}

// DeleteSnapshot deletes a snapshot, or with dryRun only tells whether it
// could be. It returns the snapshot as it was.
func (c *Client) DeleteSnapshot(ctx context.Context, pipeline, ref, reason string, dryRun bool) (protocol.Snapshot, error) {
	query := because(reason)
	if dryRun {
		query.Set("dry-run", "1")
	}
	var out protocol.Snapshot
	_, err := c.call(ctx, request{method: http.MethodDelete, path: pipelinePath(pipeline, "snapshots", ref), query: query}, &out)
	return out, err
}

// because is a query that gives a reason, if there is one.
func because(reason string) url.Values {
	query := url.Values{}
	if reason != "" {
		query.Set("reason", reason)
	}
	return query
}

// StartGC starts a gc and returns the change that does it; see Wait. The
// result of the change is a protocol.GC.
func (c *Client) StartGC(ctx context.Context, in protocol.StartGC) (protocol.Change, error) {
	return post[protocol.Change](ctx, c, "/api/v1/gc", in)
}
