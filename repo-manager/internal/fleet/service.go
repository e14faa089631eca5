package fleet

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// Config is what a Service works with. Store, Releases, Key, ReadSecret,
// Announce, Clock and Log are required.
type Config struct {
	Store    Store
	Releases Releases
	Products Products // nil: there are none, and every device waits
	BOMs     BOMs     // nil: there are none, and every device waits
	Configs  Configs  // nil: no device is configured
	Packages Packages // nil: nobody can ask for devices by package

	Key        ed25519.PrivateKey // signs assignments
	ReadSecret []byte             // passwords of the archive are made of it
	// Welcome is what every accepted device is told of the server: archive,
	// archive key, authority, features. Private says whether the archive of a
	// pipeline wants a password.
	Welcome func(pipeline string) (w protocol.Enrolled, private bool)
	// TokenSuffix is put behind a new enrolment token, e.g. "_" and the
	// fingerprint of the server's own authority; nil: nothing.
	TokenSuffix func() string

	Announce func(kind, pipeline, subject string) // tells watchers
	Clock    func() time.Time
	Log      *slog.Logger
}

// Releases says what there is to install.
type Releases interface {
	// Offered is what a stage offers now; nil while it offers nothing. No such
	// pipeline or stage is an error with code NotFound. It is called at each
	// check-in and must not take longer the more there is.
	Offered(ctx context.Context, pipeline, stage string) (*release.Published, error)
	// PublishedSnapshot is one snapshot, by its whole id. Like Offered.
	PublishedSnapshot(ctx context.Context, pipeline, id string) (*release.Published, error)
}

// Products says what kinds of device there are.
type Products interface {
	// Product finds one, from memory.
	Product(pipeline, name string) (Product, bool)
}

// Product is one kind of device.
type Product struct {
	Architecture string
	Revisions    []string // of the hardware that it supports; none: every one
	Modules      []string // that a device may have
}

// BOMs knows the bills of materials.
type BOMs interface {
	// Lookup finds one, from memory: a sum and size if it is BOMReady, a
	// sentence if it is BOMFailed. One that is missing is queued to be made.
	Lookup(pipeline, product string, modules []string, state string) (sha256 string, size int64, status, reason string)
}

// Statuses of a bill of materials.
const (
	BOMReady   = "ready"
	BOMPending = "pending"
	BOMFailed  = "failed"
)

// Configs knows the configuration of each device.
type Configs interface {
	// Revision changes with whatever For would answer, whose error it has too;
	// from memory.
	Revision(d *Device) (string, error)
	// For is the configuration of a device, its secrets encrypted to it; nil if
	// there never was one. An error, which holds no secret, says why there is
	// none just now: the device keeps what it has.
	For(d *Device) (*protocol.AssignedConfig, error)
}

// Packages looks into bills of materials.
type Packages interface {
	// Has tells whether what is installed satisfies a relation such as
	// "openssl (<< 3.0.15)". What nobody can tell is NotFound.
	Has(ctx context.Context, what Installed, relation string) (bool, error)
}

// Installed says which packages a device runs.
type Installed struct {
	Pipeline, Product, State string
	Modules                  string // words, sorted
	BOM                      string // SHA-256; "": what the product has in the state now
}

// Service knows the fleet. Its methods may be called concurrently.
type Service struct {
	Config
	writer *writer
	given  given

	acts sync.Mutex // who may enrol, and what operators do, one after the other

	mu            sync.RWMutex
	devices       map[string]*device       // by name
	inOrder       []*device                // the same, in the order of their names
	keys          map[string]*device       // by KeyID, retired ones too
	serials       map[string]*device       // by serial number
	oldKeys       map[string]OldKey        // by KeyID
	registrations map[string]*Registration // by serial number
	promised      map[string]string        // serial numbers of registrations by the names that they will have
	tokens        map[Hash]EnrolToken
	refusals      map[string]Refusal // by KeyID
	pending       pending
}

// device is a device in memory.
type device struct {
	busy sync.Mutex // see the package's comment
	Device
	inputs inputs // that Content was made of
}

// Open reads the fleet from the store. The service works until Close.
func Open(ctx context.Context, config Config) (*Service, error) {
	s := &Service{
		Config: config, devices: make(map[string]*device), keys: make(map[string]*device), serials: make(map[string]*device),
		oldKeys: make(map[string]OldKey), registrations: make(map[string]*Registration), tokens: make(map[Hash]EnrolToken),
		promised: make(map[string]string), refusals: make(map[string]Refusal),
	}
	stored, err := config.Store.Fleet(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read the fleet: %w", err)
	}
	for _, d := range stored.Devices {
		s.put(&device{Device: d})
	}
	for _, k := range stored.OldKeys {
		s.oldKeys[protocol.KeyID(k.Key)] = k
	}
	for _, r := range stored.Registrations {
		s.register(&r)
	}
	for _, t := range stored.Tokens {
		s.tokens[t.Hash] = t
	}
	for _, r := range stored.Refusals {
		s.refusals[r.Key] = r
	}
	s.writer = startWriter(config.Store)
	return s, nil
}

// put makes a device known in memory.
func (s *Service) put(d *device) {
	if s.devices[d.Name] == nil {
		at, _ := slices.BinarySearchFunc(s.inOrder, d.Name, func(o *device, name string) int { return cmp.Compare(o.Name, name) })
		s.inOrder = slices.Insert(s.inOrder, at, d)
	}
	s.devices[d.Name], s.keys[d.KeyID()] = d, d
	if before := s.serials[d.Serial]; before == nil || before.Retired != nil {
		s.serials[d.Serial] = d
	}
}

// Close waits for what is being written. Nothing may be called after it.
func (s *Service) Close() error {
	s.writer.close()
	return nil
}

func (s *Service) now() time.Time { return s.Clock().UTC().Truncate(time.Microsecond) }

// byName finds a device for somebody who names it.
func (s *Service) byName(verb, name string) (*device, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if d, ok := s.devices[name]; ok {
		return d, nil
	}
	return nil, fail(release.NotFound, "repo-manager device list", "cannot %s device %q: there is none of that name", verb, name)
}

// act is a line of the audit trail.
func (s *Service) act(a release.Actor, verb, pipeline, object, detail string) release.Act {
	return release.Act{At: s.now(), By: a.Name, Via: a.Via, Verb: verb, Pipeline: pipeline, Object: object, Detail: detail}
}

// fail is an error for a person.
func fail(code release.Code, hint, format string, args ...any) error {
	return &release.Error{Code: code, Text: fmt.Sprintf(format, args...), Hint: hint}
}

// Refused is the answer to a device that is told no. Code is one of package
// protocol.
type Refused struct {
	Code    string
	Text    string
	Session uint64 // of CodeReplay
}

func (r *Refused) Error() string { return r.Text }

func refuse(code, format string, args ...any) error {
	return &Refused{Code: code, Text: fmt.Sprintf(format, args...)}
}

// CodeOfRefusal is the code of a Refused inside err, or "".
func CodeOfRefusal(err error) string {
	var r *Refused
	if errors.As(err, &r) {
		return r.Code
	}
	return ""
}

// words joins words for a person.
func words(all []string) string { return strings.Join(all, ", ") }
