package enrol

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"time"

	"aptfleet/internal/tlspin"
)

// Authorities is the Trust of a device.
type Authorities struct {
	// Clock is what certificates are held against: a device whose clock is not
	// set yet has a floor that it knows better.
	Clock tlspin.Clock
}

// handshake is how long a connection may take to be there.
const handshake = 20 * time.Second

// Transport implements Trust.
func (a Authorities) Transport(ca []byte) (http.RoundTripper, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, Time: a.Clock},
		ForceAttemptHTTP2: true, IdleConnTimeout: 90 * time.Second,
	}
	if ca != nil {
		var err error
		if transport, err = tlspin.Transport(ca, a.Clock); err != nil {
			return nil, err
		}
	}
	transport.DialContext = (&net.Dialer{Timeout: handshake}).DialContext
	transport.TLSHandshakeTimeout, transport.ResponseHeaderTimeout = handshake, handshake
	return transport, nil
}

// Fetch implements Trust.
func (a Authorities) Fetch(ctx context.Context, server, fingerprint string) ([]byte, error) {
	return tlspin.FetchCA(ctx, server, fingerprint, a.Clock, nil)
}

// presented returns the fingerprint of the CA that a server presents, whoever
// that is. It says nothing to the server.
func presented(ctx context.Context, server string) (fingerprint string, err error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", err
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	ctx, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var chain []*x509.Certificate
	// Nothing is verified here: Fetch holds the server to what is found.
	session := tls.Client(conn, &tls.Config{
		ServerName: u.Hostname(), MinVersion: tls.VersionTLS12, InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error { chain = state.PeerCertificates; return nil },
	})
	if err := session.HandshakeContext(ctx); err != nil {
		return "", err
	}
	for _, c := range chain {
		if c.IsCA {
			fingerprint = tlspin.Fingerprint(c.Raw)
		}
	}
	if fingerprint == "" {
		return "", errors.New("the server presents no certificate authority of its own")
	}
	return fingerprint, nil
}
