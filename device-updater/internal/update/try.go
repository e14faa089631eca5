package update

import (
	"context"
	"errors"
	"fmt"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/journal"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
)

// Try installs the .debs at the given paths on top of the release that is
// booted and of what was tried before, in the same way as Update installs a
// release. What they need comes from that release alone. From then on they are
// on top of every release, until Rejoin.
func (m *Machine) Try(ctx context.Context, files []string, by string, o Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.setCancel(cancel)
	defer m.setCancel(nil)
	if err := m.refuseHeld("try packages"); err != nil {
		return m.whyNot(err)
	}
	current, booted, err := m.free("try packages")
	if err != nil {
		return m.whyNot(err)
	}
	offer, err := m.tried(booted, files, by)
	if err == nil && m.is(booted, offer) {
		return m.Records.PutOverlay(offer.Overlay)
	}
	if err != nil {
		return m.whyNot(err)
	}
	return m.change(ctx, offer, current, booted, o, func() error { return nil })
}

// PreviewTry says what Try would change.
func (m *Machine) PreviewTry(ctx context.Context, files []string) ([]apt.Change, error) {
	current, booted, err := m.free("try packages")
	if err != nil {
		return nil, err
	}
	offer, err := m.tried(booted, files, "")
	if err != nil {
		return nil, err
	}
	plan, err := m.Releases.Plan(ctx, offer, m.Roots.Path(deployment(current)), booted)
	if err == nil {
		err = m.sweepLocal()
	}
	if err != nil {
		return nil, err
	}
	return plan.Changes(), nil
}

// Rejoin gives the overlay up and installs exactly the release that the server
// wants here, or if it says none or that failed before, the one that is booted. It also mends
// packages that were damaged.
func (m *Machine) Rejoin(ctx context.Context, o Options) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.setCancel(cancel)
	defer m.setCancel(nil)
	if err := m.refuseHeld("rejoin the release"); err != nil {
		return m.whyNot(err)
	}
	current, booted, err := m.free("rejoin the release")
	if err != nil {
		return m.whyNot(err)
	}
	offer, err := m.plain(ctx, booted)
	if err != nil {
		return m.whyNot(err)
	}
	// It follows again once that is staged, not if it comes to nothing.
	return m.change(ctx, offer, current, booted, o, func() error { return m.Records.PutDevelop(protocol.Hold{}) })
}

// PreviewRejoin says what Rejoin would change.
func (m *Machine) PreviewRejoin(ctx context.Context) ([]apt.Change, error) {
	current, booted, err := m.free("rejoin the release")
	if err != nil {
		return nil, err
	}
	offer, err := m.plain(ctx, booted)
	if err != nil {
		return nil, err
	}
	plan, err := m.Releases.Plan(ctx, offer, m.Roots.Path(deployment(current)), booted)
	if err != nil {
		return nil, err
	}
	return plan.Changes(), nil
}

// free returns what is booted, if nothing is under way that goes on by itself.
func (m *Machine) free(verb string) (int, Deployment, error) {
	current, err := m.Boot.Current()
	if err != nil {
		return 0, Deployment{}, err
	}
	if tx := m.Journal.Last(); tx.Open() && tx.Phase != journal.Staged {
		return 0, Deployment{}, &Refused{Reason: fmt.Sprintf("cannot %s: an update is in phase %s", verb, tx.Phase), Hint: "device-updater status"}
	}
	booted, err := m.Records.Deployment(current)
	return current, booted, err
}

// tried is the release that is booted with the wanted overlay and more on top.
func (m *Machine) tried(booted Deployment, files []string, by string) (Offer, error) {
	offer, err := booted.release()
	if err != nil {
		return Offer{}, err
	}
	wanted, err := m.Records.Overlay()
	if err != nil {
		return Offer{}, err
	}
	more, err := m.Records.KeepLocal(files, by, m.Clock())
	if err != nil {
		return Offer{}, err
	}
	offer.Overlay = wanted.With(more)
	return offer, nil
}

// plain is the release that a device without an overlay would run.
func (m *Machine) plain(ctx context.Context, booted Deployment) (Offer, error) {
	offer, err := m.Releases.Offer(ctx)
	if err != nil {
		return Offer{}, err
	}
	offer.Overlay = nil
	if offer.State == "" || offer.Against != "" || m.failedBefore(offer) != nil && booted.State != "" {
		return booted.release()
	}
	return offer, nil
}

// release is what the deployment was made from, without its overlay.
func (d Deployment) release() (Offer, error) {
	if d.State == "" {
		return Offer{}, &Refused{Reason: "cannot tell which release this device runs", Hint: "device-updater update"}
	}
	offer := Offer{State: d.State, Snapshot: d.Snapshot, Origin: d.Origin, Booted: true}
	if d.BOM != "" {
		b, err := bom.Decode([]byte(d.BOM))
		if err != nil {
			return Offer{}, err
		}
		offer.BOM = &b
	}
	return offer, nil
}

// change carries out what a person asked for: to STAGED, which staged is told,
// and on if that is wanted.
func (m *Machine) change(ctx context.Context, offer Offer, current int, booted Deployment, o Options, staged func() error) error {
	m.forgetCancelled()
	tx, err := m.discardUnless(ctx, current, func(staged Deployment) bool { return m.is(staged, offer) })
	if err != nil {
		return m.whyNot(err)
	}
	if tx.Phase != journal.Staged {
		if tx, err = m.stage(ctx, offer, current, booted); err != nil {
			return err
		}
	}
	if err := staged(); err != nil {
		return m.whyNot(err)
	}
	if tx.Phase != journal.Staged {
		return nil
	}
	// A hold may have come meanwhile.
	if err := m.refuseHeld("boot what is staged"); err != nil {
		return m.whyNot(err)
	}
	if !o.Reboot && !m.Settings.RebootAuto {
		m.say(func(s *Status) { s.WhyNot = stagedWaits })
		return nil
	}
	return m.bootStaged(ctx, tx, true)
}

// blame remembers why a transaction failed: against the release, or if only the
// overlay was new, by giving that up. It may be repeated.
func (m *Machine) blame(tx journal.Record, reason string) error {
	from, err := m.Records.Deployment(tx.From)
	if err != nil {
		return err
	}
	if onTop(tx, from) {
		return m.Records.PutOverlay(from.Overlay)
	}
	return m.remember(tx, reason)
}

// speaksAgainst reports whether a failure speaks against an offer. What failed without
// local packages fails with them.
func speaksAgainst(f protocol.Failure, o Offer) bool {
	return f.State == o.State && (f.Overlay == "" || f.Overlay == o.Overlay.ID())
}

// sweepLocal deletes the .debs that no deployment and nobody's wish needs.
func (m *Machine) sweepLocal() error {
	wanted, err := m.Records.Overlay()
	if err != nil {
		return err
	}
	needed := []Overlay{wanted}
	names, err := m.Roots.List("deployments")
	staged, err2 := m.Roots.List("pristine")
	if err := errors.Join(err, err2); err != nil {
		return err
	}
	for _, name := range append(names, staged...) {
		n, ok := number(name)
		if !ok {
			continue
		}
		d, err := m.Records.Deployment(n)
		if err != nil {
			return err
		}
		needed = append(needed, d.Overlay)
	}
	return m.Records.SweepLocal(needed...)
}
