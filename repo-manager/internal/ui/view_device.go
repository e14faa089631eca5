package ui

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
)

// Devices that the Pipeline page shows one by one; the list has them all.
const deviceCards = 12

// stateClasses are the CSS classes of the states of a device.
var stateClasses = map[string]string{
	protocol.DeviceClone: "bad", protocol.DeviceFailed: "bad", protocol.DevicePending: "idle", protocol.DeviceSilent: "warn",
	protocol.DeviceHeld: "idle", protocol.DeviceBehind: "warn", protocol.DeviceOK: "good", protocol.DeviceRetired: "idle",
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
	current := slices.IndexFunc(steps, func(s struct {
		name   string
		phases []string
	}) bool {
		return slices.Contains(s.phases, phase)
	})
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

	Evidence []protocol.Excerpt // only on the device's own page
}

// holdView keeps a device as it is.
type holdView struct {
	Reason string
	By     string
	Until  string // exact, "" for until it is taken off
	Own    bool   // it was made on the device
}

// deviceView is one device as lists and cards show it.
type deviceView struct {
	Name    string
	URL     string
	Anchor  string
	Serial  string
	Product string
	Stage   string
	State   string // one of fleet.States
	Class   string
	Pinned  bool

	Runs    offer  // has
	Version string // of the first package it was told to install
	OnTrial bool   // what it runs is not committed yet
	Should  offer  // what its stage offers, or its pin
	Healthy string // "yes", "no", or "" if it did not say
	Ill     string // why it is not healthy
	Hold    *holdView

	Steps    []step
	Progress string
	WhyNot   string   // why it does not run what it should, one sentence
	Problem  string   // what went wrong last although it runs what it should
	Failed   *failure // the release it should run, or else the latest, that failed on it
	Seen     moment
	Reported bool
	Full     bool // said also where all is well

	failures []offer // every release that it will not try again
}

// refuses reports whether the device will not try o, because it failed before.
func (d deviceView) refuses(o offer) bool {
	return slices.ContainsFunc(d.failures, o.sameAs)
}

// Follows is what decides what the device should run.
func (d deviceView) Follows() string {
	if d.Pinned {
		return "its pin"
	}
	return d.Stage
}

// Moves reports whether the device should run something else than it does.
func (d deviceView) Moves() bool { return !d.Should.None() && !d.Runs.sameAs(d.Should) }

// newDevice words how a device stands.
func newDevice(now time.Time, d fleet.View) deviceView {
	view := deviceView{
		Name: d.Name, URL: deviceURL(d.Pipeline, d.Name, ""), Anchor: anchor("device", d.Name), Serial: d.Serial, Product: d.Product, Stage: d.Stage,
		State: d.State, Class: stateClasses[d.State], Pinned: d.Pin != nil,
		Runs: offerOfRuns(d.Has), Should: offerOfRuns(d.Should), WhyNot: d.WhyNot, Hold: holdOf(now, d), Seen: at(now, d.Seen),
	}
	if d.Healthy != nil {
		view.Healthy = map[bool]string{true: "yes", false: "no"}[*d.Healthy]
	}
	r := d.Report
	if r == nil {
		return view
	}
	view.Reported = true
	if r.Health != nil && !r.Health.OK {
		view.Ill = r.Health.Reason
	}
	if view.Steps = stepsAt(r.Phase); view.Steps != nil {
		view.Progress = r.Progress
	}
	for _, dep := range r.Deployments {
		if dep.Role == "booted" || dep.Role == "trial" { // a device runs one of the two
			view.Version, view.OnTrial = dep.Version, dep.Role == "trial"
		}
	}
	for _, f := range r.Failed {
		view.failures = append(view.failures, offer{State: f.State, Snapshot: f.Snapshot})
	}
	if view.Failed = failed(now, r.Failed, view.Should); view.Failed != nil && view.Failed.Now && view.WhyNot == view.Failed.Reason {
		view.WhyNot = "" // the failure says it
	}
	if view.Steps != nil && strings.HasPrefix(view.WhyNot, "it is on its way") {
		view.WhyNot = "" // the steps say it
	}
	if !view.Moves() && view.Steps == nil {
		view.Problem = r.LastError
	}
	return view
}

func offerOfRuns(r *protocol.Runs) offer {
	if r == nil {
		return offer{}
	}
	return offer{State: r.State, Snapshot: r.Snapshot}
}

// holdOf is the hold that keeps a device as it is: that of an operator, else
// its own.
func holdOf(now time.Time, d fleet.View) *holdView {
	lasts := func(h protocol.Hold) bool { return h.Until.IsZero() || now.Before(h.Until) }
	if d.Hold != nil && lasts(*d.Hold) {
		return newHold(*d.Hold, false)
	}
	if d.Report != nil {
		if i := slices.IndexFunc(d.Report.Holds, lasts); i >= 0 {
			return newHold(d.Report.Holds[i], true)
		}
	}
	return nil
}

func newHold(h protocol.Hold, own bool) *holdView {
	view := &holdView{Reason: h.Reason, By: h.By, Own: own}
	if !h.Until.IsZero() {
		view.Until = at(h.Until, h.Until).Exact
	}
	return view
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

// stateCount is how many devices are in a state, and where they are listed.
type stateCount struct {
	State string
	Class string
	Count int
	URL   string
	Here  bool // the list shows them
}

// countsOf words counts, worst first.
func countsOf(counts fleet.Counts, link func(state string) string) []stateCount {
	var all []stateCount
	for _, is := range fleet.States {
		if n := counts[is]; n > 0 {
			all = append(all, stateCount{State: is, Class: stateClasses[is], Count: n, URL: link(is)})
		}
	}
	return all
}

// living leaves retired devices out.
func living(counts fleet.Counts) fleet.Counts {
	all := maps.Clone(counts)
	delete(all, protocol.DeviceRetired)
	return all
}

func total(counts fleet.Counts) (n int) {
	for _, of := range counts {
		n += of
	}
	return n
}

// fleetView is what the Pipeline page says of its devices: counts by stage,
// and cards for those that need an eye first.
type fleetView struct {
	Cards  []deviceView
	Total  int
	Counts []stateCount
	URL    string // of the list
	stages map[string]fleet.Counts
	link   func(stage, state string) string
}

// More is the number of devices that have no card.
func (f fleetView) More() int { return f.Total - len(f.Cards) }

// newFleet words what a survey of a pipeline found.
func newFleet(now time.Time, pipeline string, s fleet.Survey) fleetView {
	link := func(stage, state string) string {
		return devicesURL(pipeline, deviceFilter{Stage: stage, State: state})
	}
	f := fleetView{
		Total: s.Total, URL: devicesURL(pipeline, deviceFilter{}), stages: s.Stages, link: link,
		Counts: countsOf(living(s.Counts), func(is string) string { return link("", is) }),
	}
	for _, v := range s.Views {
		f.Cards = append(f.Cards, newDevice(now, v))
	}
	return f
}

// following counts the devices of a stage by state, without those that are
// retired.
func (f fleetView) following(stage string) (n int, counts []stateCount) {
	of := living(f.stages[stage])
	return total(of), countsOf(of, func(is string) string { return f.link(stage, is) })
}

// modulesWord words a product with modules.
func modulesWord(product string, modules []string) string {
	if len(modules) == 0 {
		return product
	}
	return fmt.Sprintf("%s with %s", product, strings.Join(modules, ", "))
}
