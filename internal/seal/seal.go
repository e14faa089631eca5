// Package seal encrypts a secret of the configuration to one device, so that
// nobody else reads it: not who signs assignments, carries or stores them.
//
// It is HPKE (RFC 9180) in base mode with DHKEM(X25519, HKDF-SHA256),
// HKDF-SHA256 and ChaCha20-Poly1305. The info is "aptfleet secret 1"; the
// additional data is the device's name, a line feed and the key's name: a
// secret that was meant for another device, or for another key, does not open.
// What is sealed is the encapsulated key, 32 bytes, then the ciphertext, which
// is 16 bytes longer than the secret. Who sealed it is not proven by this: the
// signature of the assignment does that.
package seal

import (
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"
)

const info = "aptfleet secret 1"

// KeySize is the length in bytes of public and private sealing keys.
const KeySize = 32

// Overhead is how many bytes longer than the secret it is once it is sealed.
const Overhead = encapsulated + 16

// encapsulated is the length of the encapsulated key (Nenc of RFC 9180, 7.1).
const encapsulated = 32

// NewKey makes the private sealing key of a device. Its Bytes are KeySize bytes,
// as is the public key of it that an enrolment carries.
func NewKey() (*ecdh.PrivateKey, error) {
	key, err := ecdh.X25519().GenerateKey(nil)
	if err != nil {
		return nil, fmt.Errorf("cannot make a sealing key: %w", err)
	}
	return key, nil
}

// ParseKey reads the KeySize bytes of a private sealing key.
func ParseKey(raw []byte) (*ecdh.PrivateKey, error) {
	key, err := ecdh.X25519().NewPrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("cannot read a sealing key: %w", err)
	}
	return key, nil
}

// Seal encrypts the secret value of a key of the configuration to the device
// that has the private half of public. No two results are alike.
func Seal(public []byte, device, key string, secret []byte) ([]byte, error) {
	point, err := ecdh.X25519().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt %s to device %s: its sealing key: %w", key, device, err)
	}
	to, err := hpke.NewDHKEMPublicKey(point)
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt %s to device %s: its sealing key: %w", key, device, err)
	}
	head, sender, err := hpke.NewSender(to, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(info))
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt %s to device %s: %w", key, device, err)
	}
	tail, err := sender.Seal(bound(device, key), secret)
	if err != nil {
		return nil, fmt.Errorf("cannot encrypt %s to device %s: %w", key, device, err)
	}
	return append(head, tail...), nil
}

// Open decrypts what Seal made for this device and key. An error says no more
// than that it did not open.
func Open(private *ecdh.PrivateKey, device, key string, sealed []byte) ([]byte, error) {
	secret, err := open(private, []byte(info), bound(device, key), sealed)
	if err != nil {
		return nil, fmt.Errorf("cannot decrypt %s: it was not encrypted to this device's key and for this name", key)
	}
	return secret, nil
}

func open(private *ecdh.PrivateKey, info, additional, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, fmt.Errorf("%d bytes are no ciphertext", len(sealed))
	}
	own, err := hpke.NewDHKEMPrivateKey(private)
	if err != nil {
		return nil, err
	}
	recipient, err := hpke.NewRecipient(sealed[:encapsulated], own, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), info)
	if err != nil {
		return nil, err
	}
	return recipient.Open(additional, sealed[encapsulated:])
}

// bound is what a ciphertext is tied to. Neither name has a line feed in it.
func bound(device, key string) []byte { return []byte(device + "\n" + key) }
