package ui

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Release is what the pages ask of the engine. Errors that a person should
// read are *release.Error; any other is logged and shown as an internal one.
type Release interface {
	Pipelines(ctx context.Context) ([]release.Pipeline, error)
	Pipeline(ctx context.Context, name string) (release.Pipeline, error)
	Stages(ctx context.Context, pipeline string) ([]release.Stage, error)
	History(ctx context.Context, pipeline, stage string) ([]release.Move, error)
	Snapshots(ctx context.Context, pipeline string) ([]release.Snapshot, error)
	Packages(ctx context.Context, pipeline, ref string, filter release.Filter) ([]release.Listed, error)
	Resolve(ctx context.Context, pipeline, ref string) (release.Offer, error)
	Diff(ctx context.Context, pipeline, from, to string) (a, b release.Offer, differences []snapshots.Difference, err error)
	Promote(ctx context.Context, actor release.Actor, pipeline, ref, to, reason string, expect *snapshots.ID, dryRun bool) (release.Move, error)
	Undo(ctx context.Context, actor release.Actor, pipeline, stage, reason string, expect *snapshots.ID) (release.Move, error)
	Changes(ctx context.Context) ([]release.Change, error)
	Subscribe(buffer int) (events <-chan release.Event, cancel func())
}

// Access knows who a browser belongs to.
type Access interface {
	// BySession says whose session a cookie opens, and the CSRF token of its
	// forms. An unknown or ended session is release.NoAccess.
	BySession(ctx context.Context, cookie string) (id access.Identity, csrf string, err error)
	// LinkUser says whom a one-time link signs in, without using it up.
	LinkUser(ctx context.Context, token string) (user string, err error)
	// Redeem uses a one-time link up and starts a session.
	Redeem(ctx context.Context, token string, from access.Origin) (cookie string, expires time.Time, err error)
	// EndSession ends a session; ending it twice is no error.
	EndSession(ctx context.Context, cookie string) error
	// SessionsOf lists the sessions of a user, and EndSessionsOf ends them all.
	SessionsOf(ctx context.Context, user string) ([]access.Session, error)
	EndSessionsOf(ctx context.Context, actor release.Actor, user string) (int, error)
}

// Fleet knows the devices, and does what operators want of them; the comments
// of *fleet.Service hold the promises.
type Fleet interface {
	Survey(ctx context.Context, q fleet.Query) (fleet.Survey, error)
	Kinds(ctx context.Context, pipeline, stage string) []fleet.Kind
	Show(ctx context.Context, name string) (fleet.View, []fleet.Event, error)
	Pending(ctx context.Context) []protocol.PendingEnrolment

	Accept(ctx context.Context, actor release.Actor, which string, how protocol.Accept) (fleet.Device, error)
	Refuse(ctx context.Context, actor release.Actor, which, reason string) error
	Assign(ctx context.Context, actor release.Actor, name, stage string) (fleet.Device, error)
	Hold(ctx context.Context, actor release.Actor, name, reason string, until time.Time) (fleet.Device, error)
	Unhold(ctx context.Context, actor release.Actor, name string) (fleet.Device, error)
	Pin(ctx context.Context, actor release.Actor, name, snapshot, reason string) (fleet.Device, error)
	Unpin(ctx context.Context, actor release.Actor, name string) (fleet.Device, error)
	Retire(ctx context.Context, actor release.Actor, name, reason string) (fleet.Device, error)
	Resolve(ctx context.Context, actor release.Actor, name, keep string) (fleet.Device, error)
}

// Products knows the products and their bills of materials; the comments of
// *product.Service hold the promises.
type Products interface {
	Products(ctx context.Context, pipeline string) ([]product.Product, error)
	Get(pipeline, name string) (product.Product, error)
	Devices(pipeline, name string) int
	Lookup(pipeline, name string, modules []string, state snapshots.ID) (product.Ready, product.Status, string)
	BOM(ctx context.Context, pipeline, name string, modules []string, state snapshots.ID) (product.Bill, error)
	Diff(ctx context.Context, pipeline, name string, modules []string, from, to snapshots.ID, news bool) (product.Difference, error)
}

// Configuration knows what devices are configured with; the comments of
// *configuration.Service hold the promises.
type Configuration interface {
	Effective(ctx context.Context, pipeline, device string) ([]configuration.Effective, error)
	Readable(v configuration.Value) bool
	Revision(d configuration.Device) (string, error)
}

// Config is everything the pages need.
type Config struct {
	Release       Release
	Access        Access
	Fleet         Fleet
	Products      Products
	Configuration Configuration
	Clock         func() time.Time
	Secure        bool // the listener speaks TLS: the session cookie says so
	Log           *slog.Logger
}

// server holds what requests share; it is read-only after New.
type server struct {
	Config
	pages  *pages
	assets *assets
	origin *http.CrossOriginProtection
}

// New returns the handler of all pages, to be mounted at "/" beside the API.
// It fails only if a template or a static file of the program is broken.
func New(c Config) (http.Handler, error) {
	assets, err := newAssets()
	if err != nil {
		return nil, err
	}
	pages, err := newPages(assets)
	if err != nil {
		return nil, err
	}
	s := &server{Config: c, pages: pages, assets: assets, origin: http.NewCrossOriginProtection()}

	mux := http.NewServeMux()
	for _, r := range s.routes() {
		mux.HandleFunc(r.pattern, r.handle)
	}
	return secured(mux), nil
}

// route is a page, or what a form of one does.
type route struct {
	pattern string // of http.ServeMux
	handle  http.HandlerFunc
}

// routes are all pages. A GET never acts; whatever else there is goes through
// act, but for the login, which has no session yet.
func (s *server) routes() []route {
	const (
		device    = "/pipelines/{p}/devices/{d}"
		enrolment = "/pipelines/{p}/enrolments/{key}"
		product   = "/pipelines/{p}/products/{product}"
	)
	all := []route{
		{"GET /static/", s.assets.ServeHTTP},
		{"GET /login", s.showLogin},
		{"POST /login", s.login},
		{"POST /logout", s.act(s.logout)},
		{"GET /account", s.see(s.account)},
		{"POST /account/sign-out", s.act(s.signOutEverywhere)},
		{"GET /{$}", s.see(s.home)},
		{"GET /pipelines", s.see(s.list)},
		{"GET /pipelines/{p}", s.see(s.pipeline)},
		{"GET /pipelines/{p}/events", s.see(s.events)},
		{"GET /pipelines/{p}/stages/{s}", s.see(s.history)},
		{"GET /pipelines/{p}/stages/{s}/promote", s.see(s.reviewPromotion)},
		{"POST /pipelines/{p}/stages/{s}/promote", s.act(s.promote)},
		{"GET /pipelines/{p}/stages/{s}/undo", s.see(s.reviewUndo)},
		{"POST /pipelines/{p}/stages/{s}/undo", s.act(s.undo)},
		{"GET /pipelines/{p}/devices", s.see(s.devices)},
		{"GET " + device, s.see(s.device)},
		{"GET /pipelines/{p}/enrolments", s.see(s.enrolments)},
		{"GET " + enrolment + "/accept", s.see(s.reviewEnrolment)},
		{"POST " + enrolment + "/accept", s.act(s.accept)},
		{"POST " + enrolment + "/refuse", s.act(s.refuse)},
		{"GET /pipelines/{p}/products", s.see(s.products)},
		{"GET " + product, s.see(s.product)},
		{"GET /", s.see(s.nowhere)},
		{"POST /", s.act(s.nowhere)},
	}
	for _, a := range deviceActs {
		all = append(all, route{"GET " + device + "/" + a.name, s.see(s.reviewAct(a))}, route{"POST " + device + "/" + a.name, s.act(s.actOn(a))})
	}
	for file, send := range s.downloads() {
		all = append(all, route{"GET " + product + "/" + file, s.see(send)})
	}
	return all
}

// secured sets the headers that every answer carries: nothing but our own
// origin may be loaded, and nobody may frame us.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin") // no-referrer would make forms send "Origin: null"
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// visitor is the person behind a request.
type visitor struct {
	access.Identity
	cookie string
	csrf   string
}

// page is a handler that knows who asks. What it returns as an error becomes
// an error page.
type page func(w http.ResponseWriter, r *http.Request, v visitor) error

// see lets a signed-in person look; anybody else is shown how to sign in.
func (s *server) see(p page) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := s.visitor(r)
		if err != nil {
			s.turnAway(w, r, err)
			return
		}
		if err := maySee(v, r.PathValue("p")); err != nil {
			s.fail(w, r, v, err)
			return
		}
		if err := p(w, r, v); err != nil {
			s.fail(w, r, v, err)
		}
	}
}

// sees tells whether v may read a pipeline.
func sees(v visitor, pipeline string) bool { return access.Allows(v.Roles, "viewer", pipeline) }

// maySee refuses a pipeline that v may not read, whether there is one of that
// name or not. A page of no pipeline is open to whoever has any role.
func maySee(v visitor, pipeline string) error {
	if pipeline != "" && !sees(v, pipeline) {
		return &release.Error{
			Code: release.Forbidden,
			Text: fmt.Sprintf("cannot show pipeline %s to %s: the role viewer:%s is missing", pipeline, v.User, pipeline),
			Hint: "An admin can give it to you.",
		}
	}
	return nil
}

// Forms are short; a larger body is not one of ours.
const maxForm = 64 << 10

// act lets a signed-in person act: the request must come from a page of ours
// and carry the session's CSRF token.
func (s *server) act(p page) http.HandlerFunc {
	return s.see(func(w http.ResponseWriter, r *http.Request, v visitor) error {
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := s.origin.Check(r); err != nil {
			return &release.Error{Code: release.Forbidden, Text: "cannot accept the form: it was sent from another site", Err: err}
		}
		if err := r.ParseForm(); err != nil {
			return &release.Error{Code: release.Invalid, Text: "cannot read the form: " + err.Error(), Err: err}
		}
		if !sameSecret(r.PostForm.Get("csrf"), v.csrf) {
			return &release.Error{
				Code: release.Forbidden, Text: "cannot accept the form: it does not belong to this session",
				Hint: "Go back, reload the page and send the form again.",
			}
		}
		return p(w, r, v)
	})
}

func (s *server) nowhere(_ http.ResponseWriter, r *http.Request, _ visitor) error {
	return &release.Error{Code: release.NotFound, Text: "cannot find a page at " + r.URL.Path}
}

// statuses are the answers to the codes of the domain.
var statuses = map[release.Code]int{
	release.Invalid:   http.StatusBadRequest,
	release.NotFound:  http.StatusNotFound,
	release.Conflict:  http.StatusConflict,
	release.Refused:   http.StatusUnprocessableEntity,
	release.TooLarge:  http.StatusRequestEntityTooLarge,
	release.Upstream:  http.StatusBadGateway,
	release.NoSpace:   http.StatusInsufficientStorage,
	release.Locked:    http.StatusLocked,
	release.NoAccess:  http.StatusUnauthorized,
	release.Forbidden: http.StatusForbidden,

	release.Unpublished: http.StatusServiceUnavailable,
}

// fail shows an error page. What is not meant for people is logged and stays
// out of the page.
func (s *server) fail(w http.ResponseWriter, r *http.Request, v visitor, err error) {
	view := errorView{Back: "/"}
	var conflict *movedError
	var known *release.Error
	switch {
	case errors.As(err, &conflict):
		view.Status, view.Title, view.Text = http.StatusConflict, "Something moved meanwhile", conflict.Error()
		view.Happened, view.Again = conflict.happened, conflict.again
	case errors.As(err, &known):
		view.Status = statuses[known.Code]
		view.Text, view.Hint = sentence(known.Text), known.Hint
	}
	if view.Status == 0 {
		view.Status = http.StatusInternalServerError
		view.Text = "The server could not do this. Its log says why."
		s.Log.Error("cannot answer a page", "path", r.URL.Path, "user", v.User, "error", err)
	}
	if view.Title == "" {
		view.Title = titleOf(view.Status)
	}
	known404 := view.Status == http.StatusNotFound // then the pipeline may be what is not there
	if p := r.PathValue("p"); p != "" && v.User != "" && !known404 && sees(v, p) {
		view.Back = pipelineURL(p)
		view.frame = s.frame(v, p, view.Title)
	} else {
		view.frame = s.frame(v, "", view.Title)
	}
	s.render(w, view.Status, "error", view)
}
