package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"aptfleet/internal/atomicfile"
	"aptfleet/internal/term"
	"aptfleet/internal/tlspin"
)

// The files of an authority in a directory of keys: KeyFile has the private
// key and the certificate, in PEM, for its owner alone; CAFile is a copy of
// the certificate.
const (
	KeyFile = "ca.key"
	CAFile  = "ca.pem"
)

// How long certificates are good.
const (
	caLife   = 20 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	// backdated is how far before its making a certificate begins. A device
	// whose clock is that of its image, months ago, must not refuse a new one;
	// nothing rests on the beginning. With leafLife it stays below the 825 days
	// that browsers allow a certificate of a private CA.
	backdated = 365 * 24 * time.Hour
)

// Authority is a CA: it issues certificates of servers. Its methods may be
// called concurrently.
type Authority struct {
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	made        bool
}

// OpenAuthority loads the CA from the directory of keys, or makes one if there
// never was any. One whose key is gone while its certificate is there is
// refused: a new CA would lock out every device that knows the old one.
func OpenAuthority(dir string, now time.Time) (*Authority, error) {
	path := filepath.Join(dir, KeyFile)
	text, err := os.ReadFile(path)
	var a *Authority
	switch {
	case err == nil:
		a, err = parseAuthority(text)
		if err != nil {
			err = fmt.Errorf("cannot open the CA of %s: %w", path, err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("cannot open the CA: %w", err)
	case exists(filepath.Join(dir, CAFile)):
		err = term.WithHint(fmt.Errorf("cannot open the CA: %s is gone", path),
			"restore it from your backup; or remove "+CAFile+" beside it, and a new CA is made that every device and client must be told of")
	default:
		a, err = makeAuthority(path, now)
	}
	if err != nil {
		return nil, err
	}
	return a, a.copyCertificate(filepath.Join(dir, CAFile))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// makeAuthority makes a CA and stores it. It may only sign certificates of
// servers, none of other CAs. It has no constraints on names: they would have
// to be known for as long as the CA lives.
func makeAuthority(path string, now time.Time) (*Authority, error) {
	fail := func(err error) error { return fmt.Errorf("cannot make a CA: %w", err) }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fail(err)
	}
	now = now.UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: serial(),
		// With the time in it, two CAs of one machine are told apart.
		Subject:     pkix.Name{CommonName: "Aptfleet CA " + now.Format("20060102T150405Z")},
		NotBefore:   now.Add(-backdated),
		NotAfter:    now.Add(caLife),
		KeyUsage:    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:        true, BasicConstraintsValid: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fail(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fail(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	if err := atomicfile.Write(path, text, 0o600); err != nil {
		return nil, fail(err)
	}
	a, err := parseAuthority(text)
	if err == nil {
		a.made = true
	}
	return a, err
}

// parseAuthority reads what makeAuthority wrote.
func parseAuthority(text []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || len(pair.Certificate) != 1 {
		return nil, errors.New("want one ECDSA key and one certificate")
	}
	if _, err := tlspin.ReadCA(certificatePEM(pair.Leaf)); err != nil {
		return nil, err
	}
	return &Authority{key: key, certificate: pair.Leaf}, nil
}

func (a *Authority) copyCertificate(path string) error {
	if there, err := os.ReadFile(path); err == nil && string(there) == string(a.PEM()) {
		return nil
	}
	return atomicfile.Write(path, a.PEM(), 0o644)
}

// Made tells whether OpenAuthority has just made the CA.
func (a *Authority) Made() bool { return a.made }

// PEM returns the CA's certificate.
func (a *Authority) PEM() []byte { return certificatePEM(a.certificate) }

// Fingerprint returns the SHA-256 of the certificate's DER, in hexadecimal.
func (a *Authority) Fingerprint() string { return tlspin.Fingerprint(a.certificate.Raw) }

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// Issue makes a certificate, with a new key, for a server of these names and
// IP addresses. The CA follows it in the chain, so that a client which knows
// its fingerprint alone is given it. What is no name is left out.
func (a *Authority) Issue(names []string, now time.Time) (*tls.Certificate, error) {
	fail := func(err error) error { return fmt.Errorf("cannot issue a certificate: %w", err) }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fail(err)
	}
	now = now.UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber: serial(),
		NotBefore:    latest(now.Add(-backdated), a.certificate.NotBefore),
		NotAfter:     earliest(now.Add(leafLife), a.certificate.NotAfter),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}
	for _, name := range names {
		if ip, err := netip.ParseAddr(name); err == nil {
			template.IPAddresses = append(template.IPAddresses, ip.WithZone("").AsSlice())
		} else if validHost(name) {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if len(template.DNSNames) > 0 {
		template.Subject.CommonName = template.DNSNames[0][:min(64, len(template.DNSNames[0]))]
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		return nil, fail(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fail(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.certificate.Raw}, PrivateKey: key, Leaf: leaf}, nil
}

// validHost tells whether a name can stand in a certificate: as in RFC 1123,
// with underscores, which some networks have.
func validHost(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return true
}

// serial returns 128 random bits, as RFC 5280 wants at most 160.
func serial() *big.Int {
	var raw [16]byte
	rand.Read(raw[:])
	return new(big.Int).SetBytes(raw[:])
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// subjectOf is what a log says of a certificate: names are of the certificate
// and not of anybody's imagination.
func subjectOf(c *x509.Certificate) string {
	names := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return c.Subject.String()
	}
	return strings.Join(names, " ")
}

// sum tells contents apart.
func sum(parts ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d ", len(p))
		h.Write(p)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
