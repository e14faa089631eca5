package api

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// A role of the table. Everybody the server knows is a viewer; an admin has
// every role.
const (
	anyone   = ""
	viewer   = "viewer"
	uploader = "uploader"
	releaser = "releaser"
	operator = "operator"
	admin    = "admin"
)

// handler does what a route is for. It returns a status below 400 and the
// body to send as JSON (nil: none), or an error. A handler that answered by
// itself returns status 0.
type handler func(s *server, c *gin.Context, who access.Identity) (status int, body any, err error)

// route is a row of the table.
type route struct {
	method string
	path   string
	role   string
	scope  string // what the role must cover: path parameters, e.g. "p/r", or ofChange
	handle handler
}

// ofChange is the scope of a row about a change: the pipeline it works on.
const ofChange = "change"

// routes is the whole API of the admin listener and the Unix socket.
func routes() []route {
	const p = "/api/v1/pipelines/:p"
	return []route{
		{http.MethodGet, "/healthz", anyone, "", health},
		{http.MethodGet, "/api/v1/system", viewer, "", getSystem},
		{http.MethodGet, "/api/v1/key", viewer, "", getKey},

		{http.MethodGet, "/api/v1/pipelines", viewer, "", listPipelines},
		{http.MethodPost, "/api/v1/pipelines", admin, "", createPipeline},
		{http.MethodGet, p, viewer, "p", getPipeline},
		{http.MethodPatch, p, admin, "p", setPipeline},
		{http.MethodPost, p + "/repositories", admin, "p", createRepository},
		{http.MethodPost, p + "/repositories/:r/packages", uploader, "p/r", upload},
		{http.MethodPost, p + "/repositories/:r/uploads", uploader, "p/r", uploadAll},
		{http.MethodDelete, p + "/repositories/:r/packages/:name", uploader, "p/r", removePackage},
		{http.MethodGet, p + "/packages", viewer, "p", listPackages},
		{http.MethodPost, p + "/mirrors", admin, "p", createMirror},
		{http.MethodGet, p + "/mirrors/:m", viewer, "p", getMirror},
		{http.MethodPut, p + "/mirrors/:m", admin, "p", setMirror},
		{http.MethodPost, p + "/mirrors/:m/update", releaser, "p", updateMirror},
		{http.MethodPost, p + "/mirrors/:m/diff", releaser, "p", diffMirror},

		{http.MethodGet, p + "/snapshots", viewer, "p", listSnapshots},
		{http.MethodPost, p + "/snapshots", releaser, "p", createSnapshot},
		{http.MethodPost, p + "/snapshots/merge", releaser, "p", mergeSnapshots},
		{http.MethodPost, p + "/snapshots/pick", releaser, "p", pickPackages},
		{http.MethodPost, p + "/snapshots/filter", releaser, "p", filterState},
		{http.MethodGet, p + "/snapshots/:ref", viewer, "p", getSnapshot},
		{http.MethodDelete, p + "/snapshots/:ref", releaser, "p", deleteSnapshot},
		{http.MethodPost, p + "/snapshots/:ref/pin", releaser, "p", pinSnapshot},
		{http.MethodDelete, p + "/snapshots/:ref/pin", releaser, "p", unpinSnapshot},
		{http.MethodGet, p + "/products", viewer, "p", listProducts},
		{http.MethodPost, p + "/products", releaser, "p", createProduct},
		{http.MethodGet, p + "/products/:product", viewer, "p", getProduct},
		{http.MethodPatch, p + "/products/:product", releaser, "p", setProduct},
		{http.MethodDelete, p + "/products/:product", releaser, "p", deleteProduct},
		{http.MethodGet, p + "/products/:product/bom", viewer, "p", getBOM},
		{http.MethodGet, p + "/products/:product/diff", viewer, "p", diffProduct},
		{http.MethodGet, p + "/diff", viewer, "p", getDiff},
		{http.MethodGet, p + "/stages", viewer, "p", listStages},
		{http.MethodGet, p + "/stages/:s", viewer, "p/s", getStage},
		{http.MethodGet, p + "/stages/:s/history", viewer, "p/s", getHistory},
		{http.MethodPost, p + "/stages/:s/promote", releaser, "p/s", promote},
		{http.MethodPost, p + "/stages/:s/undo", releaser, "p/s", undo},

		{http.MethodGet, "/api/v1/changes", viewer, "", listChanges},
		{http.MethodGet, "/api/v1/changes/:id", viewer, "", getChange},
		{http.MethodPost, "/api/v1/changes/:id/abort", releaser, ofChange, abortChange},
		{http.MethodGet, "/api/v1/events", viewer, "", events},

		{http.MethodGet, "/api/v1/users", admin, "", listUsers},
		{http.MethodPost, "/api/v1/users", admin, "", createUser},
		{http.MethodGet, "/api/v1/tokens", admin, "", listTokens},
		{http.MethodPost, "/api/v1/tokens", admin, "", createToken},
		{http.MethodDelete, "/api/v1/tokens/:id", admin, "", revokeToken},
		{http.MethodPost, "/api/v1/login-links", admin, "", createLoginLink},
		{http.MethodGet, "/api/v1/devices", viewer, "", listDevices},
		{http.MethodPost, "/api/v1/devices", operator, "", createDevice},
		{http.MethodGet, "/api/v1/devices/:d", viewer, "", getDevice},
		{http.MethodPost, "/api/v1/check", admin, "", check},
		{http.MethodPost, "/api/v1/backups", admin, "", createBackup},
		{http.MethodPost, "/api/v1/files", admin, "", restoreFile},
		{http.MethodPost, "/api/v1/gc", admin, "", startGC},
	}
}

// deviceRoutes is what devices may ask of the public listener.
func deviceRoutes() []route {
	return []route{
		{http.MethodGet, "/healthz", anyone, "", health},
		{http.MethodPost, "/device/v1/report", anyone, "", deviceReport}, // authenticates by the device's token
	}
}

// serve turns a row into a gin handler: who, may they, do it, answer.
func (s *server) serve(r route) gin.HandlerFunc {
	return func(c *gin.Context) {
		var who access.Identity
		if r.role != anyone {
			var err error
			if who, err = s.authenticate(c); err != nil {
				s.fail(c, err)
				return
			}
			c.Set(keyUser, who.User)
			scope, err := s.scopeOf(c, r.scope)
			if err == nil {
				err = authorise(who, r.role, scope)
			}
			if err != nil {
				s.fail(c, err)
				return
			}
		}
		status, body, err := r.handle(s, c, who)
		switch {
		case err != nil:
			s.fail(c, err)
		case status == 0:
		case body == nil:
			c.Status(status)
			c.Writer.WriteHeaderNow()
		default:
			c.JSON(status, body)
		}
	}
}

// scopeOf fills a row's scope with what the request is about.
func (s *server) scopeOf(c *gin.Context, scope string) (string, error) {
	switch scope {
	case "":
		return "", nil
	case ofChange:
		change, err := s.change(c)
		return change.Pipeline, err
	}
	var parts []string
	for name := range strings.SplitSeq(scope, "/") {
		parts = append(parts, c.Param(name))
	}
	return strings.Join(parts, "/"), nil
}

// authorise returns an error that names the role who lacks.
func authorise(who access.Identity, role, scope string) error {
	if access.Allows(who.Roles, role, scope) {
		return nil
	}
	lacks := role
	if scope != "" && role != viewer {
		lacks += ":" + scope
	}
	return &release.Error{
		Code: release.Forbidden,
		Text: fmt.Sprintf("cannot do this as %s: the role %s is missing", who.User, printable(lacks)),
		Hint: fmt.Sprintf("an admin makes a user who has it with: repo-manager user create NAME --role %s", printable(lacks)),
	}
}
