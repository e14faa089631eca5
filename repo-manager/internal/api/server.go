package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

func health(_ *server, c *gin.Context, _ access.Identity) (int, any, error) {
	c.String(http.StatusOK, "ok\n")
	return 0, nil, nil
}

func getSystem(s *server, _ *gin.Context, _ access.Identity) (int, any, error) {
	return http.StatusOK, s.System(), nil
}

func getKey(s *server, _ *gin.Context, _ access.Identity) (int, any, error) {
	return http.StatusOK, protocol.Key{
		Fingerprint: s.System().Fingerprint, Certificate: string(s.Certificate), Assignment: s.System().AssignmentKey,
	}, nil
}

func listChanges(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	changes, err := s.Releases.Changes(c.Request.Context())
	return http.StatusOK, list(changes, toChange), err
}

func getChange(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	change, err := s.change(c)
	return http.StatusOK, toChange(change), err
}

// change finds the change that a request is about.
func (s *server) change(c *gin.Context) (release.Change, error) {
	id, err := number("a change's id", c.Param("id"), 1)
	if err != nil {
		return release.Change{}, err
	}
	return s.Releases.Change(c.Request.Context(), id)
}

// abortChange asks a change to stop; the answer may still say "doing".
func abortChange(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	id, err := number("a change's id", c.Param("id"), 1)
	if err != nil {
		return 0, nil, err
	}
	change, err := s.Releases.AbortChange(c.Request.Context(), id)
	if err == nil {
		s.Log.Info("a change was asked to stop", "change", id, "user", who.User, "via", who.Via)
	}
	return http.StatusOK, toChange(change), err
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

func listTokens(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	tokens, err := s.Access.Tokens(c.Request.Context())
	return http.StatusOK, list(tokens, toToken), err
}

func createToken(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.NewToken
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	token, err := s.Access.CreateToken(c.Request.Context(), who.Actor(), in.User, in.Label, in.Roles)
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
