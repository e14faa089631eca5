package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"aptfleet/repo-manager/internal/access"
)

// eventBuffer is how many events a slow reader may lag behind; then its
// stream ends and it connects again.
const eventBuffer = 256

// events streams what moves as server-sent events (WHATWG HTML, section 9.2).
// An event says where to look, not what is there; so a client that comes
// back with Last-Event-ID reads the state anew and needs no replay, and the
// header is accepted without effect. Comments keep idle connections alive.
func events(s *server, c *gin.Context, who access.Identity) (int, any, error) {
	stream, cancel := s.Releases.Subscribe(eventBuffer)
	defer cancel()
	w := c.Writer
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	flusher := http.NewResponseController(w)
	// A write deadline of the listener is for answers, not for streams; one
	// that cannot be lifted only makes the client connect again.
	_ = flusher.SetWriteDeadline(time.Time{})
	if _, err := fmt.Fprint(w, ": events of aptfleet\n\n"); err != nil {
		return 0, nil, nil
	}
	heartbeat := time.NewTicker(s.heartbeat)
	defer heartbeat.Stop()
	for {
		if err := flusher.Flush(); err != nil {
			return 0, nil, nil // the client is gone
		}
		var err error
		select {
		case <-c.Request.Context().Done():
			return 0, nil, nil
		case <-heartbeat.C:
			// Whoever was signed out, or lost a role, does not listen on.
			if who, err = s.authenticate(c); err != nil {
				return 0, nil, nil
			}
			_, err = fmt.Fprint(w, ": still here\n\n")
		case e, open := <-stream:
			if !open {
				return 0, nil, nil
			}
			if !sees(who, e.Pipeline) {
				continue
			}
			var data []byte
			if data, err = json.Marshal(toEvent(e)); err == nil {
				_, err = fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Kind, data)
			}
		}
		if err != nil {
			return 0, nil, nil
		}
	}
}
