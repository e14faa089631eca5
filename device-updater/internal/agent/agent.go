// Package agent tells the server how the device is. Nothing waits for it: a
// report that cannot be delivered is replaced by the next one.
package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"aptfleet/internal/protocol"
)

// Agent delivers reports one after the other, always the newest.
type Agent struct {
	url   string
	token string
	http  *http.Client

	mu      sync.Mutex
	newest  *protocol.Report
	wake    chan struct{}
	lastErr error
}

// limit is how long one delivery may take.
const limit = 10 * time.Second

// New returns an agent that posts to archive + "/device/v1/report" with the
// device's token.
func New(archive, token string, client *http.Client) *Agent {
	return &Agent{url: archive + "/device/v1/report", token: token, http: client, wake: make(chan struct{}, 1)}
}

// Report takes a report for delivery and returns at once.
func (a *Agent) Report(r protocol.Report) {
	a.mu.Lock()
	a.newest = &r
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends; then it tries once more for what is left.
func (a *Agent) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			a.Flush(last)
			cancel()
			return
		case <-a.wake:
			a.Flush(ctx)
		}
	}
}

// Flush delivers the newest report if it was not delivered, and waits for that.
func (a *Agent) Flush(ctx context.Context) {
	a.mu.Lock()
	report := a.newest
	a.newest = nil
	a.mu.Unlock()
	if report == nil {
		return
	}
	err := a.post(ctx, *report)
	a.mu.Lock()
	a.lastErr = err
	if err != nil && a.newest == nil {
		a.newest = report // tried again with the next one, or at the end
	}
	a.mu.Unlock()
}

// Err returns why the last delivery failed; nil if it did not.
func (a *Agent) Err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lastErr
}

func (a *Agent) post(ctx context.Context, report protocol.Report) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	body, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("cannot report to the server: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("cannot report to the server: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+a.token)
	answer, err := a.http.Do(request)
	if err != nil {
		return fmt.Errorf("cannot report to the server: %w", err)
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(io.LimitReader(answer.Body, 512))
	if err != nil {
		return fmt.Errorf("cannot report to the server: %w", err)
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("cannot report to the server: it answers %s: %s", answer.Status, bytes.TrimSpace(said))
	}
	return nil
}
