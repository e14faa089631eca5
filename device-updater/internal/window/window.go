// Package window says when a device may be rebooted: times of the day, on all
// days of the week or on some.
//
//	02:00-04:00
//	mon-fri 22:00-02:00; sat,sun 00:00-24:00
//
// A time that ends before it begins goes on until the next day; its days are
// those on which it begins.
package window

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Window is when something may happen. The zero Window is always.
type Window struct {
	text  string
	spans []span
}

type span struct {
	days     [7]bool // on which it begins; Sunday is 0
	from, to int     // minutes of the day
}

const (
	minutes = 24 * 60
	example = "02:00-04:00 or mon-fri 22:00-02:00; sat,sun 00:00-24:00"
)

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// Parse reads the words of the configuration; "" is always.
func Parse(text string) (Window, error) {
	if strings.TrimSpace(text) == "" {
		return Window{}, nil
	}
	w := Window{text: strings.Join(strings.Fields(strings.ToLower(text)), " ")}
	for part := range strings.SplitSeq(w.text, ";") {
		s, err := parseSpan(strings.Fields(part))
		if err != nil {
			return Window{}, fmt.Errorf("%q is no maintenance window like %s: %w", text, example, err)
		}
		w.spans = append(w.spans, s)
	}
	return w, nil
}

func parseSpan(words []string) (s span, err error) {
	switch len(words) {
	case 1:
		s.days = [7]bool{true, true, true, true, true, true, true}
	case 2:
		if s.days, err = parseDays(words[0]); err != nil {
			return s, err
		}
	default:
		return s, fmt.Errorf("%q is not days and a time", strings.Join(words, " "))
	}
	text := words[len(words)-1]
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		return s, fmt.Errorf("%q has no end", text)
	}
	if s.from, err = parseClock(from); err != nil {
		return s, err
	}
	if s.to, err = parseClock(to); err != nil {
		return s, err
	}
	if s.from == s.to || s.from == minutes {
		return s, fmt.Errorf("%q is no time at all", text)
	}
	return s, nil
}

func parseDays(text string) (days [7]bool, err error) {
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, to := slices.Index(dayNames, first), slices.Index(dayNames, last)
		if from < 0 || to < 0 {
			return days, fmt.Errorf("%q is not a day of the week (mon, tue, wed, thu, fri, sat, sun)", part)
		}
		for day := from; ; day = (day + 1) % 7 {
			days[day] = true
			if day == to {
				break
			}
		}
	}
	return days, nil
}

// parseClock returns the minute of the day, 24:00 included.
func parseClock(text string) (int, error) {
	if text == "24:00" {
		return minutes, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil || len(text) != len("15:04") {
		return 0, fmt.Errorf("%q is not a time of the day", text)
	}
	return t.Hour()*60 + t.Minute(), nil
}

// IsZero reports whether it is always open.
func (w Window) IsZero() bool { return len(w.spans) == 0 }

// String is what Parse read, in its usual form.
func (w Window) String() string { return w.text }

// Open reports whether t lies in it, by the clock of t's location. Where the
// clock is set forward in summer, a window that lies in the missing hour does
// not open that day.
func (w Window) Open(t time.Time) bool {
	if w.IsZero() {
		return true
	}
	now, today := t.Hour()*60+t.Minute(), int(t.Weekday())
	for _, s := range w.spans {
		yesterday := (today + 6) % 7
		switch {
		case s.from < s.to && s.days[today] && s.from <= now && now < s.to,
			s.from > s.to && s.days[today] && s.from <= now,
			s.from > s.to && s.days[yesterday] && now < s.to:
			return true
		}
	}
	return false
}

// Next returns when it opens after t, or t if it is open.
func (w Window) Next(t time.Time) time.Time {
	if w.Open(t) {
		return t
	}
	var next time.Time
	for _, s := range w.spans {
		for day := range 8 {
			at := time.Date(t.Year(), t.Month(), t.Day()+day, s.from/60, s.from%60, 0, 0, t.Location())
			if at.After(t) && s.days[at.Weekday()] && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return next
}
