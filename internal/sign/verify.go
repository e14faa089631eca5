package sign

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// MaxMessage is the largest clear-signed message Verify takes, in bytes.
const MaxMessage = 64 << 20

// Verify checks a clear-signed message, such as an InRelease file, against the
// certificates of keyring (binary, or armoured blocks one after the other). It
// returns the text that the signature covers, with lines ending in "\n", and
// the fingerprint of the certificate that signed it. One good signature of
// several is enough.
//
// Text outside the signed part, signatures by keys that were expired or
// revoked at now, signatures from after now and those over SHA-1 are refused.
func Verify(inRelease []byte, keyring []byte, now time.Time) (text []byte, signer string, err error) {
	fail := func(err error) ([]byte, string, error) {
		return nil, "", fmt.Errorf("cannot verify signature: %w", err)
	}
	if len(inRelease) > MaxMessage {
		return fail(fmt.Errorf("the message has more than %d bytes", MaxMessage))
	}
	keys, err := readKeyring(keyring)
	if err != nil {
		return fail(err)
	}
	if !bytes.HasPrefix(inRelease, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return fail(errors.New("it is no clear-signed message"))
	}
	block, rest := clearsign.Decode(inRelease)
	if block == nil {
		return fail(errors.New("the clear-signed message is damaged"))
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return fail(errors.New("unsigned text follows the signed message"))
	}
	entity, err := block.VerifySignature(keys, config(now))
	if err != nil {
		return fail(err)
	}
	// block.Bytes, not block.Plaintext: exactly what was hashed.
	text = append(bytes.ReplaceAll(block.Bytes, []byte("\r\n"), []byte("\n")), '\n')
	return text, fingerprint(entity), nil
}

// VerifyDetached checks an armoured detached signature of text.
func VerifyDetached(text, signature, keyring []byte, now time.Time) (signer string, err error) {
	keys, err := readKeyring(keyring)
	if err != nil {
		return "", fmt.Errorf("cannot verify signature: %w", err)
	}
	entity, err := openpgp.CheckArmoredDetachedSignature(keys, bytes.NewReader(text), bytes.NewReader(signature), config(now))
	if err != nil {
		return "", fmt.Errorf("cannot verify signature: %w", err)
	}
	return fingerprint(entity), nil
}

// CheckKeyring reports why Verify could not use a keyring.
func CheckKeyring(keyring []byte) error {
	_, err := readKeyring(keyring)
	return err
}

// CertificateFingerprint returns the fingerprint of the first certificate of a
// keyring.
func CertificateFingerprint(keyring []byte) (string, error) {
	keys, err := readKeyring(keyring)
	if err != nil {
		return "", err
	}
	return fingerprint(keys[0]), nil
}

func readKeyring(keyring []byte) (openpgp.EntityList, error) {
	var keys openpgp.EntityList
	var err error
	if begin := []byte("-----BEGIN "); bytes.Contains(keyring[:min(len(keyring), 4096)], begin) {
		for rest := keyring; len(rest) > 0 && err == nil; {
			start := bytes.Index(rest, begin)
			if start < 0 {
				break
			}
			end := len(rest)
			if next := bytes.Index(rest[start+1:], begin); next >= 0 {
				end = start + 1 + next
			}
			var block *armor.Block
			if block, err = armor.Decode(bytes.NewReader(rest[start:end])); err != nil {
				break
			}
			if block.Type != publicBlock {
				return nil, fmt.Errorf("the keyring has a %s where a certificate is wanted", block.Type)
			}
			var some openpgp.EntityList
			some, err = openpgp.ReadKeyRing(block.Body)
			keys, rest = append(keys, some...), rest[end:]
		}
	} else {
		keys, err = openpgp.ReadKeyRing(bytes.NewReader(keyring))
	}
	if err != nil {
		return nil, fmt.Errorf("the keyring cannot be read: %w", err)
	}
	if len(keys) == 0 {
		return nil, errors.New("the keyring is empty")
	}
	return keys, nil
}
