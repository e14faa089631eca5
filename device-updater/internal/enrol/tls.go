package enrol

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
	"time"
)

// Authorities is the Trust of a device.
type Authorities struct {
	// Clock is what certificates are held against: a device whose clock is not
	// set yet has a floor that it knows better.
	Clock func() time.Time
}

// handshake is how long a connection may take to be there.
const handshake = 20 * time.Second

// Transport implements Trust.
func (a Authorities) Transport(ca []byte) (http.RoundTripper, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, Time: a.Clock}
	if ca != nil {
		trusted, err := authority(ca)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AddCert(trusted)
	}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, ForceAttemptHTTP2: true, TLSHandshakeTimeout: handshake, IdleConnTimeout: 90 * time.Second,
		DialContext: (&net.Dialer{Timeout: handshake}).DialContext, ResponseHeaderTimeout: handshake,
	}, nil
}

func authority(ca []byte) (*x509.Certificate, error) {
	c, err := certificate(ca)
	if err == nil && (!c.BasicConstraintsValid || !c.IsCA) {
		err = errors.New("it is the certificate of a server, not of an authority")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot use the certificate authority: %w", err)
	}
	return c, nil
}

// Fetch implements Trust.
func (a Authorities) Fetch(ctx context.Context, server, fingerprint string) ([]byte, error) {
	var found *x509.Certificate
	err := shake(ctx, server, func(host string, chain []*x509.Certificate) error {
		others := x509.NewCertPool()
		for _, c := range chain[1:] {
			others.AddCert(c)
		}
		for _, c := range chain {
			if sum := sha256.Sum256(c.Raw); hex.EncodeToString(sum[:]) == fingerprint && c.IsCA {
				found = c
			}
		}
		if found == nil {
			return fmt.Errorf("the server presents no certificate authority with the SHA-256 %s: it is another server, or its authority is another now", fingerprint)
		}
		roots := x509.NewCertPool()
		roots.AddCert(found)
		_, err := chain[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: others, DNSName: host, CurrentTime: a.Clock(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: found.Raw}), nil
}

// presented returns the fingerprint of the authority that a server presents,
// whoever that is.
func presented(ctx context.Context, server string) (fingerprint string, err error) {
	err = shake(ctx, server, func(_ string, chain []*x509.Certificate) error {
		for _, c := range chain {
			if c.IsCA {
				sum := sha256.Sum256(c.Raw)
				fingerprint = hex.EncodeToString(sum[:])
			}
		}
		if fingerprint == "" {
			return errors.New("the server presents no certificate authority of its own")
		}
		return nil
	})
	return fingerprint, err
}

// shake connects to a server, lets check judge its certificates, and says
// nothing more to it.
func shake(ctx context.Context, server string, check func(host string, chain []*x509.Certificate) error) error {
	u, err := url.Parse(server)
	if err != nil {
		return err
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	ctx, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return err
	}
	defer conn.Close()
	// The usual verification would ask for an authority that is known; check
	// does all of it in its place.
	session := tls.Client(conn, &tls.Config{
		ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error { return check(u.Hostname(), state.PeerCertificates) },
	})
	return session.HandshakeContext(ctx)
}
