// Package identity keeps who a device is: two keys that are made on it, once,
// and what the server answered when it was enrolled. All of it lies in one
// directory outside the deployments, and none of it is ever made anew because
// it cannot be read: a device with a new key is another device.
package identity

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/protocol"
)

// The files of the directory.
const (
	deviceKeyFile  = "device.key"
	sealingKeyFile = "sealing.key"
	sessionFile    = "session"
	enrolmentFile  = "enrolment.json"
	archiveKeyFile = "archive-key.asc"
	caFile         = "ca.pem"
	tokenFile      = "token"
	serialFile     = "serial"
	revisionFile   = "revision"
)

// ErrNone means that there is no identity yet.
var ErrNone = errors.New("this device has no identity yet")

// Dir is the directory of an identity: /sysroot/identity.
type Dir struct{ path string }

// In returns the identity directory at path. Nothing is read.
func In(path string) Dir { return Dir{path} }

func (d Dir) file(name string) string { return filepath.Join(d.path, name) }

// Keys are the private keys of a device.
type Keys struct {
	device  ed25519.PrivateKey
	sealing *ecdh.PrivateKey
}

// Damaged says that a file of the identity cannot be used.
type Damaged struct {
	File string // path
	Err  error
}

func (d *Damaged) Error() string {
	return fmt.Sprintf("cannot use %s, a part of this device's identity: %v", d.File, d.Err)
}

// Unwrap returns the cause.
func (d *Damaged) Unwrap() error { return d.Err }

// NextStep tells what a person can do.
func (d *Damaged) NextStep() string {
	return "put the file back from a backup; or move the whole directory away: then the device must be enrolled anew, as another device"
}

// Keys returns the keys, or ErrNone if none were ever made.
func (d Dir) Keys() (Keys, error) {
	seed, err := d.readKey(deviceKeyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(d.file(enrolmentFile)); err == nil {
			return Keys{}, &Damaged{d.file(deviceKeyFile), errors.New("it is gone, and the device was enrolled with it")}
		}
		return Keys{}, ErrNone
	}
	if err != nil {
		return Keys{}, err
	}
	k := Keys{device: ed25519.NewKeyFromSeed(seed)}
	// It is made before the device's key.
	if k.sealing, err = d.sealing(); errors.Is(err, fs.ErrNotExist) {
		err = &Damaged{d.file(sealingKeyFile), errors.New("it is gone")}
	}
	return k, err
}

func (d Dir) sealing() (*ecdh.PrivateKey, error) {
	raw, err := d.readKey(sealingKeyFile)
	if err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPrivateKey(raw)
}

// Make returns the keys; where there are none it makes them, durably. Several
// processes may do that at once, and it may be cut off at any time. random is
// crypto/rand.Reader.
func (d Dir) Make(random io.Reader) (Keys, error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return Keys{}, fmt.Errorf("cannot make the identity: %w", err)
	}
	lock, err := os.Open(d.path)
	if err != nil {
		return Keys{}, fmt.Errorf("cannot make the identity: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return Keys{}, fmt.Errorf("cannot make the identity: %w", err)
	}
	k, err := d.Keys()
	if !errors.Is(err, ErrNone) {
		return k, err
	}
	if err := d.sweep(); err != nil {
		return Keys{}, err
	}
	// The device's key comes last: it is what makes an identity.
	if k.sealing, err = d.sealing(); errors.Is(err, fs.ErrNotExist) {
		k.sealing, err = d.makeSealing(random)
	}
	if err != nil {
		return Keys{}, err
	}
	seed, err := d.makeKey(deviceKeyFile, random)
	if err != nil {
		return Keys{}, err
	}
	k.device = ed25519.NewKeyFromSeed(seed)
	return k, nil
}

func (d Dir) makeSealing(random io.Reader) (*ecdh.PrivateKey, error) {
	raw, err := d.makeKey(sealingKeyFile, random)
	if err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPrivateKey(raw)
}

// sweep deletes keys that were written and never got their name.
func (d Dir) sweep() error {
	err := atomicfile.Sweep(d.path, func(file string) bool { return file == deviceKeyFile || file == sealingKeyFile })
	if err != nil {
		return fmt.Errorf("cannot make the identity: %w", err)
	}
	return nil
}

// A key file is one line: what it is, 32 bytes in base64, and the first 16
// bytes of the SHA-256 of the line so far in hex. A key that was damaged would
// otherwise be another key.
func keyLine(name string, secret []byte) string {
	line := "aptfleet-" + strings.TrimSuffix(name, ".key") + "-key-1 " + base64.StdEncoding.EncodeToString(secret)
	sum := sha256.Sum256([]byte(line))
	return line + " " + hex.EncodeToString(sum[:16]) + "\n"
}

func (d Dir) makeKey(name string, random io.Reader) ([]byte, error) {
	secret := make([]byte, 32)
	if _, err := io.ReadFull(random, secret); err != nil {
		return nil, fmt.Errorf("cannot make %s: %w", name, err)
	}
	if err := atomicfile.Write(d.file(name), []byte(keyLine(name, secret)), 0o600); err != nil {
		return nil, err
	}
	return secret, nil
}

func (d Dir) readKey(name string) ([]byte, error) {
	text, err := os.ReadFile(d.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		return nil, &Damaged{d.file(name), err}
	}
	if fields := bytes.Fields(text); len(fields) == 3 {
		secret, err := base64.StdEncoding.DecodeString(string(fields[1]))
		if err == nil && len(secret) == 32 && keyLine(name, secret) == string(text) {
			return secret, nil
		}
	}
	return nil, &Damaged{d.file(name), fmt.Errorf("its %d bytes are not what was written", len(text))}
}

// ID is the KeyID of the device's key.
func (k Keys) ID() string { return protocol.KeyID(k.Public()) }

// Public is the device's public key.
func (k Keys) Public() ed25519.PublicKey { return k.device.Public().(ed25519.PublicKey) }

// Sealing is the public key that secrets are encrypted to, 32 bytes.
func (k Keys) Sealing() []byte { return k.sealing.PublicKey().Bytes() }

// Unseal is the private key that secrets were encrypted to.
func (k Keys) Unseal() *ecdh.PrivateKey { return k.sealing }

// Sign signs a payload for one purpose with the device's key.
func (k Keys) Sign(purpose protocol.Purpose, payload []byte) protocol.Signed {
	return protocol.Sign(k.device, purpose, payload)
}
