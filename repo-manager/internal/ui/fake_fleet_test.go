package ui

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/storetest"
	"aptfleet/snapshots"
)

// machines is the fleet of a world: a real service on a store in memory, to
// which devices check in with keys made of their names.
type machines struct {
	w     *world
	store *storetest.Memory
	from  fleet.Store // what the service reads instead; nil: store

	mu       sync.Mutex
	service  *fleet.Service
	sessions map[string]uint64 // by device
	strange  []protocol.Signed // enrolments that wait
}

func newMachines(w *world) *machines {
	return &machines{w: w, store: new(storetest.Memory), sessions: map[string]uint64{}}
}

// now is the service: tests that show nothing of a fleet start none.
func (m *machines) now() *fleet.Service {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.service == nil {
		m.open()
	}
	return m.service
}

func (m *machines) open() {
	m.close()
	store := m.from
	if store == nil {
		store = m.store
	}
	m.service = must1(fleet.Open(context.Background(), fleet.Config{
		Store: store, Releases: offered{m.w}, Products: kinds{m.w}, BOMs: kinds{m.w}, Packages: kinds{m.w},
		Key: keyOf("the server"), ReadSecret: []byte("secret"),
		Welcome:  func(string) (protocol.Enrolled, bool) { return protocol.Enrolled{}, false },
		Announce: func(kind, pipeline, subject string) { m.w.event(kind, pipeline, subject) },
		Clock:    m.w.clock, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}))
	for _, signed := range m.strange {
		must1(m.service.Enrol(context.Background(), signed, "10.0.3.14"))
	}
}

func (m *machines) close() {
	if m.service != nil {
		_ = m.service.Close() // it never fails
	}
}

// keyOf is a key that is the same for the same name.
func keyOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func hashOf(words string) string {
	sum := sha256.Sum256([]byte(words))
	return hex.EncodeToString(sum[:16])
}

func orPanic(err error) {
	if err != nil {
		panic(err)
	}
}

// put adds a device that an operator knows as d says.
func (m *machines) put(d fleet.Device) {
	d.Product, d.Stage, d.Architecture = cmp.Or(d.Product, "sensor"), cmp.Or(d.Stage, "production"), "amd64"
	d.Serial, d.Machine, d.Sealing = cmp.Or(d.Serial, d.Name), hashOf("machine of "+d.Name), make([]byte, 32)
	d.Key, d.Created, d.Enrolled = keyOf(d.Name).Public().(ed25519.PublicKey), m.w.clock(), m.w.clock()
	orPanic(m.store.CommitFleet(context.Background(), fleet.Batch{Devices: []fleet.Device{d}}))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open()
}

// says has a device check in with a report, from its own machine.
func (m *machines) says(name string, report protocol.Report) {
	m.speaks(name, hashOf("machine of "+name), "10.0.3.7", report)
}

// speaks is says from another machine or address.
func (m *machines) speaks(name, machine, address string, report protocol.Report) {
	m.checkIn(name, machine, hashOf("boot of " + machine)[:12], address, report)
}

// boots is says after a boot.
func (m *machines) boots(name, machine, boot string, report protocol.Report) {
	m.checkIn(name, machine, boot, "10.0.3.7", report)
}

func (m *machines) checkIn(name, machine, boot, address string, report protocol.Report) {
	service := m.now()
	m.mu.Lock()
	m.sessions[name]++
	session := m.sessions[name]
	m.mu.Unlock()
	text := must1(json.Marshal(report))
	in := protocol.CheckIn{
		Version: protocol.DeviceProtocol, Session: session, Sequence: 1, Machine: machine, Boot: boot,
		Time: m.w.clock(), ReportHash: protocol.ReportHash(text), Report: text,
	}
	must1(service.CheckIn(context.Background(), protocol.Sign(keyOf(name), protocol.ForCheckIn, must1(json.Marshal(in))), address))
}

// waits has a stranger ask to become a device.
func (m *machines) waits(serial, kind string) string {
	key := keyOf("stranger " + serial)
	text := must1(json.Marshal(protocol.Enrolment{
		Version: protocol.DeviceProtocol, Key: key.Public().(ed25519.PublicKey), Sealing: make([]byte, 32), Serial: serial, Product: kind,
		Architecture: "amd64", Revision: "B2", Machine: hashOf("machine of " + serial), Boot: "boot-1",
	}))
	signed := protocol.Sign(key, protocol.ForEnrolment, text)
	must1(m.now().Enrol(context.Background(), signed, "10.0.3.14"))
	m.mu.Lock()
	defer m.mu.Unlock()
	m.strange = append(m.strange, signed)
	return protocol.KeyID(key.Public().(ed25519.PublicKey))
}

// The pages ask the service as it is at that moment.

func (m *machines) Survey(ctx context.Context, q fleet.Query) (fleet.Survey, error) {
	return m.now().Survey(ctx, q)
}

func (m *machines) Kinds(ctx context.Context, pipeline, stage string) []fleet.Kind {
	return m.now().Kinds(ctx, pipeline, stage)
}

func (m *machines) Show(ctx context.Context, name string) (fleet.View, []fleet.Event, error) {
	return m.now().Show(ctx, name)
}

func (m *machines) Pending(ctx context.Context) []protocol.PendingEnrolment {
	return m.now().Pending(ctx)
}

func (m *machines) Accept(ctx context.Context, a release.Actor, which string, how protocol.Accept) (fleet.Device, error) {
	return m.now().Accept(ctx, a, which, how)
}

func (m *machines) Refuse(ctx context.Context, a release.Actor, which, reason string) error {
	return m.now().Refuse(ctx, a, which, reason)
}

func (m *machines) Assign(ctx context.Context, a release.Actor, name, stage string) (fleet.Device, error) {
	return m.now().Assign(ctx, a, name, stage)
}

func (m *machines) Hold(ctx context.Context, a release.Actor, name, reason string, until time.Time) (fleet.Device, error) {
	return m.now().Hold(ctx, a, name, reason, until)
}

func (m *machines) Unhold(ctx context.Context, a release.Actor, name string) (fleet.Device, error) {
	return m.now().Unhold(ctx, a, name)
}

func (m *machines) Pin(ctx context.Context, a release.Actor, name, snapshot, reason string) (fleet.Device, error) {
	return m.now().Pin(ctx, a, name, snapshot, reason)
}

func (m *machines) Unpin(ctx context.Context, a release.Actor, name string) (fleet.Device, error) {
	return m.now().Unpin(ctx, a, name)
}

func (m *machines) Retire(ctx context.Context, a release.Actor, name, reason string) (fleet.Device, error) {
	return m.now().Retire(ctx, a, name, reason)
}

func (m *machines) Resolve(ctx context.Context, a release.Actor, name, keep string) (fleet.Device, error) {
	return m.now().Resolve(ctx, a, name, keep)
}

// offered is what the stages of a world offer to its fleet.
type offered struct{ w *world }

func (o offered) published(pipeline string, offer release.Offer) *release.Published {
	if offer.State.IsZero() {
		return nil
	}
	return &release.Published{Offer: offer, Base: pipeline + "/states/" + offer.State.String(), Distribution: "trixie", Components: []string{"apps"}, Release: "release"}
}

func (o offered) Offered(_ context.Context, pipeline, stage string) (*release.Published, error) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	for _, s := range o.w.stages[pipeline] {
		if s.Name == stage {
			return o.published(pipeline, s.Offer), nil
		}
	}
	return nil, &release.Error{Code: release.NotFound, Text: "cannot find stage " + stage + " of pipeline " + pipeline}
}

func (o offered) PublishedSnapshot(_ context.Context, pipeline, id string) (*release.Published, error) {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	for _, s := range o.w.snapshots {
		if s.ID == id {
			return o.published(pipeline, release.Offer{State: s.State, Snapshot: id}), nil
		}
	}
	return nil, &release.Error{Code: release.NotFound, Text: "cannot find snapshot " + id}
}

// kinds are the products of a world, as the fleet sees them.
type kinds struct{ w *world }

func (k kinds) Product(pipeline, name string) (fleet.Product, bool) {
	p, err := k.w.Get(pipeline, name)
	return fleet.Product{Architecture: p.Architecture, Revisions: p.Revisions, Modules: slices.Sorted(maps.Keys(p.Modules))}, err == nil
}

func (k kinds) Lookup(pipeline, name string, modules []string, state string) (string, int64, string, string) {
	ready, status, reason := k.w.Lookup(pipeline, name, modules, must1(snapshots.ParseID(state)))
	return ready.SHA256, ready.Size, map[product.Status]string{product.Computed: fleet.BOMReady, product.Computing: fleet.BOMPending, product.Failed: fleet.BOMFailed}[status], reason
}

func (k kinds) Has(ctx context.Context, what fleet.Installed, relation string) (bool, error) {
	if strings.ContainsAny(relation, "!?") {
		return false, &release.Error{Code: release.Invalid, Text: "cannot look for \"" + relation + "\": it is no relation of packages", Hint: "for example 'openssl<<3.0.15'"}
	}
	b, err := k.w.BOM(ctx, what.Pipeline, what.Product, strings.Fields(what.Modules), must1(snapshots.ParseID(what.State)))
	wanted, version, _ := strings.Cut(relation, "=")
	return slices.ContainsFunc(b.Packages, func(p bom.Package) bool { return p.Name == wanted && (version == "" || p.Version == version) }), err
}

// Products of a world: a bill of materials is all that a state has, unless the
// story says otherwise.

func (w *world) Products(_ context.Context, pipeline string) ([]product.Product, error) {
	return slices.DeleteFunc(slices.Clone(w.products), func(p product.Product) bool { return p.Pipeline != pipeline }), w.broken
}

func (w *world) Get(pipeline, name string) (product.Product, error) {
	for _, p := range w.products {
		if p.Pipeline == pipeline && p.Name == name {
			return p, nil
		}
	}
	return product.Product{}, &release.Error{Code: release.NotFound, Text: "cannot find product \"" + name + "\": pipeline " + pipeline + " has none of that name", Hint: "repo-manager product list"}
}

func (w *world) Devices(pipeline, name string) int { return w.machines.now().Of(pipeline, name) }

func (w *world) Lookup(pipeline, name string, modules []string, state snapshots.ID) (product.Ready, product.Status, string) {
	if _, err := w.Get(pipeline, name); err != nil {
		return product.Ready{}, product.Failed, err.Error()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.computing[state]:
		return product.Ready{}, product.Computing, "its bill of materials is being computed"
	case w.verdicts[state] != nil:
		return product.Ready{}, product.Failed, w.verdicts[state].Summary
	}
	b := w.bill(pipeline, name, modules, state)
	return product.Ready{SHA256: b.SHA256, Size: b.Size}, product.Computed, ""
}

func (w *world) BOM(_ context.Context, pipeline, name string, modules []string, state snapshots.ID) (product.Bill, error) {
	if _, err := w.Get(pipeline, name); err != nil {
		return product.Bill{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if v := w.verdicts[state]; v != nil {
		return product.Bill{Verdict: v, Made: w.now}, nil
	}
	return w.bill(pipeline, name, modules, state), nil
}

func (w *world) bill(_, name string, modules []string, state snapshots.ID) product.Bill {
	b := product.Bill{BOM: bom.BOM{State: state.String(), Product: name, Architecture: "amd64", Modules: modules}, Made: w.now}
	for _, l := range w.contents[state] {
		d := product.Detail{Component: l.Component, Source: l.Name, SourceVersion: l.Version, Size: 81_300, Installed: 245_000, Reason: product.Reason{Kind: product.ByName}}
		switch {
		case l.Component == "debian" && l.Name == "base-files":
			d.Reason = product.Reason{Kind: product.ByEssential}
		case l.Component == "debian":
			d.Reason = product.Reason{Kind: product.ByDependency, By: "demo-app", Field: "Depends"}
		}
		b.Packages = append(b.Packages, bom.Package{Name: l.Name, Architecture: l.Architecture, Version: l.Version, SHA256: hex.EncodeToString(l.SHA256[:])})
		b.Details = append(b.Details, d)
	}
	b.Text = b.Encode()
	b.Size, b.SHA256 = int64(len(b.Text)), bom.Sum(b.Text)
	return b
}

func (w *world) DiffOf(ctx context.Context, pipeline, name string, modules []string, from, to snapshots.ID) (product.Difference, error) {
	a, err := w.BOM(ctx, pipeline, name, modules, from)
	if err != nil {
		return product.Difference{}, err
	}
	b, err := w.BOM(ctx, pipeline, name, modules, to)
	d := product.Difference{From: a, To: b}
	for i := range b.Packages {
		p := &b.Packages[i]
		c := product.Change{Name: p.Name, New: p, Component: "apps", Download: b.Details[i].Size}
		if j := slices.IndexFunc(a.Packages, func(o bom.Package) bool { return o.Name == p.Name }); j >= 0 {
			if c.Old = &a.Packages[j]; *c.Old == *p {
				continue
			}
		}
		d.Changes = append(d.Changes, c)
	}
	return d, err
}

// goods are the products of a world, as the pages see them: its Diff is that
// of states.
type goods struct{ *world }

func (g goods) Diff(ctx context.Context, pipeline, name string, modules []string, from, to snapshots.ID, _ bool) (product.Difference, error) {
	return g.DiffOf(ctx, pipeline, name, modules, from, to)
}

func (w *world) Effective(_ context.Context, _, device string) ([]configuration.Effective, error) {
	return w.config[device], nil
}

func (w *world) Readable(v configuration.Value) bool {
	return v.Type != configuration.Secret || v.Sealed != nil
}

func (w *world) Revision(d configuration.Device) (string, error) {
	for _, e := range w.config[d.Name] {
		if e.Missing {
			return "", fmt.Errorf("cannot configure device %s: %s is required and has no value", d.Name, e.Key)
		}
	}
	return "revision-1", nil
}
