package storetest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"

	"aptfleet/repo-manager/internal/configuration"
	"aptfleet/repo-manager/internal/release"
)

// configured is the configuration in memory.
type configured struct {
	values  []configuration.Entry
	schemas []configuration.Schema
	history []configuration.Edit
}

// EditConfig implements configuration.Store.
func (m *Memory) EditConfig(_ context.Context, e configuration.Edit, act release.Act) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failsNext; err != nil {
		m.failsNext = nil
		return err
	}
	if m.releases.pipeline(e.Scope.Pipeline) == nil {
		return fmt.Errorf("no pipeline %s", e.Scope.Pipeline)
	}
	m.configured.values = only(m.configured.values, func(o configuration.Entry) bool { return o.Scope != e.Scope || o.Key != e.Key })
	if e.New != nil {
		v := *e.New
		v.Sealed = bytes.Clone(v.Sealed)
		m.configured.values = append(m.configured.values, configuration.Entry{Scope: e.Scope, Key: e.Key, Value: v})
	}
	e.Old, e.New = bareValue(e.Old), bareValue(e.New)
	m.configured.history = append(m.configured.history, e)
	m.act(act)
	return nil
}

// bareValue is what a history keeps of a value.
func bareValue(v *configuration.Value) *configuration.Value {
	if v == nil {
		return nil
	}
	return &configuration.Value{Type: v.Type, JSON: v.JSON}
}

// ConfigHistory implements configuration.Store.
func (m *Memory) ConfigHistory(_ context.Context, s configuration.Scope, key string, limit int) ([]configuration.Edit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := only(m.configured.history, func(e configuration.Edit) bool { return e.Scope == s && e.Key == key })
	slices.Reverse(all)
	return first(all, limit), nil
}

// ConfigValues implements configuration.Store.
func (m *Memory) ConfigValues(context.Context) ([]configuration.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.configured.values), nil
}

// PutConfigSchema implements configuration.Store.
func (m *Memory) PutConfigSchema(_ context.Context, s configuration.Schema, act release.Act) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.configured.schemas = only(m.configured.schemas, func(o configuration.Schema) bool { return o.Pipeline != s.Pipeline || o.Product != s.Product })
	if s.Fields != nil {
		s.Fields = maps.Clone(s.Fields)
		m.configured.schemas = append(m.configured.schemas, s)
	}
	m.act(act)
	return nil
}

// ConfigSchemas implements configuration.Store.
func (m *Memory) ConfigSchemas(context.Context) ([]configuration.Schema, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.configured.schemas), nil
}
