package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/backup"
)

// createBackup starts a backup. Whoever came through the Unix socket may name
// any directory, with a token too.
func createBackup(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	var in protocol.NewBackup
	if err := readJSON(c, &in); err != nil {
		return 0, nil, err
	}
	_, local := access.FromContext(c.Request.Context())
	change, err := s.Backups.Start(c.Request.Context(), who.Actor(), backup.Order{Dir: in.Dir, WithoutKeys: in.WithoutKeys, Local: local})
	return http.StatusAccepted, toChange(change), err
}
