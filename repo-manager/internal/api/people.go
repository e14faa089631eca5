package api

import (
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

func whoAmI(_ *server, _ *gin.Context, who access.Identity) (int, any, error) {
	return http.StatusOK, protocol.Identity{User: who.User, Roles: append([]string{}, who.Roles...), Via: who.Via}, nil
}

func listUsers(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	users, err := s.Access.Users(c.Request.Context())
	return http.StatusOK, list(users, toUser), err
}

func createUser(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.User
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	user, err := s.Access.CreateUser(c.Request.Context(), who.Actor(), in.Name, in.Roles)
	return http.StatusCreated, toUser(user), err
}

// getUser shows a user with what acts in its name.
func getUser(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	ctx := c.Request.Context()
	user, err := s.Access.User(ctx, c.Param("u"))
	if err != nil {
		return 0, nil, err
	}
	tokens, err := s.Access.Tokens(ctx)
	if err != nil {
		return 0, nil, err
	}
	tokens = slices.DeleteFunc(slices.Clone(tokens), func(t access.Token) bool { return t.User != user.Name })
	sessions, err := s.Access.SessionsOf(ctx, user.Name)
	return http.StatusOK, protocol.UserDetail{User: toUser(user), Tokens: list(tokens, toToken), Sessions: list(sessions, toSession)}, err
}

func setUser(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.SetUser
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	outcome, err := s.Access.SetUser(c.Request.Context(), who.Actor(), c.Param("u"), access.UserChange{Roles: in.Roles, Disabled: in.Disabled})
	return http.StatusOK, toUserChange(outcome), err
}

// deleteUser answers with what ended or, with dry-run=1, would end.
func deleteUser(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	dryRun, err := flag(c, "dry-run")
	if err != nil {
		return 0, nil, err
	}
	outcome, err := s.Access.DeleteUser(c.Request.Context(), who.Actor(), c.Param("u"), dryRun)
	return http.StatusOK, toUserChange(outcome), err
}

func listTokens(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	tokens, err := s.Access.Tokens(c.Request.Context())
	return http.StatusOK, list(tokens, toToken), err
}

func createToken(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.NewToken
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	token, err := s.Access.CreateToken(c.Request.Context(), who.Actor(), access.NewToken{User: in.User, Label: in.Label, Roles: in.Roles, Expires: in.Expires})
	return http.StatusCreated, toToken(token), err
}

func revokeToken(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	id, err := number("a token's id", c.Param("id"), 1)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.Access.RevokeToken(c.Request.Context(), who.Actor(), id)
}

func createLoginLink(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.LoginLink
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	secret, expires, err := s.Access.CreateLoginLink(c.Request.Context(), who.Actor(), in.User)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, protocol.LoginLink{User: in.User, URL: s.LoginURL(secret), Expires: expires.UTC()}, nil
}

func listSessions(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	sessions, err := s.Access.Sessions(c.Request.Context())
	return http.StatusOK, list(sessions, toSession), err
}

func endSession(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	id, err := number("a session's id", c.Param("id"), 1)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.Access.EndSessionByID(c.Request.Context(), who.Actor(), id)
}

// endSessions ends those of the user that the query names.
func endSessions(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	user := c.Query("user")
	if user == "" {
		return 0, nil, invalid("send user=NAME, or end one session by its id", "cannot end sessions: the query names no user")
	}
	n, err := s.Access.EndSessionsOf(c.Request.Context(), who.Actor(), user)
	return http.StatusOK, protocol.EndedSessions{Ended: n}, err
}

// How many acts an answer has: unasked, and at most.
const (
	fewActs  = 100
	manyActs = 10_000
)

// listActs shows the audit trail to admins: it tells of users and of every
// pipeline.
func listActs(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	filter := release.ActFilter{By: c.Query("user"), Pipeline: c.Query("pipeline"), Limit: fewActs}
	if text := c.Query("since"); text != "" {
		var err error
		if filter.Since, err = time.Parse(time.RFC3339, text); err != nil {
			return 0, nil, invalid("", "cannot use %q as since: want a time like 2026-11-20T12:00:00Z", text)
		}
	}
	if text := c.Query("limit"); text != "" {
		n, err := number("limit", text, 1)
		if err != nil {
			return 0, nil, err
		}
		if n > manyActs {
			return 0, nil, invalid("ask for what happened in a shorter time with since", "cannot list %d acts: %d at most", n, manyActs)
		}
		filter.Limit = int(n)
	}
	acts, err := s.Releases.FindActs(c.Request.Context(), filter)
	return http.StatusOK, list(acts, toAct), err
}

func toUser(u access.User) protocol.User {
	return protocol.User{Name: u.Name, Roles: append([]string{}, u.Roles...), Created: u.Created.UTC(), Disabled: u.Disabled.UTC()}
}

func toUserChange(o access.Outcome) protocol.UserChange {
	return protocol.UserChange{User: toUser(o.User), EndedTokens: o.Ended.Tokens, EndedSessions: o.Ended.Sessions, NoAdmin: o.NoAdmin}
}

func toToken(t access.Token) protocol.Token {
	return protocol.Token{
		ID: t.ID, User: t.User, Label: t.Label, Roles: append([]string{}, t.Roles...),
		Created: t.Created.UTC(), Expires: t.Expires.UTC(), Used: t.Used.UTC(), Secret: t.Secret,
	}
}

func toSession(s access.Session) protocol.Session {
	return protocol.Session{
		ID: s.ID, User: s.User, Created: s.Created.UTC(), Expires: s.Expires.UTC(), Seen: s.Seen.UTC(),
		Address: s.From.Address, Browser: s.From.Browser,
	}
}

func toAct(a release.Act) protocol.Act {
	return protocol.Act{At: a.At.UTC(), By: a.By, Via: a.Via, Verb: a.Verb, Pipeline: a.Pipeline, Object: a.Object, Detail: a.Detail}
}
