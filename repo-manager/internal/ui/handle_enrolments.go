package ui

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

func enrolmentsURL(pipeline string) string { return pipelineURL(pipeline) + "/enrolments" }

func enrolmentURL(pipeline, key, act string) string {
	return enrolmentsURL(pipeline) + "/" + url.PathEscape(key) + "/" + act
}

// waitingView is a machine that waits for an operator.
type waitingView struct {
	Key          string
	Serial       string
	Product      string // what it takes itself for
	Architecture string
	Revision     string
	Machine      string
	Address      string
	Reason       string
	Replaces     string // the device that has its serial number
	First, Last  moment
	Accept       string // link
}

func newWaiting(now time.Time, pipeline string, e protocol.PendingEnrolment) waitingView {
	return waitingView{
		Key: e.Key, Serial: e.Serial, Product: e.Product, Architecture: e.Architecture, Revision: e.Revision, Machine: e.Machine,
		Address: e.Address, Reason: e.Reason, Replaces: e.Replaces, First: at(now, e.First), Last: at(now, e.Last),
		Accept: enrolmentURL(pipeline, e.Key, "accept"),
	}
}

// enrolmentsView lists the machines that wait.
type enrolmentsView struct {
	frame
	Pipeline string
	Waiting  []waitingView
	More     int
	MayNot   string
	Done     string
}

// Machines that the page lists; strangers can make many wait.
const enrolmentLines = 100

// enrolments lists the machines that wait to become devices.
func (s *server) enrolments(w http.ResponseWriter, r *http.Request, v visitor) error {
	p, err := s.pipelineFor(r, v)
	if err != nil {
		return err
	}
	view := enrolmentsView{frame: s.frame(v, p.Name, "Waiting machines"), Pipeline: p.Name}
	view.section("Waiting")
	view.Events, view.Live = pipelineURL(p.Name)+"/events", "replace"
	now := s.Clock()
	all := s.Fleet.Pending(r.Context())
	for _, e := range all[:min(len(all), enrolmentLines)] {
		view.Waiting = append(view.Waiting, newWaiting(now, p.Name, e))
	}
	view.More = len(all) - len(view.Waiting)
	if !mayAccept(v, p.Name) {
		view.MayNot = fmt.Sprintf("%s may look, but not accept machines: that takes the role operator.", v.User)
	}
	if r.URL.Query().Get("done") == "refused" {
		view.Done = "The machine was refused. It is told so when it asks again."
	}
	s.render(w, http.StatusOK, "enrolments", view)
	return nil
}

// pipelineFor finds the pipeline of a request for whoever may see waiting
// machines.
func (s *server) pipelineFor(r *http.Request, v visitor) (release.Pipeline, error) {
	name := r.PathValue("p")
	if !mayPrepare(v, name) {
		return release.Pipeline{}, &release.Error{
			Code: release.Forbidden, Text: fmt.Sprintf("cannot show waiting machines to %s: that takes the role operator or manufacturing", v.User),
			Hint: "An admin can give it to you.",
		}
	}
	return s.Release.Pipeline(r.Context(), name)
}

// mayAccept reports whether v may accept machines into some product of a
// pipeline.
func mayAccept(v visitor, pipeline string) bool {
	return access.Allows(v.Roles, "operator", pipeline) || slices.ContainsFunc(v.Roles, func(role string) bool {
		return strings.HasPrefix(role, "operator:"+pipeline+"/")
	})
}

// enrolmentView is the page on which somebody decides about a machine.
type enrolmentView struct {
	frame
	Pipeline  string
	Machine   waitingView
	Elsewhere bool   // the device with its serial number is of another pipeline
	Device    string // link to the device whose key would be replaced
	Products  []choice
	Stages    []choice
	Modules   []choice
	Name      string
	Reason    string
	Expect    string
	MayNot    string
	Problem   string
	Hint      string
	Refuse    string // where the form that refuses goes
	Fresh     string
	Back      string
}

// waiting finds a machine that waits, by its whole key: nobody accepts another
// one than was looked at.
func (s *server) waiting(r *http.Request) (protocol.PendingEnrolment, error) {
	key := r.PathValue("key")
	for _, e := range s.Fleet.Pending(r.Context()) {
		if e.Key == key {
			return e, nil
		}
	}
	return protocol.PendingEnrolment{}, &release.Error{
		Code: release.NotFound, Text: fmt.Sprintf("cannot find an enrolment with key %q: none waits", key),
		Hint: "Somebody decided about it, or it was forgotten; a machine that was forgotten asks again.",
	}
}

// asks identifies what a machine said and would replace.
func asks(e protocol.PendingEnrolment) string {
	return strings.Join([]string{e.Key, e.Serial, e.Machine, e.Product, e.Architecture, e.Revision, e.Replaces}, " ")
}

// reviewEnrolment shows a machine that waits, with the forms that decide.
func (s *server) reviewEnrolment(w http.ResponseWriter, r *http.Request, v visitor) error {
	if _, err := s.pipelineFor(r, v); err != nil {
		return err
	}
	e, err := s.waiting(r)
	if err != nil {
		return err
	}
	return s.showEnrolment(w, r, v, e, r.URL.Query(), nil)
}

func (s *server) showEnrolment(w http.ResponseWriter, r *http.Request, v visitor, e protocol.PendingEnrolment, form url.Values, problem *release.Error) error {
	p, err := s.Release.Pipeline(r.Context(), r.PathValue("p"))
	if err != nil {
		return err
	}
	view := enrolmentView{
		frame: s.frame(v, p.Name, "Accept machine "+e.Serial), Pipeline: p.Name, Machine: newWaiting(s.Clock(), p.Name, e),
		Stages: choices(cmp.Or(form.Get("stage"), p.Stages[len(p.Stages)-1]), p.Stages...), Name: form.Get("name"), Reason: form.Get("reason"), Expect: asks(e),
		Refuse: enrolmentURL(p.Name, e.Key, "refuse"), Back: enrolmentsURL(p.Name),
	}
	view.Fresh = view.Machine.Accept
	view.section("Waiting")
	view.Crumbs = append(view.Crumbs, crumb{Name: "Waiting", URL: view.Back})
	view.Events, view.Live = pipelineURL(p.Name)+"/events", "warn"
	products, err := s.Products.Products(r.Context(), p.Name)
	if err != nil {
		return err
	}
	chosen := cmp.Or(form.Get("product"), e.Product)
	for _, one := range products {
		view.Products = append(view.Products, choice{Value: one.Name, Text: fmt.Sprintf("%s (%s)", one.Name, one.Architecture), Chosen: one.Name == chosen})
		for _, m := range slices.Sorted(maps.Keys(one.Modules)) {
			value := one.Name + "/" + m
			view.Modules = append(view.Modules, choice{Value: value, Text: fmt.Sprintf("%s of %s", m, one.Name), Chosen: slices.Contains(form["module"], value)})
		}
	}
	if e.Replaces != "" {
		owner, _, err := s.Fleet.Show(r.Context(), e.Replaces)
		if err != nil {
			return err
		}
		if view.Elsewhere = owner.Pipeline != p.Name; !view.Elsewhere {
			view.Device = deviceURL(p.Name, owner.Name, "")
		}
	}
	if !mayAccept(v, p.Name) {
		view.MayNot = fmt.Sprintf("%s may look, but not accept machines: that takes the role operator.", v.User)
	}
	status := http.StatusOK
	if problem != nil {
		status, view.Problem, view.Hint = statuses[problem.Code], sentence(problem.Text), problem.Hint
	}
	s.render(w, status, "enrolment", view)
	return nil
}

// accept makes a machine that was reviewed a device.
func (s *server) accept(w http.ResponseWriter, r *http.Request, v visitor) error {
	pipeline, form := r.PathValue("p"), r.PostForm
	if !mayAccept(v, pipeline) {
		return &release.Error{Code: release.Forbidden, Text: fmt.Sprintf("cannot accept a machine as %s: that takes the role operator", v.User)}
	}
	e, err := s.waiting(r)
	if err != nil {
		return err
	}
	if form.Get("expect") != asks(e) {
		return &movedError{text: "The machine was not accepted: it says something else than what you reviewed.", again: enrolmentURL(pipeline, e.Key, "accept")}
	}
	how := protocol.Accept{Pipeline: pipeline, Replace: e.Replaces != ""}
	if how.Replace {
		owner, _, err := s.Fleet.Show(r.Context(), e.Replaces)
		if err != nil {
			return err
		}
		if owner.Pipeline != pipeline || !mayOperate(v, owner) {
			return &release.Error{Code: release.Forbidden, Text: mayNotOperate(v, owner)}
		}
	} else {
		how.Name, how.Product, how.Stage = strings.TrimSpace(form.Get("name")), form.Get("product"), form.Get("stage")
		if !access.Allows(v.Roles, "operator", strings.TrimSuffix(pipeline+"/"+how.Product, "/")) {
			return &release.Error{Code: release.Forbidden, Text: fmt.Sprintf("cannot accept a machine as product %s: %s has not the role operator for it", how.Product, v.User)}
		}
		for _, value := range form["module"] {
			product, module, _ := strings.Cut(value, "/")
			if product != how.Product {
				return s.showEnrolment(w, r, v, e, form, &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot accept %s as %s: module %s is of product %s", e.Serial, how.Product, module, product)})
			}
			how.Modules = append(how.Modules, module)
		}
	}
	d, err := s.Fleet.Accept(r.Context(), v.Actor(), e.Key, how)
	if err != nil {
		return s.undecided(w, r, v, e, err)
	}
	s.Log.Info("machine accepted from a page", "pipeline", d.Pipeline, "device", d.Name, "user", v.User)
	http.Redirect(w, r, deviceURL(d.Pipeline, d.Name, "")+"?done=accepted", http.StatusSeeOther)
	return nil
}

// refuse turns a machine that was reviewed away.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, v visitor) error {
	pipeline := r.PathValue("p")
	if !mayAccept(v, pipeline) {
		return &release.Error{Code: release.Forbidden, Text: fmt.Sprintf("cannot refuse a machine as %s: that takes the role operator", v.User)}
	}
	e, err := s.waiting(r)
	if err != nil {
		return err
	}
	if err := s.Fleet.Refuse(r.Context(), v.Actor(), e.Key, r.PostForm.Get("reason")); err != nil {
		return s.undecided(w, r, v, e, err)
	}
	s.Log.Info("machine refused from a page", "key", e.Key, "user", v.User)
	http.Redirect(w, r, enrolmentsURL(pipeline)+"?done=refused", http.StatusSeeOther)
	return nil
}

// undecided shows the review again with what kept it from being done.
func (s *server) undecided(w http.ResponseWriter, r *http.Request, v visitor, e protocol.PendingEnrolment, err error) error {
	var known *release.Error
	if errors.As(err, &known) && slices.Contains([]release.Code{release.Invalid, release.NotFound, release.Refused, release.Conflict}, known.Code) {
		return s.showEnrolment(w, r, v, e, r.PostForm, known)
	}
	return err
}
