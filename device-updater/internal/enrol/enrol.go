// Package enrol makes a machine a device of a server. Before that nothing is
// pinned, so it decides what to believe of whom; docs/device-protocol.md has
// the rules.
package enrol

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"aptfleet/device-updater/internal/exchange"
	"aptfleet/device-updater/internal/identity"
	"aptfleet/internal/protocol"
	"aptfleet/internal/tlspin"
)

// Trust is how the certificate authority (CA) of a server gets known.
type Trust interface {
	// Fetch returns the PEM of the CA whose certificate has that SHA-256, in
	// hex, if the server has a certificate of it for its name.
	Fetch(ctx context.Context, server, fingerprint string) (ca []byte, err error)
	// Transport trusts exactly the CA in PEM; the system's where it is nil.
	Transport(ca []byte) (http.RoundTripper, error)
}

// Request is what a machine asks, and what it believes.
type Request struct {
	Server       string // URL of the public listener
	Token        string // one-time; "": none
	Serial       string
	Product      string // that the machine takes itself for; "": whatever the server says
	Architecture string
	Revision     string // of the hardware; "": unknown
	Machine      string // identity.Hardware's
	Boot         string
	Features     []string

	CA       []byte // PEM that a person or the factory gave; nil: none
	Insecure bool   // plain HTTP is allowed
	// FirstUse is told the fingerprint of a CA that nothing vouches for; nil:
	// such a CA is not believed.
	FirstUse func(fingerprint string)
}

// Client asks one server.
type Client struct {
	Keys  identity.Keys
	Trust Trust
	Clock func() time.Time
	Request

	http *http.Client
	ca   []byte // that the connection is held to; nil: the system's
}

// Pending means that an operator decides: the same request is to be made again.
type Pending struct{ Serial, Key, Reason string }

func (p *Pending) Error() string {
	text := "it waits for an operator to accept serial " + p.Serial
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}

// ExitCode is that of something that a policy keeps.
func (p *Pending) ExitCode() int { return 3 }

// NextStep tells who can help.
func (p *Pending) NextStep() string {
	return "an operator accepts the key " + p.Key + " on the page of the devices, or with: repo-manager device accept " + p.Key
}

// Final reports whether asking again is of no use: a person said no.
func Final(err error) bool {
	code := exchange.Code(err)
	return code == protocol.CodeRefused || code == protocol.CodeRetired
}

// Ask makes one request. It returns what the device is enrolled as, or
// *Pending, or why not.
func (c *Client) Ask(ctx context.Context) (identity.Enrolment, error) {
	e, err := c.ask(ctx)
	var pending *Pending
	if err != nil && !errors.As(err, &pending) {
		err = fmt.Errorf("cannot enrol at %s: %w", c.Server, err)
	}
	return e, err
}

func (c *Client) ask(ctx context.Context) (identity.Enrolment, error) {
	if err := c.connect(ctx); err != nil {
		return identity.Enrolment{}, err
	}
	payload, err := json.Marshal(protocol.Enrolment{
		Version: protocol.DeviceProtocol, Features: c.Features, Key: c.Keys.Public(), Sealing: c.Keys.Sealing(), Serial: c.Serial, Token: c.Token,
		Product: c.Product, Architecture: c.Architecture, Revision: c.Revision, Machine: c.Machine, Boot: c.Boot,
	})
	if err != nil {
		return identity.Enrolment{}, err
	}
	var said protocol.Enrolled
	if _, err := exchange.Post(ctx, c.http, c.Server+"/device/v1/enrolments", c.Keys.Sign(protocol.ForEnrolment, payload), &said); err != nil {
		return identity.Enrolment{}, err
	}
	switch said.Status {
	case protocol.EnrolmentAccepted:
		return c.accepted(said)
	case protocol.EnrolmentPending:
		return identity.Enrolment{}, &Pending{c.Serial, c.Keys.ID(), said.Reason}
	}
	return identity.Enrolment{}, fmt.Errorf("the answer's status is %q, which is none of the protocol", said.Status)
}

// accepted checks the answer, and pins.
func (c *Client) accepted(said protocol.Enrolled) (identity.Enrolment, error) {
	e := identity.Enrolment{
		Server: c.Server, Key: c.Keys.ID(), Device: said.Device, Pipeline: said.Pipeline, Product: said.Product, AssignmentKey: said.AssignmentKey,
		Archive: strings.TrimRight(said.Archive, "/"), ArchiveKey: said.ArchiveKey, Password: said.Password, CA: said.CA, Serial: c.Serial,
		Insecure: c.Insecure, Enrolled: c.Clock().UTC().Truncate(time.Second),
	}
	switch {
	case c.ca == nil && e.CA != "":
		if _, err := tlspin.ReadCA([]byte(e.CA)); err != nil {
			return identity.Enrolment{}, fmt.Errorf("the answer's certificate authority: %w", err)
		}
	case c.ca != nil && e.CA != "" && !same(c.ca, []byte(e.CA)):
		return identity.Enrolment{}, errors.New("the answer names another certificate authority than the one that was believed")
	case c.ca != nil:
		e.CA = string(c.ca)
	}
	if c.Product != "" && e.Product != c.Product {
		return identity.Enrolment{}, fmt.Errorf("the server takes this device for product %q, and its configuration says %q", e.Product, c.Product)
	}
	if err := e.Check(); err != nil {
		return identity.Enrolment{}, fmt.Errorf("the answer cannot be used: %w", err)
	}
	return e, nil
}

// same compares two certificates, not how they are written.
func same(a, b []byte) bool {
	x, err1 := tlspin.ReadCA(a)
	y, err2 := tlspin.ReadCA(b)
	return err1 == nil && err2 == nil && x.Equal(y)
}

// connect decides whom to believe, once.
func (c *Client) connect(ctx context.Context) error {
	if c.http != nil {
		return nil
	}
	if err := identity.CheckURL(c.Server, c.Insecure); err != nil {
		return err
	}
	ca, err := c.authority(ctx)
	if err != nil {
		return err
	}
	transport, err := c.Trust.Transport(ca)
	if err != nil {
		return err
	}
	c.ca, c.http = ca, exchange.NewClient(transport)
	return nil
}

// authority returns the CA that the server must have a certificate of; nil for
// those of the system, or where there is no encryption.
func (c *Client) authority(ctx context.Context) ([]byte, error) {
	u, err := url.Parse(c.Server)
	if err != nil {
		return nil, err
	}
	fingerprint, err := tokenFingerprint(c.Token)
	switch {
	case err != nil || u.Scheme == "http":
		return nil, err
	case fingerprint != "":
		return c.Trust.Fetch(ctx, c.Server, fingerprint)
	case c.CA != nil:
		return c.CA, nil
	case c.FirstUse != nil:
		if fingerprint, err = presented(ctx, c.Server); err != nil {
			return nil, err
		}
		ca, err := c.Trust.Fetch(ctx, c.Server, fingerprint)
		if err == nil {
			c.FirstUse(fingerprint)
		}
		return ca, err
	}
	return nil, nil
}

// tokenPattern is aft1_<secret>_<fingerprint>; a server without an authority of
// its own leaves the fingerprint out.
var tokenPattern = regexp.MustCompile(`^aft1_[A-Za-z0-9_-]+?(?:_([0-9a-f]{64})|_?)$`)

func tokenFingerprint(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	parts := tokenPattern.FindStringSubmatch(token)
	if parts == nil {
		return "", errors.New("the token is not one of a repo-manager: they begin with aft1_")
	}
	return parts[1], nil
}

// Unknown reports whether an error is that nothing vouches for the server.
func Unknown(err error) bool {
	var unknown x509.UnknownAuthorityError
	return errors.As(err, &unknown)
}

// Until asks until the device is enrolled, a person said no, or ctx ends. tell
// is told why it is not enrolled yet, each time.
func (c *Client) Until(ctx context.Context, b exchange.Backoff, tell func(error)) (identity.Enrolment, error) {
	for {
		e, err := c.Ask(ctx)
		if err == nil || ctx.Err() != nil || Final(err) {
			return e, err
		}
		tell(err)
		select {
		case <-ctx.Done():
			return identity.Enrolment{}, err
		case <-time.After(b.Next(err)):
		}
	}
}
