package term

import (
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"":                          "0001-01-01T00:00:00Z",
		"2026-12-01T06:00:00+01:00": "2026-12-01T05:00:00Z",
		"2026-12-01":                "2026-12-01T00:00:00Z",
		"36h":                       "2026-11-22T00:00:00Z",
		"14d":                       "2026-12-04T12:00:00Z",
		"90m":                       "2026-11-20T13:30:00Z",
	} {
		if got, err := Moment(text, now); err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"tomorrow", "1.5d", "-1d", "d", "2026-13-01", "99999999999d"} {
		if got, err := Moment(text, now); err == nil || ExitCode(err) != ExitUsage {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}
