package blobstest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"aptfleet/repo-manager/internal/frame"
	"aptfleet/snapshots"
)

// Memory is a Store that lives in memory: the reference for the others. It
// compares whatever it keeps before it believes it.
type Memory struct {
	encoder *frame.Encoder

	mu        sync.Mutex
	kept      map[key][]byte        // values are replaced, never modified
	protected map[snapshots.ID]bool // put since Protect; nil: nobody wants to know
}

// key is a text with the encoding "", or a frame of it.
type key struct {
	id snapshots.ID
	as frame.Encoding
}

// NewMemory returns an empty one.
func NewMemory() (*Memory, error) {
	encoder, err := frame.NewEncoder()
	if err != nil {
		return nil, err
	}
	return &Memory{encoder: encoder, kept: make(map[key][]byte)}, nil
}

// Damage is that of a Subject.
func (m *Memory) Damage(id snapshots.ID, as frame.Encoding, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if data == nil {
		delete(m.kept, key{id, as})
		return
	}
	m.kept[key{id, as}] = bytes.Clone(data)
}

// Get implements snapshots.Chunks.
func (m *Memory) Get(_ context.Context, id snapshots.ID) ([]byte, error) {
	text, err := m.Stored(id, "")
	if err != nil {
		return nil, snapshots.NotFound(id)
	}
	return text, nil
}

// Put implements snapshots.Chunks.
func (m *Memory) Put(ctx context.Context, text []byte) (snapshots.ID, error) {
	id := snapshots.ID(sha256.Sum256(text))
	if err := ctx.Err(); err != nil {
		return id, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.protected != nil {
		m.protected[id] = true
	}
	m.keep(key{id, ""}, text)
	return id, nil
}

// keep copies data, unless it is there.
func (m *Memory) keep(at key, data []byte) {
	if there, ok := m.kept[at]; !ok || !bytes.Equal(there, data) {
		m.kept[at] = append([]byte{}, data...)
	}
}

// AppendText implements publish.Blobs.
func (m *Memory) AppendText(ctx context.Context, dst []byte, id snapshots.ID) ([]byte, error) {
	text, err := m.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return append(dst, text...), nil
}

// AppendFrame implements publish.Blobs.
func (m *Memory) AppendFrame(_ context.Context, dst []byte, id snapshots.ID, as frame.Encoding) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, ok := m.kept[key{id, ""}]
	if !ok {
		return nil, snapshots.NotFound(id)
	}
	if sha256.Sum256(text) != id {
		return nil, errors.New("its text has another SHA-256: the blob is damaged")
	}
	data := m.kept[key{id, as}]
	if !frame.Holds(data, as, text) {
		var err error
		if data, err = m.encoder.Encode(text, as); err != nil {
			return nil, err
		}
		m.kept[key{id, as}] = data
	}
	return append(dst, data...), nil
}

// Stored implements publish.BlobStore.
func (m *Memory) Stored(id snapshots.ID, as frame.Encoding) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.kept[key{id, as}]
	if !ok {
		return nil, fmt.Errorf("cannot find %s: %w", m.Name(id, as), fs.ErrNotExist)
	}
	return data, nil
}

// Walk implements publish.BlobStore. There are only blobs.
func (m *Memory) Walk(blob func(id snapshots.ID, as frame.Encoding, size int64), _ func(name string)) error {
	for at, size := range m.sizes() {
		blob(at.id, at.as, size)
	}
	return nil
}

// sizes copies what is there, so that nobody is called under the lock.
func (m *Memory) sizes() map[key]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	sizes := make(map[key]int64, len(m.kept))
	for at, data := range m.kept {
		sizes[at] = int64(len(data))
	}
	return sizes
}

// Name implements publish.BlobStore. No file is called so.
func (m *Memory) Name(id snapshots.ID, as frame.Encoding) string {
	return "memory:" + id.String() + string(as)
}

// Parse implements publish.BlobStore.
func (m *Memory) Parse(name string) (id snapshots.ID, as frame.Encoding, ok bool) {
	digits, suffix, isFrame := strings.Cut(strings.TrimPrefix(name, "memory:"), ".")
	if isFrame {
		as = frame.Encoding("." + suffix)
	}
	id, err := snapshots.ParseID(digits)
	return id, as, err == nil && (as == "" || as == frame.Gzip || as == frame.Zstd) && m.Name(id, as) == name
}

// Encode implements publish.BlobStore.
func (m *Memory) Encode(text []byte, as frame.Encoding) ([]byte, error) {
	return m.encoder.Encode(text, as)
}

// Restore implements publish.BlobStore.
func (m *Memory) Restore(text []byte) error {
	return m.restore(key{sha256.Sum256(text), ""}, text)
}

// RestoreFrame implements publish.BlobStore.
func (m *Memory) RestoreFrame(id snapshots.ID, as frame.Encoding, data []byte) error {
	return m.restore(key{id, as}, data)
}

func (m *Memory) restore(at key, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keep(at, data)
	return nil
}

// Sync implements publish.BlobStore. Nothing outlives the process.
func (m *Memory) Sync() error { return nil }

// List implements release.Blobs.
func (m *Memory) List(f func(id snapshots.ID, bytes int64)) error {
	totals := make(map[snapshots.ID]int64)
	for at, size := range m.sizes() {
		totals[at.id] += size
	}
	for id, bytes := range totals {
		f(id, bytes)
	}
	return nil
}

// Protect implements release.Blobs.
func (m *Memory) Protect() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.protected = make(map[snapshots.ID]bool)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.protected = nil
	}
}

// Drop implements release.Blobs.
func (m *Memory) Drop(id snapshots.ID) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.protected[id] {
		return false, nil
	}
	delete(m.kept, key{id, ""})
	for _, as := range frame.Encodings {
		delete(m.kept, key{id, as})
	}
	return true, nil
}
