package faults

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/deb"
	"aptfleet/internal/sign"
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
// index that it names by hash, the files that the index names. It returns
// the SHA-256 of every package by "name version".
func (s *server) offered(pipeline, stage string) map[string]string {
	s.t.Helper()
	base := filepath.Join(s.Data, "public", pipeline, stage)
	dists := filepath.Join(base, "dists", "trixie")
	keyring := s.read(filepath.Join(s.Data, "public", "archive-keyring.asc"))
	text, _, err := sign.Verify(s.read(filepath.Join(dists, "InRelease")), keyring, time.Now())
	if err != nil {
		s.t.Fatalf("InRelease of %s/%s: %v", pipeline, stage, err)
	}
	packages := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) != 3 || !strings.HasSuffix(words[2], "/Packages.gz") {
			continue
		}
		index := s.read(filepath.Join(dists, path.Dir(words[2]), "by-hash", "SHA256", words[0]))
		if sum := sha256.Sum256(index); hex.EncodeToString(sum[:]) != words[0] {
			s.t.Fatalf("the index %s of %s/%s has other bytes than InRelease says", words[2], pipeline, stage)
		}
		s.readIndex(base, index, packages)
	}
	return packages
}

func (s *server) readIndex(base string, index []byte, packages map[string]string) {
	s.t.Helper()
	unpacked, err := gzip.NewReader(bytes.NewReader(index))
	if err != nil {
		s.t.Fatal(err)
	}
	stanzas := deb.NewStanzaReader(unpacked, deb.MaxStanza)
	for {
		stanza, err := stanzas.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			s.t.Fatal(err)
		}
		sum := sha256.Sum256(s.read(filepath.Join(base, stanza.Get("Filename"))))
		if got := hex.EncodeToString(sum[:]); got != stanza.Get("SHA256") {
			s.t.Errorf("%s has other bytes than the index says", stanza.Get("Filename"))
		}
		packages[stanza.Get("Package")+" "+stanza.Get("Version")] = stanza.Get("SHA256")
	}
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
