package ui

import (
	"fmt"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/release"
)

// moment is a point in time as a page shows it: how long ago, with the exact
// time beside it for people (Exact) and machines (ISO).
type moment struct {
	ISO   string // RFC 3339, UTC
	Exact string // "20 November 2026, 10:15:00 UTC"
	Ago   string // "3 minutes ago"
}

// at returns t as seen from now; the zero time is the zero moment, which
// templates leave out.
func at(now, t time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	t = t.UTC()
	return moment{
		ISO:   t.Format(time.RFC3339),
		Exact: t.Format("2 January 2006, 15:04:05 UTC"),
		Ago:   ago(now.Sub(t)),
	}
}

// ago words an age. A time slightly in the future, as another machine's clock
// may give, counts as now. live.js holds the same steps.
func ago(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return "just now"
	case d < time.Minute:
		return fmt.Sprintf("%d seconds ago", int(d.Seconds())/10*10)
	case d < time.Hour:
		return count(int(d.Minutes()), "minute") + " ago"
	case d < 24*time.Hour:
		return count(int(d.Hours()), "hour") + " ago"
	default:
		return count(int(d.Hours()/24), "day") + " ago"
	}
}

// count words a number of things: "1 package", "2 packages".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// capital begins a sentence of the server's own with a capital letter.
func capital(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToUpper(text[:1]) + text[1:]
}

// offer is a state as a page names it. The zero offer is "nothing yet".
type offer struct {
	State    string // 64 hexadecimal digits, or "" for none
	Snapshot string // id, or "" while the state is unnamed
}

func offerOf(o release.Offer) offer {
	if o.State.IsZero() {
		return offer{}
	}
	return offer{State: o.State.String(), Snapshot: o.Snapshot}
}

// None reports whether nothing is offered.
func (o offer) None() bool { return o.State == "" && o.Snapshot == "" }

// Short is the beginning of the state id, enough to tell states apart.
func (o offer) Short() string {
	if len(o.State) > 12 {
		return o.State[:12] + "…"
	}
	return o.State
}

// Ref is what the command line and the routes call it.
func (o offer) Ref() string {
	if o.Snapshot != "" {
		return o.Snapshot
	}
	return o.State
}

// String names it in a sentence.
func (o offer) String() string {
	switch {
	case o.Snapshot != "":
		return o.Snapshot
	case o.State != "":
		return "unnamed state " + o.Short()
	default:
		return "nothing"
	}
}

// sameAs compares what is offered, whatever it is called.
func (o offer) sameAs(other offer) bool {
	if o.State != "" && other.State != "" {
		return o.State == other.State
	}
	return o == other
}

// anchor makes a value usable as the id of an element.
func anchor(prefix, name string) string {
	return prefix + "-" + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		default:
			return '_'
		}
	}, name)
}
