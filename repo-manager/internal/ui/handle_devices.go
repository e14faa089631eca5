package ui

import (
	"errors"
	"net/http"
	"net/url"
	"strconv"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// Devices that one page of the list shows.
const devicesPerPage = 100

// deviceFilter is what the list of devices is asked for, by its address.
type deviceFilter struct {
	Product, Stage, State, Text, Package string
	From                                 int
}

// Any reports whether it leaves anything out but by state.
func (f deviceFilter) Any() bool {
	return f.Product != "" || f.Stage != "" || f.Text != "" || f.Package != ""
}

func filterOf(q url.Values) deviceFilter {
	from, err := strconv.Atoi(q.Get("from"))
	if err != nil || from < 0 {
		from = 0 // nobody types it
	}
	return deviceFilter{
		Product: q.Get("product"), Stage: q.Get("stage"), State: q.Get("state"), Text: q.Get("q"), Package: q.Get("package"), From: from,
	}
}

// devicesURL is the address of a list.
func devicesURL(pipeline string, f deviceFilter) string {
	q := url.Values{}
	for name, value := range map[string]string{"product": f.Product, "stage": f.Stage, "state": f.State, "q": f.Text, "package": f.Package} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if f.From > 0 {
		q.Set("from", strconv.Itoa(f.From))
	}
	u := pipelineURL(pipeline) + "/devices"
	if len(q) > 0 {
		u += "?" + q.Encode()
	}
	return u
}

// choice is one option of a form.
type choice struct {
	Value, Text string
	Chosen      bool
}

func choices(chosen string, all ...string) []choice {
	var list []choice
	for _, value := range all {
		list = append(list, choice{Value: value, Text: value, Chosen: value == chosen})
	}
	return list
}

// devicesView is the list of a pipeline's devices.
type devicesView struct {
	frame
	Pipeline string
	Action   string // where the search form leads
	Filter   deviceFilter
	States   []stateCount
	All      stateCount // those of every state
	Products []choice
	Stages   []choice
	Rows     []deviceView
	First    int // number of the first row, from 1
	Last     int
	Total    int
	Previous string // link
	Next     string // link
	Unknown  int    // devices whose packages are not known yet
	Problem  string // why the filter cannot be applied
	Hint     string
	None     bool   // the pipeline has no device at all
	Clear    string // link to the list without filter
	Waiting  int    // machines that wait for an operator
	Pending  string // link to them; "" if v may not see them
}

// devices lists the devices of a pipeline, worst first.
func (s *server) devices(w http.ResponseWriter, r *http.Request, v visitor) error {
	b, err := s.look(r.Context(), r.PathValue("p"))
	if err != nil {
		return err
	}
	f := filterOf(r.URL.Query())
	view := devicesView{
		frame: s.frame(v, b.Name, "Devices"), Pipeline: b.Name, Action: devicesURL(b.Name, deviceFilter{}), Filter: f,
		Clear: devicesURL(b.Name, deviceFilter{State: f.State}),
	}
	view.section("Devices")
	view.Events, view.Live = pipelineURL(b.Name)+"/events", "replace"
	products, err := s.Products.Products(r.Context(), b.Name)
	if err != nil {
		return err
	}
	for _, p := range products {
		view.Products = append(view.Products, choice{Value: p.Name, Text: p.Name, Chosen: p.Name == f.Product})
	}
	view.Stages = choices(f.Stage, b.Stages...)
	survey, err := s.Fleet.Survey(r.Context(), fleet.Query{
		DeviceFilter: protocol.DeviceFilter{Pipeline: b.Name, Product: f.Product, Stage: f.Stage, State: f.State, Package: f.Package},
		Text:         f.Text, From: f.From, Limit: devicesPerPage,
	})
	var known *release.Error
	status := http.StatusOK
	switch {
	case errors.As(err, &known) && known.Code == release.Invalid && f.Package != "":
		status, view.Problem, view.Hint = statuses[known.Code], sentence(known.Text), known.Hint
	case err != nil:
		return err
	}
	view.tally(b.Name, survey)
	now := s.Clock()
	for _, device := range survey.Views {
		view.Rows = append(view.Rows, newDevice(now, device))
	}
	if mayPrepare(v, b.Name) {
		view.Waiting, view.Pending = len(s.Fleet.Pending(r.Context())), enrolmentsURL(b.Name)
	}
	s.render(w, status, "devices", view)
	return nil
}

// tally words how many there are, and leads to the others.
func (view *devicesView) tally(pipeline string, survey fleet.Survey) {
	f := view.Filter
	link := func(is string) string {
		other := f
		other.State, other.From = is, 0
		return devicesURL(pipeline, other)
	}
	view.States = countsOf(survey.Counts, link)
	for i := range view.States {
		view.States[i].Here = view.States[i].State == f.State
	}
	view.All = stateCount{Count: total(living(survey.Counts)), URL: link(""), Here: f.State == ""}
	view.Total, view.Unknown = survey.Total, survey.Unknown
	view.None = len(survey.Counts) == 0 && !f.Any() && f.State == "" && view.Problem == ""
	if len(survey.Views) > 0 {
		view.First, view.Last = f.From+1, f.From+len(survey.Views)
	}
	page := func(from int) string {
		other := f
		other.From = max(from, 0)
		return devicesURL(pipeline, other)
	}
	if f.From > 0 {
		view.Previous = page(min(f.From, survey.Total) - devicesPerPage)
	}
	if view.Last > 0 && view.Last < survey.Total {
		view.Next = page(f.From + devicesPerPage)
	}
}

// mayPrepare reports whether v may see which machines wait to become devices:
// they are of no pipeline yet.
func mayPrepare(v visitor, pipeline string) bool {
	return sees(v, pipeline) && (access.AllowsSomewhere(v.Roles, "operator") || access.AllowsSomewhere(v.Roles, "manufacturing"))
}
