package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/backup"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/mirror"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// world is a server's services in memory: one pipeline "demo" with the
// repository "apps" and the mirror "debian".
type world struct {
	mu       sync.Mutex
	actors   []release.Actor // who acted, in order
	received []byte          // body of the last upload
	older    bool            // its allowOlder
	promoted protocol.Promote
	expect   *snapshots.ID
	filter   release.Filter
	composed string                // how the last state was to be made
	address  string                // of the device that asked last
	sifted   protocol.DeviceFilter // that devices were asked for by last
	err      error                 // what every act answers, if not nil
	already  bool
	receive  func(body io.Reader) error
	stream   chan release.Event
	panics   bool
	mirror   release.MirrorConfig // that the mirror was given last
	rebuilt  bool                 // whether its update takes other bytes
	ordered  backup.Order
	changed  access.UserChange // of a user
	recorded string            // last act that the API recorded itself
	sought   release.ActFilter

	others  []release.Pipeline // besides demo
	changes []release.Change
	devices []fleet.Device
	bill    product.Bill // of every product in every state

	deleted   []string // snapshots, each with the reason and whether it was a dry run
	collected []string // reasons of gcs, and whether they were dry runs
}

func (w *world) act(a release.Actor) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.actors = append(w.actors, a)
	return w.err
}

var demo = release.Pipeline{
	Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"},
	Stages: []string{"dev", "canary"}, Created: noon,
	Components: []release.Component{
		{Pipeline: "demo", Name: "apps", Kind: release.Repository, Keep: 1},
		{Pipeline: "demo", Name: "debian", Kind: release.Mirror, Mirror: &release.MirrorConfig{
			Suites:   []release.MirrorSuite{{URL: "https://mirror.example/debian", Suite: "trixie", Components: []string{"main"}, Keyring: []byte("known")}},
			Packages: []string{"hello"},
		}},
	},
}

var firstState = snapshots.ID{1}

func (w *world) CreatePipeline(_ context.Context, a release.Actor, p release.Pipeline) (release.Pipeline, error) {
	return p, w.act(a)
}
func (w *world) Pipelines(context.Context) ([]release.Pipeline, error) {
	if w.panics {
		panic("out of order")
	}
	return append([]release.Pipeline{demo}, w.others...), w.err
}
func (w *world) Pipeline(_ context.Context, name string) (release.Pipeline, error) {
	if name != "demo" {
		return release.Pipeline{}, &release.Error{Code: release.NotFound, Text: "cannot find pipeline " + name}
	}
	return demo, nil
}
func (w *world) CreateRepository(_ context.Context, a release.Actor, pipeline, name string, keep int) (release.Component, error) {
	return release.Component{Pipeline: pipeline, Name: name, Kind: release.Repository, Keep: keep}, w.act(a)
}
func (w *world) CreateMirror(_ context.Context, a release.Actor, pipeline, name string, m release.MirrorConfig) (release.Component, error) {
	return release.Component{Pipeline: pipeline, Name: name, Kind: release.Mirror, Mirror: &m}, w.act(a)
}
func (w *world) SetMirror(_ context.Context, a release.Actor, pipeline, name string, m release.MirrorConfig, dryRun bool) (release.Component, error) {
	if !dryRun {
		w.mirror = m
	}
	return release.Component{Pipeline: pipeline, Name: name, Kind: release.Mirror, Mirror: &m}, w.act(a)
}
func (w *world) Add(_ context.Context, a release.Actor, _, _ string, _ release.Incoming, older bool) (release.Upload, error) {
	w.older = older
	return release.Upload{Name: "hello", Version: "1.0", Architecture: "amd64", State: firstState, Already: w.already}, w.act(a)
}
func (w *world) AddAll(ctx context.Context, a release.Actor, pipeline, repository string, uploads []release.Incoming, older bool) []release.Added {
	added := make([]release.Added, len(uploads))
	for i, in := range uploads {
		added[i].Upload, added[i].Err = w.Add(ctx, a, pipeline, repository, in, older)
		added[i].Name = in.Name
	}
	return added
}
func (w *world) Remove(_ context.Context, a release.Actor, _, component, name, version string) ([]release.Listed, error) {
	return []release.Listed{{Component: component, Package: snapshots.Package{Name: name, Version: version}}}, w.act(a)
}
func (w *world) Packages(_ context.Context, _, _ string, filter release.Filter) ([]release.Listed, error) {
	w.filter = filter
	return nil, w.err
}
func (w *world) CreateSnapshot(_ context.Context, a release.Actor, _, from, note string, labels []string) (release.Snapshot, error) {
	return release.Snapshot{ID: "20261120T120000Z", Note: note, Labels: labels, State: firstState, By: a.Name, Created: noon}, w.act(a)
}
func (w *world) compose(a release.Actor, naming release.Naming, how ...any) (release.Composed, error) {
	w.composed = fmt.Sprint(append(how, naming.Note, naming.Labels)...)
	made := release.Composed{
		Snapshot:  release.Snapshot{ID: "20261120T120000Z", State: firstState, By: a.Name, Created: noon, Packages: 7},
		Conflicts: []snapshots.Conflict{{Component: "apps", Name: "p", Versions: [][]string{{"2", "1"}, nil, {"3"}}, Taken: 2}},
		Unmet:     []snapshots.Unmet{{Package: snapshots.Ref{Name: "p", Version: "1", Architecture: "all"}, Architecture: "amd64", Relation: "q | r"}},
	}
	if naming.DryRun {
		made.Snapshot.ID = ""
	}
	return made, w.act(a)
}
func (w *world) Merge(_ context.Context, a release.Actor, _ string, refs []string, rule snapshots.Rule, naming release.Naming) (release.Composed, error) {
	return w.compose(a, naming, "merge ", refs, rule)
}
func (w *world) Pick(_ context.Context, a release.Actor, _, base, from string, names []string, dependencies bool, naming release.Naming) (release.Composed, error) {
	return w.compose(a, naming, "pick ", base, from, names, dependencies)
}
func (w *world) FilterState(_ context.Context, a release.Actor, _, ref, query string, naming release.Naming) (release.Composed, error) {
	return w.compose(a, naming, "filter ", ref, query)
}
func (w *world) Snapshots(context.Context, string) ([]release.Snapshot, error) {
	return []release.Snapshot{{ID: "20261120T120000Z", State: firstState, Created: noon}}, w.err
}
func (w *world) Snapshot(context.Context, string, string) (release.Snapshot, error) {
	return release.Snapshot{ID: "20261120T120000Z", State: firstState, Created: noon}, w.err
}
func (w *world) SetRetention(_ context.Context, a release.Actor, pipeline string, change func(release.Retention) release.Retention) (release.Pipeline, error) {
	p := demo
	p.Retention = change(release.DefaultRetention)
	return p, w.act(a)
}
func (w *world) SetPrivate(_ context.Context, a release.Actor, pipeline string, private bool) (release.Pipeline, error) {
	p := demo
	p.Private = private
	return p, w.act(a)
}
func (w *world) Resolve(_ context.Context, _, ref string) (release.Offer, error) {
	if ref == "nowhere" {
		return release.Offer{}, &release.Error{Code: release.NotFound, Text: "cannot find nowhere"}
	}
	return release.Offer{State: firstState, Snapshot: "20261120T120000Z"}, w.err
}
func (w *world) PinSnapshot(_ context.Context, a release.Actor, _, ref, reason string) (release.Snapshot, error) {
	return release.Snapshot{ID: ref, State: firstState, Created: noon, Pin: &release.Pin{By: a.Name, Reason: reason, At: noon}}, w.act(a)
}
func (w *world) UnpinSnapshot(_ context.Context, a release.Actor, _, ref, _ string) (release.Snapshot, error) {
	return release.Snapshot{ID: ref, State: firstState, Created: noon}, w.act(a)
}
func (w *world) DeleteSnapshot(_ context.Context, a release.Actor, _, ref, reason string, dryRun bool) (release.Snapshot, error) {
	w.deleted = append(w.deleted, fmt.Sprint(ref, " ", reason, " ", dryRun))
	return release.Snapshot{ID: ref, State: firstState, Created: noon}, w.act(a)
}
func (w *world) CollectGarbage(_ context.Context, a release.Actor, reason string, dryRun bool) (release.Change, error) {
	w.collected = append(w.collected, fmt.Sprint(reason, " ", dryRun))
	return release.Change{ID: 8, Kind: "gc", Status: release.Doing, By: a.Name, Reason: reason, Created: noon}, w.act(a)
}
func (w *world) Diff(context.Context, string, string, string) (a, b release.Offer, d []snapshots.Difference, err error) {
	pkg := func(version string) *snapshots.Package { return &snapshots.Package{Name: "p", Version: version} }
	key := snapshots.Key{Component: "apps", Architecture: "amd64"}
	return release.Offer{}, release.Offer{State: firstState}, []snapshots.Difference{
		{Key: key, Name: "p", New: pkg("1.0")},
		{Key: key, Name: "p", Old: pkg("1.0")},
		{Key: key, Name: "p", Old: pkg("1.9"), New: pkg("1.10")},
		{Key: key, Name: "p", Old: pkg("1.0"), New: pkg("1.0~rc1")},
		{Key: key, Name: "p", Old: pkg("1.0"), New: &snapshots.Package{Name: "p", Version: "1.0", SHA256: [32]byte{1}}},
		{Key: key, Name: "p", Old: pkg("1.0"), New: pkg("1.0")},
	}, w.err
}
func (w *world) Stages(context.Context, string) ([]release.Stage, error) {
	return []release.Stage{
		{Name: "dev", Offer: release.Offer{State: firstState, Snapshot: "20261120T120000Z"}, Since: noon},
		{Name: "canary", Position: 1},
	}, w.err
}
func (w *world) History(context.Context, string, string) ([]release.Move, error) { return nil, w.err }
func (w *world) Promote(_ context.Context, a release.Actor, pipeline, ref, to, reason string, expect *snapshots.ID, dryRun bool) (release.Move, error) {
	w.promoted = protocol.Promote{Snapshot: ref, Reason: reason, DryRun: dryRun}
	w.expect = expect
	return release.Move{Seq: 2, Stage: to, Kind: release.MovePromote, To: release.Offer{State: firstState}, By: a.Name, At: noon}, w.act(a)
}
func (w *world) Undo(_ context.Context, a release.Actor, _, stage, reason string, expect *snapshots.ID) (release.Move, error) {
	w.expect = expect
	return release.Move{Seq: 3, Stage: stage, Kind: release.MoveUndo, By: a.Name, Reason: reason, At: noon}, w.act(a)
}
func (w *world) Changes(context.Context) ([]release.Change, error) { return w.changes, w.err }
func (w *world) Change(_ context.Context, id int64) (release.Change, error) {
	return release.Change{ID: id, Pipeline: "demo", Status: release.Doing, Created: noon}, w.err
}
func (w *world) AbortChange(_ context.Context, id int64) (release.Change, error) {
	return release.Change{ID: id, Status: release.Aborted, Created: noon}, w.err
}
func (w *world) Check(_ context.Context, progress func(files, bytes int64)) (release.Report, error) {
	if progress != nil {
		progress(1, 100)
		progress(2, 200)
	}
	return release.Report{Files: 3, Bytes: 300}, w.err
}
func (w *world) Repair(_ context.Context, a release.Actor, progress func(files, bytes int64)) (release.Report, error) {
	if progress != nil {
		progress(1, 100)
	}
	bad := []release.Finding{
		{Path: "a", Reason: "is missing", Repaired: "written again"},
		{Path: "b", Reason: "is missing", Aside: "damaged/b", Restore: "restore it", SHA256: "00", NeededBy: []string{"demo/dev"}},
	}
	return release.Report{Files: 3, Bytes: 300, Findings: bad}, w.act(a)
}
func (w *world) RestoreFile(_ context.Context, a release.Actor, in release.Incoming) (release.Upload, error) {
	return release.Upload{Name: in.Package.Name, Already: w.already}, w.act(a)
}
func (w *world) Subscribe(int) (<-chan release.Event, func()) { return w.stream, func() {} }

// identities are the tokens of the world.
var identities = map[string]access.Identity{
	"viewer":          {User: "vera", Roles: []string{"viewer"}, Via: "token:t"},
	"uploader":        {User: "ci", Roles: []string{"uploader:demo/apps"}, Via: "token:t"},
	"other-uploader":  {User: "ci2", Roles: []string{"uploader:demo/tools"}, Via: "token:t"},
	"releaser":        {User: "rita", Roles: []string{"releaser"}, Via: "token:t"},
	"canary-releaser": {User: "carl", Roles: []string{"releaser:demo/canary"}, Via: "token:t"},
	"gw-operator":     {User: "gina", Roles: []string{"operator:demo/gateway"}, Via: "token:t"},
	"operator":        {User: "otto", Roles: []string{"operator"}, Via: "token:t"},
	"manufacturing":   {User: "mia", Roles: []string{"manufacturing:demo"}, Via: "token:t"},
	"admin":           {User: "ada", Roles: []string{"admin"}, Via: "token:t"},
}

func (w *world) ByToken(_ context.Context, secret string) (access.Identity, error) {
	if id, ok := identities[secret]; ok {
		return id, nil
	}
	return access.Identity{}, &release.Error{Code: release.NoAccess, Text: "cannot tell who is asking: unknown token"}
}
func (w *world) BySession(_ context.Context, cookie string) (access.Identity, string, error) {
	if cookie != "good" {
		return access.Identity{}, "", &release.Error{Code: release.NoAccess, Text: "cannot tell who is asking: the session has ended"}
	}
	return access.Identity{User: "ada", Roles: []string{"admin"}, Via: "session"}, "csrf-of-good", nil
}
func (w *world) Users(context.Context) ([]access.User, error) { return nil, w.err }
func (w *world) CreateUser(_ context.Context, a release.Actor, name string, roles []string) (access.User, error) {
	return access.User{Name: name, Roles: roles, Created: noon}, w.act(a)
}
func (w *world) Tokens(context.Context) ([]access.Token, error) { return nil, w.err }
func (w *world) CreateToken(_ context.Context, a release.Actor, in access.NewToken) (access.Token, error) {
	return access.Token{ID: 1, User: in.User, Label: in.Label, Roles: in.Roles, Created: noon, Secret: "s3"}, w.act(a)
}
func (w *world) RevokeToken(_ context.Context, a release.Actor, id int64) error { return w.act(a) }
func (w *world) CreateLoginLink(_ context.Context, a release.Actor, user string) (string, time.Time, error) {
	return "once", noon, w.act(a)
}

// mirrors is the mirror.Updater of a world.
type mirrors struct{ *world }

func (w mirrors) Update(_ context.Context, a release.Actor, pipeline, name string, options mirror.Options) (release.Change, error) {
	w.rebuilt = options.AllowRebuilt
	return release.Change{ID: 7, Kind: "mirror-update", Status: release.Doing, Created: noon}, w.act(a)
}

func (w mirrors) Diff(ctx context.Context, _, _ string, progress mirror.Progress) (mirror.Preview, error) {
	progress.Total(10, "bytes")
	progress.Add(4)
	progress.Add(6)
	_, _, differences, err := w.world.Diff(ctx, "", "", "")
	return mirror.Preview{
		Releases: []mirror.Release{{URL: "https://mirror.example/debian/dists/trixie/InRelease", Date: noon, Signer: "AB"}},
		Packages: 3, Download: 100, Differences: differences,
	}, err
}

func (w *world) Start(_ context.Context, a release.Actor, order backup.Order) (release.Change, error) {
	w.ordered = order
	return release.Change{ID: 8, Kind: release.KindBackup, Status: release.Doing, Created: noon}, w.act(a)
}

func (w *world) Receive(_ context.Context, body io.Reader, name string) (release.Incoming, error) {
	if w.receive != nil {
		return release.Incoming{Name: name}, w.receive(body)
	}
	var err error
	w.received, err = io.ReadAll(body)
	return release.Incoming{Name: name}, err
}

// products is a world in which there is the product gateway.
type products struct{ *world }

var gateway = product.Product{Pipeline: "demo", Name: "gateway", Architecture: "amd64", Packages: []string{"app"}, Created: noon}

func (w products) Products(context.Context, string) ([]product.Product, error) {
	return []product.Product{gateway}, w.err
}
func (w products) Get(string, string) (product.Product, error) { return gateway, w.err }
func (w products) Devices(string, string) int                  { return 3 }
func (w products) Create(_ context.Context, a release.Actor, p product.Product) (product.Product, error) {
	return p, w.act(a)
}
func (w products) Set(_ context.Context, a release.Actor, _, _ string, change func(product.Product) product.Product) (product.Product, error) {
	return change(gateway), w.act(a)
}
func (w products) Delete(_ context.Context, a release.Actor, _, _, _ string, _ bool) (product.Product, error) {
	return gateway, w.act(a)
}
func (w products) BOM(context.Context, string, string, []string, snapshots.ID) (product.Bill, error) {
	return w.bill, w.err
}
func (w products) Diff(context.Context, string, string, []string, snapshots.ID, snapshots.ID, bool) (product.Difference, error) {
	return product.Difference{From: w.bill, To: w.bill}, w.err
}

// config wires a world to an API; logs receives the access log.
func (w *world) config(logs io.Writer) Config {
	return Config{
		Releases: w, Access: w, Fleet: fakeFleet{w}, Configuration: configured{w}, Products: products{w}, Mirrors: mirrors{w}, Backups: w, Receiver: w,
		System:      func() protocol.System { return protocol.System{Product: "aptfleet", Fingerprint: "F00D"} },
		Certificate: []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n"),
		LoginURL:    func(secret string) string { return "http://127.0.0.1:1/login/" + secret },
		MaxUpload:   1 << 20,
		Log:         slog.New(slog.NewTextHandler(logs, nil)),
	}
}

// ask sends a request to a handler and returns the recorded answer. A header
// is "Name: value".
func ask(t *testing.T, h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	return rec
}

func bearer(token string) string { return "Authorization: Bearer " + token }

const asJSON = "Accept: application/json"

// newAPI returns an API on a new world.
func newAPI(t *testing.T) (http.Handler, *world, *bytes.Buffer) {
	t.Helper()
	var logs bytes.Buffer
	w := &world{}
	return New(w.config(&logs)), w, &logs
}
