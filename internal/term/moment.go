package term

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Moment reads a time as people give it to a flag: RFC 3339, a date (in UTC), or
// a span from now, "36h" or "14d". "" is the zero time.
func Moment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 36500 {
			return now.Add(time.Duration(n) * 24 * time.Hour), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d), nil
	}
	return time.Time{}, &UsageError{Text: fmt.Sprintf("cannot use %q as a time", text), Hint: "2026-12-01T06:00:00Z, 2026-12-01, 36h or 14d"}
}
