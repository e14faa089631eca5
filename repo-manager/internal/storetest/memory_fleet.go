package storetest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"

	"aptfleet/repo-manager/internal/fleet"
)

// memoryFleet holds devices by name, and the rest by their keys.
type memoryFleet struct {
	devices       map[string]fleet.Device
	events        map[string][]fleet.Event // oldest first
	registrations map[string]fleet.Registration
	tokens        map[fleet.Hash]fleet.EnrolToken
	refusals      map[string]fleet.Refusal
	oldKeys       map[string]fleet.OldKey
}

// copy returns a fleet that can be written to without any effect on the
// original.
func (f memoryFleet) copy() memoryFleet {
	return memoryFleet{
		devices: writable(f.devices), events: writable(f.events), registrations: writable(f.registrations), tokens: writable(f.tokens),
		refusals: writable(f.refusals), oldKeys: writable(f.oldKeys),
	}
}

func writable[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return make(map[K]V)
	}
	return maps.Clone(m)
}

// Restore makes the fleet what it was when Save was called, as an old backup
// would.
func (m *Memory) Restore(saved Saved) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fleet = saved.fleet.copy()
}

// Saved is a fleet as it was.
type Saved struct{ fleet memoryFleet }

// Save remembers the fleet as it is.
func (m *Memory) Save() Saved {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Saved{m.fleet.copy()}
}

// CommitFleet implements fleet.Store.
func (m *Memory) CommitFleet(_ context.Context, b fleet.Batch) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failsNext; err != nil {
		m.failsNext = nil
		return err
	}
	next := m.fleet.copy()
	if err := m.addFleet(next, b); err != nil {
		return err
	}
	m.fleet = next
	for _, act := range b.Acts {
		m.act(act)
	}
	return nil
}

func (m *Memory) addFleet(f memoryFleet, b fleet.Batch) error {
	for _, d := range b.Devices {
		if m.releases.pipeline(d.Pipeline) == nil {
			return fmt.Errorf("no pipeline %s", d.Pipeline)
		}
		for _, other := range f.devices {
			if other.Name != d.Name && other.Key.Equal(d.Key) {
				return fmt.Errorf("device %s has the key", other.Name)
			}
		}
		before := f.devices[d.Name]
		d.Contact, d.Assigned = before.Contact, before.Assigned
		f.devices[d.Name] = d
	}
	for _, c := range b.Contacts {
		d, ok := f.devices[c.Device]
		if !ok {
			return fmt.Errorf("no device %s", c.Device)
		}
		report, hash := d.Report, d.ReportHash
		d.Contact = c.Contact
		d.Skew = 0
		switch {
		case c.Text == nil:
			d.Report, d.ReportHash = report, hash
		case len(c.Text) == 0:
			d.Report, d.ReportHash = nil, [32]byte{}
		default:
			var err error
			if d.Report, err = fleet.ParseReport(c.Text); err != nil {
				return err
			}
		}
		f.devices[c.Device] = d
	}
	for _, a := range b.Assigned {
		d, ok := f.devices[a.Device]
		if !ok {
			return fmt.Errorf("no device %s", a.Device)
		}
		d.Assigned = a.Assigned
		f.devices[a.Device] = d
	}
	for _, e := range b.Events {
		if _, ok := f.devices[e.Device]; !ok {
			return fmt.Errorf("no device %s", e.Device)
		}
		all := append(slices.Clone(f.events[e.Device]), e)
		f.events[e.Device] = all[max(0, len(all)-fleet.MaxEvents):]
	}
	for _, r := range b.Registrations {
		f.registrations[r.Serial] = r
	}
	for _, serial := range b.Unregistered {
		delete(f.registrations, serial)
	}
	for _, t := range b.Tokens {
		f.tokens[t.Hash] = t
	}
	for _, hash := range b.Revoked {
		delete(f.tokens, hash)
	}
	for _, r := range b.Refusals {
		f.refusals[r.Key] = r
	}
	for _, key := range b.Pardoned {
		delete(f.refusals, key)
	}
	for _, k := range b.OldKeys {
		f.oldKeys[string(k.Key)] = k
	}
	return nil
}

// Fleet implements fleet.Store.
func (m *Memory) Fleet(context.Context) (fleet.Stored, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.fleet
	return fleet.Stored{
		Devices:       sortedBy(f.devices, func(a, b fleet.Device) int { return cmp.Compare(a.Name, b.Name) }),
		Registrations: sortedBy(f.registrations, func(a, b fleet.Registration) int { return cmp.Compare(a.Serial, b.Serial) }),
		Tokens:        sortedBy(f.tokens, func(a, b fleet.EnrolToken) int { return bytes.Compare(a.Hash[:], b.Hash[:]) }),
		Refusals:      sortedBy(f.refusals, func(a, b fleet.Refusal) int { return cmp.Compare(a.Key, b.Key) }),
		OldKeys:       sortedBy(f.oldKeys, func(a, b fleet.OldKey) int { return bytes.Compare(a.Key, b.Key) }),
	}, nil
}

func sortedBy[K comparable, V any](m map[K]V, order func(a, b V) int) []V {
	return slices.SortedFunc(maps.Values(m), order)
}

// Events implements fleet.Store.
func (m *Memory) Events(_ context.Context, device string) ([]fleet.Event, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.fleet.events[device])
	slices.Reverse(all)
	return all, nil
}

// keyOf is a key for tests: the same for the same seed.
func keyOf(seed byte) ed25519.PublicKey {
	raw := make([]byte, ed25519.SeedSize)
	raw[0] = seed
	return ed25519.NewKeyFromSeed(raw).Public().(ed25519.PublicKey)
}
