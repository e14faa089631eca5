package ui

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// Between events, a comment keeps proxies from closing the stream.
const heartbeat = 20 * time.Second

// events streams, as server-sent events, that something of a pipeline moved.
// The browser then fetches the page again: the stream carries no content, so
// there is one way only in which a page is made. A slow reader loses events
// and nothing else, for the next one brings it up to date. The stream ends with
// the request or when the engine closes its side.
func (s *server) events(w http.ResponseWriter, r *http.Request, v visitor) error {
	if _, err := s.Release.Pipeline(r.Context(), r.PathValue("p")); err != nil {
		return err
	}
	events, cancel := s.Release.Subscribe(16)
	defer cancel()
	out := http.NewResponseController(w)
	if err := out.SetWriteDeadline(time.Time{}); err != nil {
		s.Log.Debug("cannot lift the write deadline of a stream", "error", err)
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	message := "retry: 2000\n\n"
	for {
		if _, err := fmt.Fprint(w, message); err != nil {
			return nil // the browser went away
		}
		if err := out.Flush(); err != nil {
			return nil
		}
		message = ""
		for message == "" {
			select {
			case <-r.Context().Done():
				return nil
			case <-beat.C:
				// Whoever was signed out, or lost a role, does not listen on.
				again, err := s.visitor(r)
				if err != nil || maySee(again, r.PathValue("p")) != nil {
					return nil
				}
				message = ": still here\n\n"
			case e, open := <-events:
				if !open {
					return nil
				}
				if e.Pipeline != "" && e.Pipeline != r.PathValue("p") || !mayHear(v, r.PathValue("p"), e) {
					continue
				}
				data, err := json.Marshal(map[string]string{"kind": e.Kind, "subject": e.Subject})
				if err != nil {
					return nil // strings always marshal
				}
				message = fmt.Sprintf("id: %d\nevent: moved\ndata: %s\n\n", e.Seq, data)
			}
		}
	}
}

// mayHear reports whether v, who looks at a pipeline, may know of an event.
// Machines that wait are of no pipeline yet.
func mayHear(v visitor, pipeline string, e release.Event) bool {
	return sees(v, e.Pipeline) || e.Kind == "enrolment" && mayPrepare(v, pipeline)
}
