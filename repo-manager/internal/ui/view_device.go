package ui

import (
	"sort"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
)

// A device that has been silent for longer is said to be silent.
const silentAfter = 10 * time.Minute

// Devices beyond this number fold into a table of one line each.
const deviceCards = 12

// deviceStatus is how a device stands, worst first: the page sorts by it.
type deviceStatus int

const (
	deviceFailed   deviceStatus = iota // what it should run failed on it
	deviceUpdating                     // on its way
	deviceBehind                       // runs something else, and says why or has not looked yet
	deviceSilent                       // runs what it should, but was not heard from lately
	deviceNever                        // has not reported
	deviceCurrent                      // runs what it should
)

// Word names the status on the page; Class is its CSS class.
func (s deviceStatus) Word() string {
	return [...]string{"Went back", "Updating", "Not there yet", "Silent", "Never reported", "Up to date"}[s]
}

// Class is the CSS class of the status.
func (s deviceStatus) Class() string {
	return [...]string{"bad", "busy", "warn", "warn", "idle", "good"}[s]
}

// step is one part of an update as a person follows it.
type step struct {
	Name  string
	State string // "done", "now", "todo"
}

// steps are the phases of a device's journal, grouped as a person sees them.
var steps = []struct {
	name   string
	phases []string
}{
	{"Check", []string{"CHECK", "PREFLIGHT"}},
	{"Download", []string{"DOWNLOAD"}},
	{"Install", []string{"SNAPSHOT", "INSTALL", "VERIFY", "STAGED"}},
	{"Restart", []string{"FINALISE", "REBOOT"}},
	{"Trial", []string{"TRIAL", "HEALTH"}},
	{"Commit", []string{"COMMIT"}},
}

// stepsAt places a phase among the steps; nil if the phase is none of an
// update under way.
func stepsAt(phase string) []step {
	current := -1
	for i, s := range steps {
		for _, p := range s.phases {
			if p == phase {
				current = i
			}
		}
	}
	if current < 0 {
		return nil
	}
	out := make([]step, len(steps))
	for i, s := range steps {
		out[i] = step{Name: s.name, State: "done"}
		if i == current {
			out[i].State = "now"
		} else if i > current {
			out[i].State = "todo"
		}
	}
	return out
}

// failure is a release that failed on a device.
type failure struct {
	Offer  offer
	Reason string
	When   moment
	Now    bool // it is what the device should run
}

// deviceView is one device on the page.
type deviceView struct {
	Name    string
	Anchor  string
	Follows string // stage, or "snapshot …"
	Status  deviceStatus

	Runs    offer
	Version string // of the first package it was told to install
	OnTrial bool   // what it runs is not committed yet
	Should  offer  // what its stage offers, or its pin

	Steps    []step
	Progress string
	WhyNot   string   // why it does not run what it should, one sentence
	Problem  string   // what went wrong last although it runs what it should
	Failed   *failure // the release it should run, or else the latest, that failed on it
	Seen     moment

	failures []offer // every release that it will not try again
}

// refuses reports whether the device will not try o, because it failed before.
func (d deviceView) refuses(o offer) bool {
	for _, f := range d.failures {
		if f.sameAs(o) {
			return true
		}
	}
	return false
}

// Class and Word are those of the status.
func (d deviceView) Class() string { return d.Status.Class() }

// Word names the status.
func (d deviceView) Word() string { return d.Status.Word() }

// Moves reports whether the device should run something else than it does.
func (d deviceView) Moves() bool { return !d.Should.None() && !d.Runs.sameAs(d.Should) }

// newDevice judges a device by its last report and by what the stages offer
// now: the server may know better than the report what the device should run.
func newDevice(now time.Time, d fleet.Device, offers map[string]offer) deviceView {
	view := deviceView{
		Name: d.Name, Anchor: anchor("device", d.Name),
		Seen: at(now, d.Seen), Status: deviceNever,
	}
	r := d.Report
	if r == nil {
		return view
	}
	view.Follows = followed(r.Follow)
	view.Should = wanted(r, offers)
	view.Steps = stepsAt(r.Phase)
	if view.Steps != nil {
		view.Progress = r.Progress
	}
	for _, dep := range r.Deployments {
		if dep.Role == "booted" || dep.Role == "trial" { // a device runs one of the two
			view.Runs = offer{State: dep.State, Snapshot: dep.Snapshot}
			view.Version = dep.Version
			view.OnTrial = dep.Role == "trial"
		}
	}
	for _, f := range r.Failed {
		view.failures = append(view.failures, offer{State: f.State, Snapshot: f.Snapshot})
	}
	view.Failed = failed(now, r.Failed, view.Should)
	view.WhyNot = whyNot(r, view)
	if !view.Moves() && view.Steps == nil {
		view.Problem = r.LastError
	}
	view.Status = judge(now, d.Seen, view)
	return view
}

// judge decides the status from what else is known.
func judge(now, seen time.Time, view deviceView) deviceStatus {
	switch {
	case view.Steps != nil && view.WhyNot == "":
		return deviceUpdating
	case view.Moves() && view.refuses(view.Should):
		return deviceFailed
	case view.Moves():
		return deviceBehind
	case now.Sub(seen) > silentAfter:
		return deviceSilent
	default:
		return deviceCurrent
	}
}

// whyNot is what the device says, or what can be said for it.
func whyNot(r *protocol.Report, view deviceView) string {
	switch {
	case !view.Moves():
		return ""
	case view.Failed != nil && view.Failed.Now && (r.WhyNot == "" || strings.Contains(r.WhyNot, view.Failed.Reason)):
		return "" // the failure says it
	case r.WhyNot != "":
		return r.WhyNot
	case view.Steps != nil:
		return "" // it is on its way
	case r.LastError != "":
		return r.LastError
	case r.Wanted != view.Should.State:
		return "It has not looked since this was offered; it will at its next check."
	default:
		return ""
	}
}

// wanted is what the followed stage offers, the pin, or what the device says.
func wanted(r *protocol.Report, offers map[string]offer) offer {
	if o, ok := offers[r.Follow]; ok {
		return o
	}
	if id, ok := strings.CutPrefix(r.Follow, "snapshot:"); ok {
		return offer{Snapshot: id, State: r.Wanted}
	}
	if id, ok := strings.CutPrefix(r.Follow, "state:"); ok {
		return offer{State: id, Snapshot: r.WantedName}
	}
	return offer{State: r.Wanted, Snapshot: r.WantedName}
}

// followed words what a device follows.
func followed(follow string) string {
	kind, id, pinned := strings.Cut(follow, ":")
	if !pinned {
		return follow
	}
	return kind + " " + offer{State: id}.Short()
}

// failed picks the failure that explains most: that of the wanted release,
// else the latest.
func failed(now time.Time, all []protocol.Failure, should offer) *failure {
	var best *protocol.Failure
	for i, f := range all {
		o := offer{State: f.State, Snapshot: f.Snapshot}
		if o.sameAs(should) {
			best = &all[i]
			break
		}
		if best == nil || f.At.After(best.At) {
			best = &all[i]
		}
	}
	if best == nil {
		return nil
	}
	return &failure{
		Offer:  offer{State: best.State, Snapshot: best.Snapshot},
		Reason: best.Reason,
		When:   at(now, best.At),
		Now:    offer{State: best.State, Snapshot: best.Snapshot}.sameAs(should),
	}
}

// fleetView is all devices of a pipeline: cards for those that need an eye
// first, lines for the rest.
type fleetView struct {
	Cards []deviceView
	Rest  []deviceView
	Total int
}

func newFleet(now time.Time, devices []fleet.Device, pipeline string, offers map[string]offer) fleetView {
	var views []deviceView
	for _, d := range devices {
		if d.Pipeline == pipeline && d.Retired == nil {
			views = append(views, newDevice(now, d, offers))
		}
	}
	sort.SliceStable(views, func(i, j int) bool {
		if views[i].Status != views[j].Status {
			return views[i].Status < views[j].Status
		}
		return views[i].Name < views[j].Name
	})
	f := fleetView{Cards: views, Total: len(views)}
	if len(views) > deviceCards {
		f.Cards, f.Rest = views[:deviceCards], views[deviceCards:]
	}
	return f
}

// all returns every device of the view.
func (f fleetView) all() []deviceView {
	return append(append([]deviceView(nil), f.Cards...), f.Rest...)
}
