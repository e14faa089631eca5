package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/term"
)

// The files of the keys that only devices need, below DATA/keys.
const (
	assignmentKeyFile = "assignment.key"
	readSecretFile    = "read.secret"
)

// fleetKeys are the keys that only devices need. Unlike the archive key they
// can be replaced, at a price: another assignment key has every device enrol
// anew, another read secret changes every device's password of the archive.
type fleetKeys struct {
	assignment ed25519.PrivateKey
	read       []byte
	made       bool // the assignment key, just now
}

// openFleetKeys loads the keys from DATA/keys, and makes those that are not
// there. mayMake is false if devices would turn away from a new assignment key.
func openFleetKeys(data string, mayMake bool) (k fleetKeys, err error) {
	path := filepath.Join(data, "keys", assignmentKeyFile)
	text, err := os.ReadFile(path)
	switch {
	case err == nil:
		k.assignment, err = parseAssignmentKey(text)
		if err != nil {
			err = fmt.Errorf("cannot read the assignment key %s: %w", path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("cannot open the assignment key: %w", err)
	case !mayMake:
		err = term.WithHint(fmt.Errorf("cannot open the assignment key: %s is gone", path),
			"restore it from your backup: devices obey no other key")
	default:
		k.made = true
		k.assignment, err = makeAssignmentKey(path)
	}
	if err != nil {
		return k, err
	}
	k.read, err = openReadSecret(filepath.Join(data, "keys", readSecretFile))
	return k, err
}

func makeAssignmentKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the assignment key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("cannot make the assignment key: %w", err)
	}
	return key, atomicfile.Write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// parseAssignmentKey reads an Ed25519 key in PKCS #8, as PEM (RFC 8410).
func parseAssignmentKey(text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is no PEM file")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T, want an Ed25519 key", parsed)
	}
	return key, nil
}

// openReadSecret loads 32 bytes in hex, or makes them.
func openReadSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret := make([]byte, 32)
		rand.Read(secret)
		return secret, atomicfile.Write(path, []byte(hex.EncodeToString(secret)+"\n"), 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the read secret: %w", err)
	}
	secret, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(secret) != 32 {
		return nil, fmt.Errorf("cannot read the read secret %s: want 64 hex digits", path)
	}
	return secret, nil
}
