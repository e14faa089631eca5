package api

import (
	"fmt"
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
		Fingerprint: s.System().Fingerprint, Certificate: string(s.Certificate), CAFingerprint: s.CAFingerprint, CA: s.CA,
		Assignment: s.System().AssignmentKey,
	}, nil
}

func listChanges(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	changes, err := s.Releases.Changes(c.Request.Context())
	changes = seen(who, changes, func(c release.Change) string { return c.Pipeline })
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
		err = s.Releases.Record(c.Request.Context(), who.Actor(), "abort", fmt.Sprintf("change %d", id), change.Summary)
	}
	return http.StatusOK, toChange(change), err
}
