package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"aptfleet/repo-manager/internal/access"
)

// A role of the table. Whoever has a role is a viewer of what it is scoped to;
// an admin has every role. Of several, joined by or, one is enough.
const (
	anyone        = ""
	viewer        = "viewer"
	uploader      = "uploader"
	releaser      = "releaser"
	operator      = "operator"
	manufacturing = "manufacturing"
	admin         = "admin"

	or = "|"

	registrars = operator + or + manufacturing // prepare devices
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
	scope  string // what the role must cover: path parameters, e.g. "p/r", one of the words below, or "" for the whole server
	handle handler
}

// Scopes that are no path parameters.
const (
	somewhere = "somewhere" // the role may have any scope; the handler shows what that covers
	ofChange  = "change"    // the pipeline that the change :id works on
	ofDevice  = "device"    // the pipeline and product of the device :d
	ofConfig  = "config"    // the pipeline :p, and the product that values :of a :kind are for, if it is one
	ofSerial  = "serial"    // those that the serial number :serial is registered for
	ofToken   = "token"     // those of the enrolment token :id
	inBody    = "body"      // the pipeline, and the product if there is one, that the JSON of the request names; of each in a list
)

// routes is the whole API of the admin listener and the Unix socket.
func routes() []route {
	const p = "/api/v1/pipelines/:p"
	return []route{
		{http.MethodGet, "/healthz", anyone, "", health},
		{http.MethodGet, "/api/v1/system", viewer, somewhere, getSystem},
		{http.MethodGet, "/api/v1/key", viewer, somewhere, getKey},

		{http.MethodGet, "/api/v1/pipelines", viewer, somewhere, listPipelines},
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
		{http.MethodPost, p + "/snapshots/:ref/pin", releaser + or + manufacturing, "p", pinSnapshot},
		{http.MethodDelete, p + "/snapshots/:ref/pin", releaser + or + manufacturing, "p", unpinSnapshot},
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

		{http.MethodGet, p + "/config", viewer, "p", listConfigScopes},
		{http.MethodGet, p + "/config/:kind/:of", viewer, "p", listConfig},
		{http.MethodGet, p + "/config/:kind/:of/:key", viewer, "p", getConfig},
		{http.MethodPut, p + "/config/:kind/:of/:key", operator, ofConfig, setConfig},
		{http.MethodDelete, p + "/config/:kind/:of/:key", operator, ofConfig, unsetConfig},
		{http.MethodGet, p + "/config/:kind/:of/:key/history", viewer, "p", getConfigHistory},
		{http.MethodGet, p + "/config-schemas/:product", viewer, "p", getConfigSchema},
		{http.MethodPut, p + "/config-schemas/:product", operator, "p/product", setConfigSchema},
		{http.MethodDelete, p + "/config-schemas/:product", operator, "p/product", unsetConfigSchema},

		{http.MethodGet, "/api/v1/changes", viewer, somewhere, listChanges},
		{http.MethodGet, "/api/v1/changes/:id", viewer, ofChange, getChange},
		{http.MethodPost, "/api/v1/changes/:id/abort", releaser, ofChange, abortChange},
		{http.MethodGet, "/api/v1/events", viewer, somewhere, events},

		{http.MethodGet, "/api/v1/me", viewer, somewhere, whoAmI},
		{http.MethodGet, "/api/v1/users", admin, "", listUsers},
		{http.MethodPost, "/api/v1/users", admin, "", createUser},
		{http.MethodGet, "/api/v1/users/:u", admin, "", getUser},
		{http.MethodPatch, "/api/v1/users/:u", admin, "", setUser},
		{http.MethodDelete, "/api/v1/users/:u", admin, "", deleteUser},
		{http.MethodGet, "/api/v1/tokens", admin, "", listTokens},
		{http.MethodPost, "/api/v1/tokens", admin, "", createToken},
		{http.MethodDelete, "/api/v1/tokens/:id", admin, "", revokeToken},
		{http.MethodPost, "/api/v1/login-links", admin, "", createLoginLink},
		{http.MethodGet, "/api/v1/sessions", admin, "", listSessions},
		{http.MethodDelete, "/api/v1/sessions", admin, "", endSessions},
		{http.MethodDelete, "/api/v1/sessions/:id", admin, "", endSession},
		{http.MethodGet, "/api/v1/acts", admin, "", listActs},

		{http.MethodGet, "/api/v1/devices", viewer, somewhere, listDevices},
		{http.MethodGet, "/api/v1/devices/:d", viewer, ofDevice, getDevice},
		{http.MethodPatch, "/api/v1/devices/:d", operator, ofDevice, setDevice},
		{http.MethodPost, "/api/v1/devices/:d/assign", operator, ofDevice, assignDevice},
		{http.MethodPost, "/api/v1/devices/:d/hold", operator, ofDevice, holdDevice},
		{http.MethodDelete, "/api/v1/devices/:d/hold", operator, ofDevice, unholdDevice},
		{http.MethodPost, "/api/v1/devices/:d/pin", operator, ofDevice, pinDevice},
		{http.MethodDelete, "/api/v1/devices/:d/pin", operator, ofDevice, unpinDevice},
		{http.MethodPost, "/api/v1/devices/:d/retire", operator, ofDevice, retireDevice},
		{http.MethodPost, "/api/v1/devices/:d/resolve", operator, ofDevice, resolveDevice},
		{http.MethodGet, "/api/v1/registrations", viewer, somewhere, listRegistrations},
		{http.MethodPost, "/api/v1/registrations", registrars, inBody, registerDevices},
		{http.MethodDelete, "/api/v1/registrations/:serial", registrars, ofSerial, unregisterDevice},
		{http.MethodGet, "/api/v1/enrolment-tokens", registrars, somewhere, listEnrolmentTokens},
		{http.MethodPost, "/api/v1/enrolment-tokens", registrars, inBody, createEnrolmentToken},
		{http.MethodDelete, "/api/v1/enrolment-tokens/:id", registrars, ofToken, revokeEnrolmentToken},
		{http.MethodGet, "/api/v1/enrolments", registrars, somewhere, listEnrolments},
		{http.MethodPost, "/api/v1/enrolments/:key/accept", operator, inBody, acceptEnrolment},
		{http.MethodPost, "/api/v1/enrolments/:key/refuse", operator, somewhere, refuseEnrolment},
		{http.MethodDelete, "/api/v1/enrolments/:key/refuse", operator, somewhere, pardonEnrolment},

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
		// A device's requests are signed by its key; package fleet judges that.
		{http.MethodPost, enrolmentsPath, anyone, "", deviceEnrol},
		{http.MethodPost, checkInsPath, anyone, "", deviceCheckIn},
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
			if err := s.authorise(c, who, r); err != nil {
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
