package fleet

import (
	"encoding/json"
	"strings"
	"unique"

	"aptfleet/internal/protocol"
)

// ParseReport reads a report. What many devices say alike is held in memory
// once.
func ParseReport(text []byte) (*protocol.Report, error) {
	var r protocol.Report
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	for _, s := range []*string{&r.Follow, &r.Wanted, &r.WantedName, &r.Phase, &r.Progress, &r.WhyNot, &r.LastError, &r.Revision, &r.Config, &r.Updater} {
		share(s)
	}
	for i := range r.Deployments {
		d := &r.Deployments[i]
		for _, s := range []*string{&d.State, &d.Snapshot, &d.BOM, &d.Role, &d.Version} {
			share(s)
		}
	}
	for i := range r.Failed {
		f := &r.Failed[i]
		for _, s := range []*string{&f.State, &f.Snapshot, &f.Reason} {
			share(s)
		}
		f.Evidence = bounded(f.Evidence)
	}
	for i := range r.Firmware {
		f := &r.Firmware[i]
		for _, s := range []*string{&f.Component, &f.Version, &f.Wanted, &f.Reason} {
			share(s)
		}
	}
	for _, all := range [][]string{r.Features, r.Overlay} {
		for i := range all {
			share(&all[i])
		}
	}
	return &r, nil
}

// bounded leaves out excerpts beyond what a failure may bring along: all devices'
// reports are in memory.
func bounded(evidence []protocol.Excerpt) []protocol.Excerpt {
	const names = 1 << 10 // what the sources' names may need
	left := protocol.MaxEvidence + names
	for i, e := range evidence {
		if left -= len(e.From) + len(e.Text); left < 0 {
			return evidence[:i]
		}
	}
	return evidence
}

func share(s *string) { *s = unique.Make(*s).Value() }

// booted is what a report says that runs; ok is false if it does not say.
func booted(r *protocol.Report) (runs protocol.Runs, ok bool) {
	if r == nil {
		return runs, false
	}
	for _, d := range r.Deployments {
		if d.Role == "booted" || d.Role == "trial" { // a device runs one of the two
			return protocol.Runs{State: d.State, Snapshot: d.Snapshot, BOM: d.BOM}, true
		}
	}
	return runs, false
}

// changes says what of a report is important and was not so before.
func changes(before, after *protocol.Report) []string {
	var all []string
	was, known := booted(before)
	is, ok := booted(after)
	if ok && (!known || was.State != is.State || differ(was.BOM, is.BOM)) {
		all = append(all, "runs "+named(is))
	}
	if before == nil {
		before = new(protocol.Report)
	}
	if h := after.Health; h != nil && (before.Health == nil || before.Health.OK != h.OK || before.Health.Reason != h.Reason) {
		text := "is healthy"
		if !h.OK {
			text = "is not healthy: " + h.Reason
		}
		all = append(all, text)
	}
	for _, f := range after.Failed {
		if !contains(before.Failed, f) {
			all = append(all, "went back from "+named(protocol.Runs{State: f.State, Snapshot: f.Snapshot})+": "+f.Reason)
		}
	}
	switch on := strings.Join(after.Overlay, ", "); {
	case on == strings.Join(before.Overlay, ", "):
	case on == "":
		all = append(all, "has its release alone again")
	default:
		all = append(all, "has packages of its own on top of its release: "+on)
	}
	all = append(all, flashed(before.Firmware, after.Firmware)...)
	if after.LastError != "" && after.LastError != before.LastError {
		all = append(all, "reports an error: "+after.LastError)
	}
	if r := after.Refused; r != nil && (before.Refused == nil || *before.Refused != *r) {
		all = append(all, "refused an assignment ("+r.Reason+"): "+r.Text)
	}
	if after.Developer != before.Developer {
		all = append(all, map[bool]string{true: "follows its developer", false: "follows its stage again"}[after.Developer])
	}
	if after.Revision != before.Revision {
		all = append(all, "says that its hardware revision is "+after.Revision)
	}
	return all
}

// flashed says what has become of the firmware of a device.
func flashed(before, after []protocol.Firmware) []string {
	was := make(map[string]protocol.Firmware, len(before))
	for _, f := range before {
		was[f.Component] = f
	}
	var all []string
	for _, f := range after {
		old, what := was[f.Component], f.Component
		if what == "" {
			what = "its components"
		}
		if f.Version != "" && f.Version != old.Version {
			all = append(all, "has firmware "+f.Version+" on "+what)
		}
		if f.Reason != "" && f.Reason != old.Reason {
			all = append(all, "has not the firmware that it should on "+what+": "+f.Reason)
		}
	}
	return all
}

// differ tells whether two bills of materials that are known are not the same.
func differ(a, b string) bool { return a != "" && b != "" && a != b }

func contains(failed []protocol.Failure, f protocol.Failure) bool {
	for _, g := range failed {
		if g.State == f.State && g.At.Equal(f.At) {
			return true
		}
	}
	return false
}

// named calls a release by its snapshot, else by its state.
func named(r protocol.Runs) string {
	if r.Snapshot != "" {
		return r.Snapshot
	}
	return "state " + r.State[:min(12, len(r.State))]
}
