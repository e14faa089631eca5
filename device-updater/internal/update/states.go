package update

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"aptfleet/device-updater/internal/rootfs"
)

// States are the state units of the device: data of a format, which outlives
// deployments. Which of them lies in the state is settled when a deployment
// boots, before anything can reach it and without the updater.
type States interface {
	// Declared returns the units that a root declares, by name; anything wrong
	// with its declarations is an error.
	Declared(root string) ([]rootfs.Unit, error)
	// Live returns the units that lie in the state.
	Live() ([]rootfs.Live, error)
	// Kept returns the copies of what deployments that do not run last wrote.
	Kept() ([]rootfs.Copy, error)
	// Drop deletes the copies of one deployment. It may be repeated.
	Drop(deployment int) error
	// Prune deletes those of all deployments but the ones to keep.
	Prune(keep func(deployment int) bool) error
	// SettleSeeds remembers what a deployment that is about to go brought into
	// the state, so that it is not brought again. It may be repeated.
	SettleSeeds(deployment int) error
}

// acceptUnits judges the declarations of a deployment that was installed and
// returns its units. One that could not read what is written now is not accepted:
// only a person can want that, and says so with a rollback.
func (m *Machine) acceptUnits(clone string) ([]rootfs.Unit, error) {
	units, err := m.States.Declared(m.Roots.Path(clone))
	if err != nil {
		return nil, fmt.Errorf("cannot accept what was installed: %w", err)
	}
	now, err := m.States.Live()
	if err != nil {
		return nil, err
	}
	for _, unit := range units {
		if i := indexUnit(now, unit.Name); i >= 0 && unit.Epoch < now[i].Epoch {
			return nil, fmt.Errorf("cannot accept what was installed: it reads epoch %d of state unit %s, and what was written to %s since %s is of epoch %d",
				unit.Epoch, unit.Name, strings.Join(now[i].Paths, " "), stamp(now[i].Since), now[i].Epoch)
		}
	}
	return units, nil
}

func indexUnit(units []rootfs.Live, name string) int {
	return slices.IndexFunc(units, func(u rootfs.Live) bool { return u.Name == name })
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// unsettled returns why the deployment that is booted does not have its state;
// nil if it has.
func (m *Machine) unsettled(n int) error {
	units, err := m.States.Declared(m.Roots.Path(deployment(n)))
	if err != nil {
		return err
	}
	now, err := m.States.Live()
	if err != nil {
		return err
	}
	for _, unit := range units {
		if i := indexUnit(now, unit.Name); i < 0 || now[i].Epoch != unit.Epoch || now[i].Deployment != n {
			return fmt.Errorf("state unit %s could not be made ready for this release: see the log of aptfleet-state.service", unit.Name)
		}
	}
	return nil
}

// lost says what of the state deployment n could not read, one sentence for each
// unit; what is put back instead is part of it.
func (m *Machine) lost(n int) ([]string, error) {
	units, err := m.States.Declared(m.Roots.Path(deployment(n)))
	if err != nil {
		return nil, err
	}
	now, err := m.States.Live()
	if err != nil {
		return nil, err
	}
	kept, err := m.States.Kept()
	if err != nil {
		return nil, err
	}
	var all []string
	for _, live := range now {
		has := slices.IndexFunc(kept, func(c rootfs.Copy) bool { return c.Deployment == n && c.Name == live.Name })
		declares := slices.IndexFunc(units, func(u rootfs.Unit) bool { return u.Name == live.Name })
		what := func(since time.Time) string {
			return fmt.Sprintf("what was written to %s since %s (state unit %s, epoch %d) would be lost", strings.Join(live.Paths, " "), stamp(since), live.Name, live.Epoch)
		}
		switch {
		case declares < 0 && has < 0, declares >= 0 && units[declares].Epoch == live.Epoch:
		case has >= 0 && kept[has].Epoch != live.Epoch:
			all = append(all, fmt.Sprintf("%s: deployment %d reads epoch %d, as it left it then", what(kept[has].At), n, kept[has].Epoch))
		case declares >= 0:
			all = append(all, fmt.Sprintf("%s: deployment %d reads epoch %d, and nothing was kept of that", what(live.Since), n, units[declares].Epoch))
		}
	}
	return all, nil
}
