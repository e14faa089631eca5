package ui

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// deviceURL is the address of a device, or of an act on it.
func deviceURL(pipeline, device, act string) string {
	u := pipelineURL(pipeline) + "/devices/" + url.PathEscape(device)
	if act != "" {
		u += "/" + act
	}
	return u
}

// fact is a line of what is known of something.
type fact struct {
	Name  string
	Value string
	ID    bool // it is a name for machines
}

// deploymentView is one bootable root of a device.
type deploymentView struct {
	ID      int
	Role    string
	Offer   offer
	Version string
}

// configLine is a key that a device is configured with.
type configLine struct {
	Key     string
	Value   string // as JSON would have it, strings bare; "" for a secret
	Secret  bool
	Lost    bool // a secret that must be set again
	Missing bool
	From    string // scope, or "default"
	By      string
	When    moment
}

// machineView is a machine that has a device's key.
type machineView struct {
	Machine, Boot, Address string
	First, Last            moment
	Latest                 bool // it checked in last
}

// eventView is a line of a device's history.
type eventView struct {
	Text string
	When moment
}

// actLink leads to the review of an act.
type actLink struct {
	Text, URL string
}

// devicePage is all that is known of one device.
type devicePage struct {
	frame
	Pipeline    string
	Device      deviceView
	Sentence    string // how it stands
	Pin         *fleet.Pin
	PinSince    moment
	Retired     *protocol.Retired
	RetiredAt   moment
	CloneWhy    string
	CloneSince  moment
	Machines    []machineView
	Refused     *protocol.Refused
	LastError   string
	Facts       []fact
	Deployments []deploymentView
	Failures    []failure
	Firmware    []protocol.Firmware
	Config      []configLine
	ConfigState string // how far the configuration has come
	ConfigHelp  string // command
	History     []eventView
	Acts        []actLink
	MayNot      string
	Done        string // what an act did
	Stage       string // link to its stage
	ProductURL  string // link to its product in what it should run
}

// device shows one device.
func (s *server) device(w http.ResponseWriter, r *http.Request, v visitor) error {
	d, events, err := s.deviceOf(r)
	if err != nil {
		return err
	}
	now := s.Clock()
	page := devicePage{
		frame: s.frame(v, d.Pipeline, "Device "+d.Name), Pipeline: d.Pipeline, Device: newDevice(now, d), Pin: d.Pin, Retired: d.Retired,
		Facts: factsOf(now, d), Stage: stageURL(d.Pipeline, d.Stage, ""),
		ConfigHelp: fmt.Sprintf("repo-manager config set device:%s KEY VALUE --pipeline %s", d.Name, d.Pipeline),
	}
	page.Device.Full = true
	page.section("Devices")
	page.Crumbs = append(page.Crumbs, crumb{Name: "Devices", URL: devicesURL(d.Pipeline, deviceFilter{})}, crumb{Name: d.Name, URL: page.Device.URL, Here: true})
	page.Events, page.Live = pipelineURL(d.Pipeline)+"/events", "replace"
	page.Sentence = standsAs(page.Device)
	page.ProductURL = productURL(d.Pipeline, d.Product, productQuery{Ref: page.Device.Should.Ref(), Modules: d.Modules})
	if d.Pin != nil {
		page.PinSince = at(now, d.Pin.At)
	}
	if d.Retired != nil {
		page.RetiredAt = at(now, d.Retired.At)
	}
	if d.Clone != nil {
		page.CloneWhy, page.CloneSince, page.Machines = capital(d.Clone.Why), at(now, d.Clone.Since), machinesOf(now, d)
	}
	page.report(now, d)
	if page.Config, page.ConfigState, err = s.configOf(r.Context(), now, d); err != nil {
		return err
	}
	for _, e := range events {
		page.History = append(page.History, eventView{Text: e.Text, When: at(now, e.At)})
	}
	page.acts(v, d, r.URL.Query().Get("done"))
	s.render(w, http.StatusOK, "device", page)
	return nil
}

// deviceOf finds the device of a request. One of another pipeline does not
// exist here.
func (s *server) deviceOf(r *http.Request) (fleet.View, []fleet.Event, error) {
	pipeline, name := r.PathValue("p"), r.PathValue("d")
	if _, err := s.Release.Pipeline(r.Context(), pipeline); err != nil {
		return fleet.View{}, nil, err
	}
	d, events, err := s.Fleet.Show(r.Context(), name)
	if err == nil && d.Pipeline != pipeline {
		err = &release.Error{
			Code: release.NotFound, Text: fmt.Sprintf("cannot find device %q in pipeline %s", name, pipeline),
			Hint: "repo-manager device list --pipeline " + pipeline,
		}
	}
	return d, events, err
}

// standsAs says in a sentence whether a device runs what it should.
func standsAs(d deviceView) string {
	switch {
	case !d.Reported:
		return "It has never reported, so nobody knows what it runs."
	case d.Should.None():
		return "There is nothing that it should run yet."
	case d.Moves():
		return "It does not run what it should."
	case d.OnTrial:
		return "It tries what it should run, and goes back by itself if that is not healthy."
	}
	return "It runs what it should."
}

// report words what the device itself says.
func (page *devicePage) report(now time.Time, d fleet.View) {
	r := d.Report
	if r == nil {
		return
	}
	page.LastError, page.Refused, page.Firmware = r.LastError, r.Refused, r.Firmware
	if page.Device.Problem != "" {
		page.LastError = "" // the head of the page says it
	}
	for _, dep := range r.Deployments {
		page.Deployments = append(page.Deployments, deploymentView{ID: dep.ID, Role: dep.Role, Offer: offer{State: dep.State, Snapshot: dep.Snapshot}, Version: dep.Version})
	}
	for _, f := range r.Failed {
		o := offer{State: f.State, Snapshot: f.Snapshot}
		page.Failures = append(page.Failures, failure{Offer: o, Reason: f.Reason, When: at(now, f.At), Now: o.sameAs(page.Device.Should), Evidence: f.Evidence})
	}
}

// factsOf is what is known of a device besides how it stands.
func factsOf(now time.Time, d fleet.View) []fact {
	facts := []fact{
		{Name: "Serial number", Value: d.Serial, ID: true},
		{Name: "Modules", Value: strings.Join(d.Modules, ", ")},
		{Name: "Hardware revision", Value: d.HardwareRevision()},
		{Name: "Architecture", Value: d.Architecture},
		{Name: "Enrolled", Value: at(now, d.Enrolled).Exact},
		{Name: "Address", Value: d.Where.Address},
		{Name: "Machine", Value: d.Machine, ID: true},
		{Name: "Key", Value: d.KeyID(), ID: true},
	}
	if d.Counter > 0 {
		facts = append(facts, fact{Name: "Assignment", Value: "number " + strconv.FormatUint(d.Counter, 10)})
	}
	if skew := d.Skew.Round(time.Second); skew > 5*time.Second || skew < -5*time.Second {
		facts = append(facts, fact{Name: "Its clock", Value: fmt.Sprintf("%+.0f seconds", skew.Seconds())})
	}
	if r := d.Report; r != nil {
		facts = append(facts, fact{Name: "Updater", Value: r.Updater})
		if r.FreeBytes > 0 {
			facts = append(facts, fact{Name: "Free space", Value: size(r.FreeBytes)})
		}
		if r.Developer {
			facts = append(facts, fact{Name: "Developer mode", Value: "on: it follows its developer"})
		}
	}
	return slices.DeleteFunc(facts, func(f fact) bool { return f.Value == "" })
}

// machinesOf is the evidence that several machines have a device's key.
func machinesOf(now time.Time, d fleet.View) []machineView {
	var all []machineView
	for _, m := range d.Clone.Machines {
		all = append(all, machineView{
			Machine: m.Machine, Boot: m.Boot, Address: m.Address, First: at(now, m.First), Last: at(now, m.Last),
			Latest: m.Machine == d.Where.Machine && m.Boot == d.Where.Boot,
		})
	}
	return all
}

// configOf is what a device is configured with, and how far that has come.
// Nothing of a secret is in it.
func (s *server) configOf(ctx context.Context, now time.Time, d fleet.View) (lines []configLine, how string, err error) {
	if d.Retired != nil {
		return nil, "", nil
	}
	entries, err := s.Configuration.Effective(ctx, d.Pipeline, d.Name)
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		line := configLine{Key: e.Key, Secret: e.Type == configuration.Secret, Missing: e.Missing, From: e.Scope.String(), By: e.By, When: at(now, e.At)}
		switch {
		case e.Missing:
			line.From = ""
		case e.FromDefault:
			line.From = "default"
		}
		line.Lost = line.Secret && !e.Missing && !s.Configuration.Readable(e.Value)
		if !line.Secret && !e.Missing {
			line.Value = valueWord(e.Value)
		}
		lines = append(lines, line)
	}
	revision, lacks := s.Configuration.Revision(configuration.Device{Name: d.Name, Pipeline: d.Pipeline, Product: d.Product, Stage: d.Stage, Sealing: d.Sealing})
	switch {
	case len(lines) == 0:
	case lacks != nil:
		how = "It is not delivered, and the device keeps what it has: " + lacks.Error() + "."
	case d.Report == nil || d.Report.Config == "":
		how = "The device has not applied it yet."
	case d.Report.Config == revision:
		how = "The device has applied it."
	default:
		how = "The device has applied an older revision."
	}
	return lines, how, nil
}

// valueWord is a value as a person types it.
func valueWord(v configuration.Value) string {
	var text string
	if json.Unmarshal([]byte(v.JSON), &text) == nil {
		return text
	}
	return v.JSON
}

// acts says what v may do with a device, and what an act did just now.
func (page *devicePage) acts(v visitor, d fleet.View, done string) {
	for _, a := range deviceActs {
		if a.name == done && a.done != nil {
			page.Done = a.done(d)
		}
	}
	if done == "accepted" && d.Report == nil {
		page.Done = d.Name + " is a device now. It learns what it should run at its next check-in."
	}
	switch {
	case d.Retired != nil:
		page.MayNot = fmt.Sprintf("A retired device cannot come back. Its machine may enrol anew: repo-manager device register %s --product %s --stage %s", d.Serial, d.Product, d.Stage)
	case !mayOperate(v, d):
		page.MayNot = mayNotOperate(v, d)
	default:
		for _, a := range deviceActs {
			if a.fits(d) {
				page.Acts = append(page.Acts, actLink{Text: a.link, URL: deviceURL(d.Pipeline, d.Name, a.name)})
			}
		}
	}
}

// mayOperate reports whether v may act on a device.
func mayOperate(v visitor, d fleet.View) bool {
	scope := d.Pipeline
	if d.Product != "" {
		scope += "/" + d.Product
	}
	return access.Allows(v.Roles, "operator", scope)
}

func mayNotOperate(v visitor, d fleet.View) string {
	return fmt.Sprintf("%s may look, but not act on devices of product %s: that takes the role operator.", v.User, d.Product)
}
