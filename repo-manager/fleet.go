package main

import (
	"context"

	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/sqlite"
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
		Store:    db,
		Releases: s.engine,
		Configs:  configs{s},
		// Products, BOMs and Packages belong here once the server has them:
		// until then every device is told to wait.
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
