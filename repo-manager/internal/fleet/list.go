package fleet

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/release"
)

// SilentAfter is how long a device may be quiet before it is called silent.
const SilentAfter = 10 * time.Minute

// View is a device and how it stands.
type View struct {
	Device
	State   string // one of those of protocol.Device
	Has     *protocol.Runs
	Should  *protocol.Runs
	Healthy *bool
	WhyNot  string
}

// Devices lists all devices by name.
func (s *Service) Devices(context.Context) ([]Device, error) {
	s.mu.RLock()
	all := make([]Device, 0, len(s.devices))
	for _, d := range s.devices {
		all = append(all, d.Device)
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b Device) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// Of counts the devices of a product that are not retired.
func (s *Service) Of(pipeline, product string) (n int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, d := range s.devices {
		if d.Retired == nil && d.Pipeline == pipeline && d.Product == product {
			n++
		}
	}
	return n
}

// Device returns one device.
func (s *Service) Device(_ context.Context, name string) (Device, error) {
	d, err := s.byName("find", name)
	if err != nil {
		return Device{}, err
	}
	return s.copyOf(d), nil
}

// Show returns how a device stands, and its events, newest first.
func (s *Service) Show(ctx context.Context, name string) (View, []Event, error) {
	d, err := s.Device(ctx, name)
	if err != nil {
		return View{}, nil, err
	}
	events, err := s.Store.Events(ctx, name)
	return s.view(ctx, d, s.now()), events, err
}

// List lists the devices that a filter takes, by name.
func (s *Service) List(ctx context.Context, f protocol.DeviceFilter) ([]View, error) {
	if f.Package != "" && s.Packages == nil {
		return nil, fail(release.Refused, "", "cannot list devices by package: this server makes no bills of materials")
	}
	devices, err := s.Devices(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now()
	has := make(map[Installed]bool) // many devices have the same
	var all []View
	for _, d := range devices {
		if f.Pipeline != "" && d.Pipeline != f.Pipeline || f.Product != "" && d.Product != f.Product ||
			f.Stage != "" && d.Stage != f.Stage || f.Revision != "" && d.HardwareRevision() != f.Revision {
			continue
		}
		v := s.view(ctx, d, now)
		if f.State != "" && v.State != f.State {
			continue
		}
		if f.Snapshot != "" && (v.Has == nil || !strings.HasPrefix(v.Has.Snapshot, f.Snapshot)) {
			continue
		}
		if f.Package != "" {
			if v.Has == nil {
				continue
			}
			what := v.installed()
			yes, known := has[what]
			if !known {
				// Devices say what they like: one that nobody can tell anything of hides
				// no other.
				if yes, err = s.Packages.Has(ctx, what, f.Package); err != nil && release.CodeOf(err) != release.NotFound {
					return nil, err
				}
				has[what] = yes
			}
			if !yes {
				continue
			}
		}
		all = append(all, v)
	}
	return all, nil
}

// view judges a device.
func (s *Service) view(ctx context.Context, d Device, now time.Time) View {
	v := View{Device: d}
	if runs, ok := booted(d.Report); ok {
		v.Has = &runs
	}
	offer, err := s.target(ctx, &d)
	if err == nil && offer != nil {
		v.Should = &protocol.Runs{State: offer.State.String(), Snapshot: offer.Snapshot}
		if r := d.Release; r != nil && r.State == v.Should.State {
			v.Should.BOM = r.BOM
		}
	}
	if d.Report != nil && d.Report.Health != nil {
		v.Healthy = &d.Report.Health.OK
	}
	v.State = state(v, now)
	v.WhyNot = whyNot(s, v, err, now)
	return v
}

// behind tells whether a device does not run what it should.
func (v *View) behind() bool {
	return v.Should != nil && (v.Has == nil || v.Has.State != v.Should.State || differ(v.Has.BOM, v.Should.BOM))
}

// installed is what a device runs: the bill of materials that it names, else the
// one that it was given for that state last. There must be something.
func (v *View) installed() Installed {
	what := Installed{Pipeline: v.Pipeline, Product: v.Product, State: v.Has.State, Modules: strings.Join(v.Modules, " "), BOM: v.Has.BOM}
	if r := v.Assigned.Release; what.BOM == "" && r != nil && r.State == what.State {
		what.Modules, what.BOM = strings.Join(v.Assigned.Modules, " "), r.BOM
	}
	return what
}

// held is the hold that keeps a device as it is, its own or an operator's.
func (v *View) held(now time.Time) *protocol.Hold {
	lasts := func(h protocol.Hold) bool { return h.Until.IsZero() || now.Before(h.Until) }
	if v.Hold != nil && lasts(*v.Hold) {
		return v.Hold
	}
	if v.Report != nil {
		for i, h := range v.Report.Holds {
			if lasts(h) {
				return &v.Report.Holds[i]
			}
		}
	}
	return nil
}

func (v *View) failure() *protocol.Failure {
	if v.Report != nil && v.Should != nil {
		for i, f := range v.Report.Failed {
			if f.State == v.Should.State {
				return &v.Report.Failed[i]
			}
		}
	}
	return nil
}

func state(v View, now time.Time) string {
	switch {
	case v.Retired != nil:
		return protocol.DeviceRetired
	case v.Clone != nil:
		return protocol.DeviceClone
	case v.Report == nil:
		return protocol.DevicePending
	case v.behind() && v.failure() != nil, v.Healthy != nil && !*v.Healthy:
		return protocol.DeviceFailed
	case now.Sub(v.Seen) > SilentAfter:
		return protocol.DeviceSilent
	case v.held(now) != nil:
		return protocol.DeviceHeld
	case v.behind():
		return protocol.DeviceBehind
	}
	return protocol.DeviceOK
}

// lacks is why a device is not given its configuration; "" if it is.
func (s *Service) lacks(d *Device) string {
	if s.Configs == nil {
		return ""
	}
	if _, err := s.Configs.Revision(d); err != nil {
		return err.Error()
	}
	return ""
}

// whyNot is why a device does not run what it should, or not as it should be
// configured, in a sentence; "" if it does.
func whyNot(s *Service, v View, err error, now time.Time) string {
	switch {
	case v.Retired != nil:
		return "it is retired: " + v.Retired.Reason
	case v.Clone != nil:
		return v.Clone.Why + "; neither is given anything until an operator decides"
	}
	return both(whyBehind(s, v, err, now), s.lacks(&v.Device))
}

// whyBehind is why it does not run what it should.
func whyBehind(s *Service, v View, err error, now time.Time) string {
	switch {
	case release.CodeOf(err) != "":
		return err.Error()
	case err != nil:
		return "the server cannot look up what it should run"
	case v.Should == nil:
		return "stage " + v.Stage + " offers nothing yet"
	case !v.behind():
		return ""
	}
	if h := v.held(now); h != nil {
		return "it is held: " + h.Reason
	}
	if f := v.failure(); f != nil {
		return f.Reason
	}
	if v.Report != nil && v.Report.Refused != nil {
		return "it refused its assignment (" + v.Report.Refused.Reason + "): " + v.Report.Refused.Text
	}
	if v.Assigned.Release == nil || v.Assigned.Release.State != v.Should.State {
		d := device{Device: v.Device}
		if in, err := s.inputsOf(context.Background(), &d, v.Report, now); err == nil && in.wait != "" {
			return in.wait
		}
	}
	if v.Report != nil && v.Report.WhyNot != "" {
		return v.Report.WhyNot
	}
	if v.Report == nil {
		return "it has not reported yet"
	}
	if r := v.Report; r.Wanted == v.Should.State && r.Phase != "" && r.Phase != "IDLE" {
		return strings.TrimSpace("it is on its way: " + r.Phase + " " + r.Progress)
	}
	return "it has not looked since this was offered"
}
