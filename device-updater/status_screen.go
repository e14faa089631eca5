package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"aptfleet/device-updater/internal/journal"
	"aptfleet/device-updater/internal/update"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

// few is how many things of one kind the screen of status names; --json has all.
const few = 3

// longest is the number of letters in the longest name of a fact of status.
const longest = len("firmware")

// print writes what people want to know, on one screen: first why the device does
// not run what it should, last what is as it should be. Reasons come from checks
// and scripts of a release.
func (v statusView) print(io *term.IO) {
	facts(io, v.answer(io))
	table := io.NewTable("deployment", "role", "release", "version")
	for _, d := range v.deployments() {
		role := d.Role
		if d.Role == "trial" {
			role = "booted, on trial"
		}
		if d.Pinned && d.Role != "pinned" {
			role += ", pinned"
		}
		table.Row(d.ID, role, release(d.Snapshot, d.State), d.Version)
	}
	space(io)
	table.Print("")
	attention, fine := v.matters(io)
	for _, group := range [][]term.Fact{attention, fine} {
		group = slices.DeleteFunc(group, unsaid)
		if len(group) > 0 {
			space(io)
			facts(io, group)
		}
	}
}

// deployments are what there is to boot, what is staged right below what runs.
func (v statusView) deployments() []protocol.Deployment {
	all := slices.Clone(v.Report.Deployments)
	slices.SortStableFunc(all, func(a, b protocol.Deployment) int { return rank[a.Role] - rank[b.Role] })
	return all
}

// rank is where a role stands.
var rank = map[string]int{"booted": 0, "trial": 0, "staged": 1, "rollback": 2, "pinned": 3, "kept": 3}

// space parts groups on a terminal.
func space(io *term.IO) {
	if io.OutTerminal {
		fmt.Fprintln(io.Out)
	}
}

// facts writes a group with its values below those of the others.
func facts(io *term.IO, group []term.Fact) {
	if io.OutTerminal {
		for i := range group {
			group[i].Name = fmt.Sprintf("%-*s", longest, group[i].Name)
		}
	}
	io.Facts(group...)
}

// unsaid reports whether a fact says nothing.
func unsaid(f term.Fact) bool { return f.Value == "" }

// answer is what status is asked for: what the device runs, what it should run,
// and why it does not.
func (v statusView) answer(io *term.IO) []term.Fact {
	has := "unknown"
	if len(v.Report.Deployments) > 0 {
		booted := v.Report.Deployments[0]
		has = release(booted.Snapshot, booted.State)
		if booted.State != "" && booted.State == v.Report.Wanted {
			has += ", as it should"
		}
		if len(v.Overlay) > 0 {
			has += ", with packages of its own on top"
		}
	}
	wanted := release(v.Report.WantedName, v.Report.Wanted)
	if !v.Checked.IsZero() {
		wanted += ", asked " + io.When(v.Checked)
	}
	phase := v.Report.Phase
	if v.Report.Progress != "" {
		phase += ": " + v.Report.Progress
	}
	return []term.Fact{
		{Name: "why not", Value: term.Styled{Text: v.Report.WhyNot, Style: term.Bold}},
		{Name: "has", Value: has}, {Name: "wanted", Value: wanted}, {Name: "phase", Value: phase},
	}
}

// matters is everything else, by whether it wants somebody's attention.
func (v statusView) matters(io *term.IO) (attention, fine []term.Fact) {
	now := io.Now()
	for _, h := range v.Report.Holds {
		if h.Until.IsZero() || now.Before(h.Until) {
			attention = append(attention, term.Fact{Name: "held", Value: "here" + v.unless(update.Whose(h)) + "; `device-updater unhold` ends it"})
		}
	}
	if v.Develop != nil {
		attention = append(attention, term.Fact{Name: "develops", Value: "it follows nothing" + v.unless(update.Whose(*v.Develop)) + "; `device-updater rejoin` ends it"})
	}
	if v.Report.Phase == string(journal.Staged) && !v.window.Open(now) {
		attention = append(attention, term.Fact{Name: "window", Value: fmt.Sprintf("%s, opens at %s", v.window, v.window.Next(now).Format(time.RFC3339))})
	}
	if v.Report.LastError != v.Report.WhyNot {
		attention = append(attention, term.Fact{Name: "trouble", Value: v.Report.LastError})
	}
	attention = append(attention, failedFacts(io, v.Report.Failed)...)
	trouble, well := firmwareFacts(v.Report.Firmware)
	attention = append(append(attention, trouble...), v.overlayFacts(io)...)
	changed, same := v.etcFacts(io)
	attention = append(attention, changed...)
	trouble, server := v.Server.facts(io)
	attention = append(attention, trouble...)
	fine = append(append(server, term.Fact{Name: "follows", Value: v.Report.Follow}), well...)
	trouble, state := v.stateView.facts(io)
	return append(attention, trouble...), append(append(fine, state...), same...)
}

// unless leaves out what the answer says already.
func (v statusView) unless(said string) string {
	if strings.Contains(v.Report.WhyNot, said) {
		return ""
	}
	return said
}

// failedFacts tell of the newest release that failed here. That of another one
// which is wanted is the answer.
func failedFacts(io *term.IO, failed []protocol.Failure) []term.Fact {
	if len(failed) == 0 {
		return nil
	}
	f := failed[len(failed)-1]
	what := release(f.Snapshot, f.State)
	if f.Overlay != "" {
		what += " + overlay"
	}
	all := []term.Fact{{Name: "failed", Value: fmt.Sprintf("%s, %s: %s", what, io.When(f.At), f.Reason)}}
	if len(f.Evidence) > 0 {
		all = append(all, term.Fact{Value: "`device-updater status --evidence` shows what its logs say"})
	}
	if len(failed) > 1 {
		all = append(all, more(len(failed)-1, everything))
	}
	return all
}

// everything is what has all that the screen has not.
const everything = "device-updater status --json"

// abridged leaves few facts of one kind, and says how many more there are and
// which command has them.
func abridged(all []term.Fact, command string) []term.Fact {
	if left := len(all) - few; left > 0 {
		return append(all[:few], more(left, command))
	}
	return all
}

// more says that there are others, and which command has them.
func more(n int, command string) term.Fact {
	return term.Fact{Value: fmt.Sprintf("and %d more: `%s`", n, command)}
}

// overlayFacts are about packages of somebody's own.
func (v statusView) overlayFacts(io *term.IO) (all []term.Fact) {
	for _, o := range v.Overlay {
		all = append(all, term.Fact{Name: "overlay", Value: fmt.Sprintf("%s, from %s%s %s", o, o.File, by(o.By), io.When(o.At))})
	}
	if len(v.Overlay) > 0 {
		all = append(abridged(all, everything), term.Fact{Value: "so it is not equal to its release; `device-updater rejoin` makes it so"})
	}
	return all
}

// skewed is how far the clocks may differ without a word.
const skewed = 10 * time.Second

// facts are what people read about the server.
func (v *serverView) facts(io *term.IO) (attention, fine []term.Fact) {
	if v == nil {
		return nil, nil
	}
	if v.Waits != "" {
		return []term.Fact{{Name: "server", Value: v.URL + ": " + v.Waits}}, nil
	}
	known := v.URL + ", as " + v.Device
	if !v.Last.IsZero() {
		known += ", answered " + io.When(v.Last)
	}
	fine = append(fine, term.Fact{Name: "server", Value: known})
	if v.Error != "" {
		attention = append(attention, term.Fact{Name: "server", Value: "since " + v.Since.UTC().Format(time.RFC3339) + ": " + v.Error})
	}
	if a := v.Assignment; a != nil {
		fine = append(fine, term.Fact{Name: "assigned", Value: fmt.Sprintf("%d, of stage %s, until %s", a.Counter, cmp.Or(a.Stage, "-"), a.Expires.UTC().Format(time.RFC3339))})
		if a.Against != "" {
			attention = append(attention, term.Fact{Name: "assigned", Value: a.Against})
		}
	}
	if r := v.Refused; r != nil {
		attention = append(attention, term.Fact{Name: "refused", Value: fmt.Sprintf("assignment %d (%s): %s", r.Counter, r.Reason, r.Text)})
	}
	if v.Failed != "" {
		attention = append(attention, term.Fact{Name: "config", Value: v.Failed})
	}
	switch {
	case v.Skew >= skewed:
		attention = append(attention, term.Fact{Name: "clock", Value: fmt.Sprintf("%s behind the server", v.Skew)})
	case v.Skew <= -skewed:
		attention = append(attention, term.Fact{Name: "clock", Value: fmt.Sprintf("%s ahead of the server", -v.Skew)})
	}
	return attention, fine
}

// by says who did something, if that is known.
func by(who string) string {
	if who == "" {
		return ""
	}
	return " by " + who
}

// release names a release: its snapshot, else the begin of its state's id.
func release(snapshot, state string) string {
	switch {
	case snapshot != "":
		return snapshot
	case state != "":
		return "state " + term.ShortID(state)
	}
	return "unknown"
}
