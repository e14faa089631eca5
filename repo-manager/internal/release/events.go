package release

import (
	"sync"
	"time"
)

// hub hands events to whoever watches. A watcher that does not keep up loses
// events, never the server's time: it reads the rest itself anyway.
type hub struct {
	mu       sync.Mutex
	seq      int64
	ended    bool
	watchers map[chan Event]struct{}
}

// Subscribe returns a channel of events that holds up to buffer of them until
// they are read; what comes while it is full is lost to this watcher. cancel
// closes the channel and may be called more than once.
func (e *Engine) Subscribe(buffer int) (events <-chan Event, cancel func()) {
	return e.hub.subscribe(buffer)
}

// Announce tells watchers of something that moved outside of the engine, such
// as a device.
func (e *Engine) Announce(kind, pipeline, subject string) {
	e.hub.send(kind, pipeline, subject, e.now())
}

func (h *hub) subscribe(buffer int) (<-chan Event, func()) {
	ch := make(chan Event, max(buffer, 1))
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ended {
		close(ch)
		return ch, func() {}
	}
	if h.watchers == nil {
		h.watchers = make(map[chan Event]struct{})
	}
	h.watchers[ch] = struct{}{}
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if _, ok := h.watchers[ch]; ok {
			delete(h.watchers, ch)
			close(ch)
		}
	}
}

func (h *hub) send(kind, pipeline, subject string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seq++
	event := Event{Seq: h.seq, Kind: kind, Pipeline: pipeline, Subject: subject, At: at}
	for ch := range h.watchers {
		select {
		case ch <- event:
		default:
		}
	}
}

// EndEvents closes every channel of Subscribe, now and from now on, so that
// those who watch for ever end before the server does.
func (e *Engine) EndEvents() { e.hub.end() }

func (h *hub) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	for ch := range h.watchers {
		close(ch)
	}
	clear(h.watchers)
}
