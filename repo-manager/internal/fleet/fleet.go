// Package fleet knows the devices of every pipeline and what each reported
// last.
//
// A device proves who it is by a token of its own, of which only the SHA-256
// is kept. A report that says what the last one said changes nothing but the
// time it was seen, and that is kept in memory: the database is written when
// something about a device changed.
package fleet

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// Device is a machine as the server knows it.
type Device struct {
	Name     string
	Pipeline string
	Created  time.Time
	Seen     time.Time        // last report; zero before the first
	Report   *protocol.Report // nil before the first
	Token    string           // only in the answer that made it
}

// Hash is the SHA-256 of a token's text.
type Hash = [32]byte

// Store keeps devices.
type Store interface {
	// PutDevice inserts a device; one of that name makes it fail with
	// ErrExists. The act is recorded with it.
	PutDevice(ctx context.Context, d Device, token Hash, act release.Act) error
	// Devices lists all devices with the hashes of their tokens, by name.
	Devices(ctx context.Context) ([]Stored, error)
	// PutReport replaces the last report of a device.
	PutReport(ctx context.Context, name string, report protocol.Report, seen time.Time) error
}

// Stored is a device as it is kept.
type Stored struct {
	Device
	Token Hash
}

// ErrExists says that a name is taken.
var ErrExists = fmt.Errorf("the name is taken")

// Config is what a Service works with.
type Config struct {
	Store    Store
	Pipeline func(ctx context.Context, name string) (release.Pipeline, error) // fails if there is none
	Announce func(kind, pipeline, subject string)                             // tells watchers
	Clock    func() time.Time
}

// Service knows the fleet. Its methods may be called concurrently. It holds
// all devices in memory.
type Service struct {
	config Config

	mu      sync.Mutex
	devices map[string]*Device
	tokens  map[Hash]*Device
}

// Open reads the devices from the store.
func Open(ctx context.Context, config Config) (*Service, error) {
	s := &Service{config: config, devices: make(map[string]*Device), tokens: make(map[Hash]*Device)}
	stored, err := config.Store.Devices(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot read devices: %w", err)
	}
	for _, d := range stored {
		device := d.Device
		s.devices[device.Name] = &device
		s.tokens[d.Token] = &device
	}
	return s, nil
}

func (s *Service) now() time.Time { return s.config.Clock().UTC().Truncate(time.Microsecond) }

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Create adds a device and makes its token, which is in this answer and
// nowhere else. A taken name is a Conflict.
func (s *Service) Create(ctx context.Context, a release.Actor, name, pipeline string) (Device, error) {
	if !validName.MatchString(name) {
		return Device{}, &release.Error{Code: release.Invalid, Text: fmt.Sprintf("cannot create device %q: a name is a letter or digit, then those and . _ -, at most 64", name)}
	}
	if _, err := s.config.Pipeline(ctx, pipeline); err != nil {
		return Device{}, err
	}
	var raw [32]byte
	rand.Read(raw[:])
	token := base64.RawURLEncoding.EncodeToString(raw[:])
	hash := sha256.Sum256([]byte(token))

	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.devices[name]; ok {
		return Device{}, &release.Error{Code: release.Conflict, Text: fmt.Sprintf("cannot create device %s: the name is taken", name), Hint: "repo-manager device show " + name, Err: ErrExists}
	}
	d := Device{Name: name, Pipeline: pipeline, Created: s.now()}
	act := release.Act{At: d.Created, By: a.Name, Via: a.Via, Verb: "create", Pipeline: pipeline, Object: "device " + name}
	if err := s.config.Store.PutDevice(ctx, d, hash, act); err != nil {
		return Device{}, fmt.Errorf("cannot create device %s: %w", name, err)
	}
	kept := d
	s.devices[name], s.tokens[hash] = &kept, &kept
	s.config.Announce("device", pipeline, name)
	d.Token = token
	return d, nil
}

// Devices lists all devices by name.
func (s *Service) Devices(context.Context) ([]Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Device, 0, len(s.devices))
	for _, d := range s.devices {
		list = append(list, *d)
	}
	slices.SortFunc(list, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// Device returns one device.
func (s *Service) Device(_ context.Context, name string) (Device, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d, ok := s.devices[name]; ok {
		return *d, nil
	}
	return Device{}, &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot find device %q: there is none of that name", name), Hint: "repo-manager device list"}
}

// Report takes what the device of that token says about itself. An unknown
// token is NoAccess.
func (s *Service) Report(ctx context.Context, token string, report protocol.Report) error {
	hash := sha256.Sum256([]byte(token))
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.tokens[hash]
	if !ok {
		return &release.Error{Code: release.NoAccess, Text: "cannot tell which device reports: the token is unknown", Hint: "repo-manager device create NAME makes one; it belongs into /etc/aptfleet/device.yaml"}
	}
	seen := s.now()
	if d.Report != nil && same(*d.Report, report) {
		d.Seen = seen
		return nil
	}
	if err := s.config.Store.PutReport(ctx, d.Name, report, seen); err != nil {
		return fmt.Errorf("cannot record the report of device %s: %w", d.Name, err)
	}
	d.Report, d.Seen = &report, seen
	s.config.Announce("device", d.Pipeline, d.Name)
	return nil
}

// same compares reports by what they would be stored as.
func same(a, b protocol.Report) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
