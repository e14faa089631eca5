package pooltest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
)

// Memory is a Pool that lives in memory: the reference for the others. It takes
// the bytes of the files that it is given and removes them. Its zero value is
// empty and ready.
type Memory struct {
	mu    sync.Mutex
	files map[file][]byte
}

// file is a file by its content and its name.
type file struct {
	sum  [sha256.Size]byte
	name string
}

// Read is that of a Subject.
func (m *Memory) Read(sum [sha256.Size]byte, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	content, ok := m.files[file{sum, name}]
	if !ok {
		return nil, fmt.Errorf("cannot read %s: %w", name, fs.ErrNotExist)
	}
	return content, nil
}

// Damage is that of a Subject.
func (m *Memory) Damage(sum [sha256.Size]byte, name string, content []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if content == nil {
		delete(m.files, file{sum, name})
		return
	}
	m.set(file{sum, name}, bytes.Clone(content))
}

func (m *Memory) set(at file, content []byte) {
	if m.files == nil {
		m.files = make(map[file][]byte)
	}
	m.files[at] = content
}

// Has implements mirror.Pool.
func (m *Memory) Has(sum [sha256.Size]byte, name string) bool {
	_, err := m.Read(sum, name)
	return err == nil
}

// Put implements release.Pool.
func (m *Memory) Put(path string, sum [sha256.Size]byte, name string) (already bool, err error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return false, fmt.Errorf("cannot put %s into the pool: %w", name, err)
	}
	return m.put(content, sum, name), nil
}

// PutBytes implements release.Pool.
func (m *Memory) PutBytes(content []byte, sum [sha256.Size]byte, name string) (already bool, err error) {
	if err := checkName(name); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.put(bytes.Clone(content), sum, name), nil
}

func (m *Memory) put(content []byte, sum [sha256.Size]byte, name string) (already bool) {
	there, ok := m.files[file{sum, name}]
	if ok && sha256.Sum256(there) == sum {
		return true
	}
	m.set(file{sum, name}, content)
	return false
}

func checkName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("cannot use %q as the name of a file in the pool: want a plain name", name)
	}
	return nil
}

// Remove implements release.Pool.
func (m *Memory) Remove(sum [sha256.Size]byte, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	m.Damage(sum, name, nil)
	return nil
}

// List implements release.Pool.
func (m *Memory) List(f func(sum [sha256.Size]byte, bytes int64)) error {
	for sum, bytes := range m.sizes() {
		f(sum, bytes)
	}
	return nil
}

// sizes copies what is there, so that nobody is called under the lock.
func (m *Memory) sizes() map[[sha256.Size]byte]int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	sizes := make(map[[sha256.Size]byte]int64)
	for at, content := range m.files {
		sizes[at.sum] += int64(len(content))
	}
	return sizes
}

// Drop implements release.Pool.
func (m *Memory) Drop(sum [sha256.Size]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at := range m.files {
		if at.sum == sum {
			delete(m.files, at)
		}
	}
	return nil
}
