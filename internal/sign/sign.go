// Package sign makes and checks the OpenPGP signatures of an archive.
//
// Keys are Ed25519, version 4, without expiry, so that every gpgv and sqv in
// use reads them and none of them stops by surprise. Signatures are
// deterministic: the same key, text and time give the same bytes.
//
// All armour carries the CRC-24 checksum and ends in a newline; gpgv of
// Debian 12 refuses a clear-signed file without it.
package sign

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

const (
	privateBlock   = "PGP PRIVATE KEY BLOCK"
	publicBlock    = "PGP PUBLIC KEY BLOCK"
	signatureBlock = "PGP SIGNATURE"
)

// Key is a private archive key. It is safe for concurrent use.
type Key struct{ entity *openpgp.Entity }

// config is the policy of every signature we make at one moment.
func config(at time.Time) *packet.Config {
	deterministic := false
	return &packet.Config{
		Algorithm:   packet.PubKeyAlgoEdDSA,
		Curve:       packet.Curve25519,
		DefaultHash: crypto.SHA512,
		Time:        func() time.Time { return at },
		// EdDSA needs no randomness; a random notation would make two
		// publications of one text differ.
		NonDeterministicSignaturesViaNotation: &deterministic,
	}
}

// Generate makes a new key that is valid from now on. It can sign and nothing
// else.
func Generate(name, email string, now time.Time) (*Key, error) {
	entity, err := openpgp.NewEntity(name, "", email, config(now))
	if err != nil {
		return nil, fmt.Errorf("cannot make archive key: %w", err)
	}
	entity.Subkeys = nil // it is never used for encryption
	return &Key{entity}, nil
}

// Load reads what Private returned.
func Load(armored []byte) (*Key, error) {
	list, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(armored))
	if err != nil {
		return nil, fmt.Errorf("cannot load archive key: %w", err)
	}
	switch {
	case len(list) != 1:
		return nil, fmt.Errorf("cannot load archive key: the file holds %d keys, want one", len(list))
	case list[0].PrivateKey == nil:
		return nil, errors.New("cannot load archive key: the file holds a certificate, not a private key")
	case list[0].PrivateKey.Encrypted:
		return nil, errors.New("cannot load archive key: it is protected by a passphrase")
	}
	return &Key{list[0]}, nil
}

// Private returns the private key, armoured and without a passphrase. Whoever
// has these bytes can sign.
func (k *Key) Private() ([]byte, error) {
	var binary bytes.Buffer
	if err := k.entity.SerializePrivateWithoutSigning(&binary, nil); err != nil {
		return nil, fmt.Errorf("cannot write archive key: %w", err)
	}
	return armored(privateBlock, binary.Bytes())
}

// Certificate returns the public key, armoured.
func (k *Key) Certificate() ([]byte, error) {
	binary, err := k.CertificateBinary()
	if err != nil {
		return nil, err
	}
	return armored(publicBlock, binary)
}

// CertificateBinary returns the public key in the form of a .pgp keyring
// file, which apt takes for Signed-By.
func (k *Key) CertificateBinary() ([]byte, error) {
	var binary bytes.Buffer
	if err := k.entity.Serialize(&binary); err != nil {
		return nil, fmt.Errorf("cannot write certificate: %w", err)
	}
	return binary.Bytes(), nil
}

// Fingerprint returns the key's fingerprint, 40 upper-case hex digits.
func (k *Key) Fingerprint() string { return fingerprint(k.entity) }

// Created returns when the key was made, to the second.
func (k *Key) Created() time.Time { return k.entity.PrimaryKey.CreationTime.UTC() }

// ClearSign returns text as a clear-signed message (an InRelease file). Text
// must be lines without trailing white space and end in a newline; then
// Verify gives the same bytes back.
func (k *Key) ClearSign(text []byte, at time.Time) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("cannot sign text: %w", err) }
	var message bytes.Buffer
	w, err := clearsign.Encode(&message, k.entity.PrivateKey, config(at))
	if err != nil {
		return fail(err)
	}
	// The encoder adds the newline that separates text from signature.
	if _, err := w.Write(bytes.TrimSuffix(text, []byte("\n"))); err != nil {
		return fail(err)
	}
	if err := w.Close(); err != nil {
		return fail(err)
	}
	// The encoder leaves the checksum out: put the signature into new armour.
	head, signature, found := bytes.Cut(message.Bytes(), []byte("\n-----BEGIN "+signatureBlock))
	if !found {
		return fail(errors.New("the signature is missing"))
	}
	block, err := armor.Decode(io.MultiReader(strings.NewReader("-----BEGIN "+signatureBlock), bytes.NewReader(signature)))
	if err != nil {
		return fail(err)
	}
	binary, err := io.ReadAll(block.Body)
	if err != nil {
		return fail(err)
	}
	tail, err := armored(signatureBlock, binary)
	if err != nil {
		return fail(err)
	}
	return append(append(head, '\n'), tail...), nil
}

// Detach returns a detached signature of text, armoured (a Release.gpg file).
func (k *Key) Detach(text []byte, at time.Time) ([]byte, error) {
	var binary bytes.Buffer
	if err := openpgp.DetachSign(&binary, k.entity, bytes.NewReader(text), config(at)); err != nil {
		return nil, fmt.Errorf("cannot sign text: %w", err)
	}
	return armored(signatureBlock, binary.Bytes())
}

func armored(kind string, binary []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := armor.EncodeWithChecksumOption(&out, kind, nil, true)
	if err != nil {
		return nil, fmt.Errorf("cannot write armour: %w", err)
	}
	if _, err := w.Write(binary); err != nil {
		return nil, fmt.Errorf("cannot write armour: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("cannot write armour: %w", err)
	}
	return append(bytes.TrimRight(out.Bytes(), "\n"), '\n'), nil
}

func fingerprint(entity *openpgp.Entity) string {
	return strings.ToUpper(hex.EncodeToString(entity.PrimaryKey.Fingerprint))
}
