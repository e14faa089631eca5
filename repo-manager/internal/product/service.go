package product

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"aptfleet/internal/bom"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/snapshots"
)

// Config is what a Service works with.
type Config struct {
	Store    Store
	Chunks   snapshots.Chunks
	Pipeline func(ctx context.Context, name string) (release.Pipeline, error) // fails if there is none
	// States lists the states that a pipeline keeps.
	States func(ctx context.Context, pipeline string) ([]snapshots.ID, error)
	Dir    string // for apt's lists, emptied at start
	Public string // published tree: bills lie below <pipeline>/boms
	// Package opens a file of the pool, for its changelog.
	Package Opener
	// InUse counts the devices of a product, which is not deleted while there
	// are any. It must not wait for the service.
	InUse    func(pipeline, product string) int
	Announce func(kind, pipeline, subject string) // tells watchers
	Timeout  time.Duration                        // for one computation; 0 is two minutes
	Clock    func() time.Time
	Log      *slog.Logger
}

// Service knows products and answers questions about them. Its methods may be
// called concurrently. Questions are answered while Run runs.
type Service struct {
	config     Config
	tree       tree
	solver     solver
	changelogs changelogs

	// deciding keeps two changes of products apart from each other, and from
	// the storing of answers.
	deciding sync.Mutex

	mu       sync.RWMutex
	products map[name]Product
	entries  map[entryKey]*entry // all answers, and what is waited for
	lookups  map[lookupKey]*entry
	asked    uint64 // counts requests, to order them
	told     []func(Event)
	wake     chan struct{}
	stopped  bool // Run has ended
}

type name struct{ pipeline, product string }

// entryKey is a question of a pipeline.
type entryKey struct {
	pipeline string
	question [32]byte
}

// lookupKey finds the entry of a product as it is defined now.
type lookupKey struct {
	pipeline, product, modules string
	state                      snapshots.ID
}

// Event says that a question was answered, either way.
type Event struct {
	Pipeline, Product string
	Modules           []string
	State             snapshots.ID
	Status            Status
}

// Open reads products and answers, writes bills that are missing in the
// published tree, removes those that a crash left without an answer, and empties
// Dir.
func Open(ctx context.Context, config Config) (*Service, error) {
	s := &Service{
		config: config, tree: tree{config.Public},
		solver:     solver{chunks: config.Chunks, dir: config.Dir, limit: cmp.Or(config.Timeout, 2*time.Minute)},
		changelogs: changelogs{open: config.Package},
		products:   make(map[name]Product), entries: make(map[entryKey]*entry), lookups: make(map[lookupKey]*entry),
		wake: make(chan struct{}, 1),
	}
	if err := s.solver.open(); err != nil {
		return nil, fmt.Errorf("cannot open products: %w", err)
	}
	products, err := config.Store.Products(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read products: %w", err)
	}
	for _, p := range products {
		s.products[name{p.Pipeline, p.Name}] = p.normal()
	}
	answers, err := config.Store.Answers(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read bills of materials: %w", err)
	}
	for _, a := range answers {
		e := &entry{key: entryKey{a.Pipeline, a.Question}, product: a.Product, modules: a.Modules, state: a.State}
		e.settle(a)
		s.entries[e.key] = e
	}
	if _, err := s.publish(ctx, s.tree.has); err != nil {
		// The bills are in the database; a full disk must not keep the server
		// from starting.
		config.Log.Error("cannot publish every bill of materials", "error", err)
	}
	return s, s.sweep()
}

func (s *Service) now() time.Time { return s.config.Clock().UTC().Truncate(time.Microsecond) }

// Create adds a product. A taken name is a Conflict.
func (s *Service) Create(ctx context.Context, a release.Actor, p Product) (Product, error) {
	pipeline, err := s.config.Pipeline(ctx, p.Pipeline)
	if err != nil {
		return Product{}, err
	}
	p = p.normal()
	if err := p.check("create", pipeline); err != nil {
		return Product{}, err
	}
	s.deciding.Lock()
	defer s.deciding.Unlock()
	taken := func(err error) error {
		return &release.Error{
			Code: release.Conflict, Text: fmt.Sprintf("cannot create product %s: the name is taken", p.Name), Hint: "repo-manager product show " + p.Name, Err: err,
		}
	}
	if _, ok := s.Product(p.Pipeline, p.Name); ok {
		return Product{}, taken(nil)
	}
	p.Created = s.now()
	switch err := s.config.Store.CreateProduct(ctx, p, s.act(a, "create", p, p.summary())); {
	case errors.Is(err, ErrExists):
		return Product{}, taken(err)
	case err != nil:
		return Product{}, fmt.Errorf("cannot create product %s: %w", p.Name, err)
	}
	s.put(p)
	return p, nil
}

// Set replaces the definition of a product by what change makes of it; name,
// pipeline and time of creation stay. Bills that were computed stay too: of
// another definition they are not.
func (s *Service) Set(ctx context.Context, a release.Actor, pipeline, product string, change func(Product) Product) (Product, error) {
	of, err := s.config.Pipeline(ctx, pipeline)
	if err != nil {
		return Product{}, err
	}
	s.deciding.Lock()
	defer s.deciding.Unlock()
	before, err := s.Get(pipeline, product)
	if err != nil {
		return Product{}, err
	}
	p := change(before.normal()).normal()
	p.Pipeline, p.Name, p.Created = before.Pipeline, before.Name, before.Created
	if err := p.check("change", of); err != nil {
		return Product{}, err
	}
	if err := s.config.Store.SetProduct(ctx, p, s.act(a, "change", p, p.summary())); err != nil {
		return Product{}, fmt.Errorf("cannot change product %s: %w", p.Name, err)
	}
	s.put(p)
	return p, nil
}

// Devices counts the devices of a product.
func (s *Service) Devices(pipeline, product string) int { return s.config.InUse(pipeline, product) }

// Delete forgets a product with its bills, or with dryRun only tells whether it
// could, and returns what it was. Refused while devices are of it.
func (s *Service) Delete(ctx context.Context, a release.Actor, pipeline, product, reason string, dryRun bool) (Product, error) {
	if _, err := s.config.Pipeline(ctx, pipeline); err != nil {
		return Product{}, err
	}
	s.deciding.Lock()
	defer s.deciding.Unlock()
	p, err := s.Get(pipeline, product)
	if err != nil {
		return Product{}, err
	}
	if n := s.Devices(pipeline, product); n > 0 {
		return Product{}, &release.Error{
			Code: release.Refused, Text: fmt.Sprintf("cannot delete product %s: %d devices are of it", product, n), Hint: "retire them first: repo-manager device list",
		}
	}
	if dryRun {
		return p, nil
	}
	if err := s.config.Store.DeleteProduct(ctx, pipeline, product, s.act(a, "delete", p, reason)); err != nil {
		return Product{}, fmt.Errorf("cannot delete product %s: %w", product, err)
	}
	s.mu.Lock()
	delete(s.products, name{pipeline, product})
	s.dropLookups(pipeline, product)
	var gone []*entry
	for key, e := range s.entries {
		if key.pipeline == pipeline && e.product == product {
			gone = append(gone, e)
			delete(s.entries, key)
			e.end(fmt.Errorf("product %s was deleted", product))
		}
	}
	s.mu.Unlock()
	s.config.Announce("product", pipeline, product)
	return p, s.dropFiles(gone)
}

func (s *Service) act(a release.Actor, verb string, p Product, detail string) release.Act {
	return release.Act{At: s.now(), By: a.Name, Via: a.Via, Verb: verb, Pipeline: p.Pipeline, Object: "product " + p.Name, Detail: detail}
}

// summary is a definition in one line, for the audit trail.
func (p Product) summary() string {
	text := p.Architecture + ": " + strings.Join(p.Packages, " ")
	for _, m := range p.moduleNames() {
		text += "; module " + m + ": " + strings.Join(p.Modules[m], " ")
	}
	if p.Recommends {
		text += "; with Recommends"
	}
	return text
}

// put makes a definition known. What was looked up of the one before is not of
// this one.
func (s *Service) put(p Product) {
	s.mu.Lock()
	s.products[name{p.Pipeline, p.Name}] = p
	s.dropLookups(p.Pipeline, p.Name)
	s.mu.Unlock()
	s.config.Announce("product", p.Pipeline, p.Name)
}

func (s *Service) dropLookups(pipeline, product string) {
	for key, e := range s.lookups {
		if key.pipeline == pipeline && key.product == product {
			delete(s.lookups, key)
			if e.status == Computing {
				e.stale = true
			}
		}
	}
}

// Products lists the products of a pipeline by name.
func (s *Service) Products(ctx context.Context, pipeline string) ([]Product, error) {
	if _, err := s.config.Pipeline(ctx, pipeline); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []Product
	for at, p := range s.products {
		if at.pipeline == pipeline {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b Product) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// Product returns a product; its lists are not to be changed.
func (s *Service) Product(pipeline, product string) (Product, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.products[name{pipeline, product}]
	return p, ok
}

// Get is Product with an error that says what to do.
func (s *Service) Get(pipeline, product string) (Product, error) {
	if p, ok := s.Product(pipeline, product); ok {
		return p, nil
	}
	return Product{}, &release.Error{
		Code: release.NotFound, Text: fmt.Sprintf("cannot find product %q: pipeline %s has none of that name", product, pipeline), Hint: "repo-manager product list",
	}
}

// OnAnswer has f told of every answer from now on. f must not wait for the
// service. It is for the time before Run.
func (s *Service) OnAnswer(f func(Event)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = append(s.told, f)
}

// Bill is a bill of materials with all that is known of it, or a verdict.
type Bill struct {
	bom.BOM
	SHA256  string // its name; "" for a verdict
	Size    int64  // bytes of the text
	Text    []byte
	Details []Detail // of Packages, in their order
	Verdict *Verdict // there is none, because
	Made    time.Time
}

// Download is the size of all .debs in bytes.
func (b Bill) Download() (sum int64) {
	for _, d := range b.Details {
		sum += d.Size
	}
	return sum
}

// Installed is how many bytes all packages take when they are installed, as
// their control files say.
func (b Bill) Installed() (sum int64) {
	for _, d := range b.Details {
		sum += d.Installed
	}
	return sum
}
