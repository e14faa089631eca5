package term

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Table collects rows and prints them as the policy says: aligned with a
// header on a terminal, tab-separated without one in a pipe.
type Table struct {
	io     *IO
	header []string
	rows   [][]cell
	whole  bool
}

type cell struct {
	text  string
	style Style
}

// NewTable returns a table with the given column names.
func (t *IO) NewTable(header ...string) *Table {
	return &Table{io: t, header: header}
}

// Row adds a row: strings, numbers, []string, time.Time, ID, Bytes or Styled,
// one for each column.
func (tb *Table) Row(values ...any) {
	if len(values) != len(tb.header) {
		panic(fmt.Sprintf("term: a row of %d cells in a table of %d columns", len(values), len(tb.header)))
	}
	row := make([]cell, len(values))
	for i, v := range values {
		row[i].text, row[i].style = tb.io.cell(v)
	}
	tb.rows = append(tb.rows, row)
}

// Whole has what is too long for the last column go on below its beginning,
// where it would be cut: for reasons, which somebody wants to read to their end.
func (tb *Table) Whole() *Table {
	tb.whole = true
	return tb
}

// Print writes the table. A table without rows writes nothing to standard
// output; on a terminal, none (if not empty) is said on standard error.
func (tb *Table) Print(none string) {
	t := tb.io
	if len(tb.rows) == 0 {
		if none != "" && t.ErrTerminal {
			t.Note("%s", none)
		}
		return
	}
	if !t.OutTerminal {
		for _, row := range tb.rows {
			texts := make([]string, len(row))
			for i, c := range row {
				texts[i] = c.text
			}
			fmt.Fprintln(t.Out, strings.Join(texts, "\t"))
		}
		return
	}
	widths := make([]int, len(tb.header))
	header := make([]cell, len(tb.header))
	for i, name := range tb.header {
		header[i] = cell{strings.ToUpper(name), Faint}
		widths[i] = utf8.RuneCountInString(name)
	}
	for _, row := range tb.rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	last := len(header) - 1
	room := t.Width
	for _, w := range widths[:last] {
		room -= w + 2
	}
	for _, row := range append([][]cell{header}, tb.rows...) {
		lines := []string{shorten(row[last].text, room)}
		if tb.whole {
			lines = wrap(row[last].text, room)
		}
		row[last].text = lines[0]
		var line strings.Builder
		for i, c := range row {
			line.WriteString(t.paint(c.text, c.style, true))
			if i < last {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		fmt.Fprintln(t.Out, strings.TrimRight(line.String(), " "))
		for _, text := range lines[1:] {
			fmt.Fprintln(t.Out, strings.Repeat(" ", t.Width-room)+t.paint(text, row[last].style, true))
		}
	}
}

// minShort is the least of a text that is worth showing shortened.
const minShort = 12

// shorten cuts text to room runes, marked by an ellipsis; where there is
// hardly any room, or nobody knows how much, the terminal may wrap it.
func shorten(text string, room int) string {
	runes := []rune(text)
	if room < minShort || len(runes) <= room {
		return text
	}
	return string(runes[:room-1]) + "…"
}

// Facts prints what is known about one thing, a fact a line: aligned after
// its name on a terminal, where long values go on below their beginning, and
// "name<tab>value" in a pipe. Facts without a value are left out.
func (t *IO) Facts(pairs ...Fact) {
	width := 0
	for _, p := range pairs {
		width = max(width, utf8.RuneCountInString(p.Name))
	}
	for _, p := range pairs {
		text, style := t.cell(p.Value)
		switch {
		case text == "":
		case t.OutTerminal:
			pad := strings.Repeat(" ", width-utf8.RuneCountInString(p.Name)+2)
			for i, line := range wrap(text, t.Width-width-2) {
				if i > 0 {
					pad = strings.Repeat(" ", width+2)
					p.Name = ""
				}
				fmt.Fprintln(t.Out, t.paint(p.Name, Faint, true)+pad+t.paint(line, style, true))
			}
		default:
			fmt.Fprintln(t.Out, p.Name+"\t"+text)
		}
	}
}

// minWrap is the least room for words that is worth breaking a text for.
const minWrap = 30

// wrap breaks text between words into lines of room runes; longer words stay
// whole, so that they can be copied. Where there is hardly any room, or nobody
// knows how much, the terminal may do it.
func wrap(text string, room int) []string {
	if room < minWrap || utf8.RuneCountInString(text) <= room {
		return []string{text}
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > room:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// Fact is a name and a value of any type that Table.Row takes.
type Fact struct {
	Name  string
	Value any
}
