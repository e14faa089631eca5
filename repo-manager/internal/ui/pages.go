package ui

import (
	"bytes"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"aptfleet/web"
)

// frame is what every page has around its own content.
type frame struct {
	Title    string
	User     string // signed in; "" if nobody is
	CSRF     string
	Crumbs   []crumb
	Sections []crumb // of the pipeline that the page is about
	Events   string  // stream that says when to look again; "" for none
	Live     string  // "replace" or "warn": what live.js does then
}

// crumb is one step of the way to a page.
type crumb struct {
	Name, URL string
	Here      bool
}

// frame starts a page for v below a pipeline and, in it, a page named here.
func (s *server) frame(v visitor, pipeline, here string) frame {
	f := frame{User: v.User, CSRF: v.csrf}
	if pipeline != "" {
		f.Crumbs = append(f.Crumbs, crumb{Name: pipeline, URL: pipelineURL(pipeline), Here: here == ""})
		f.Title = "Pipeline " + pipeline
		f.Sections = []crumb{
			{Name: "Stages", URL: pipelineURL(pipeline)},
			{Name: "Devices", URL: devicesURL(pipeline, deviceFilter{})},
			{Name: "Products", URL: pipelineURL(pipeline) + "/products"},
		}
		if mayPrepare(v, pipeline) {
			f.Sections = append(f.Sections, crumb{Name: "Waiting", URL: enrolmentsURL(pipeline)})
		}
	}
	if here != "" {
		f.Title = here
	}
	return f
}

// section marks the section of the pipeline that the page belongs to.
func (f *frame) section(name string) {
	for i := range f.Sections {
		f.Sections[i].Here = f.Sections[i].Name == name
	}
}

func pipelineURL(pipeline string) string { return "/pipelines/" + url.PathEscape(pipeline) }

func stageURL(pipeline, stage, act string) string {
	u := pipelineURL(pipeline) + "/stages/" + url.PathEscape(stage)
	if act != "" {
		u += "/" + act
	}
	return u
}

// errorView is the page that says what did not work and what to do next.
type errorView struct {
	frame
	Status   int
	Text     string
	Hint     string
	Happened []happened
	Again    string // link to a fresh review
	Back     string
}

// titleOf words a status.
func titleOf(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "Who is asking?"
	case http.StatusForbidden:
		return "You may not do this"
	case http.StatusNotFound:
		return "There is nothing here"
	case http.StatusConflict:
		return "That collides with something"
	case http.StatusUnprocessableEntity:
		return "Refused"
	case http.StatusServiceUnavailable:
		return "Done, and not visible yet"
	case http.StatusLocked:
		return "Another change is under way"
	case http.StatusBadRequest:
		return "That cannot be"
	case http.StatusInternalServerError:
		return "Something went wrong"
	default:
		return http.StatusText(status)
	}
}

// sentence makes the text of an error, "cannot …", readable on a page. What
// begins with anything else may be a name and stays as it is.
func sentence(text string) string {
	if rest, ok := strings.CutPrefix(text, "cannot "); ok {
		text = "Cannot " + rest
	}
	if text != "" && !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}

// pages are the parsed templates, one set per page.
type pages struct {
	sets map[string]*template.Template
}

// pageNames are the pages; each is a template file that defines "main".
var pageNames = []string{"pipelines", "pipeline", "review", "history", "devices", "device", "act", "enrolments", "enrolment", "products", "product", "account", "login", "error"}

func newPages(a *assets) (*pages, error) {
	functions := template.FuncMap{"asset": a.url}
	base, err := template.New("base").Funcs(functions).Option("missingkey=error").
		ParseFS(web.Templates(), "layout.html", "parts.html")
	if err != nil {
		return nil, fmt.Errorf("cannot read templates: %w", err)
	}
	p := &pages{sets: map[string]*template.Template{}}
	for _, name := range pageNames {
		set, err := base.Clone()
		if err != nil {
			return nil, fmt.Errorf("cannot read template %s: %w", name, err)
		}
		if _, err := set.ParseFS(web.Templates(), name+".html"); err != nil {
			return nil, fmt.Errorf("cannot read template %s: %w", name, err)
		}
		p.sets[name] = set
	}
	return p, nil
}

// execute renders a page completely before anything is sent, so that an error
// never leaves half a page.
func (p *pages) execute(name string, view any) ([]byte, error) {
	set, ok := p.sets[name]
	if !ok {
		return nil, fmt.Errorf("cannot render page %q: there is no such page", name)
	}
	var b bytes.Buffer
	if err := set.ExecuteTemplate(&b, "layout", view); err != nil {
		return nil, fmt.Errorf("cannot render page %s: %w", name, err)
	}
	return b.Bytes(), nil
}

func (s *server) render(w http.ResponseWriter, status int, name string, view any) {
	body, err := s.pages.execute(name, view)
	if err != nil {
		s.Log.Error("cannot render a page", "error", err)
		http.Error(w, "cannot show this page: the server's log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		s.Log.Debug("cannot send a page", "error", err) // the browser went away
	}
}
