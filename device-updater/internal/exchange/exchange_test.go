package exchange

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/protocol"
)

func TestRetryAfter(t *testing.T) {
	date := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for field, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-5": 0, "soon": 0, "99999999": maxRetryAfter, "99999999999999999999": 0,
		date.Add(time.Minute).Format(http.TimeFormat): time.Minute, date.Add(-time.Minute).Format(http.TimeFormat): 0,
		date.AddDate(1, 0, 0).Format(http.TimeFormat): maxRetryAfter,
	} {
		if got := retryAfter(field, date); got != want {
			t.Errorf("%q: %s, want %s", field, got, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	for _, random := range []float64{0, 0.999} {
		b := Backoff{First: time.Second, Last: time.Minute, Random: func() float64 { return random }}
		want := time.Second
		for n := range 100 {
			got := b.Next(errors.New("no"))
			if got > want || got < want/2 {
				t.Errorf("failure %d: %s, want %s to %s", n, got, want/2, want)
			}
			want = min(2*want, time.Minute)
		}
		b.Reset()
		if got := b.Next(errors.New("no")); got > time.Second {
			t.Errorf("after a success: %s", got)
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		code   string
		says   string
	}{
		{401, `{"error":{"code":"unknown_device","text":"no device has that key"}}`, "unknown_device", "401: no device has that key"},
		{502, `<html>Bad Gateway</html>`, "", "502: Bad Gateway"},
		{302, ``, "", "302: a redirect"},
		{409, `{"error":{"code":"replay","session":7}}`, "replay", "409"},
	} {
		web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			if _, err := w.Write([]byte(c.body)); err != nil {
				t.Error(err)
			}
		}))
		_, err := Post(t.Context(), NewClient(http.DefaultTransport), web.URL, protocol.Signed{}, nil)
		web.Close()
		var refused *Refused
		if !errors.As(err, &refused) || Code(err) != c.code || !strings.Contains(err.Error(), c.says) || c.code == "replay" && refused.Said.Session != 7 {
			t.Errorf("%d: %v", c.status, err)
		}
	}
}
