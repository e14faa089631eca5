package snapshots

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
)

// Chunks keeps texts under the SHA-256 of their bytes: the texts of chunks and
// of states. Package chunkstest holds the suite that every implementation
// passes.
type Chunks interface {
	// Get returns the text that Put was given, or an error that wraps
	// fs.ErrNotExist. The caller does not modify it. Whether its bytes still
	// have the SHA-256 id is for the caller to see; this package always looks.
	Get(ctx context.Context, id ID) ([]byte, error)
	// Put keeps text and returns its id. It keeps its own copy, may be called
	// at the same time by many, and again with the same text. When a text
	// survives a power failure is for the implementation to say.
	Put(ctx context.Context, text []byte) (ID, error)
}

// Memory is a Chunks that lives in memory: the reference for the others. Its
// zero value is empty and ready.
type Memory struct {
	mu    sync.RWMutex
	texts map[ID][]byte
}

// Get implements Chunks.
func (m *Memory) Get(_ context.Context, id ID) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	text, ok := m.texts[id]
	if !ok {
		return nil, NotFound(id)
	}
	return text, nil
}

// Put implements Chunks.
func (m *Memory) Put(_ context.Context, text []byte) (ID, error) {
	id := ID(sha256.Sum256(text))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.texts == nil {
		m.texts = make(map[ID][]byte)
	}
	if _, ok := m.texts[id]; !ok {
		m.texts[id] = append([]byte{}, text...)
	}
	return id, nil
}

// get reads a text and makes sure that it is the one that id names.
func get(ctx context.Context, c Chunks, id ID) ([]byte, error) {
	text, err := c.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if got := ID(sha256.Sum256(text)); got != id {
		return nil, fmt.Errorf("its bytes have the SHA-256 %s: the store is damaged", got)
	}
	return text, nil
}
