package fleet_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
	"aptfleet/snapshots"
	"aptfleet/test/rig"
)

// world is a fleet with everything around it that it asks.
type world struct {
	*fleet.Service
	t      *testing.T
	store  *counting
	config fleet.Config

	mu        sync.Mutex
	now       time.Time
	offers    map[string]*release.Published // by stage
	snapshots map[string]*release.Published // by id
	products  map[string]fleet.Product
	boms      map[string]bom // by state; absent ones are being made
	configs   map[string]protocol.AssignedConfig
	lacks     map[string]error // by device: why there is no configuration
	asked     int              // how often for a whole configuration
	private   bool
	broken    error // what looking up a stage fails with
	announced []string
}

type bom struct{ sum, status, reason string }

// counting counts commits and the rows that they write.
type counting struct {
	*storetest.Memory
	commits, contacts, assigned atomic.Int64
	slow                        atomic.Int64 // nanoseconds that a commit takes
}

func (c *counting) CommitFleet(ctx context.Context, b fleet.Batch) error {
	time.Sleep(time.Duration(c.slow.Load()))
	c.commits.Add(1)
	c.contacts.Add(int64(len(b.Contacts)))
	c.assigned.Add(int64(len(b.Assigned)))
	return c.Memory.CommitFleet(ctx, b)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must1[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// published is a snapshot whose state begins with a byte.
func published(first byte, id string) *release.Published {
	return &release.Published{
		Offer: release.Offer{State: snapshots.ID{first}, Snapshot: id}, Base: "demo/snapshots/" + id, Distribution: "trixie",
		Components: []string{"apps"}, Release: "release of " + id,
	}
}

const (
	snapshot1 = "20261120T101500Z"
	snapshot2 = "20261121T101500Z"
)

var op = release.Actor{Name: "otto", Via: "socket"}

func newWorld(t *testing.T) *world {
	one, two := published(1, snapshot1), published(2, snapshot2)
	w := &world{
		t: t, store: &counting{Memory: new(storetest.Memory)}, now: time.Date(2026, 11, 25, 10, 0, 0, 0, time.UTC),
		offers:    map[string]*release.Published{"dev": two, "canary": one, "production": one, "empty": nil},
		snapshots: map[string]*release.Published{snapshot1: one, snapshot2: two},
		products: map[string]fleet.Product{
			"gateway": {Architecture: "amd64", Modules: []string{"gps", "lte"}},
			"panel":   {Architecture: "amd64", Revisions: []string{"r1", "r2"}},
		},
		boms:    map[string]bom{one.State.String(): {sum: "bom1", status: fleet.BOMReady}, two.State.String(): {sum: "bom2", status: fleet.BOMReady}},
		configs: make(map[string]protocol.AssignedConfig), lacks: make(map[string]error),
	}
	must(t, w.store.Commit(t.Context(), release.Batch{Pipelines: []release.Pipeline{{Name: "demo", Created: w.now}}}))
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = 1
	w.config = fleet.Config{
		Store: w.store, Releases: w, Products: w, BOMs: w, Configs: w, Packages: w, Key: ed25519.NewKeyFromSeed(seed), ReadSecret: []byte("secret"),
		Welcome: func(string) (protocol.Enrolled, bool) {
			return protocol.Enrolled{Archive: "http://archive.example", ArchiveKey: "PGP", CA: "PEM", Features: []string{"a", "b"}}, w.private
		},
		Announce: func(kind, pipeline, subject string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.announced = append(w.announced, kind+" "+pipeline+" "+subject)
		},
		Clock: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
		Log:   slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	w.open()
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.Service, err = fleet.Open(w.t.Context(), w.config)
	must(w.t, err)
}

// restart is a server that was stopped and started.
func (w *world) restart() {
	w.t.Helper()
	must(w.t, w.Close())
	w.open()
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) Offered(_ context.Context, pipeline, stage string) (*release.Published, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return nil, w.broken
	}
	offer, ok := w.offers[stage]
	if pipeline != "demo" || !ok {
		return nil, &release.Error{Code: release.NotFound, Text: "cannot find stage " + stage}
	}
	return offer, nil
}

func (w *world) PublishedSnapshot(_ context.Context, _, id string) (*release.Published, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.snapshots[id]; s != nil {
		return s, nil
	}
	return nil, &release.Error{Code: release.NotFound, Text: "cannot find snapshot " + id}
}

func (w *world) Product(_, name string) (fleet.Product, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.products[name]
	return p, ok
}

func (w *world) Lookup(_, _ string, modules []string, state string) (string, int64, string, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, ok := w.boms[state]
	if !ok {
		return "", 0, fleet.BOMPending, ""
	}
	for _, m := range modules {
		b.sum += "+" + m
	}
	return b.sum, 100, b.status, b.reason
}

func (w *world) Revision(d *fleet.Device) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.configs[d.Name].Revision, w.lacks[d.Name]
}

func (w *world) For(d *fleet.Device) (*protocol.AssignedConfig, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	if err := w.lacks[d.Name]; err != nil {
		return nil, err
	}
	if c, ok := w.configs[d.Name]; ok {
		return &c, nil
	}
	return nil, nil
}

// Has knows snapshot1, in which bills of materials made with lte have no openssl.
func (w *world) Has(_ context.Context, what fleet.Installed, relation string) (bool, error) {
	if what.State != w.snapshots[snapshot1].State.String() {
		return false, &release.Error{Code: release.NotFound, Text: "cannot find state " + what.State}
	}
	return relation == "openssl<<3" && !strings.HasSuffix(what.BOM, "+lte"), nil
}

// promote makes a stage offer a snapshot.
func (w *world) promote(stage, id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offers[stage] = w.snapshots[id]
}

// device enrols a machine by a token.
func (w *world) device(serial, product, stage string) *rig.Device {
	w.t.Helper()
	_, token, err := w.CreateToken(w.t.Context(), op, fleet.EnrolToken{Pipeline: "demo", Product: product, Stage: stage})
	must(w.t, err)
	d := must1(rig.NewDevice(serial))
	must(w.t, w.enrol(d, token))
	if d.Enrolled.Status != protocol.EnrolmentAccepted {
		w.t.Fatalf("%s is %+v", serial, d.Enrolled)
	}
	return d
}

func (w *world) enrol(d *rig.Device, token string) (err error) {
	d.Enrolled, err = w.Enrol(w.t.Context(), must1(d.Enrolment(token)), "192.0.2.1")
	return err
}

// send hands a signed check-in to the server.
func (w *world) send(signed protocol.Signed) (*protocol.CheckedIn, error) {
	return w.Service.CheckIn(w.t.Context(), signed, "192.0.2.1")
}

// checkIn is one whole check-in of a device, that must go well. It returns the
// answer, nil if nothing changed.
func (w *world) checkIn(d *rig.Device) *protocol.CheckedIn {
	w.t.Helper()
	answer, err := w.send(must1(d.Next(w.config.Clock(), true)))
	must(w.t, err)
	if answer != nil && answer.Assignment != nil {
		must(w.t, d.Accept(*answer.Assignment, w.config.Clock()))
	}
	return answer
}

// running makes the device's report say that it runs a release.
func running(d *rig.Device, p *release.Published) {
	d.Report = protocol.Report{
		Follow: "x", Phase: "IDLE", Health: &protocol.Health{OK: true},
		Deployments: []protocol.Deployment{{ID: 1, State: p.State.String(), Snapshot: p.Snapshot, Role: "booted"}},
	}
}

// resign signs what change makes of a check-in's text.
func resign(d *rig.Device, signed protocol.Signed, change func(*protocol.CheckIn)) protocol.Signed {
	var in protocol.CheckIn
	if err := json.Unmarshal(signed.Payload, &in); err != nil {
		panic(err)
	}
	change(&in)
	return protocol.Sign(d.Key, protocol.ForCheckIn, must1(json.Marshal(in)))
}

func hashOf(secret string) fleet.Hash { return sha256.Sum256([]byte(secret)) }
