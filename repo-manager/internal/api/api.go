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
}

// Access is what the API needs of *access.Service. Unknown secrets are
// errors with the code NoAccess.
type Access interface {
	ByToken(ctx context.Context, secret string) (access.Identity, error)
	BySession(ctx context.Context, cookie string) (id access.Identity, csrf string, err error)
	Users(ctx context.Context) ([]access.User, error)
	CreateUser(ctx context.Context, actor release.Actor, name string, roles []string) (access.User, error)
	Tokens(ctx context.Context) ([]access.Token, error)
	CreateToken(ctx context.Context, actor release.Actor, user, label string, roles []string) (access.Token, error)
	RevokeToken(ctx context.Context, actor release.Actor, id int64) error
	CreateLoginLink(ctx context.Context, actor release.Actor, user string) (secret string, expires time.Time, err error)
}

// Fleet is what the API needs of *fleet.Service.
type Fleet interface {
	Devices(ctx context.Context) ([]fleet.Device, error)
	Device(ctx context.Context, name string) (fleet.Device, error)
	Create(ctx context.Context, actor release.Actor, name, pipeline string) (fleet.Device, error)
	Report(ctx context.Context, token string, report protocol.Report) error
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
	Releases Releases
	Access   Access
	Fleet    Fleet
	Mirrors  Mirrors
	Backups  Backups
	Receiver Receiver

	// System describes the server; called for each request, because the
	// addresses of listeners are known late.
	System func() protocol.System
	// Certificate is the archive key's armoured certificate.
	Certificate []byte
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
