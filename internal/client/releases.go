package client

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"aptfleet/internal/protocol"
)

// System describes the server.
func (c *Client) System(ctx context.Context) (protocol.System, error) {
	return get[protocol.System](ctx, c, "/api/v1/system", nil)
}

// Key returns the public half of the archive key.
func (c *Client) Key(ctx context.Context) (protocol.Key, error) {
	return get[protocol.Key](ctx, c, "/api/v1/key", nil)
}

// Pipelines lists all pipelines, sorted by name.
func (c *Client) Pipelines(ctx context.Context) ([]protocol.Pipeline, error) {
	return get[[]protocol.Pipeline](ctx, c, "/api/v1/pipelines", nil)
}

// Pipeline returns one pipeline with its components.
func (c *Client) Pipeline(ctx context.Context, name string) (protocol.Pipeline, error) {
	return get[protocol.Pipeline](ctx, c, pipelinePath(name), nil)
}

// CreatePipeline makes a pipeline; without stages it gets the server's
// default ones.
func (c *Client) CreatePipeline(ctx context.Context, p protocol.Pipeline) (protocol.Pipeline, error) {
	return post[protocol.Pipeline](ctx, c, "/api/v1/pipelines", p)
}

// CreateRepository adds a rolling repository that keeps as many versions of
// each package as keep says; 0 means the server's default.
func (c *Client) CreateRepository(ctx context.Context, pipeline, name string, keep int) (protocol.Component, error) {
	in := protocol.Component{Name: name, Kind: "repository", Keep: keep}
	return post[protocol.Component](ctx, c, pipelinePath(pipeline, "repositories"), in)
}

// File is one .deb on its way to a repository.
type File struct {
	Name       string // for messages only
	Body       io.Reader
	Size       int64 // bytes; -1 when unknown
	AllowOlder bool  // a version lower than the newest one is taken too
}

// Upload streams a package into a rolling repository. When it returns
// without an error the package is durable and published.
func (c *Client) Upload(ctx context.Context, pipeline, repository string, f File) (protocol.Upload, error) {
	query := url.Values{"name": {f.Name}}
	if f.AllowOlder {
		query.Set("allow-older", "1")
	}
	var out protocol.Upload
	_, err := c.call(ctx, request{
		method: http.MethodPost,
		path:   pipelinePath(pipeline, "repositories", repository, "packages"),
		query:  query, body: f.Body, size: f.Size,
	}, &out)
	return out, err
}

// Remove takes a package out of a rolling repository: one version of it, or
// all with version "". It returns what left.
func (c *Client) Remove(ctx context.Context, pipeline, repository, name, version string) ([]protocol.Package, error) {
	query := url.Values{}
	if version != "" {
		query.Set("version", version)
	}
	var out []protocol.Package
	_, err := c.call(ctx, request{
		method: http.MethodDelete,
		path:   pipelinePath(pipeline, "repositories", repository, "packages", name),
		query:  query,
	}, &out)
	return out, err
}

// PackageQuery narrows Packages. The zero value asks for all packages of the
// newest state.
type PackageQuery struct {
	Ref       string // snapshot id or unique prefix, stage name, state id
	Component string
	Name      string
	Query     string // in aptly's query language
	Limit     int
}

// Packages lists the packages of a state by component, name and version.
func (c *Client) Packages(ctx context.Context, pipeline string, q PackageQuery) ([]protocol.Package, error) {
	query := url.Values{}
	for key, value := range map[string]string{"ref": q.Ref, "component": q.Component, "name": q.Name, "query": q.Query} {
		if value != "" {
			query.Set(key, value)
		}
	}
	if q.Limit > 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	return get[[]protocol.Package](ctx, c, pipelinePath(pipeline, "packages"), query)
}

// Snapshots lists the snapshots of a pipeline, newest first.
func (c *Client) Snapshots(ctx context.Context, pipeline string) ([]protocol.Snapshot, error) {
	return get[[]protocol.Snapshot](ctx, c, pipelinePath(pipeline, "snapshots"), nil)
}

// CreateSnapshot names a state.
func (c *Client) CreateSnapshot(ctx context.Context, pipeline string, in protocol.NewSnapshot) (protocol.Snapshot, error) {
	return post[protocol.Snapshot](ctx, c, pipelinePath(pipeline, "snapshots"), in)
}

// Merge makes a snapshot of several states.
func (c *Client) Merge(ctx context.Context, pipeline string, in protocol.Merge) (protocol.Composed, error) {
	return post[protocol.Composed](ctx, c, pipelinePath(pipeline, "snapshots", "merge"), in)
}

// Pick makes a snapshot of a state with packages of another one.
func (c *Client) Pick(ctx context.Context, pipeline string, in protocol.Pick) (protocol.Composed, error) {
	return post[protocol.Composed](ctx, c, pipelinePath(pipeline, "snapshots", "pick"), in)
}

// Filter makes a snapshot of what a query takes.
func (c *Client) Filter(ctx context.Context, pipeline string, in protocol.Filter) (protocol.Composed, error) {
	return post[protocol.Composed](ctx, c, pipelinePath(pipeline, "snapshots", "filter"), in)
}

// Snapshot finds a snapshot by id, unique prefix, or the name of a stage
// that offers one.
func (c *Client) Snapshot(ctx context.Context, pipeline, ref string) (protocol.Snapshot, error) {
	return get[protocol.Snapshot](ctx, c, pipelinePath(pipeline, "snapshots", ref), nil)
}

// Diff says what one would get by moving from one state to another. Both are
// given like PackageQuery.Ref.
func (c *Client) Diff(ctx context.Context, pipeline, from, to string) (protocol.Diff, error) {
	return get[protocol.Diff](ctx, c, pipelinePath(pipeline, "diff"), url.Values{"from": {from}, "to": {to}})
}

// Stages lists the stages in order of promotion.
func (c *Client) Stages(ctx context.Context, pipeline string) ([]protocol.Stage, error) {
	return get[[]protocol.Stage](ctx, c, pipelinePath(pipeline, "stages"), nil)
}

// Stage returns one stage.
func (c *Client) Stage(ctx context.Context, pipeline, name string) (protocol.Stage, error) {
	return get[protocol.Stage](ctx, c, pipelinePath(pipeline, "stages", name), nil)
}

// History lists the moves of a stage, newest first.
func (c *Client) History(ctx context.Context, pipeline, stage string) ([]protocol.Move, error) {
	return get[[]protocol.Move](ctx, c, pipelinePath(pipeline, "stages", stage, "history"), nil)
}

// Promote moves a stage to a snapshot.
func (c *Client) Promote(ctx context.Context, pipeline, stage string, in protocol.Promote) (protocol.Move, error) {
	return post[protocol.Move](ctx, c, pipelinePath(pipeline, "stages", stage, "promote"), in)
}

// Undo moves a stage back to what it offered before.
func (c *Client) Undo(ctx context.Context, pipeline, stage string, in protocol.Promote) (protocol.Move, error) {
	return post[protocol.Move](ctx, c, pipelinePath(pipeline, "stages", stage, "undo"), in)
}
