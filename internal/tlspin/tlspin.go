// Package tlspin is how programs trust a repo-manager that made its own
// certificate authority (CA): no public one knows it, so it has to be known by
// its certificate, or once, before that is there, by its fingerprint.
//
// The chain of trust:
//
//   - A person, a label or an image brings the fingerprint: the SHA-256 of the
//     CA's certificate (DER), as "repo-manager key ca" and
//     "openssl x509 -fingerprint -sha256" print it.
//   - FetchCA asks a server for its chain. A certificate in it with that
//     SHA-256 must be a CA's and must have signed, in the usual way and for the
//     server's name, what the server proved to hold the key of. Its PEM is the
//     answer, to be stored.
//   - From then on Config and Transport trust exactly that CA: no other of the
//     system, none of the same name, no certificate that the server presents.
//
// It imports only the standard library: devices carry it.
package tlspin

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// maxPEM bounds the bytes of a CA's PEM.
const maxPEM = 64 << 10

// Clock returns the time that certificates are held against. A device whose
// clock is not set yet has a floor that it knows better; nil is time.Now.
type Clock func() time.Time

// Fingerprint returns the SHA-256 of a certificate's DER as 64 lower-case
// hexadecimal digits.
func Fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// ParseFingerprint reads a fingerprint: 64 hexadecimal digits of either case,
// with or without colons between the bytes.
func ParseFingerprint(text string) (sum [sha256.Size]byte, err error) {
	digits := strings.ReplaceAll(strings.TrimSpace(text), ":", "")
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != len(sum) {
		return sum, fmt.Errorf("cannot use the fingerprint %q: want the 64 hexadecimal digits of a SHA-256", text)
	}
	return [sha256.Size]byte(raw), nil
}

// ReadCA reads the one certificate of a PEM text, which must be that of a CA.
// Text around it is fine, as openssl writes it; anything else in PEM is not.
func ReadCA(text []byte) (*x509.Certificate, error) {
	fail := func(cause string) error { return errors.New("cannot use the CA certificate: " + cause) }
	if len(text) > maxPEM {
		return nil, fail("the file is too large")
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, fail("it is not in PEM: want -----BEGIN CERTIFICATE-----")
	}
	if block.Type != "CERTIFICATE" {
		return nil, fail("it is a " + block.Type + " in PEM, not a CERTIFICATE")
	}
	if more, _ := pem.Decode(rest); more != nil {
		return nil, fail("there is more than one in the file: exactly one CA is trusted")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("cannot use the CA certificate: %w", err)
	}
	if err := mustBeCA(ca); err != nil {
		return nil, fail(err.Error())
	}
	return ca, nil
}

// mustBeCA refuses certificates that may not sign others. Verification would
// take one as it is if it were trusted.
func mustBeCA(c *x509.Certificate) error {
	if !c.BasicConstraintsValid || !c.IsCA {
		return errors.New("it is the certificate of a server, not of a CA")
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("it may not sign certificates")
	}
	return nil
}

// Config returns a configuration for clients that trusts exactly the CA whose
// certificate ca holds, in PEM.
func Config(ca []byte, clock Clock) (*tls.Config, error) {
	trusted, err := ReadCA(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(trusted)
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, Time: clock}, nil
}

// Transport returns a transport that trusts exactly the CA whose certificate
// ca holds, in PEM. It speaks HTTP/2 where the server does, honours the proxy
// variables of the environment, and leaves the time that an answer may take to
// its caller.
func Transport(ca []byte, clock Clock) (*http.Transport, error) {
	config, err := Config(ca, clock)
	if err != nil {
		return nil, err
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     config,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: handshakeTimeout,
		IdleConnTimeout:     90 * time.Second,
		MaxIdleConnsPerHost: 4,
	}, nil
}

// handshakeTimeout is long: links of devices are bad.
const handshakeTimeout = 30 * time.Second

// FetchCA connects to a server, given as https://HOST[:PORT][/…] or HOST:PORT,
// and returns the PEM of the CA with that fingerprint, if the server has a
// certificate of it for its name. It sends nothing but the handshake, so a
// server that is another's learns nothing. dial opens the connection; nil is
// that of package net.
func FetchCA(ctx context.Context, server, fingerprint string, clock Clock, dial func(ctx context.Context, network, address string) (net.Conn, error)) (ca []byte, err error) {
	want, err := ParseFingerprint(fingerprint)
	if err != nil {
		return nil, err
	}
	host, address, err := addressOf(server)
	if err != nil {
		return nil, err
	}
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	fail := func(err error) error { return fmt.Errorf("cannot fetch the CA of %s: %w", address, err) }
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, fail(err)
	}
	defer conn.Close()
	var found *x509.Certificate
	session := tls.Client(conn, pinned(host, want, clock, &found))
	if err := session.HandshakeContext(ctx); err != nil {
		return nil, fail(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: found.Raw}), nil
}

// addressOf takes a server's name and address from its URL.
func addressOf(server string) (host, address string, err error) {
	refused := fmt.Errorf("cannot use the server %q: want https://HOST, https://HOST:PORT or HOST:PORT", server)
	if !strings.Contains(server, "://") {
		server = "https://" + server
	}
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return "", "", refused
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return u.Hostname(), net.JoinHostPort(u.Hostname(), port), nil
}

// pinned is a configuration that goes by a CA's fingerprint and notes its
// certificate. The usual verification is off, because it would ask for a CA
// that is known; verifyPinned does all of it in its place.
func pinned(host string, want [sha256.Size]byte, clock Clock, found **x509.Certificate) *tls.Config {
	return &tls.Config{
		ServerName:         host,
		MinVersion:         tls.VersionTLS12,
		Time:               clock,
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) (err error) {
			*found, err = verifyPinned(state.PeerCertificates, host, want, clock)
			return err
		},
	}
}

// verifyPinned verifies a chain that a server presented, its own certificate
// first, and returns the CA with the fingerprint.
func verifyPinned(chain []*x509.Certificate, host string, want [sha256.Size]byte, clock Clock) (*x509.Certificate, error) {
	var ca *x509.Certificate
	others := x509.NewCertPool()
	for i, c := range chain {
		switch {
		case sha256.Sum256(c.Raw) == want:
			ca = c
		case i > 0:
			others.AddCert(c)
		}
	}
	if ca == nil {
		return nil, fmt.Errorf("none of the certificates that the server presents has the SHA-256 %x: it is another server, or its CA is another now", want)
	}
	if err := mustBeCA(ca); err != nil {
		return nil, fmt.Errorf("the fingerprint is not of a CA: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	options := x509.VerifyOptions{Roots: roots, Intermediates: others, DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if clock != nil {
		options.CurrentTime = clock()
	}
	if _, err := chain[0].Verify(options); err != nil {
		return nil, err
	}
	return ca, nil
}
