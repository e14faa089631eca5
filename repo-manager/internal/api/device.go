package api

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// maxReport bounds a device's report in bytes.
const maxReport = 256 << 10

// deviceReport takes what a device says about itself. The device is known by
// its token alone.
func deviceReport(s *server, c *gin.Context, _ access.Identity) (int, any, error) {
	secret, ok := tokenOf(c.Request)
	if !ok {
		return 0, nil, &release.Error{
			Code: release.NoAccess,
			Text: "cannot take the report: it carries no device token",
			Hint: "put the token that repo-manager device create printed into the device's configuration",
		}
	}
	var report protocol.Report
	err := json.NewDecoder(http.MaxBytesReader(c.Writer, c.Request.Body, maxReport)).Decode(&report)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return 0, nil, err
	case err != nil:
		return 0, nil, invalid("", "cannot read the report: %v", err)
	}
	return http.StatusNoContent, nil, s.Fleet.Report(c.Request.Context(), secret, report)
}
