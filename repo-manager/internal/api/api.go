package api

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/backup"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/mirror"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Releases is what the API needs of *release.Engine; that type's comments
// hold the promises.
type Releases interface {
	CreatePipeline(ctx context.Context, actor release.Actor, p release.Pipeline) (release.Pipeline, error)
	Pipelines(ctx context.Context) ([]release.Pipeline, error)
	Pipeline(ctx context.Context, name string) (release.Pipeline, error)
	SetRetention(ctx context.Context, actor release.Actor, pipeline string, change func(release.Retention) release.Retention) (release.Pipeline, error)
	SetPrivate(ctx context.Context, actor release.Actor, pipeline string, private bool) (release.Pipeline, error)
	CreateRepository(ctx context.Context, actor release.Actor, pipeline, name string, keep int) (release.Component, error)
	CreateMirror(ctx context.Context, actor release.Actor, pipeline, name string, config release.MirrorConfig) (release.Component, error)
	SetMirror(ctx context.Context, actor release.Actor, pipeline, name string, config release.MirrorConfig, dryRun bool) (release.Component, error)
	Add(ctx context.Context, actor release.Actor, pipeline, repository string, in release.Incoming, allowOlder bool) (release.Upload, error)
	AddAll(ctx context.Context, actor release.Actor, pipeline, repository string, uploads []release.Incoming, allowOlder bool) []release.Added
	Remove(ctx context.Context, actor release.Actor, pipeline, repository, name, version string) ([]release.Listed, error)
	Packages(ctx context.Context, pipeline, ref string, filter release.Filter) ([]release.Listed, error)
	CreateSnapshot(ctx context.Context, actor release.Actor, pipeline, from, note string, labels []string) (release.Snapshot, error)
	Merge(ctx context.Context, actor release.Actor, pipeline string, refs []string, rule snapshots.Rule, naming release.Naming) (release.Composed, error)
	Pick(ctx context.Context, actor release.Actor, pipeline, base, from string, names []string, dependencies bool, naming release.Naming) (release.Composed, error)
	FilterState(ctx context.Context, actor release.Actor, pipeline, ref, query string, naming release.Naming) (release.Composed, error)
	Snapshots(ctx context.Context, pipeline string) ([]release.Snapshot, error)
	Snapshot(ctx context.Context, pipeline, ref string) (release.Snapshot, error)
	Resolve(ctx context.Context, pipeline, ref string) (release.Offer, error)
	PinSnapshot(ctx context.Context, actor release.Actor, pipeline, ref, reason string) (release.Snapshot, error)
	UnpinSnapshot(ctx context.Context, actor release.Actor, pipeline, ref, reason string) (release.Snapshot, error)
	DeleteSnapshot(ctx context.Context, actor release.Actor, pipeline, ref, reason string, dryRun bool) (release.Snapshot, error)
	Diff(ctx context.Context, pipeline, from, to string) (a, b release.Offer, differences []snapshots.Difference, err error)
	Stages(ctx context.Context, pipeline string) ([]release.Stage, error)
	History(ctx context.Context, pipeline, stage string) ([]release.Move, error)
	Promote(ctx context.Context, actor release.Actor, pipeline, ref, to, reason string, expect *snapshots.ID, dryRun bool) (release.Move, error)
	Undo(ctx context.Context, actor release.Actor, pipeline, stage, reason string, expect *snapshots.ID) (release.Move, error)
	Changes(ctx context.Context) ([]release.Change, error)
	Change(ctx context.Context, id int64) (release.Change, error)
	AbortChange(ctx context.Context, id int64) (release.Change, error)
	CollectGarbage(ctx context.Context, actor release.Actor, reason string, dryRun bool) (release.Change, error)
	Check(ctx context.Context, progress func(files, bytes int64)) (release.Report, error)
	Repair(ctx context.Context, actor release.Actor, progress func(files, bytes int64)) (release.Report, error)
	RestoreFile(ctx context.Context, actor release.Actor, in release.Incoming) (release.Upload, error)
	Subscribe(buffer int) (events <-chan release.Event, cancel func())
	Record(ctx context.Context, actor release.Actor, verb, object, detail string) error
	FindActs(ctx context.Context, filter release.ActFilter) ([]release.Act, error)
}

// Access is what the API needs of *access.Service. Unknown secrets are
// errors with the code NoAccess.
type Access interface {
	ByToken(ctx context.Context, secret string) (access.Identity, error)
	BySession(ctx context.Context, cookie string) (id access.Identity, csrf string, err error)
	Users(ctx context.Context) ([]access.User, error)
	User(ctx context.Context, name string) (access.User, error)
	CreateUser(ctx context.Context, actor release.Actor, name string, roles []string) (access.User, error)
	SetUser(ctx context.Context, actor release.Actor, name string, change access.UserChange) (access.Outcome, error)
	DeleteUser(ctx context.Context, actor release.Actor, name string, dryRun bool) (access.Outcome, error)
	Tokens(ctx context.Context) ([]access.Token, error)
	CreateToken(ctx context.Context, actor release.Actor, in access.NewToken) (access.Token, error)
	RevokeToken(ctx context.Context, actor release.Actor, id int64) error
	CreateLoginLink(ctx context.Context, actor release.Actor, user string) (secret string, expires time.Time, err error)
	Sessions(ctx context.Context) ([]access.Session, error)
	SessionsOf(ctx context.Context, user string) ([]access.Session, error)
	EndSessionByID(ctx context.Context, actor release.Actor, id int64) error
	EndSessionsOf(ctx context.Context, actor release.Actor, user string) (int, error)
}

// Fleet is what the API needs of *fleet.Service; that type's comments hold the
// promises.
type Fleet interface {
	Enrol(ctx context.Context, signed protocol.Signed, address string) (protocol.Enrolled, error)
	CheckIn(ctx context.Context, signed protocol.Signed, address string) (*protocol.CheckedIn, error)

	List(ctx context.Context, filter protocol.DeviceFilter) ([]fleet.View, error)
	Show(ctx context.Context, name string) (fleet.View, []fleet.Event, error)
	Device(ctx context.Context, name string) (fleet.Device, error)
	Assign(ctx context.Context, actor release.Actor, name, stage string) (fleet.Device, error)
	Hold(ctx context.Context, actor release.Actor, name, reason string, until time.Time) (fleet.Device, error)
	Unhold(ctx context.Context, actor release.Actor, name string) (fleet.Device, error)
	Pin(ctx context.Context, actor release.Actor, name, snapshot, reason string) (fleet.Device, error)
	Unpin(ctx context.Context, actor release.Actor, name string) (fleet.Device, error)
	Set(ctx context.Context, actor release.Actor, name string, revision *string, modules *[]string) (fleet.Device, error)
	Retire(ctx context.Context, actor release.Actor, name, reason string) (fleet.Device, error)
	Resolve(ctx context.Context, actor release.Actor, name, keep string) (fleet.Device, error)

	Register(ctx context.Context, actor release.Actor, all []fleet.Registration) (changed bool, err error)
	Unregister(ctx context.Context, actor release.Actor, serial string) error
	Registrations(ctx context.Context) []fleet.Registration
	CreateToken(ctx context.Context, actor release.Actor, t fleet.EnrolToken) (_ fleet.EnrolToken, text string, err error)
	Tokens(ctx context.Context) []fleet.EnrolToken
	RevokeToken(ctx context.Context, actor release.Actor, id string) error
	Pending(ctx context.Context) []protocol.PendingEnrolment
	Accept(ctx context.Context, actor release.Actor, which string, how protocol.Accept) (fleet.Device, error)
	Refuse(ctx context.Context, actor release.Actor, which, reason string) error
	Pardon(ctx context.Context, actor release.Actor, which string) error
}

// Configuration is what the API needs of *configuration.Service.
type Configuration interface {
	Scopes(ctx context.Context, pipeline, name string) ([]configuration.Found, error)
	List(ctx context.Context, scope configuration.Scope) ([]configuration.Entry, error)
	Effective(ctx context.Context, pipeline, device string) ([]configuration.Effective, error)
	Set(ctx context.Context, actor release.Actor, scope configuration.Scope, order configuration.Order) (configuration.Done, error)
	Unset(ctx context.Context, actor release.Actor, scope configuration.Scope, key string, dryRun bool) (configuration.Done, error)
	History(ctx context.Context, scope configuration.Scope, key string, limit int) ([]configuration.Edit, error)
	Schema(ctx context.Context, pipeline, product string) (configuration.Schema, error)
	SetSchema(ctx context.Context, actor release.Actor, schema configuration.Schema, dryRun bool) (devices int, err error)
	Readable(v configuration.Value) bool
}

// Mirrors is what the API needs of *mirror.Updater.
type Mirrors interface {
	Update(ctx context.Context, actor release.Actor, pipeline, mirror string, options mirror.Options) (release.Change, error)
	Diff(ctx context.Context, pipeline, mirror string, progress mirror.Progress) (mirror.Preview, error)
}

// Backups starts backups.
type Backups interface {
	Start(ctx context.Context, actor release.Actor, order backup.Order) (release.Change, error)
}

// Receiver takes an upload to memory or into a temporary file, checking it on
// the way. After an error there is nothing of it.
type Receiver interface {
	Receive(ctx context.Context, body io.Reader, name string) (release.Incoming, error)
}

// Config is what an API is made of. All services are required.
type Config struct {
	Releases      Releases
	Access        Access
	Fleet         Fleet
	Configuration Configuration
	Products      Products
	Mirrors       Mirrors
	Backups       Backups
	Receiver      Receiver

	// System describes the server; called for each request, because the
	// addresses of listeners are known late.
	System func() protocol.System
	// Certificate is the archive key's armoured certificate.
	Certificate []byte
	// CA is the certificate of the server's own CA, in PEM, and CAFingerprint
	// the SHA-256 of its DER; "" if it has none.
	CA, CAFingerprint string
	// LoginURL turns the secret of a login link into the URL for the browser.
	LoginURL func(secret string) string

	MaxUpload int64 // bytes of one .deb; 0 means 4 GiB
	Log       *slog.Logger
}

const defaultMaxUpload = 4 << 30

// server is the state of the handlers.
type server struct {
	Config
	progress  time.Duration // between two lines about how far a check is
	heartbeat time.Duration // between two comments in an idle event stream
	silence   time.Duration // after which an upload that does not go on is given up
}

// New returns the handler of /api/v1/ and /healthz, for the admin listener
// (behind Guard) and the Unix socket.
func New(config Config) http.Handler {
	return newServer(config).handler(routes())
}

// NewDevice returns the handler of /device/v1/ and /healthz, for the public
// listener.
func NewDevice(config Config) http.Handler {
	return newServer(config).handler(deviceRoutes())
}

func newServer(config Config) *server {
	if config.MaxUpload == 0 {
		config.MaxUpload = defaultMaxUpload
	}
	return &server{Config: config, progress: 200 * time.Millisecond, heartbeat: 15 * time.Second, silence: 2 * time.Minute}
}

// handler builds the gin engine for a table.
func (s *server) handler(table []route) http.Handler {
	gin.SetMode(gin.ReleaseMode) // gin prints its own route list otherwise
	engine := gin.New()
	engine.UseRawPath = true // an escaped slash belongs to a name
	engine.UnescapePathValues = true
	engine.RedirectTrailingSlash = false
	engine.HandleMethodNotAllowed = true
	engine.Use(s.logged)
	for _, r := range table {
		engine.Handle(r.method, r.path, s.serve(r))
	}
	engine.NoRoute(func(c *gin.Context) {
		s.fail(c, &release.Error{
			Code: release.NotFound,
			Text: "cannot find " + c.Request.Method + " " + printable(c.Request.URL.Path) + ": no such route",
			Hint: "the routes are listed in docs/architecture.md",
		})
	})
	engine.NoMethod(func(c *gin.Context) {
		writeError(c.Writer, c.Request, http.StatusMethodNotAllowed, protocol.Error{
			Code: string(release.Invalid),
			Text: "cannot " + c.Request.Method + " " + printable(c.Request.URL.Path) + ": this route has other methods",
			Hint: "the header Allow names them",
		})
	})
	return engine
}
