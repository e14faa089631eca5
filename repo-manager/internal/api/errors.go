package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// statusClientGone is what the access log shows for a request whose client
// left before the answer; nobody receives it.
const statusClientGone = 499

// statusOf is the HTTP status of an error code.
func statusOf(code release.Code) int {
	switch code {
	case release.Invalid:
		return http.StatusBadRequest
	case release.NotFound:
		return http.StatusNotFound
	case release.Conflict:
		return http.StatusConflict
	case release.Refused:
		return http.StatusUnprocessableEntity
	case release.TooLarge:
		return http.StatusRequestEntityTooLarge
	case release.Upstream:
		return http.StatusBadGateway
	case release.NoSpace:
		return http.StatusInsufficientStorage
	case release.Locked:
		return http.StatusLocked
	case release.NoAccess:
		return http.StatusUnauthorized
	case release.Forbidden:
		return http.StatusForbidden
	case release.Unpublished:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// fail answers a request with an error and notes it for the log.
func (s *server) fail(c *gin.Context, err error) {
	c.Set(keyError, err)
	status, body := told(c, err)
	writeError(c.Writer, c.Request, status, body)
}

// told is what a client is told of an error. The text of an error that is not
// of package release stays in the log: it may hold paths or SQL.
func told(c *gin.Context, err error) (status int, body protocol.Error) {
	var known *release.Error
	var tooLarge *http.MaxBytesError
	var refused *fleet.Refused
	switch {
	case errors.As(err, &refused):
		return statusOfRefusal(refused.Code), protocol.Error{Code: refused.Code, Text: refused.Text, Session: refused.Session}
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, protocol.Error{
			Code: string(release.TooLarge),
			Text: fmt.Sprintf("cannot take the request: its body is larger than %s", term.HumanBytes(tooLarge.Limit)),
		}
	case errors.As(err, &known):
		return statusOf(known.Code), protocol.Error{Code: string(known.Code), Text: known.Text, Hint: known.Hint}
	case c.Request.Context().Err() != nil || errors.Is(err, context.Canceled):
		return statusClientGone, protocol.Error{Code: "interrupted", Text: "the request was interrupted"}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return http.StatusInsufficientStorage, protocol.Error{
			Code: string(release.NoSpace),
			Text: "cannot finish the request: no space left on the disk of the data directory",
			Hint: "free space there or make it larger, then try again",
		}
	}
	return http.StatusInternalServerError, protocol.Error{
		Code: "internal",
		Text: "cannot finish the request: an internal error",
		Hint: "the server's log tells more about request " + c.Writer.Header().Get(requestIDHeader),
	}
}

// writeError sends an error in the form that the request accepts: JSON, or
// text and hint on a line each.
func writeError(w http.ResponseWriter, r *http.Request, status int, body protocol.Error) {
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="aptfleet"`)
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") || strings.HasPrefix(r.URL.Path, devicePrefix) {
		if raw, err := json.Marshal(protocol.ErrorBody{Error: body}); err == nil {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.WriteHeader(status)
			writeAll(w, append(raw, '\n'))
			return
		}
	}
	text := printable(body.Text) + "\n"
	if body.Hint != "" {
		text += printable(body.Hint) + "\n"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	writeAll(w, []byte(text))
}

// writeAll sends bytes. An error means that the client is gone, and there is
// nobody left to tell.
func writeAll(w io.Writer, b []byte) {
	_, _ = w.Write(b)
}

// printable escapes control characters in text that came from a request.
func printable(s string) string { return term.Printable(s) }

// invalid is an error about the input.
func invalid(hint, format string, args ...any) error {
	return &release.Error{Code: release.Invalid, Text: fmt.Sprintf(format, args...), Hint: hint}
}
