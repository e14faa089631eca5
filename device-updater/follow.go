package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"aptfleet/device-updater/internal/daemon"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/term"
)

// progressLine is one line of `update --wait --json`.
type progressLine struct {
	Phase    string `json:"phase"`
	Progress string `json:"progress,omitempty"`
	Done     int64  `json:"done,omitempty"`
	Total    int64  `json:"total,omitempty"`
	Unit     string `json:"unit,omitempty"` // of both: "bytes", "packages"
	Percent  *int64 `json:"percent,omitempty"`
	WhyNot   string `json:"why_not,omitempty"`
}

// linePause is how often at most a line is written that only says how far a
// phase is, where nobody watches: a CI log.
const linePause = 10 * time.Second

// follow returns what shows how an act goes on, and what ends that. People see
// it on standard error, on a terminal in one line for each phase. Scripts get it
// as JSON lines of what moves the device.
func (p *program) follow(act daemon.Act) (show func(update.Status), end func()) {
	switch {
	case p.io.JSON && (act == daemon.Update || act == daemon.Retry || act == daemon.Try || act == daemon.Rejoin || act == daemon.Rollback):
		return p.followJSON(), func() {}
	case p.io.JSON:
		return func(update.Status) {}, func() {}
	}
	var last, phase string
	var at time.Time
	open := false // the last line of the terminal may be rewritten
	end = func() {
		if open {
			fmt.Fprintln(p.io.Err)
			open = false
		}
	}
	show = func(s update.Status) {
		line := strings.ToLower(s.Phase)
		switch {
		case s.Phase == string(journal.Staged) && s.WhyNot != "":
			line += ": " + s.WhyNot
		case s.Progress != "":
			line += ": " + s.Progress
		}
		same := s.Phase == phase && s.Total > 0
		if line == last || s.Phase == string(journal.Idle) || same && !p.io.ErrTerminal && p.io.Now().Sub(at) < linePause {
			return
		}
		last, phase, at = line, s.Phase, p.io.Now()
		switch {
		case !p.io.ErrTerminal:
			fmt.Fprintln(p.io.Err, term.Printable(line))
		case same && open:
			fmt.Fprintf(p.io.Err, "\r\x1b[K%s", term.Printable(line))
		default:
			end()
			fmt.Fprint(p.io.Err, term.Printable(line))
			open = true
		}
	}
	return show, end
}

// followJSON returns what prints a status as a line, once each.
func (p *program) followJSON() func(update.Status) {
	var last string
	return func(s update.Status) {
		line := progressLine{Phase: s.Phase, Progress: s.Progress, Done: s.Done, Total: s.Total, Unit: s.Unit, WhyNot: s.WhyNot}
		if s.Total > 0 {
			percent := s.Done * 100 / s.Total
			line.Percent = &percent
		}
		text, err := json.Marshal(line)
		if err != nil || string(text) == last {
			return
		}
		last = string(text)
		fmt.Fprintln(p.io.Out, last)
	}
}
