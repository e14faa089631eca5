package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// peer is what aptly and reprepro have in common: commands instead of a
// server, a directory that is served as it is, and a key that signs.
type peer struct {
	runner
	dir  string // all its files
	key  signingKey
	http *httptest.Server
}

// serve serves a directory on loopback.
func (p *peer) serve(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("cannot serve %s: %w", dir, err)
	}
	p.http = &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.FileServer(http.Dir(dir))}}
	p.http.Start()
	return nil
}

func (p *peer) stop() error {
	if p.http != nil {
		p.http.Close()
	}
	return nil
}

func (p *peer) certificate() string { return p.key.public }

func (p *peer) spent() (cost, error) { return p.total, nil }

func (p *peer) resetPeak() error {
	p.total.peak = 0
	return nil
}

// signingKey is a throw-away OpenPGP key that every program can use: RSA,
// because aptly's own implementation knows no younger kind.
type signingKey struct {
	home        string // for GNUPGHOME: gpg has the key
	fingerprint string
	secret      string // file with the private key, as aptly's own implementation reads it
	public      string // file with the certificate
}

// newSigningKey makes a key below dir, whose path must be short: gpg-agent
// makes a socket there.
func newSigningKey(ctx context.Context, dir string) (k signingKey, err error) {
	k = signingKey{home: filepath.Join(dir, "gnupg"), secret: filepath.Join(dir, "secret.gpg"), public: filepath.Join(dir, "public.gpg")}
	fail := func(err error) (signingKey, error) { return k, fmt.Errorf("cannot make a key for the peers: %w", err) }
	entity, err := openpgp.NewEntity("Benchmark", "", "benchmark@test.example", &packet.Config{
		Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048, Time: func() time.Time { return time.Now().Add(-time.Hour) },
	})
	if err != nil {
		return fail(err)
	}
	entity.Subkeys = nil
	k.fingerprint = fmt.Sprintf("%X", entity.PrimaryKey.Fingerprint)
	if err := os.MkdirAll(k.home, 0o700); err != nil {
		return fail(err)
	}
	secret, err := os.OpenFile(k.secret, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(entity.SerializePrivateWithoutSigning(secret, nil), secret.Close()); err != nil {
		return fail(err)
	}
	public, err := os.Create(k.public)
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(entity.Serialize(public), public.Close()); err != nil {
		return fail(err)
	}
	gpg := runner{env: []string{"GNUPGHOME=" + k.home}}
	if _, err := gpg.run(ctx, dir, "gpg", "--batch", "--quiet", "--import", k.secret); err != nil {
		return fail(err)
	}
	return k, nil
}

// forget ends the agent that keeps the key in its memory.
func (k signingKey) forget() error {
	gpg := runner{env: []string{"GNUPGHOME=" + k.home}}
	_, err := gpg.run(context.Background(), "/", "gpgconf", "--kill", "all")
	return err
}
