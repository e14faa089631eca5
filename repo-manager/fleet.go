package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/product"
	"aptfleet/repo-manager/internal/release"
	"aptfleet/repo-manager/internal/sqlite"
	"aptfleet/snapshots"
)

// openFleet opens the keys that devices need, and the fleet. Everything that
// the fleet asks others for is wired here.
func (s *server) openFleet(ctx context.Context, db *sqlite.DB) error {
	known, err := db.HasDevices(ctx)
	if err != nil {
		return err
	}
	if s.fleetKeys, err = openFleetKeys(s.settings.Data, !known); err != nil {
		return err
	}
	s.fleet, err = fleet.Open(ctx, fleet.Config{
		Store:      db,
		Releases:   s.engine,
		Products:   fleetProducts{s.products},
		BOMs:       fleetProducts{s.products},
		Packages:   fleetProducts{s.products},
		Configs:    configs{s},
		Key:        s.fleetKeys.assignment,
		ReadSecret: s.fleetKeys.read,
		Welcome:    s.welcomeDevice,
		TokenSuffix: func() string {
			if s.authority == nil {
				return ""
			}
			return "_" + s.authority.Fingerprint()
		},
		Announce: s.engine.Announce,
		Clock:    s.clock,
		Log:      s.log,
	})
	if err != nil {
		return err
	}
	s.opened(s.fleet.Close)
	return nil
}

// fleetProducts are the products and their bills of materials as the fleet sees them.
type fleetProducts struct{ products *product.Service }

// Product implements fleet.Products.
func (f fleetProducts) Product(pipeline, name string) (fleet.Product, bool) {
	p, ok := f.products.Product(pipeline, name)
	return fleet.Product{Architecture: p.Architecture, Revisions: p.Revisions, Modules: slices.Sorted(maps.Keys(p.Modules))}, ok
}

// Lookup implements fleet.BOMs.
func (f fleetProducts) Lookup(pipeline, name string, modules []string, state string) (sha256 string, size int64, status, reason string) {
	id, err := snapshots.ParseID(state)
	if err != nil {
		return "", 0, fleet.BOMFailed, err.Error()
	}
	ready, how, reason := f.products.Lookup(pipeline, name, modules, id)
	switch how {
	case product.Computed:
		return ready.SHA256, ready.Size, fleet.BOMReady, ""
	case product.Failed:
		return "", 0, fleet.BOMFailed, reason
	}
	return "", 0, fleet.BOMPending, reason
}

// Has implements fleet.Packages.
func (f fleetProducts) Has(ctx context.Context, what fleet.Installed, relation string) (bool, error) {
	id, err := snapshots.ParseID(what.State)
	if err != nil {
		return false, &release.Error{Code: release.NotFound, Text: fmt.Sprintf("cannot find state %.80q", what.State), Err: err}
	}
	return f.products.Has(ctx, what.Pipeline, what.Product, strings.Fields(what.Modules), id, what.BOM, relation)
}

// welcomeDevice is what every device is told of this server when it is
// accepted, and whether reading the archive of a pipeline needs its password.
func (s *server) welcomeDevice(pipeline string) (w protocol.Enrolled, private bool) {
	w = protocol.Enrolled{Archive: s.listeners.addresses.Public, ArchiveKey: string(s.key.certificate)}
	if s.authority != nil {
		w.CA = string(s.authority.PEM())
	}
	p, err := s.engine.Pipeline(context.Background(), pipeline)
	// A password too many does no harm.
	return w, err != nil || p.Private
}
