package ui

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// Snapshots that the form of a pin suggests, the newest.
const suggested = 20

// deviceAct is something that an operator does with a device: a review at its
// name below the device's address, and the act itself by a POST there.
type deviceAct struct {
	name   string
	link   string // leads to the review
	title  string // %s: the device
	lead   string
	button string
	fits   func(d fleet.View) bool // there is something to do
	fields func(ctx context.Context, s *server, view *actView, d fleet.View, form url.Values) error
	do     func(ctx context.Context, s *server, a release.Actor, d fleet.View, form url.Values) error
	done   func(d fleet.View) string // what the device's page says after it; "" if it is not so
}

// deviceActs are the acts, in the order in which a page offers them.
var deviceActs = []deviceAct{
	{
		name: "resolve", link: "Say which machine it is…", title: "Which machine is %s?", button: "This machine is the device",
		lead:   "The others are told that they are retired and get nothing any more. Reports are taken from all of them until then; none is given an assignment.",
		fits:   func(d fleet.View) bool { return d.Clone != nil },
		fields: resolveFields,
		do: func(ctx context.Context, s *server, a release.Actor, d fleet.View, form url.Values) error {
			return second(s.Fleet.Resolve(ctx, a, d.Name, form.Get("keep")))
		},
		done: func(d fleet.View) string {
			if d.Clone != nil {
				return ""
			}
			return "One machine is " + d.Name + " again. It is given its assignment at its next check-in."
		},
	},
	{
		name: "hold", link: "Hold…", title: "Hold %s", button: "Hold the device",
		lead:   "The device stays as it is, whatever its stage offers, until the hold ends or is taken off.",
		fits:   func(fleet.View) bool { return true },
		fields: holdFields,
		do: func(ctx context.Context, s *server, a release.Actor, d fleet.View, form url.Values) error {
			var until time.Time
			if text := form.Get("for"); text != "" {
				lasts, err := time.ParseDuration(text)
				if err != nil {
					return &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot hold device %s for %q", d.Name, text), Err: err}
				}
				until = s.Clock().Add(lasts)
			}
			return second(s.Fleet.Hold(ctx, a, d.Name, form.Get("reason"), until))
		},
		done: func(d fleet.View) string {
			if d.Hold == nil {
				return ""
			}
			return d.Name + " is held. It is told so at its next check-in."
		},
	},
	{
		name: "unhold", link: "Take the hold off…", title: "Take the hold off %s", button: "Take the hold off",
		lead: "The device follows what it should run again, at its next check-in.",
		fits: func(d fleet.View) bool { return d.Hold != nil },
		do: func(ctx context.Context, s *server, a release.Actor, d fleet.View, _ url.Values) error {
			return second(s.Fleet.Unhold(ctx, a, d.Name))
		},
		done: func(d fleet.View) string {
			if d.Hold != nil {
				return ""
			}
			return d.Name + " is not held any more."
		},
	},
	{
		name: "pin", link: "Pin to a snapshot…", title: "Pin %s to a snapshot", button: "Pin the device",
		lead:   "The device runs this snapshot from its next check-in on, whatever its stage offers, also if it is older.",
		fits:   func(fleet.View) bool { return true },
		fields: pinFields,
		do: func(ctx context.Context, s *server, a release.Actor, d fleet.View, form url.Values) error {
			ref := strings.TrimSpace(form.Get("snapshot"))
			o, err := s.Release.Resolve(ctx, d.Pipeline, ref)
			if err == nil && o.Snapshot == "" {
				err = &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot pin device %s to %q: it is no snapshot yet", d.Name, ref), Hint: "repo-manager snapshot create"}
			}
			if err != nil {
				return err
			}
			return second(s.Fleet.Pin(ctx, a, d.Name, o.Snapshot, form.Get("reason")))
		},
		done: func(d fleet.View) string {
			if d.Pin == nil {
				return ""
			}
			return d.Name + " is pinned to " + d.Pin.Snapshot + "."
		},
	},
	{
		name: "unpin", link: "Take the pin off…", title: "Take the pin off %s", button: "Take the pin off",
		lead: "The device follows its stage again, at its next check-in.",
		fits: func(d fleet.View) bool { return d.Pin != nil },
		do: func(ctx context.Context, s *server, a release.Actor, d fleet.View, _ url.Values) error {
			return second(s.Fleet.Unpin(ctx, a, d.Name))
		},
		done: func(d fleet.View) string {
			if d.Pin != nil {
				return ""
			}
			return d.Name + " follows its stage again."
		},
	},
	{
		name: "assign", link: "Assign to another stage…", title: "Assign %s to another stage", button: "Assign the device",
		lead:   "The device runs what that stage offers from its next check-in on, also if that is older.",
		fits:   func(fleet.View) bool { return true },
		fields: assignFields,
		do: func(ctx context.Context, s *server, a release.Actor, d fleet.View, form url.Values) error {
			return second(s.Fleet.Assign(ctx, a, d.Name, form.Get("stage")))
		},
		done: func(d fleet.View) string { return d.Name + " follows stage " + d.Stage + "." },
	},
	{
		name: "retire", link: "Retire…", title: "Retire %s", button: "Retire the device for good",
		lead: "Its key and its password are refused from now on, for good. The machine runs on as it is and gets nothing any more; to bring it back it has to enrol anew.",
		fits: func(fleet.View) bool { return true },
		fields: func(_ context.Context, _ *server, view *actView, _ fleet.View, _ url.Values) error {
			view.WantsReason, view.Dangerous = true, true
			return nil
		},
		do: func(ctx context.Context, s *server, a release.Actor, d fleet.View, form url.Values) error {
			return second(s.Fleet.Retire(ctx, a, d.Name, form.Get("reason")))
		},
		done: func(d fleet.View) string {
			if d.Retired == nil {
				return ""
			}
			return d.Name + " is retired."
		},
	},
}

// second is the error of an act that returns the device, too.
func second(_ fleet.Device, err error) error { return err }

// stageChoice is a stage that a device may be assigned to.
type stageChoice struct {
	choice
	Offer offer
}

// actView is the page on which somebody decides about a device.
type actView struct {
	frame
	Pipeline    string
	Device      deviceView
	Lead        string
	Nothing     string // why there is nothing to decide, or ""
	MayNot      string
	Problem     string // why the form was not accepted
	Hint        string
	WantsReason bool
	Dangerous   bool
	Reason      string
	Durations   []choice
	Stages      []stageChoice
	Snapshots   []choice
	WantsPin    bool
	Snapshot    string
	Machines    []machineView
	Keep        string
	OneMachine  bool // all have the same hardware
	Expect      string
	Button      string
	Action      string
	Fresh       string
	Back        string
}

// standing identifies what a review of a device shows and an act changes.
func standing(d fleet.View) string {
	h := sha256.New()
	note := func(words ...any) { _, _ = fmt.Fprintf(h, "%q\n", words) } // a hash takes everything
	note(d.KeyID(), d.Stage, d.Retired != nil)
	if d.Pin != nil {
		note("pin", d.Pin.Snapshot, d.Pin.Reason, d.Pin.By)
	}
	if d.Hold != nil {
		note("hold", d.Hold.Reason, d.Hold.By, d.Hold.Until)
	}
	if d.Clone != nil {
		for _, m := range d.Clone.Machines {
			note("machine", m.Machine)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// reviewAct shows what an act would do to a device.
func (s *server) reviewAct(a deviceAct) page {
	return func(w http.ResponseWriter, r *http.Request, v visitor) error {
		d, _, err := s.deviceOf(r)
		if err != nil {
			return err
		}
		return s.showAct(w, r, v, a, d, r.URL.Query(), nil)
	}
}

// showAct renders the review of an act, with what was typed and, if that was
// not accepted, why.
func (s *server) showAct(w http.ResponseWriter, r *http.Request, v visitor, a deviceAct, d fleet.View, form url.Values, problem *release.Error) error {
	view := actView{
		frame: s.frame(v, d.Pipeline, fmt.Sprintf(a.title, d.Name)), Pipeline: d.Pipeline, Device: newDevice(s.Clock(), d),
		Lead: a.lead, Button: a.button, Expect: standing(d), Reason: form.Get("reason"),
		Action: deviceURL(d.Pipeline, d.Name, a.name), Back: deviceURL(d.Pipeline, d.Name, ""),
	}
	view.Fresh = view.Action
	view.section("Devices")
	view.Crumbs = append(view.Crumbs, crumb{Name: "Devices", URL: devicesURL(d.Pipeline, deviceFilter{})}, crumb{Name: d.Name, URL: view.Back})
	view.Events, view.Live = pipelineURL(d.Pipeline)+"/events", "warn"
	switch {
	case !mayOperate(v, d):
		view.MayNot = mayNotOperate(v, d)
	case d.Retired != nil:
		view.Nothing = d.Name + " is retired."
	case !a.fits(d):
		view.Nothing = "There is nothing to do: " + nothingTo[a.name] + "."
	case a.fields != nil:
		if err := a.fields(r.Context(), s, &view, d, form); err != nil {
			return err
		}
	}
	status := http.StatusOK
	if problem != nil {
		status, view.Problem, view.Hint = statuses[problem.Code], sentence(problem.Text), problem.Hint
	}
	s.render(w, status, "act", view)
	return nil
}

// nothingTo says why an act has nothing to do.
var nothingTo = map[string]string{
	"resolve": "one machine has the key of this device", "unhold": "no operator holds this device", "unpin": "the device is not pinned",
}

// actOn does what was reviewed.
func (s *server) actOn(a deviceAct) page {
	return func(w http.ResponseWriter, r *http.Request, v visitor) error {
		d, _, err := s.deviceOf(r)
		if err != nil {
			return err
		}
		if !mayOperate(v, d) {
			return &release.Error{Code: release.Forbidden, Text: mayNotOperate(v, d)}
		}
		form := r.PostForm
		if form.Get("expect") != standing(d) {
			again := deviceURL(d.Pipeline, d.Name, a.name)
			if reason := form.Get("reason"); reason != "" {
				again += "?" + url.Values{"reason": {reason}}.Encode()
			}
			return &movedError{text: d.Name + " was not changed: what you reviewed is not what stands now.", again: again}
		}
		if err := a.do(r.Context(), s, v.Actor(), d, form); err != nil {
			var known *release.Error
			if errors.As(err, &known) && slices.Contains([]release.Code{release.Invalid, release.NotFound, release.Refused, release.Conflict}, known.Code) {
				return s.showAct(w, r, v, a, d, form, known)
			}
			return err
		}
		s.Log.Info("device changed from a page", "pipeline", d.Pipeline, "device", d.Name, "act", a.name, "user", v.User)
		http.Redirect(w, r, deviceURL(d.Pipeline, d.Name, "")+"?done="+a.name, http.StatusSeeOther)
		return nil
	}
}

func holdFields(_ context.Context, _ *server, view *actView, _ fleet.View, form url.Values) error {
	view.WantsReason = true
	for _, c := range []choice{{Value: "", Text: "until somebody takes it off"}, {Value: "1h", Text: "for an hour"}, {Value: "24h", Text: "for a day"}, {Value: "168h", Text: "for a week"}, {Value: "720h", Text: "for 30 days"}} {
		c.Chosen = c.Value == form.Get("for")
		view.Durations = append(view.Durations, c)
	}
	return nil
}

func assignFields(ctx context.Context, s *server, view *actView, d fleet.View, form url.Values) error {
	stages, err := s.Release.Stages(ctx, d.Pipeline)
	if err != nil {
		return err
	}
	chosen := form.Get("stage")
	if chosen == "" {
		chosen = d.Stage
	}
	for _, stage := range stages {
		view.Stages = append(view.Stages, stageChoice{choice{stage.Name, stage.Name, stage.Name == chosen}, offerOf(stage.Offer)})
	}
	return nil
}

func pinFields(ctx context.Context, s *server, view *actView, d fleet.View, form url.Values) error {
	view.WantsReason, view.WantsPin = true, true
	all, err := s.Release.Snapshots(ctx, d.Pipeline)
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b release.Snapshot) int { return strings.Compare(b.ID, a.ID) })
	for _, snapshot := range all[:min(len(all), suggested)] {
		view.Snapshots = append(view.Snapshots, choice{Value: snapshot.ID, Text: strings.TrimSpace(snapshot.ID + " " + snapshot.Note)})
	}
	if view.Snapshot = form.Get("snapshot"); view.Snapshot == "" && d.Has != nil {
		view.Snapshot = d.Has.Snapshot
	}
	return nil
}

func resolveFields(_ context.Context, s *server, view *actView, d fleet.View, form url.Values) error {
	view.Keep = form.Get("keep")
	for _, m := range machinesOf(s.Clock(), d) {
		same := func(o machineView) bool { return o.Machine == m.Machine }
		if i := slices.IndexFunc(view.Machines, same); i >= 0 {
			view.Machines[i] = m // the newest boot of it
			continue
		}
		view.Machines = append(view.Machines, m)
	}
	if !slices.ContainsFunc(view.Machines, func(m machineView) bool { return m.Machine == d.Machine }) && d.Machine != "" {
		view.Machines = append([]machineView{{Machine: d.Machine}}, view.Machines...)
	}
	view.OneMachine = len(view.Machines) == 1
	return nil
}
