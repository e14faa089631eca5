package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"aptfleet/internal/protocol"
)

const (
	maxEvent   = 1 << 20                // bytes of one line of an event stream
	maxMissed  = 200                    // looks at a change in a row without an answer
	watchEvery = 300 * time.Millisecond // between two looks at a change
)

// Events calls each with every event until ctx ends, each returns an error,
// or the server closes the stream (io.EOF). Ready, if not nil, is called
// once the server has begun to send: what happens after that is not missed.
func (c *Client) Events(ctx context.Context, ready func(), each func(protocol.Event) error) error {
	resp, err := c.send(ctx, request{method: http.MethodGet, path: "/api/v1/events", accept: "text/event-stream"})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if ready != nil {
		ready()
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	var data strings.Builder
	for lines.Scan() {
		line := lines.Text()
		if line != "" {
			if value, ok := strings.CutPrefix(line, "data:"); ok {
				if data.Len() > 0 {
					data.WriteByte('\n')
				}
				data.WriteString(strings.TrimPrefix(value, " "))
			}
			continue
		}
		if data.Len() == 0 {
			continue // a heartbeat
		}
		var e protocol.Event
		if err := json.Unmarshal([]byte(data.String()), &e); err != nil {
			return fmt.Errorf("cannot read an event of %s: %w", c.where, err)
		}
		data.Reset()
		if err := each(e); err != nil {
			return err
		}
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case lines.Err() != nil:
		return fmt.Errorf("cannot read the events of %s: %w", c.where, lines.Err())
	}
	return io.EOF
}

// Wait follows a change until it is done, failed or aborted, and returns its
// last form. Each, if not nil, sees every form that differs in progress.
// A server that is away for up to a minute, as during a restart, is asked
// again.
func (c *Client) Wait(ctx context.Context, id int64, each func(protocol.Change)) (protocol.Change, error) {
	missed := 0
	for {
		change, err := c.Change(ctx, id)
		var away *Unreachable
		switch {
		case errors.As(err, &away) && missed < maxMissed:
			missed++
		case err != nil:
			return protocol.Change{}, err
		default:
			missed = 0
			if each != nil {
				each(change)
			}
			if change.Status != "doing" {
				return change, nil
			}
		}
		if err := sleep(ctx, watchEvery); err != nil {
			return change, fmt.Errorf("cannot wait for change %d: %w", id, err)
		}
	}
}
