package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/tlspin"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// clock is a time that tests move.
type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

// verify holds a certificate against its CA as a client would.
func verify(a *Authority, c *tls.Certificate, name string, now time.Time) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	_, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: now})
	return err
}

// A CA is made once. Its key is for its owner alone, and one that is gone is
// not replaced in silence.
func TestOpenAuthority(t *testing.T) {
	dir := t.TempDir()
	made, err := OpenAuthority(dir, noon)
	must(t, err)
	again, err := OpenAuthority(dir, noon.Add(time.Hour))
	must(t, err)
	if !made.Made() || again.Made() || made.Fingerprint() != again.Fingerprint() || !bytes.Equal(made.PEM(), again.PEM()) {
		t.Errorf("made %v %s, then %v %s", made.Made(), made.Fingerprint(), again.Made(), again.Fingerprint())
	}
	for name, mode := range map[string]os.FileMode{KeyFile: 0o600, CAFile: 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s is %v, %v; want %v", name, info, err, mode)
		}
	}
	if life := made.certificate.NotAfter.Sub(noon); life < 10*365*24*time.Hour {
		t.Errorf("the CA lives for %s", life)
	}
	if other, err := OpenAuthority(t.TempDir(), noon); err != nil || other.Fingerprint() == made.Fingerprint() {
		t.Errorf("another directory has the same CA, %v", err)
	}

	must(t, os.Remove(filepath.Join(dir, CAFile)))
	if again, err = OpenAuthority(dir, noon); err != nil || again.Fingerprint() != made.Fingerprint() {
		t.Errorf("without the copy: %v", err)
	}
	key, err := os.ReadFile(filepath.Join(dir, KeyFile))
	must(t, err)
	other, err := OpenAuthority(t.TempDir(), noon)
	must(t, err)
	block, rest := pem.Decode(key)
	private := pem.EncodeToMemory(block)
	leaf, err := made.Issue([]string{"a.example"}, noon)
	must(t, err)
	for name, text := range map[string][]byte{
		"nothing": nil, "half": key[:len(key)/2], "no certificate": private, "no key": rest,
		"another's certificate": append(slices.Clone(private), other.PEM()...),
		"a server's":            append(slices.Clone(private), certificatePEM(leaf.Leaf)...),
	} {
		must(t, os.WriteFile(filepath.Join(dir, KeyFile), text, 0o600))
		if a, err := OpenAuthority(dir, noon); err == nil || !strings.Contains(err.Error(), "cannot open the CA") {
			t.Errorf("%s: opened %v, %v", name, a, err)
		}
	}
	must(t, os.Remove(filepath.Join(dir, KeyFile)))
	if a, err := OpenAuthority(dir, noon); err == nil || !strings.Contains(err.Error(), "ca.key is gone") {
		t.Errorf("without its key the CA is %v, %v", a, err)
	}
}

// What is issued is good for exactly its names, also on a device whose clock is
// that of an image of half a year ago.
func TestIssue(t *testing.T) {
	a, err := OpenAuthority(t.TempDir(), noon)
	must(t, err)
	issued, err := a.Issue([]string{"fleet.example", "127.0.0.1", "::1", "fe80::1%eth0", "host_1", "no name", "", "a..b", strings.Repeat("x", 64)}, noon)
	must(t, err)
	for name, ok := range map[string]bool{
		"fleet.example": true, "127.0.0.1": true, "::1": true, "host_1": true,
		"evil.example": false, "x.fleet.example": false, "127.0.0.2": false, "no name": false,
	} {
		if err := verify(a, issued, name, noon); ok != (err == nil) {
			t.Errorf("for %s: %v", name, err)
		}
	}
	for when, ok := range map[time.Duration]bool{-180 * 24 * time.Hour: true, 89 * 24 * time.Hour: true, 91 * 24 * time.Hour: false} {
		if err := verify(a, issued, "fleet.example", noon.Add(when)); ok != (err == nil) {
			t.Errorf("after %s: %v", when, err)
		}
	}
	if life := issued.Leaf.NotAfter.Sub(issued.Leaf.NotBefore); life > 825*24*time.Hour {
		t.Errorf("it lives for %s: browsers allow 825 days", life)
	}
	if issued.Leaf.IsCA || len(issued.Certificate) != 2 || !bytes.Equal(issued.Certificate[1], a.certificate.Raw) {
		t.Error("it is a CA, or its CA does not follow it")
	}
	late := a.certificate.NotAfter.Add(-time.Hour)
	if last, err := a.Issue([]string{"fleet.example"}, late); err != nil || last.Leaf.NotAfter.After(a.certificate.NotAfter) {
		t.Errorf("it outlives its CA: %v", err)
	}

	// OpenSSL, which curl rests on, agrees.
	dir := t.TempDir()
	ca, leaf := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "leaf.pem")
	must(t, os.WriteFile(ca, a.PEM(), 0o600))
	must(t, os.WriteFile(leaf, certificatePEM(issued.Leaf), 0o600))
	at := []string{"-attime", "1795176000"} // noon, 2026-11-20
	for _, args := range [][]string{
		append([]string{"verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "fleet.example", "-CAfile", ca}, append(at, leaf)...),
		append([]string{"verify", "-x509_strict", "-purpose", "sslserver", "-verify_ip", "::1", "-CAfile", ca}, append(at, leaf)...),
	} {
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Errorf("openssl %v: %v\n%s", args, err, out)
		}
	}
	if out, err := exec.Command("openssl", "x509", "-in", ca, "-noout", "-fingerprint", "-sha256").Output(); err != nil {
		t.Error(err)
	} else if _, text, _ := strings.Cut(string(out), "="); true {
		sum, err := tlspin.ParseFingerprint(text)
		ours, oursErr := tlspin.ParseFingerprint(a.Fingerprint())
		if err != nil || oursErr != nil || sum != ours {
			t.Errorf("openssl says the fingerprint is %s, we say %s", text, a.Fingerprint())
		}
	}
}

// An issued certificate is exchanged before it expires, and when the server is
// known by other names.
func TestKeep(t *testing.T) {
	c := &clock{noon}
	a, err := OpenAuthority(t.TempDir(), noon)
	must(t, err)
	names := []string{"b.example", "a.example", "b.example"}
	k, err := a.Keep(func() []string { return slices.Clone(names) }, c.Now, quiet())
	must(t, err)
	step := func(what string, exchanged bool) {
		t.Helper()
		before := k.Current()
		k.look(false)
		if (before != k.Current()) != exchanged {
			t.Errorf("%s: exchanged is %v", what, !exchanged)
		}
	}
	step("at once", false)
	c.now = noon.Add(leafLife*2/3 - time.Second)
	step("before two thirds of its life", false)
	names = []string{"a.example", "b.example"}
	step("the same names in another order", false)
	c.now = noon.Add(leafLife * 2 / 3)
	step("at two thirds", true)
	step("right after", false)
	names = append(names, "c.example")
	step("with another name", true)
	if err := verify(a, k.Current(), "c.example", c.now); err != nil {
		t.Error(err)
	}
	names = names[1:]
	step("with a name less", false)
	names = []string{"a.example"}
	c.now = noon.Add(-2 * 365 * 24 * time.Hour)
	step("with a clock two years back", true)
	for range 30 { // years of service
		c.now = c.now.Add(leafLife / 2)
		k.look(false)
	}
	c.now = noon.Add(5 * leafLife)
	k.look(false)
	if err := verify(a, k.Current(), "a.example", c.now); err != nil {
		t.Errorf("after some years: %v", err)
	}
}

// lines collects what a log says.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// pair writes a certificate and its key.
func pair(t *testing.T, certFile, keyFile string, c *tls.Certificate) {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	must(t, err)
	must(t, os.WriteFile(certFile, certificatePEM(c.Leaf), 0o644))
	if keyFile != "" {
		must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	}
}

// Files may change in any way while the server runs; what clients are shown is
// always a certificate with its key.
func TestFromFiles(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	c, said := &clock{noon}, new(lines)
	log := slog.New(slog.NewTextHandler(said, nil))
	if _, err := FromFiles(cert, key, c.Now, log); err == nil || !strings.Contains(err.Error(), "cannot read the TLS certificate") {
		t.Errorf("without files: %v", err)
	}
	a, err := OpenAuthority(t.TempDir(), noon)
	must(t, err)
	issue := func(name string) *tls.Certificate {
		issued, err := a.Issue([]string{name}, c.now)
		must(t, err)
		return issued
	}
	pair(t, cert, key, issue("first"))
	k, err := FromFiles(cert, key, c.Now, log)
	must(t, err)
	shown := func(what, want string) {
		t.Helper()
		k.look(false)
		got, err := k.Config().GetCertificate(nil)
		must(t, err)
		if got.Leaf.DNSNames[0] != want {
			t.Errorf("%s: the certificate of %s is shown, want that of %s", what, got.Leaf.DNSNames[0], want)
		}
	}
	shown("at first", "first")
	second := issue("second")
	pair(t, cert, "", second)
	shown("with the certificate before its key", "first")
	pair(t, cert, key, second)
	shown("with both", "second")
	for range 3 {
		must(t, os.WriteFile(cert, []byte("half of a"), 0o644))
		shown("with garbage", "second")
	}
	if n := said.count("no certificate") + said.count("find any PEM"); n != 1 {
		t.Errorf("the log tells %d times that the file is garbage:\n%s", n, said.text.String())
	}
	must(t, os.Remove(cert))
	shown("without a file", "second")
	pair(t, cert, key, issue("third"))
	shown("with files again", "third")
	old := issue("old")
	c.now = c.now.Add(2 * leafLife)
	pair(t, cert, key, old)
	shown("with one that has expired", "third")
	k.Reload()
	shown("with one that has expired, asked for", "third")
	if said.count("it expired on") < 2 {
		t.Errorf("the log does not say why:\n%s", said.text.String())
	}
	pair(t, cert, key, issue("fourth"))
	k.Reload()
	shown("after a reload", "fourth")
	if said.count("was exchanged") != 3 {
		t.Errorf("the log tells of %d exchanges, there were 3:\n%s", said.count("was exchanged"), said.text.String())
	}
}

// Handshakes go on while the certificate is exchanged under them, with TLS 1.2
// or newer alone.
func TestExchangeUnderLoad(t *testing.T) {
	a, err := OpenAuthority(t.TempDir(), noon)
	must(t, err)
	k, err := a.Keep(func() []string { return []string{"127.0.0.1"} }, func() time.Time { return noon }, quiet())
	must(t, err)
	l, err := tls.Listen("tcp", "127.0.0.1:0", k.Config())
	must(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.(*tls.Conn).HandshakeContext(context.Background()) // the client tells
			}()
		}
	}()
	stop := make(chan struct{})
	var exchanging sync.WaitGroup
	exchanging.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				k.Reload()
			}
		}
	})
	config, err := tlspin.Config(a.PEM(), func() time.Time { return noon })
	must(t, err)
	serials := map[string]bool{}
	for range 100 {
		conn, err := tls.DialWithDialer(&net.Dialer{}, "tcp", l.Addr().String(), config)
		must(t, err)
		serials[conn.ConnectionState().PeerCertificates[0].SerialNumber.String()] = true
		must(t, conn.Close())
	}
	close(stop)
	exchanging.Wait()
	if len(serials) < 2 {
		t.Error("the certificate was never exchanged")
	}
	ancient := config.Clone()
	ancient.MinVersion, ancient.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if conn, err := tls.Dial("tcp", l.Addr().String(), ancient); err == nil {
		t.Errorf("TLS 1.1 was spoken: %v", conn.Close())
	}
}
