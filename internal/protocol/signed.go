package protocol

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
)

// Purpose says what a signature is for. A text signed for one purpose is
// worth nothing for another.
type Purpose string

// The purposes of docs/device-protocol.md, version 1.
const (
	ForEnrolment  Purpose = "aptfleet enrolment 1"
	ForCheckIn    Purpose = "aptfleet check-in 1"
	ForAssignment Purpose = "aptfleet assignment 1"
)

// Signed is JSON text with an Ed25519 signature (RFC 8032) over the purpose, a
// line feed and the text. What was signed is kept byte by byte: JSON has many
// ways to write the same.
type Signed struct {
	Payload   []byte `json:"payload"`   // base64 in JSON
	Key       string `json:"key"`       // KeyID of the signer
	Signature []byte `json:"signature"` // 64 bytes
}

// ErrSignature says that a text was not signed by the key, or for another
// purpose.
var ErrSignature = errors.New("the signature does not verify")

// Sign signs a payload for one purpose.
func Sign(key ed25519.PrivateKey, purpose Purpose, payload []byte) Signed {
	return Signed{
		Payload: payload, Key: KeyID(key.Public().(ed25519.PublicKey)),
		Signature: ed25519.Sign(key, signedText(purpose, payload)),
	}
}

// Verify returns the payload if key signed it for that purpose, else
// ErrSignature.
func (s Signed) Verify(key ed25519.PublicKey, purpose Purpose) ([]byte, error) {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, signedText(purpose, s.Payload), s.Signature) {
		return nil, ErrSignature
	}
	return s.Payload, nil
}

func signedText(purpose Purpose, payload []byte) []byte {
	text := make([]byte, 0, len(purpose)+1+len(payload))
	return append(append(append(text, purpose...), '\n'), payload...)
}

// KeyID names a public key: the first 16 bytes of the SHA-256 of its 32 bytes,
// as 32 lower-case hex digits.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:16])
}
