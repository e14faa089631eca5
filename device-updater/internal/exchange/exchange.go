// Package exchange is one request of the device protocol and its answer: a
// signed text goes, JSON or nothing comes back. Nothing of an answer is
// believed to be small, fast, or from where it was asked for.
package exchange

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"aptfleet/internal/protocol"
)

// Limit is how long one exchange may take, whatever the other side does.
const Limit = 30 * time.Second

// MaxAnswer bounds an answer in bytes.
const MaxAnswer = 1 << 20

// NewClient returns a client for exchanges over a transport. It follows no
// redirects: the server is where the device was enrolled.
func NewClient(transport http.RoundTripper) *http.Client {
	return &http.Client{
		Transport: transport, Timeout: Limit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Refused is an answer with a status of 300 or above.
type Refused struct {
	Status     int
	Said       protocol.Error // empty where the answer is not of the protocol
	RetryAfter time.Duration  // not before; 0: it does not say
}

func (r *Refused) Error() string {
	text := r.Said.Text
	switch {
	case text != "":
	case r.Status < 400:
		text = "a redirect, which is not followed"
	default:
		text = http.StatusText(r.Status)
	}
	return fmt.Sprintf("the server answers %d: %s", r.Status, text)
}

// Code returns the code of a refusal, "" for any other error.
func Code(err error) string {
	var refused *Refused
	if errors.As(err, &refused) {
		return refused.Said.Code
	}
	return ""
}

// Answer is what came back.
type Answer struct {
	Status int       // 200 to 299
	Date   time.Time // the server's clock, from the header Date; zero if it does not say
}

// Post sends a signed text and decodes the answer's JSON into to; of 204 there
// is none. Other answers than 2xx are a *Refused.
func Post(ctx context.Context, client *http.Client, url string, signed protocol.Signed, to any) (Answer, error) {
	body, err := json.Marshal(signed)
	if err != nil {
		return Answer{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, MaxAnswer+1))
	if err != nil {
		return Answer{}, fmt.Errorf("the answer breaks off: %w", err)
	}
	if len(text) > MaxAnswer {
		return Answer{}, fmt.Errorf("the answer has more than %d bytes", MaxAnswer)
	}
	answer := Answer{Status: response.StatusCode}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		answer.Date = date
	}
	switch {
	case response.StatusCode == http.StatusNoContent:
		return answer, nil
	case response.StatusCode/100 == 2:
		if err := json.Unmarshal(text, to); err != nil {
			return Answer{}, fmt.Errorf("the answer is not of the protocol: %w", err)
		}
		return answer, nil
	}
	refused := &Refused{Status: response.StatusCode, RetryAfter: retryAfter(response.Header.Get("Retry-After"), answer.Date)}
	var said protocol.ErrorBody
	if json.Unmarshal(text, &said) == nil {
		refused.Said = said.Error
	}
	return Answer{}, refused
}

// maxRetryAfter bounds what a server may ask for: it could not be told
// otherwise meanwhile.
const maxRetryAfter = 24 * time.Hour

// retryAfter reads RFC 9110's field: seconds, or a date of the server's clock.
func retryAfter(field string, date time.Time) time.Duration {
	var wait time.Duration
	if seconds, err := strconv.ParseUint(field, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(field); err == nil && !date.IsZero() {
		wait = at.Sub(date)
	}
	return min(max(wait, 0), maxRetryAfter)
}

// Backoff says when to try again. Its zero value tries again at once.
type Backoff struct {
	First, Last time.Duration
	Random      func() float64 // [0, 1)
	failures    int
}

// Reset forgets failures.
func (b *Backoff) Reset() { b.failures = 0 }

// Next returns how long to wait after one more failure: it doubles from First
// up to Last, of which a random half is taken off, so that a fleet does not
// come back in step; and it is not less than the server asked for.
func (b *Backoff) Next(err error) time.Duration {
	wait := min(float64(b.First)*math.Exp2(float64(min(b.failures, 40))), float64(b.Last))
	b.failures++
	pause := Jitter(time.Duration(wait), b.Random)
	var refused *Refused
	if errors.As(err, &refused) && refused.RetryAfter > 0 {
		// Later than asked for, never earlier.
		pause = max(pause, refused.RetryAfter+time.Duration(b.Random()*float64(refused.RetryAfter)/4))
	}
	return pause
}

// Jitter returns between half of d and all of it.
func Jitter(d time.Duration, random func() float64) time.Duration {
	return d - time.Duration(random()*float64(d)/2)
}
