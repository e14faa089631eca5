package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"aptfleet/internal/protocol"
)

// CreateBackup starts a backup and returns the change that makes it; see Wait.
func (c *Client) CreateBackup(ctx context.Context, in protocol.NewBackup) (protocol.Change, error) {
	return post[protocol.Change](ctx, c, "/api/v1/backups", in)
}

// Check compares every published file with what the database says. Each, if
// not nil, is told now and then how many files and bytes were read.
func (c *Client) Check(ctx context.Context, each func(files, bytes int64)) (protocol.Check, error) {
	return c.check(ctx, nil, each)
}

// Repair is Check that mends what can be derived. It is a change of the server
// and goes on when ctx ends.
func (c *Client) Repair(ctx context.Context, each func(files, bytes int64)) (protocol.Check, error) {
	return c.check(ctx, url.Values{"repair": {"1"}}, each)
}

func (c *Client) check(ctx context.Context, query url.Values, each func(files, bytes int64)) (report protocol.Check, err error) {
	r := request{method: http.MethodPost, path: "/api/v1/check", query: query}
	err = readLines(ctx, c, r, func(line protocol.CheckLine) (last bool, err error) {
		switch {
		case line.Error != nil:
			return true, errorOf(http.StatusInternalServerError, *line.Error)
		case line.Report != nil:
			report = *line.Report
			return true, nil
		case each != nil:
			each(line.Files, line.Bytes)
		}
		return false, nil
	})
	return report, err
}

// RestoreFile puts a package file back that the server's pool has lost. The
// answer says Already if it was there.
func (c *Client) RestoreFile(ctx context.Context, f File) (protocol.Upload, error) {
	var out protocol.Upload
	_, err := c.call(ctx, request{
		method: http.MethodPost, path: "/api/v1/files", query: url.Values{"name": {f.Name}}, body: f.Body, size: f.Size,
	}, &out)
	return out, err
}

// Changes lists changes, newest first.
func (c *Client) Changes(ctx context.Context) ([]protocol.Change, error) {
	return get[[]protocol.Change](ctx, c, "/api/v1/changes", nil)
}

func changePath(id int64, parts ...string) string {
	return segments(append([]string{"api", "v1", "changes", strconv.FormatInt(id, 10)}, parts...)...)
}

// Change returns one change with its log.
func (c *Client) Change(ctx context.Context, id int64) (protocol.Change, error) {
	return get[protocol.Change](ctx, c, changePath(id), nil)
}

// AbortChange asks a change to stop and returns it; it may still be "doing".
func (c *Client) AbortChange(ctx context.Context, id int64) (protocol.Change, error) {
	return post[protocol.Change](ctx, c, changePath(id, "abort"), nil)
}
