package api

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
)

// requestIDHeader names a request in answers and in the log.
const requestIDHeader = "X-Request-Id"

// The keys under which handlers leave something for the access log.
const (
	keyUser  = "aptfleet.user"
	keyError = "aptfleet.error"
	keyQuiet = "aptfleet.quiet" // no line, unless the log is to have everything
)

// logged gives every request an id and one line in the log, and every answer
// the headers that all have. A panic becomes a 500 with its stack in the log.
func (s *server) logged(c *gin.Context) {
	id := c.GetHeader(requestIDHeader)
	if !goodRequestID(id) {
		id = rand.Text()[:16]
	}
	c.Header(requestIDHeader, id)
	c.Header("X-Content-Type-Options", "nosniff")
	c.Header("Cache-Control", "no-store") // answers hold secrets, and change
	start := time.Now()
	defer func() {
		level := slog.LevelInfo
		if c.GetBool(keyQuiet) {
			if level = slog.LevelDebug; !s.Log.Enabled(c.Request.Context(), level) {
				return
			}
		}
		attrs := []slog.Attr{
			slog.String("id", id),
			slog.String("method", c.Request.Method),
			slog.String("path", c.Request.URL.Path),
		}
		if cause := recover(); cause != nil {
			if cause == http.ErrAbortHandler {
				panic(cause)
			}
			level = slog.LevelError
			attrs = append(attrs, slog.String("panic", fmt.Sprint(cause)), slog.String("stack", string(debug.Stack())))
			if !c.Writer.Written() {
				writeError(c.Writer, c.Request, http.StatusInternalServerError, protocol.Error{
					Code: "internal", Text: "cannot finish the request: an internal error",
					Hint: "the server's log tells more about request " + id,
				})
			}
		}
		attrs = append(attrs,
			slog.Int("status", c.Writer.Status()),
			slog.Int("bytes", max(c.Writer.Size(), 0)),
			slog.Duration("took", time.Since(start)))
		if user := c.GetString(keyUser); user != "" {
			attrs = append(attrs, slog.String("user", user))
		}
		if err, ok := c.Get(keyError); ok {
			attrs = append(attrs, slog.Any("error", err))
			if c.Writer.Status() >= http.StatusInternalServerError {
				level = slog.LevelError
			}
		}
		s.Log.LogAttrs(c.Request.Context(), level, "request", attrs...)
	}()
	c.Next()
}

// goodRequestID reports whether an id that a client chose may be used: short
// and without anything that needs quoting.
func goodRequestID(id string) bool {
	if len(id) < 1 || len(id) > 64 {
		return false
	}
	for _, r := range id {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
		default:
			return false
		}
	}
	return true
}
