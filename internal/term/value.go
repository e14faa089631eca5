package term

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ID is a hexadecimal id: twelve digits are enough for a person, a pipe gets
// all of them.
type ID string

const shortID = 12

// ShortID returns what a person needs of a hexadecimal id.
func ShortID(id string) string { return id[:min(len(id), shortID)] }

// Bytes is a size in bytes: "1.2 MB" (decimal units) for a person, a plain
// number in a pipe.
type Bytes int64

// Styled is text with a colour on terminals that have one.
type Styled struct {
	Text  string
	Style Style
}

// Style is one of the few looks that Aptfleet's programs use.
type Style int

// The styles. Colour never carries meaning alone: the text says it too.
const (
	Plain Style = iota
	Bold
	Faint
	Good    // green
	Warning // yellow
	Bad     // red
)

var escapes = [...]string{Plain: "", Bold: "\x1b[1m", Faint: "\x1b[2m", Good: "\x1b[32m", Warning: "\x1b[33m", Bad: "\x1b[31m"}

const resetEscape = "\x1b[0m"

// paint puts s between escape sequences where the terminal has colour.
func (t *IO) paint(s string, style Style, terminal bool) string {
	if style == Plain || s == "" || !terminal || !t.Colour {
		return s
	}
	return escapes[style] + s + resetEscape
}

// cell turns a value into the text of a table cell and its style.
func (t *IO) cell(v any) (string, Style) {
	switch v := v.(type) {
	case Styled:
		return Printable(v.Text), v.Style
	case ID:
		if t.OutTerminal {
			return Printable(ShortID(string(v))), Plain
		}
		return Printable(string(v)), Plain
	case Bytes:
		if t.OutTerminal {
			return HumanBytes(int64(v)), Plain
		}
		return strconv.FormatInt(int64(v), 10), Plain
	case time.Time:
		return t.When(v), Plain
	case []string:
		return Printable(strings.Join(v, ",")), Plain
	case string:
		return Printable(v), Plain
	default:
		return Printable(fmt.Sprint(v)), Plain
	}
}

// When writes a moment as in a cell of its own, for use in a sentence: "3 days
// ago" on a terminal, RFC 3339 in a pipe, "" for the zero time.
func (t *IO) When(at time.Time) string {
	switch {
	case at.IsZero():
		return ""
	case t.OutTerminal:
		return Ago(t.Now(), at)
	}
	return at.UTC().Format(time.RFC3339)
}

// Ago says how long before now a moment lies, in the largest unit of which
// there is at least one: "just now", "5 minutes ago", "3 days ago". A moment
// in the future reads "in 5 minutes".
func Ago(now, at time.Time) string {
	d := now.Sub(at)
	future := d < 0
	if future {
		d = -d
	}
	const day = 24 * time.Hour
	text := ""
	for _, unit := range []struct {
		name string
		size time.Duration
	}{
		{"year", 365 * day}, {"month", 30 * day}, {"day", day},
		{"hour", time.Hour}, {"minute", time.Minute}, {"second", 10 * time.Second},
	} {
		if d < unit.size {
			continue
		}
		size := unit.size
		if unit.name == "second" {
			size = time.Second
		}
		n := int(d / size)
		text = fmt.Sprintf("%d %s", n, unit.name)
		if n != 1 {
			text += "s"
		}
		break
	}
	switch {
	case text == "":
		return "just now"
	case future:
		return "in " + text
	}
	return text + " ago"
}

// HumanBytes renders a size with a decimal unit: "0 B", "999 B", "1.2 MB".
func HumanBytes(n int64) string {
	const units = "kMGTPE"
	if n > -1000 && n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1000, 0
	for (value >= 999.95 || value <= -999.95) && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %cB", value, units[unit])
}

// Printable returns s with every character that could move a cursor, hide
// text or break a line replaced by its Go escape, so that a name from
// elsewhere stays on its line. Bytes that are no UTF-8 become \xNN.
func Printable(s string) string {
	clean := true
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
			quoted := strconv.Quote(s[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
		s = s[size:]
	}
	return b.String()
}
