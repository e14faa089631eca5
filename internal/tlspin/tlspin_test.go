package tlspin

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func atNoon() time.Time { return noon }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entity is a certificate and its key.
type entity struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func (e entity) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.certificate.Raw})
}

func (e entity) fingerprint() string { return Fingerprint(e.certificate.Raw) }

// makeEntity makes an entity that signer signs, or itself if that is nil.
func makeEntity(t testing.TB, signer *entity, change func(*x509.Certificate)) entity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: number, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(template)
	parent, parentKey := template, key
	if signer != nil {
		parent, parentKey = signer.certificate, signer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	must(t, err)
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	return entity{parsed, key}
}

func asCA(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: name}
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	}
}

func asServer(c *x509.Certificate) {
	c.DNSNames, c.IPAddresses = []string{"archive.example"}, []net.IP{net.IPv4(127, 0, 0, 1)}
}

// server listens with a chain, the first of which is its own, and returns its
// URL.
func server(t testing.TB, chain ...entity) string {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") }))
	own := tls.Certificate{PrivateKey: chain[0].key}
	for _, e := range chain {
		own.Certificate = append(own.Certificate, e.certificate.Raw)
	}
	s.TLS = &tls.Config{Certificates: []tls.Certificate{own}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// to connects every address to a server.
func to(url string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(url, "https://"))
	}
}

// Whatever a server presents, it is trusted only if the pinned CA signed, for
// its name and for this time, a certificate whose key it holds. The rows say
// it for the one check that goes by a fingerprint and for the lasting trust.
func TestWhoIsTrusted(t *testing.T) {
	ca := makeEntity(t, nil, asCA("Aptfleet CA"))
	namesake := makeEntity(t, nil, asCA("Aptfleet CA"))
	good := makeEntity(t, &ca, asServer)
	between := makeEntity(t, &ca, asCA("between"))
	bounded := makeEntity(t, nil, func(c *x509.Certificate) { asCA("bounded")(c); c.MaxPathLenZero = true })
	below := makeEntity(t, &bounded, asCA("below"))
	oldCA := makeEntity(t, nil, func(c *x509.Certificate) { asCA("old")(c); c.NotAfter = noon.Add(-time.Minute) })
	both := makeEntity(t, nil, func(c *x509.Certificate) { asCA("both")(c); asServer(c); c.KeyUsage |= x509.KeyUsageDigitalSignature })
	alone := makeEntity(t, nil, asServer)
	notSigning := makeEntity(t, nil, func(c *x509.Certificate) { asCA("idle")(c); c.KeyUsage = x509.KeyUsageDigitalSignature })
	for _, c := range []struct {
		name  string
		chain []entity
		pin   entity
		host  string // "" for the address
		ok    bool
	}{
		{"its own CA", []entity{good, ca}, ca, "", true},
		{"by name", []entity{good, ca}, ca, "archive.example", true},
		{"CAs in between", []entity{makeEntity(t, &between, asServer), between, ca}, ca, "", true},
		{"a chain in another order", []entity{makeEntity(t, &between, asServer), ca, between}, ca, "", true},
		{"a CA between, pinned", []entity{makeEntity(t, &between, asServer), between, ca}, between, "", true},
		{"a server that is its own CA", []entity{both}, both, "", true},

		{"another CA of the same name", []entity{makeEntity(t, &namesake, asServer), namesake}, ca, "", false},
		{"another CA of the same name, with ours in the chain", []entity{makeEntity(t, &namesake, asServer), namesake, ca}, ca, "", false},
		{"ours in the chain of nobody's", []entity{alone, ca}, ca, "", false},
		{"an expired certificate", []entity{makeEntity(t, &ca, func(c *x509.Certificate) { asServer(c); c.NotAfter = noon.Add(-time.Second) }), ca}, ca, "", false},
		{"one of tomorrow", []entity{makeEntity(t, &ca, func(c *x509.Certificate) { asServer(c); c.NotBefore = noon.Add(time.Second) }), ca}, ca, "", false},
		{"an expired CA", []entity{makeEntity(t, &oldCA, asServer), oldCA}, oldCA, "", false},
		{"another name", []entity{good, ca}, ca, "evil.example", false},
		{"another address", []entity{makeEntity(t, &ca, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} }), ca}, ca, "", false},
		{"the certificate of a client", []entity{makeEntity(t, &ca, func(c *x509.Certificate) {
			asServer(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), ca}, ca, "", false},
		{"the fingerprint of the server's certificate", []entity{good, ca}, good, "", false},
		{"the fingerprint of a certificate that signed itself and is no CA", []entity{alone}, alone, "", false},
		{"a certificate of a server as CA", []entity{makeEntity(t, &good, asServer), good, ca}, ca, "", false},
		{"a certificate of a server as CA, pinned", []entity{makeEntity(t, &good, asServer), good, ca}, good, "", false},
		{"a CA that may not sign", []entity{makeEntity(t, &notSigning, asServer), notSigning}, notSigning, "", false},
		{"a CA below one that allows none", []entity{makeEntity(t, &below, asServer), below, bounded}, bounded, "", false},
		{"no CA in the chain", []entity{alone}, ca, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := server(t, c.chain...)
			asked, dial := url, to(url)
			if c.host != "" {
				asked = "https://" + c.host
			}
			got, err := FetchCA(t.Context(), asked, c.pin.fingerprint(), atNoon, dial)
			if c.ok != (err == nil) || c.ok && !bytes.Equal(got, c.pin.pem()) || !c.ok && got != nil {
				t.Errorf("by its fingerprint: %q, %v", got, err)
			}
			transport, err := Transport(c.pin.pem(), atNoon)
			if err == nil {
				defer transport.CloseIdleConnections()
				transport.DialContext = dial
				var answer *http.Response
				if answer, err = (&http.Client{Transport: transport}).Get(asked); err == nil {
					must(t, answer.Body.Close())
				}
			}
			if c.ok != (err == nil) {
				t.Errorf("by its certificate: %v", err)
			}
		})
	}
}

// Of the certificates of a whole forest of CAs, with names in common, exactly
// those that descend from the pinned one are trusted.
func TestOnlyDescendantsAreTrusted(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		type node struct {
			entity
			parent int // -1: signed itself
		}
		var cas []node
		for i := range rapid.IntRange(1, 6).Draw(r, "CAs") {
			parent := rapid.IntRange(-1, i-1).Draw(r, "parent")
			var signer *entity
			if parent >= 0 {
				signer = &cas[parent].entity
			}
			name := rapid.SampledFrom([]string{"Aptfleet CA", "another"}).Draw(r, "name")
			cas = append(cas, node{makeEntity(t, signer, asCA(name)), parent})
		}
		at := rapid.IntRange(0, len(cas)-1).Draw(r, "issuer")
		chain := []*x509.Certificate{makeEntity(t, &cas[at].entity, asServer).certificate}
		above := map[int]bool{}
		for i := at; i >= 0; i = cas[i].parent {
			above[i] = true
		}
		order := rapid.Permutation(cas).Draw(r, "order")
		for _, c := range order {
			chain = append(chain, c.certificate)
		}
		pin := rapid.IntRange(0, len(cas)-1).Draw(r, "pin")
		want, err := ParseFingerprint(cas[pin].fingerprint())
		if err != nil {
			r.Fatal(err)
		}
		got, err := verifyPinned(chain, "archive.example", want, atNoon)
		if above[pin] != (err == nil) || err == nil && !got.Equal(cas[pin].certificate) {
			r.Errorf("issued by %d, pinned %d, descends: %v; the answer is %v", at, pin, above[pin], err)
		}
	})
}

func TestReadCA(t *testing.T) {
	ca := makeEntity(t, nil, asCA("Aptfleet CA"))
	key, err := x509.MarshalPKCS8PrivateKey(ca.key)
	must(t, err)
	leaf := makeEntity(t, &ca, asServer)
	for name, c := range map[string]struct {
		text []byte
		says string // "" for none
	}{
		"a CA":              {ca.pem(), ""},
		"with text":         {append([]byte("Certificate:\n    Data:\n"), ca.pem()...), ""},
		"nothing":           {nil, "not in PEM"},
		"DER":               {ca.certificate.Raw, "not in PEM"},
		"a key":             {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), "PRIVATE KEY"},
		"two":               {append(ca.pem(), ca.pem()...), "more than one"},
		"one and a key":     {append(ca.pem(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...), "more than one"},
		"a server's":        {leaf.pem(), "of a server"},
		"a cut one":         {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.certificate.Raw[:100]}), "cannot use the CA certificate"},
		"one without bound": {append(ca.pem(), make([]byte, maxPEM)...), "too large"},
	} {
		got, err := ReadCA(c.text)
		switch {
		case c.says == "" && (err != nil || !got.Equal(ca.certificate)):
			t.Errorf("%s: %v", name, err)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: error %v does not say %q", name, err, c.says)
		}
		if config, err := Config(c.text, nil); (err == nil) != (c.says == "") || err == nil && config.RootCAs == nil {
			t.Errorf("%s: Config returns %v, %v", name, config, err)
		}
	}
}

func TestParseFingerprint(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		der := rapid.SliceOf(rapid.Byte()).Draw(r, "der")
		text := Fingerprint(der)
		var colons []string
		for i := 0; i < len(text); i += 2 {
			colons = append(colons, strings.ToUpper(text[i:i+2]))
		}
		plain, err := ParseFingerprint(text)
		openssl, opensslErr := ParseFingerprint(" " + strings.Join(colons, ":") + "\n")
		if err != nil || opensslErr != nil || plain != openssl {
			r.Errorf("%s: %v, %v", text, err, opensslErr)
		}
	})
	for _, bad := range []string{"", "00", strings.Repeat("0", 63), strings.Repeat("0", 66), strings.Repeat("g", 64)} {
		if _, err := ParseFingerprint(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestFetchCARefusesAddresses(t *testing.T) {
	ca := makeEntity(t, nil, asCA("Aptfleet CA"))
	for _, address := range []string{"", "http://archive.example", "https://", "https://user@archive.example", "ftp://x"} {
		if _, err := FetchCA(t.Context(), address, ca.fingerprint(), nil, nil); err == nil || !strings.Contains(err.Error(), "cannot use the server") {
			t.Errorf("%q: %v", address, err)
		}
	}
	for given, want := range map[string]string{"archive.example": "archive.example:443", "https://archive.example/x": "archive.example:443", "[::1]:8443": "[::1]:8443", "https://10.0.0.1:1": "10.0.0.1:1"} {
		if _, address, err := addressOf(given); err != nil || address != want {
			t.Errorf("%s: %s, %v", given, address, err)
		}
	}
}

// A server that accepts and says nothing does not hold a device up.
func TestFetchCAEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	ca := makeEntity(t, nil, asCA("Aptfleet CA"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := FetchCA(ctx, l.Addr().String(), ca.fingerprint(), nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the error is %v", err)
	}
}
