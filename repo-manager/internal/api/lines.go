package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
)

// lineStream is the media type of one JSON value a line.
const lineStream = "application/x-ndjson"

// wantsLines tells whether a client would read how far an answer is.
func wantsLines(c *gin.Context) bool { return strings.Contains(c.GetHeader("Accept"), lineStream) }

// lines is an answer of JSON values, one a line: progress, not too often, and
// the result. Its methods may be called by several goroutines; those of nil do
// nothing.
type lines struct {
	encode func(any) error
	flush  func() error
	gone   func() // called when nobody reads any more
	every  time.Duration

	mu   sync.Mutex
	last time.Time
}

// lines begins an answer. The context ends when its client leaves, or with
// cancel, which must be called.
func (s *server) lines(c *gin.Context) (l *lines, ctx context.Context, cancel func()) {
	ctx, cancel = context.WithCancel(c.Request.Context())
	c.Writer.Header().Set("Content-Type", lineStream)
	c.Writer.WriteHeader(http.StatusOK)
	return &lines{
		encode: json.NewEncoder(c.Writer).Encode, flush: http.NewResponseController(c.Writer).Flush, gone: cancel, every: s.progress,
	}, ctx, cancel
}

// progress writes a line, unless the last one was written a moment ago.
func (l *lines) progress(line any) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.last) >= l.every {
		l.last = time.Now()
		l.write(line)
	}
}

// end writes the line that ends the answer.
func (l *lines) end(line any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.write(line)
}

// write writes a line; l.mu is held.
func (l *lines) write(line any) {
	err := l.encode(line)
	if err == nil {
		err = l.flush()
	}
	if err != nil {
		l.gone()
	}
}
