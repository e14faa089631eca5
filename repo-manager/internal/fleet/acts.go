package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// change does what an operator wants of a device. do works on a copy, and
// returns what the audit trail says, or that nothing is to be done.
func (s *Service) change(a release.Actor, verb, name string, do func(d *Device) (detail string, changed bool, err error)) (Device, error) {
	d, err := s.byName(verb, name)
	if err != nil {
		return Device{}, err
	}
	d.busy.Lock()
	defer d.busy.Unlock()
	next := d.Device
	if next.Retired != nil {
		return Device{}, fail(release.Refused, "repo-manager device register "+next.Serial+" lets its machine enrol anew",
			"cannot %s device %s: it is retired", verb, name)
	}
	detail, changed, err := do(&next)
	if err != nil || !changed {
		return s.copyOf(d), err
	}
	batch := Batch{Devices: []Device{next}, Acts: []release.Act{s.act(a, verb, next.Pipeline, "device "+name, detail)}}
	if next.Clone != d.Clone {
		batch.Contacts = []ContactOf{{Device: name, Contact: next.Contact}}
	}
	if err := s.writer.commit(batch); err != nil {
		return Device{}, fmt.Errorf("cannot %s device %s: %w", verb, name, err)
	}
	s.mu.Lock()
	d.Device, d.inputs = next, inputs{}
	s.mu.Unlock()
	s.Announce("device", next.Pipeline, name)
	return next, nil
}

// copyOf is a device for others.
func (s *Service) copyOf(d *device) Device {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return d.Device
}

// Assign makes a device follow another stage.
func (s *Service) Assign(ctx context.Context, a release.Actor, name, stage string) (Device, error) {
	return s.change(a, "assign", name, func(d *Device) (string, bool, error) {
		if _, err := s.Releases.Offered(ctx, d.Pipeline, stage); err != nil {
			return "", false, err
		}
		before := d.Stage
		d.Stage = stage
		return before + " to " + stage, before != stage, nil
	})
}

// Hold keeps a device as it is until a time; the zero time: until it is taken
// off.
func (s *Service) Hold(_ context.Context, a release.Actor, name, reason string, until time.Time) (Device, error) {
	if err := mustHaveReason("hold device "+name, reason); err != nil {
		return Device{}, err
	}
	if !until.IsZero() && !until.After(s.now()) {
		return Device{}, fail(release.Invalid, "", "cannot hold device %s until %s: that is past", name, until.Format(time.RFC3339))
	}
	return s.change(a, "hold", name, func(d *Device) (string, bool, error) {
		h := protocol.Hold{Reason: reason, By: a.Name}
		if !until.IsZero() {
			h.Until = until.UTC().Truncate(time.Microsecond)
		}
		if d.Hold != nil && d.Hold.Reason == h.Reason && d.Hold.Until.Equal(h.Until) {
			return "", false, nil
		}
		d.Hold = &h
		if !h.Until.IsZero() {
			return reason + ", until " + h.Until.Format(time.RFC3339), true, nil
		}
		return reason, true, nil
	})
}

// Unhold takes a hold off.
func (s *Service) Unhold(_ context.Context, a release.Actor, name string) (Device, error) {
	return s.change(a, "unhold", name, func(d *Device) (string, bool, error) {
		held := d.Hold != nil
		d.Hold = nil
		return "", held, nil
	})
}

// Pin keeps a device at a snapshot, by its whole id.
func (s *Service) Pin(ctx context.Context, a release.Actor, name, snapshot, reason string) (Device, error) {
	if err := mustHaveReason("pin device "+name, reason); err != nil {
		return Device{}, err
	}
	return s.change(a, "pin", name, func(d *Device) (string, bool, error) {
		if _, err := s.Releases.PublishedSnapshot(ctx, d.Pipeline, snapshot); err != nil {
			return "", false, err
		}
		if d.Pin != nil && d.Pin.Snapshot == snapshot && d.Pin.Reason == reason {
			return "", false, nil
		}
		d.Pin = &Pin{Snapshot: snapshot, Reason: reason, By: a.Name, At: s.now()}
		return snapshot + ": " + reason, true, nil
	})
}

// Unpin makes a device follow its stage again.
func (s *Service) Unpin(_ context.Context, a release.Actor, name string) (Device, error) {
	return s.change(a, "unpin", name, func(d *Device) (string, bool, error) {
		pinned := d.Pin != nil
		d.Pin = nil
		return "", pinned, nil
	})
}

// Set changes what an operator says of a device: its hardware revision (""
// takes the device's word again) and its modules; nil leaves one as it is.
func (s *Service) Set(ctx context.Context, a release.Actor, name string, revision *string, modules *[]string) (Device, error) {
	return s.change(a, "set", name, func(d *Device) (string, bool, error) {
		var said []string
		if revision != nil && *revision != d.Revision {
			if *revision != "" && !isWord(*revision, 64) {
				return "", false, fail(release.Invalid, "", "cannot set device %s: %q is no hardware revision", name, *revision)
			}
			d.Revision = *revision
			said = append(said, "hardware revision "+*revision)
		}
		if modules != nil {
			sorted, err := s.checkSpec(ctx, "set device "+name, spec{pipeline: d.Pipeline, product: d.Product, stage: d.Stage, modules: *modules})
			if err != nil {
				return "", false, err
			}
			if !slices.Equal(sorted, d.Modules) {
				d.Modules = sorted
				said = append(said, "modules "+words(sorted))
			}
		}
		return strings.Join(said, "; "), len(said) > 0, nil
	})
}

// Retire ends a device: its key is refused for good, and so is its password.
func (s *Service) Retire(_ context.Context, a release.Actor, name, reason string) (Device, error) {
	if err := mustHaveReason("retire device "+name, reason); err != nil {
		return Device{}, err
	}
	return s.change(a, "retire", name, func(d *Device) (string, bool, error) {
		d.Retired = &protocol.Retired{Reason: reason, By: a.Name, At: s.now()}
		return reason, true, nil
	})
}

// Resolve ends the quarantine of a device whose key two machines have: keep
// names the machine that it is, or a unique prefix of it; the others are told
// that they are retired. Where all have the same hardware, keep may be empty.
// Nothing tells such machines apart: if both go on, they are found out again.
func (s *Service) Resolve(_ context.Context, a release.Actor, name, keep string) (Device, error) {
	return s.change(a, "resolve", name, func(d *Device) (string, bool, error) {
		if d.Clone == nil {
			return "", false, fail(release.Refused, "repo-manager device show "+name, "cannot resolve device %s: one machine has its key", name)
		}
		machines := []string{d.Machine}
		for _, m := range d.Clone.Machines {
			if !slices.Contains(machines, m.Machine) {
				machines = append(machines, m.Machine)
			}
		}
		var kept []string
		for _, m := range machines {
			if keep == "" && len(machines) == 1 || keep != "" && strings.HasPrefix(m, keep) {
				kept = append(kept, m)
			}
		}
		if len(kept) != 1 {
			return "", false, fail(release.Invalid, "--keep MACHINE; repo-manager device show "+name+" shows when and from where each was seen",
				"cannot resolve device %s: say which machine it is: %s", name, words(machines))
		}
		// Which boots were whose is not known: they are evidence no more.
		d.Machine, d.Clone, d.Boots, d.Where = kept[0], nil, nil, protocol.Sighting{}
		d.Banned = slices.DeleteFunc(slices.Clone(d.Banned), func(m string) bool { return m == d.Machine })
		for _, m := range machines {
			if m != d.Machine && !slices.Contains(d.Banned, m) {
				d.Banned = append(d.Banned, m)
			}
		}
		return "it is machine " + d.Machine, true, nil
	})
}
