package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/protocol"
	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/fleet"
	"aptfleet/repo-manager/internal/release"
)

// openVault loads the keys that secrets of the configuration are encrypted
// with, or makes one. A server that has lost its keys goes on with a new one:
// its secrets are unreadable until the lost key is put back into the file, as a
// line of its own, or they are set again.
func openVault(data string) (*configuration.Vault, error) {
	path := filepath.Join(data, "keys", "config.key")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text = configuration.NewVaultFile()
		err = atomicfile.Write(path, text, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the configuration key: %w", err)
	}
	vault, err := configuration.ParseVault(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return vault, nil
}

// openConfiguration opens what devices are configured with, and says which
// secrets nobody can read any more.
func (s *server) openConfiguration(ctx context.Context, store configuration.Store) error {
	vault, err := openVault(s.settings.Data)
	if err != nil {
		return err
	}
	s.configuration, err = configuration.Open(ctx, configuration.Config{
		Store: store, Vault: vault, Pipeline: s.engine.Pipeline, Products: s.productNames, Devices: configured{s.engine, s.fleet},
		Announce: s.engine.Announce, Clock: s.clock,
	})
	if err != nil {
		return err
	}
	if lost := s.configuration.Unreadable(); len(lost) > 0 {
		s.say("%d secrets of the configuration cannot be read: they were encrypted with another keys/config.key.", len(lost))
		s.say("Add the line of that key to the file and start again, or set them again; devices keep what they have meanwhile.")
		for _, one := range lost {
			s.log.Warn("a secret of the configuration cannot be read", "secret", one)
		}
	}
	return nil
}

// productNames lists the products of a pipeline.
func (s *server) productNames(ctx context.Context, pipeline string) ([]string, error) {
	all, err := s.products.Products(ctx, pipeline)
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	return names, err
}

// configured are the devices of the fleet as their configuration sees them.
type configured struct {
	engine *release.Engine
	fleet  *fleet.Service
}

// Find implements configuration.Devices.
func (c configured) Find(ctx context.Context, name string) (configuration.Device, bool, error) {
	d, err := c.fleet.Device(ctx, name)
	if release.CodeOf(err) == release.NotFound {
		return configuration.Device{}, false, nil
	}
	return configuredAs(d), err == nil, err
}

// All implements configuration.Devices.
func (c configured) All(ctx context.Context, pipeline string) (iter.Seq[configuration.Device], error) {
	all, err := c.fleet.Devices(ctx)
	return func(yield func(configuration.Device) bool) {
		for _, d := range all {
			if d.Pipeline == pipeline && !yield(configuredAs(d)) {
				return
			}
		}
	}, err
}

// configuredAs tells where a device belongs.
func configuredAs(d fleet.Device) configuration.Device {
	return configuration.Device{Name: d.Name, Pipeline: d.Pipeline, Product: d.Product, Stage: d.Stage, Sealing: d.Sealing}
}

// configs are the configurations of devices as the fleet gives them out.
type configs struct{ s *server }

// Revision implements fleet.Configs.
func (c configs) Revision(d *fleet.Device) (string, error) {
	return c.s.configuration.Revision(configuredAs(*d))
}

// For implements fleet.Configs.
func (c configs) For(d *fleet.Device) (*protocol.AssignedConfig, error) {
	return c.s.configuration.For(configuredAs(*d))
}
