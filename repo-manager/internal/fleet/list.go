package fleet

import (
	"context"
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
	defer s.mu.RUnlock()
	all := make([]Device, len(s.inOrder))
	for i, d := range s.inOrder {
		all[i] = d.Device
	}
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
			what := glance(&v.Device, v.Should).installed()
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
	should, err := s.targets().of(ctx, &d)
	g := glance(&v.Device, should)
	if g.runs {
		v.Has = &g.has
	}
	v.Should, v.Healthy, v.State = g.wanted(), g.healthy(), States[g.state(now)]
	v.WhyNot = whyNot(s, g, err, now)
	return v
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
func whyNot(s *Service, g glimpse, err error, now time.Time) string {
	switch {
	case g.Retired != nil:
		return "it is retired: " + g.Retired.Reason
	case g.Clone != nil:
		return g.Clone.Why + "; neither is given anything until an operator decides"
	}
	return both(whyBehind(s, g, err, now), s.lacks(g.Device))
}

// whyBehind is why it does not run what it should.
func whyBehind(s *Service, g glimpse, err error, now time.Time) string {
	switch {
	case release.CodeOf(err) != "":
		return err.Error()
	case err != nil:
		return "the server cannot look up what it should run"
	case g.should == nil:
		return "stage " + g.Stage + " offers nothing yet"
	case !g.behind():
		return ""
	}
	if h := g.held(now); h != nil {
		return "it is held: " + h.Reason
	}
	if f := g.failure(); f != nil {
		return f.Reason
	}
	if g.Report != nil && g.Report.Refused != nil {
		return "it refused its assignment (" + g.Report.Refused.Reason + "): " + g.Report.Refused.Text
	}
	if g.Assigned.Release == nil || g.Assigned.Release.State != g.should.State {
		d := device{Device: *g.Device}
		if in, err := s.inputsOf(context.Background(), &d, g.Report, now); err == nil && in.wait != "" {
			return in.wait
		}
	}
	if g.Report != nil && g.Report.WhyNot != "" {
		return g.Report.WhyNot
	}
	if g.Report == nil {
		return "it has not reported yet"
	}
	if r := g.Report; r.Wanted == g.should.State && r.Phase != "" && r.Phase != "IDLE" {
		return strings.TrimSuffix("it is on its way: "+strings.ToLower(r.Phase)+", "+r.Progress, ", ")
	}
	return "it has not looked since this was offered"
}
