package access

import (
	"fmt"
	"regexp"
	"strconv"
	"time"

	"aptfleet/repo-manager/internal/release"
)

var validSpan = regexp.MustCompile(`^([1-9][0-9]{0,5})([mhdw])$`)

// Span reads a length of time as people write it: 30m, 12h, 90d, 2w.
func Span(text string) (span time.Duration, ok bool) {
	m := validSpan.FindStringSubmatch(text)
	if m == nil {
		return 0, false
	}
	n, err := strconv.Atoi(m[1])
	unit := map[string]time.Duration{"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}[m[2]]
	const longest = 100 * 365 * 24 * time.Hour
	if err != nil || time.Duration(n) > longest/unit {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// expiry reads when a token expires: a span from now on, a time (RFC 3339), or
// "never", which is the zero time. "" is TokenLife from now on.
func expiry(verb, text string, now time.Time) (time.Time, error) {
	switch text {
	case "":
		return now.Add(TokenLife), nil
	case "never":
		return time.Time{}, nil
	}
	if span, ok := Span(text); ok {
		return now.Add(span), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, &release.Error{
			Code: release.Invalid, Text: fmt.Sprintf("%s: %q is no time for it to expire", verb, text),
			Hint: "want 90d, 12h, a time like 2027-01-31T12:00:00Z, or never",
		}
	}
	if at = at.UTC().Truncate(time.Microsecond); !at.After(now) {
		return time.Time{}, &release.Error{
			Code: release.Invalid, Text: fmt.Sprintf("%s: it would have expired at %s already", verb, at.Format(time.RFC3339)),
		}
	}
	return at, nil
}
