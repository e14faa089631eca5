package storetest

import (
	"testing"

	"aptfleet/repo-manager/internal/release"
)

func TestMemory(t *testing.T) {
	Release(t, func(*testing.T) (release.Store, func() release.Store) {
		m := new(Memory)
		return m, func() release.Store { return m }
	})
	t.Run("access", func(t *testing.T) { Access(t, func(*testing.T) AccessStore { return new(Memory) }) })
	t.Run("configuration", func(t *testing.T) {
		Configuration(t, func(*testing.T) (ConfigurationStore, func() ConfigurationStore) {
			m := new(Memory)
			return m, func() ConfigurationStore { return m }
		})
	})
	t.Run("products", func(t *testing.T) { Products(t, func(*testing.T) ProductStore { return new(Memory) }) })
	t.Run("fleet", func(t *testing.T) { Fleet(t, func(*testing.T) FleetStore { return new(Memory) }) })
}
