package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"aptfleet/internal/protocol"
)

// WhoAmI tells who the client's requests come from, and what they may.
func (c *Client) WhoAmI(ctx context.Context) (protocol.Identity, error) {
	return get[protocol.Identity](ctx, c, "/api/v1/me", nil)
}

// Users lists the users by name.
func (c *Client) Users(ctx context.Context) ([]protocol.User, error) {
	return get[[]protocol.User](ctx, c, "/api/v1/users", nil)
}

// User returns one user with its tokens and sessions.
func (c *Client) User(ctx context.Context, name string) (protocol.UserDetail, error) {
	return get[protocol.UserDetail](ctx, c, userPath(name), nil)
}

// CreateUser makes a user.
func (c *Client) CreateUser(ctx context.Context, name string, roles []string) (protocol.User, error) {
	return post[protocol.User](ctx, c, "/api/v1/users", protocol.User{Name: name, Roles: roles})
}

// SetUser changes the given things of a user, at once for its tokens and
// sessions too.
func (c *Client) SetUser(ctx context.Context, name string, in protocol.SetUser) (protocol.UserChange, error) {
	var out protocol.UserChange
	_, err := c.call(ctx, request{method: http.MethodPatch, path: userPath(name), json: in}, &out)
	return out, err
}

// DeleteUser removes a user with its tokens and sessions, or with dryRun only
// tells how many those are.
func (c *Client) DeleteUser(ctx context.Context, name string, dryRun bool) (protocol.UserChange, error) {
	query := url.Values{}
	if dryRun {
		query.Set("dry-run", "1")
	}
	var out protocol.UserChange
	_, err := c.call(ctx, request{method: http.MethodDelete, path: userPath(name), query: query}, &out)
	return out, err
}

func userPath(name string) string { return segments("api", "v1", "users", name) }

// Tokens lists the tokens of all users, without their secrets.
func (c *Client) Tokens(ctx context.Context) ([]protocol.Token, error) {
	return get[[]protocol.Token](ctx, c, "/api/v1/tokens", nil)
}

// CreateToken makes a token. Its secret is in this answer only.
func (c *Client) CreateToken(ctx context.Context, in protocol.NewToken) (protocol.Token, error) {
	return post[protocol.Token](ctx, c, "/api/v1/tokens", in)
}

// RevokeToken ends a token at once.
func (c *Client) RevokeToken(ctx context.Context, id int64) error {
	_, err := c.call(ctx, request{
		method: http.MethodDelete, path: segments("api", "v1", "tokens", strconv.FormatInt(id, 10)),
	}, nil)
	return err
}

// CreateLoginLink makes a URL that logs a user's browser in once.
func (c *Client) CreateLoginLink(ctx context.Context, user string) (protocol.LoginLink, error) {
	return post[protocol.LoginLink](ctx, c, "/api/v1/login-links", protocol.LoginLink{User: user})
}

// Sessions lists the sessions of all users' browsers.
func (c *Client) Sessions(ctx context.Context) ([]protocol.Session, error) {
	return get[[]protocol.Session](ctx, c, "/api/v1/sessions", nil)
}

// EndSession ends one session at once.
func (c *Client) EndSession(ctx context.Context, id int64) error {
	_, err := c.call(ctx, request{
		method: http.MethodDelete, path: segments("api", "v1", "sessions", strconv.FormatInt(id, 10)),
	}, nil)
	return err
}

// EndSessions ends all sessions of a user at once and tells how many there
// were.
func (c *Client) EndSessions(ctx context.Context, user string) (int, error) {
	var out protocol.EndedSessions
	_, err := c.call(ctx, request{method: http.MethodDelete, path: "/api/v1/sessions", query: url.Values{"user": {user}}}, &out)
	return out.Ended, err
}

// ActFilter takes acts of the audit trail; what is zero does not restrict.
type ActFilter struct {
	User     string
	Pipeline string
	Since    time.Time
	Limit    int // 0: as many as the server gives unasked
}

// Acts lists those of the audit trail that a filter takes, newest first.
func (c *Client) Acts(ctx context.Context, f ActFilter) ([]protocol.Act, error) {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	set("user", f.User)
	set("pipeline", f.Pipeline)
	if !f.Since.IsZero() {
		set("since", f.Since.UTC().Format(time.RFC3339Nano))
	}
	if f.Limit != 0 {
		set("limit", strconv.Itoa(f.Limit))
	}
	return get[[]protocol.Act](ctx, c, "/api/v1/acts", query)
}
