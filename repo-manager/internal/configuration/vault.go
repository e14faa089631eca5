package configuration

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Vault encrypts secrets as they are kept: AES-256-GCM with a random nonce,
// behind the first 8 bytes of the key's SHA-256, bound to scope and key.
//
// Its file has a key on each line, 64 hexadecimal digits; lines that begin with
// # are comments. The first key encrypts; all of them decrypt.
type Vault struct {
	first vaultID
	keys  map[vaultID]cipher.AEAD
}

type vaultID = [8]byte

// ErrUnreadable says that none of the server's keys opens a secret.
var ErrUnreadable = errors.New("it was encrypted with a configuration key that the server does not have")

// NewVaultFile makes the text of a new key file.
func NewVaultFile() []byte {
	var key [32]byte
	rand.Read(key[:])
	return []byte("# Aptfleet: secrets of the configuration are encrypted with the first key; all of them decrypt.\n" + hex.EncodeToString(key[:]) + "\n")
}

// ParseVault reads a key file. Errors do not have a key in them.
func ParseVault(text []byte) (*Vault, error) {
	v := &Vault{keys: make(map[vaultID]cipher.AEAD)}
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := hex.DecodeString(line)
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("cannot read configuration keys: line %d is not 64 hexadecimal digits", i+1)
		}
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, fmt.Errorf("cannot read configuration keys: %w", err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("cannot read configuration keys: %w", err)
		}
		sum := sha256.Sum256(key)
		id := vaultID(sum[:8])
		if len(v.keys) == 0 {
			v.first = id
		}
		v.keys[id] = aead
	}
	if len(v.keys) == 0 {
		return nil, errors.New("cannot read configuration keys: the file has none")
	}
	return v, nil
}

func vaultBinding(s Scope, key string) []byte {
	return []byte("aptfleet configuration 1\n" + s.Pipeline + "\n" + s.String() + "\n" + key)
}

// seal encrypts a secret as the value of a key of a scope.
func (v *Vault) seal(s Scope, key string, secret []byte) []byte {
	return v.keys[v.first].Seal(bytes.Clone(v.first[:]), nil, secret, vaultBinding(s, key))
}

// readable reports whether there is a key for what seal made.
func (v *Vault) readable(sealed []byte) bool {
	return len(sealed) > len(v.first) && v.keys[vaultID(sealed[:len(v.first)])] != nil
}

// open decrypts what seal made.
func (v *Vault) open(s Scope, key string, sealed []byte) ([]byte, error) {
	if !v.readable(sealed) {
		return nil, ErrUnreadable
	}
	id, rest := vaultID(sealed[:len(v.first)]), sealed[len(v.first):]
	secret, err := v.keys[id].Open(nil, nil, rest, vaultBinding(s, key))
	if err != nil {
		return nil, errors.New("it is damaged")
	}
	return secret, nil
}
