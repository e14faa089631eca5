package faults

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"aptfleet/test/rig"
)

// makeDeb builds a package of about size bytes that do not compress.
func makeDeb(t *testing.T, name, version, architecture string, size int) []byte {
	t.Helper()
	file, err := rig.Package(name, version, architecture, noise(size))
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// noise is size bytes, the same each time.
func noise(size int) []byte {
	content := make([]byte, 0, size+sha256.Size)
	sum := sha256.Sum256(nil)
	for len(content) < size {
		sum = sha256.Sum256(sum[:])
		content = append(content, sum[:]...)
	}
	return content[:size]
}

// offered reads what a stage offers as apt would: the signed InRelease, the
// indices that it names by hash, the files that the indices name. It returns
// the SHA-256 of every package by "name version".
func (s *server) offered(pipeline, stage string) map[string]string {
	s.t.Helper()
	base := filepath.Join(s.Data, "public", pipeline, stage)
	keyring := s.read(filepath.Join(s.Data, "public", "archive-keyring.asc"))
	_, entries, err := rig.ReadBase("trixie", keyring, func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(base, path)) })
	if err != nil {
		s.t.Fatalf("%s/%s: %v", pipeline, stage, err)
	}
	packages := make(map[string]string)
	for _, e := range entries {
		packages[e.Name+" "+e.Version] = e.SHA256
	}
	return packages
}

func (s *server) read(path string) []byte {
	s.t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	return content
}

func hexSum(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
