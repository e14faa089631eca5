package ui

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// world is a server in memory: what the pages need of engine, access and
// fleet, with the engine's rules about conflicts and undo.
type world struct {
	mu        sync.Mutex
	now       time.Time
	pipelines []release.Pipeline
	stages    map[string][]release.Stage
	moves     []release.Move
	snapshots []release.Snapshot
	contents  map[snapshots.ID][]release.Listed
	changes   []release.Change
	machines  *machines
	known     map[string]bool // devices
	products  []product.Product
	computing map[snapshots.ID]bool             // states whose bills of materials are
	verdicts  map[snapshots.ID]*product.Verdict // states from which nothing can be installed
	config    map[string][]configuration.Effective
	links     map[string]string // one-time token → user
	sessions  map[string]string // cookie → user
	roles     map[string][]string
	watchers  []chan release.Event
	broken    error // answers every question
}

// start is the moment at which stories begin.
var start = time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)

func newWorld() *world {
	w := &world{
		now: start, known: map[string]bool{}, computing: map[snapshots.ID]bool{}, verdicts: map[snapshots.ID]*product.Verdict{}, config: map[string][]configuration.Effective{}, stages: map[string][]release.Stage{}, contents: map[snapshots.ID][]release.Listed{},
		links: map[string]string{"tok-anna": "anna"}, sessions: map[string]string{},
		roles: map[string][]string{"anna": {"admin"}, "vera": {"viewer"}, "carl": {"releaser:demo/canary"}, "otto": {"operator:demo/sensor"}},
	}
	w.machines = newMachines(w)
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// signIn returns the cookie of a session of user.
func (w *world) signIn(user string) string {
	cookie := "session-of-" + user
	w.sessions[cookie] = user
	return cookie
}

// create makes a pipeline with a repository and a mirror.
func (w *world) create(name string, stages ...string) {
	w.pipelines = append(w.pipelines, release.Pipeline{
		Name: name, Distribution: "trixie", Architectures: []string{"amd64"}, Stages: stages, Created: w.now,
		Components: []release.Component{
			{Pipeline: name, Name: "apps", Kind: release.Repository, Keep: 1},
			{Pipeline: name, Name: "debian", Kind: release.Mirror},
		},
	})
	orPanic(w.machines.store.Commit(context.Background(), release.Batch{Pipelines: []release.Pipeline{{Name: name, Created: w.now}}}))
	w.products = append(w.products, product.Product{
		Pipeline: name, Name: "sensor", Architecture: "amd64", Packages: []string{"demo-app", "demo-device"},
		Modules: map[string][]string{"gps": {"demo-gps"}, "lte": {"demo-modem"}}, Created: w.now,
	})
	for i, stage := range stages {
		w.stages[name] = append(w.stages[name], release.Stage{Pipeline: name, Name: stage, Position: i})
	}
}

// pkg parses "component/name=version".
func pkg(s string) release.Listed {
	component, rest, _ := strings.Cut(s, "/")
	name, version, _ := strings.Cut(rest, "=")
	return release.Listed{Component: component, Package: snapshots.Package{
		Name: name, Version: version, Architecture: "amd64", Size: 4096, SHA256: sha256.Sum256([]byte(s)),
	}}
}

// publish lets the first stage offer these packages and no others.
func (w *world) publish(pipeline, by, why string, packages ...string) snapshots.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	sort.Strings(packages)
	id := snapshots.ID(sha256.Sum256([]byte(strings.Join(packages, "\n"))))
	w.contents[id] = nil
	for _, p := range packages {
		w.contents[id] = append(w.contents[id], pkg(p))
	}
	w.move(pipeline, 0, release.MovePublish, release.Offer{State: id}, by, why)
	return id
}

func (w *world) move(pipeline string, position int, kind release.MoveKind, to release.Offer, by, why string) release.Move {
	stage := &w.stages[pipeline][position]
	m := release.Move{
		Seq: int64(len(w.moves) + 1), Pipeline: pipeline, Stage: stage.Name, Kind: kind,
		From: stage.Offer, To: to, By: by, Reason: why, At: w.now, Over: stage.Standing,
	}
	if kind == release.MoveUndo {
		m.Over = w.bySeq(w.bySeq(stage.Standing).Over).Over
	}
	w.moves = append(w.moves, m)
	stage.Offer, stage.Since, stage.By, stage.Reason, stage.Standing = to, w.now, by, why, m.Seq
	stage.Packages = len(w.contents[to.State])
	w.tell(release.Event{Seq: m.Seq, Kind: "stage", Pipeline: pipeline, Subject: stage.Name, At: w.now})
	return m
}

// tell hands an event to whoever keeps up.
func (w *world) tell(e release.Event) {
	for _, watcher := range w.watchers {
		select {
		case watcher <- e:
		default:
		}
	}
}

func (w *world) bySeq(seq int64) release.Move {
	if seq == 0 {
		return release.Move{}
	}
	return w.moves[seq-1]
}

// promoted promotes or fails the story.
func (w *world) promoted(pipeline, ref, to, by, why string) release.Move {
	m, err := w.Promote(context.Background(), release.Actor{Name: by}, pipeline, ref, to, why, nil, false)
	if err != nil {
		panic(err)
	}
	return m
}

// device has a device report, and adds it first if there is none of that name:
// it follows what its report follows.
func (w *world) device(name, pipeline string, report *protocol.Report) {
	if !w.known[name] {
		d := fleet.Device{Name: name, Pipeline: pipeline}
		if report != nil {
			if id, pinned := strings.CutPrefix(report.Follow, "snapshot:"); pinned {
				d.Pin = &fleet.Pin{Snapshot: id, Reason: "a measurement runs", By: "otto", At: w.clock()}
			} else {
				d.Stage = report.Follow
			}
		}
		w.machines.put(d)
		w.known[name] = true
	}
	if report != nil {
		w.machines.says(name, *report)
	}
}

// event tells watchers.
func (w *world) event(kind, pipeline, subject string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tell(release.Event{Kind: kind, Pipeline: pipeline, Subject: subject, At: w.now})
}

func (w *world) Pipelines(context.Context) ([]release.Pipeline, error) {
	return w.pipelines, w.broken
}

func (w *world) Pipeline(_ context.Context, name string) (release.Pipeline, error) {
	for _, p := range w.pipelines {
		if p.Name == name {
			return p, w.broken
		}
	}
	return release.Pipeline{}, &release.Error{Code: release.NotFound, Text: "cannot find pipeline " + name + ": there is none of that name", Hint: "repo-manager pipeline list"}
}

func (w *world) Stages(_ context.Context, pipeline string) ([]release.Stage, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.stages[pipeline]), nil
}

func (w *world) History(_ context.Context, pipeline, stage string) ([]release.Move, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []release.Move
	for _, m := range slices.Backward(w.moves) {
		if m.Pipeline == pipeline && m.Stage == stage {
			list = append(list, m)
		}
	}
	return list, nil
}

func (w *world) Snapshots(_ context.Context, pipeline string) ([]release.Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.snapshots), nil
}

func (w *world) Packages(ctx context.Context, pipeline, ref string, f release.Filter) ([]release.Listed, error) {
	o, err := w.Resolve(ctx, pipeline, ref)
	if err != nil {
		return nil, err
	}
	var list []release.Listed
	for _, p := range w.contents[o.State] {
		if (f.Component == "" || f.Component == p.Component) && (f.Limit == 0 || len(list) < f.Limit) {
			list = append(list, p)
		}
	}
	return list, nil
}

func (w *world) Resolve(_ context.Context, pipeline, ref string) (release.Offer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.resolve(pipeline, ref)
}

func (w *world) resolve(pipeline, ref string) (release.Offer, error) {
	for _, stage := range w.stages[pipeline] {
		if stage.Name == ref {
			return stage.Offer, nil
		}
	}
	for _, s := range w.snapshots {
		if s.ID == ref {
			return release.Offer{State: s.State, Snapshot: s.ID}, nil
		}
	}
	if id, err := snapshots.ParseID(ref); err == nil {
		if _, ok := w.contents[id]; ok {
			return release.Offer{State: id}, nil
		}
	}
	return release.Offer{}, &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot find %q: no stage, snapshot or state of pipeline %s is called so", ref, pipeline), Hint: "repo-manager snapshot list"}
}

func (w *world) Diff(ctx context.Context, pipeline, from, to string) (a, b release.Offer, list []snapshots.Difference, err error) {
	if a, err = w.Resolve(ctx, pipeline, from); err != nil {
		return
	}
	if b, err = w.Resolve(ctx, pipeline, to); err != nil {
		return
	}
	key := func(l release.Listed) string { return l.Component + "/" + l.Name }
	old := map[string]release.Listed{}
	for _, l := range w.contents[a.State] {
		old[key(l)] = l
	}
	difference := func(l release.Listed) snapshots.Difference {
		return snapshots.Difference{Key: snapshots.Key{Component: l.Component, Architecture: "amd64"}, Name: l.Name}
	}
	for _, l := range w.contents[b.State] {
		was, known := old[key(l)]
		delete(old, key(l))
		if known && was.SHA256 == l.SHA256 {
			continue
		}
		d := difference(l)
		d.New = &l.Package
		if known {
			d.Old = &was.Package
		}
		list = append(list, d)
	}
	for _, l := range old {
		d := difference(l)
		d.Old = &l.Package
		list = append(list, d)
	}
	return a, b, list, nil
}

func (w *world) Promote(_ context.Context, actor release.Actor, pipeline, ref, to, reason string, expect *snapshots.ID, dryRun bool) (release.Move, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o, err := w.resolve(pipeline, ref)
	if err != nil {
		return release.Move{}, err
	}
	for i, stage := range w.stages[pipeline] {
		if stage.Name != to {
			continue
		}
		if expect != nil && *expect != stage.Offer.State {
			return release.Move{}, &release.Error{Code: release.Conflict, Text: "cannot promote to " + to + ": it moved meanwhile"}
		}
		if o.Snapshot == "" {
			o.Snapshot = w.now.Format("20060102T150405Z")
			w.snapshots = append(w.snapshots, release.Snapshot{ID: o.Snapshot, Pipeline: pipeline, State: o.State, By: actor.Name, Created: w.now, Packages: len(w.contents[o.State])})
			if first := &w.stages[pipeline][0]; first.Offer.State == o.State {
				first.Offer.Snapshot = o.Snapshot
			}
		}
		return w.move(pipeline, i, release.MovePromote, o, actor.Name, reason), nil
	}
	return release.Move{}, &release.Error{Code: release.NotFound, Text: "cannot find stage " + to}
}

func (w *world) Undo(_ context.Context, actor release.Actor, pipeline, stage, reason string, expect *snapshots.ID) (release.Move, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, s := range w.stages[pipeline] {
		if s.Name != stage {
			continue
		}
		if expect != nil && *expect != s.Offer.State {
			return release.Move{}, &release.Error{Code: release.Conflict, Text: "cannot undo " + stage + ": it moved meanwhile"}
		}
		under := w.bySeq(w.bySeq(s.Standing).Over)
		return w.move(pipeline, i, release.MoveUndo, under.To, actor.Name, reason), nil
	}
	return release.Move{}, &release.Error{Code: release.NotFound, Text: "cannot find stage " + stage}
}

func (w *world) Changes(context.Context) ([]release.Change, error) { return w.changes, nil }

func (w *world) Subscribe(buffer int) (<-chan release.Event, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan release.Event, buffer)
	w.watchers = append(w.watchers, ch)
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.watchers = slices.DeleteFunc(w.watchers, func(c chan release.Event) bool { return c == ch })
	}
}

var errUnknown = &release.Error{Code: release.NoAccess, Text: "cannot tell who is asking"}

func (w *world) BySession(_ context.Context, cookie string) (access.Identity, string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	user, ok := w.sessions[cookie]
	if !ok {
		return access.Identity{}, "", errUnknown
	}
	return access.Identity{User: user, Roles: w.roles[user], Via: "session", Session: 2}, "csrf-of-" + cookie, nil
}

func (w *world) LinkUser(_ context.Context, token string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if user, ok := w.links[token]; ok {
		return user, nil
	}
	return "", errUnknown
}

func (w *world) Redeem(_ context.Context, token string, _ access.Origin) (string, time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	user, ok := w.links[token]
	if !ok {
		return "", time.Time{}, errUnknown
	}
	delete(w.links, token)
	return w.signIn(user), time.Now().Add(time.Hour), nil // the browser's clock judges a cookie
}

func (w *world) EndSession(_ context.Context, cookie string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.sessions, cookie)
	return nil
}

func (w *world) SessionsOf(_ context.Context, user string) ([]access.Session, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return []access.Session{
		{ID: 1, User: user, Created: start.Add(-3 * time.Hour), Expires: start.Add(access.SessionLife), From: access.Origin{Address: "10.0.0.7", Browser: "Firefox on Linux"}},
		{ID: 2, User: user, Created: start, Seen: start, Expires: start.Add(access.SessionLife), From: access.Origin{Address: "10.0.0.8", Browser: user}},
	}, w.broken
}

func (w *world) EndSessionsOf(_ context.Context, actor release.Actor, user string) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.sessions)
	maps.DeleteFunc(w.sessions, func(_, of string) bool { return of == user && actor.Name == user })
	return n - len(w.sessions), nil
}
