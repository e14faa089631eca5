package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"time"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
)

// event is one line of the answer to a request that is waited for.
type event struct {
	Status  *update.Status `json:"status,omitempty"`
	Done    bool           `json:"done,omitempty"`
	Changes []apt.Change   `json:"changes,omitempty"`
	Error   string         `json:"error,omitempty"`
	Refuse  bool           `json:"refused,omitempty"`
	Hint    string         `json:"hint,omitempty"`
}

// Serve answers on the socket at path, which only root may use, until ctx ends.
func (d *Daemon) Serve(ctx context.Context, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot listen: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(fmt.Errorf("cannot listen: %w", err), listener.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/act", d.act)
	mux.HandleFunc("POST /v1/cancel", d.cancel)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() {
		// Those who wait get the end of their act for a moment, then the
		// socket goes.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(last) != nil {
			server.Close()
		}
	})
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve: %w", err)
	}
	return nil
}

// cancel stops what is under way and gives up what is staged. It may be staged
// although it was stopped, or be no update that was stopped but a check.
func (d *Daemon) cancel(w http.ResponseWriter, r *http.Request) {
	next := job{Request{Act: Cancel}, make(chan outcome, 1)}
	select {
	case d.queue <- next:
	default:
		http.Error(w, "too many requests wait", http.StatusServiceUnavailable)
		return
	}
	for stopped := false; ; {
		// What is under way, and what waits before this request, would be done
		// first.
		stopped = d.machine.Cancel() || stopped
		select {
		case <-r.Context().Done():
			return
		case <-time.After(cancelPause):
			continue
		case o := <-next.done:
			switch {
			case errors.Is(o.err, update.ErrNothingUnderWay):
				if !stopped {
					w.WriteHeader(http.StatusNotFound)
				}
			case o.err != nil:
				http.Error(w, o.err.Error(), http.StatusConflict)
			}
			return
		}
	}
}

// cancelPause is how long an act has to end before it is stopped once more.
const cancelPause = 100 * time.Millisecond

// maxRequest bounds a request in bytes: it may name many files.
const maxRequest = 256 << 10

// act queues a request; with ?wait=1 it answers with events until it is done.
func (d *Daemon) act(w http.ResponseWriter, r *http.Request) {
	var request Request
	if err := json.NewDecoder(io.LimitReader(r.Body, maxRequest)).Decode(&request); err != nil {
		http.Error(w, "cannot read request: "+err.Error(), http.StatusBadRequest)
		return
	}
	next := job{request, make(chan outcome, 1)}
	select {
	case d.queue <- next:
	default:
		http.Error(w, "too many requests wait", http.StatusServiceUnavailable)
		return
	}
	if r.URL.Query().Get("wait") == "" {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	out := json.NewEncoder(w)
	flush := http.NewResponseController(w)
	send := func(e event) bool { return out.Encode(e) == nil && flush.Flush() == nil }
	for {
		changed := d.change()
		status := d.machine.Status()
		if !send(event{Status: &status}) {
			return
		}
		select {
		case o := <-next.done:
			send(lastEvent(o))
			return
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

func lastEvent(o outcome) event {
	e := event{Done: true, Changes: o.changes}
	if o.err == nil {
		return e
	}
	e.Error = o.err.Error()
	var refused *update.Refused
	if errors.As(o.err, &refused) {
		e.Refuse, e.Hint = true, refused.Hint
	}
	return e
}

// ErrNoDaemon means that nobody listens on the socket.
var ErrNoDaemon = errors.New("the daemon is not running")

// Client talks to a daemon.
type Client struct{ path string }

// NewClient uses the socket at path.
func NewClient(path string) Client { return Client{path} }

// Ask sends a request. With follow it returns what Do returns when the act is
// done, and follow is told every status until then; with follow nil it returns
// as soon as the daemon took it.
func (c Client) Ask(ctx context.Context, r Request, follow func(update.Status)) ([]apt.Change, error) {
	url := "http://updater/v1/act"
	if follow != nil {
		url += "?wait=1"
	}
	answer, err := c.post(ctx, url, r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode/100 != 2 {
		said, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
		return nil, errors.Join(fmt.Errorf("cannot ask the daemon: it answers %s: %s", answer.Status, said), err)
	}
	if follow == nil {
		return nil, nil
	}
	in := json.NewDecoder(answer.Body)
	phase := ""
	for {
		var e event
		err := in.Decode(&e)
		if err != nil && phase == string(journal.Reboot) {
			return nil, nil // the reboot took the daemon first
		}
		if err != nil {
			return nil, fmt.Errorf("cannot follow the daemon: it went away: %w", err)
		}
		switch {
		case e.Status != nil:
			phase = e.Status.Phase
			follow(*e.Status)
		case e.Refuse:
			return nil, &update.Refused{Reason: e.Error, Hint: e.Hint}
		case e.Error != "":
			return nil, errors.New(e.Error)
		case e.Done:
			return e.Changes, nil
		}
	}
}

// Cancel stops what the daemon is doing and gives up what is staged, and reports
// whether there was either. It returns when that is done.
func (c Client) Cancel(ctx context.Context) (bool, error) {
	answer, err := c.post(ctx, "http://updater/v1/cancel", struct{}{})
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK, http.StatusNotFound:
		return answer.StatusCode == http.StatusOK, nil
	}
	said, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	return false, errors.Join(fmt.Errorf("cannot cancel: %s", bytes.TrimSpace(said)), err)
}

func (c Client) post(ctx context.Context, url string, body any) (*http.Response, error) {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(json.NewEncoder(writer).Encode(body)) }()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, reader)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := dialer.DialContext(ctx, "unix", c.path)
			if err != nil {
				return nil, errors.Join(ErrNoDaemon, err)
			}
			return conn, nil
		},
		DisableKeepAlives: true,
	}}
	answer, err := client.Do(request)
	if errors.Is(err, ErrNoDaemon) {
		return nil, ErrNoDaemon
	}
	if err != nil {
		return nil, fmt.Errorf("cannot ask the daemon: %w", err)
	}
	return answer, nil
}
