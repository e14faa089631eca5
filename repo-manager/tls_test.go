package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
	"aptfleet/internal/tlspin"
	"aptfleet/repo-manager/internal/certificate"
)

func self(data string) settings {
	s := local(data)
	s.TLS = tlsSelf
	return s
}

// browser trusts the server's own CA alone.
func (r *running) browser() *http.Client {
	r.t.Helper()
	transport, err := tlspin.Transport(r.authority.PEM(), nil)
	must(r.t, err)
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// fetch asks with a browser; auth is a password for Basic, or "".
func fetch(t *testing.T, browser *http.Client, url, password string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	must(t, err)
	if password != "" {
		req.SetBasicAuth("anybody", password)
	}
	resp, err := browser.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(body)
}

// demo makes a pipeline with a repository.
func (r *running) demo(name string, private bool) {
	r.t.Helper()
	api := r.api()
	_, err := api.CreatePipeline(r.t.Context(), protocol.Pipeline{Name: name, Distribution: "trixie", Architectures: []string{"amd64"}, Private: private})
	must(r.t, err)
	_, err = api.CreateRepository(r.t.Context(), name, "apps", 1)
	must(r.t, err)
}

// A server makes its CA once, speaks TLS with it on both listeners, and hands
// its certificate to whoever asks.
func TestSelfMadeCA(t *testing.T) {
	data := filepath.Join(shortDir(t), "data")
	s := self(data)
	s.ListenHTTP = "127.0.0.1:0"
	s.URLAdmin, s.Hosts = "https://fleet.example", []string{"other.example"}
	r := serve(t, s)
	public, browser := r.listeners.addresses.Public, r.browser()
	admin := "https://" + r.listeners.admin.Addr().String()
	plain := "http://" + r.listeners.plain.Addr().String()
	if !strings.HasPrefix(public, "https://127.0.0.1:") || r.listeners.archiveURL != public {
		t.Errorf("the public listener is %s, Release files say %s", public, r.listeners.archiveURL)
	}
	if said := r.said.String(); !strings.Contains(said, r.authority.Fingerprint()) || !strings.Contains(said, certificate.KeyFile) {
		t.Errorf("the server does not tell of its CA:\n%s", said)
	}
	for _, at := range []string{public, admin} {
		resp, body := fetch(t, browser, at+"/ca.pem", "")
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 || resp.TLS.Version < tls.VersionTLS12 || body != string(r.authority.PEM()) {
			t.Errorf("%s/ca.pem by %s: %s %q", at, resp.Proto, resp.Status, body)
		}
		pinned, err := tlspin.FetchCA(t.Context(), at, r.authority.Fingerprint(), nil, nil)
		if err != nil || string(pinned) != string(r.authority.PEM()) {
			t.Errorf("by its fingerprint: %q, %v", pinned, err)
		}
		for _, name := range []string{"fleet.example", "other.example", "localhost"} {
			conn, err := tls.Dial("tcp", strings.TrimPrefix(at, "https://"), &tls.Config{RootCAs: poolOf(r.authority.PEM()), ServerName: name})
			if err != nil {
				t.Errorf("%s as %s: %v", at, name, err)
				continue
			}
			must(t, conn.Close())
		}
	}
	if resp, body := get(t, http.MethodGet, plain+"/ca.pem"); resp.StatusCode != 200 || body != string(r.authority.PEM()) {
		t.Errorf("without TLS: %s %q", resp.Status, body)
	}
	key, err := r.api().Key(t.Context())
	if err != nil || key.CA != string(r.authority.PEM()) || key.CAFingerprint != r.authority.Fingerprint() {
		t.Errorf("the API says %+v, %v", key, err)
	}
	if report, err := r.api().Check(t.Context(), nil); err != nil || len(report.Findings) != 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
	must(t, r.stop())

	again := serve(t, self(data))
	if again.authority.Fingerprint() != r.authority.Fingerprint() || strings.Contains(again.said.String(), "authority was made") {
		t.Error("a restart made another CA")
	}
	must(t, again.stop())
	off := serve(t, local(data))
	if resp, _ := get(t, http.MethodGet, off.listeners.addresses.Public+"/ca.pem"); resp.StatusCode != 404 {
		t.Errorf("without TLS ca.pem is there: %s", resp.Status)
	}
	if key, err := off.api().Key(t.Context()); err != nil || key.CA != "" {
		t.Errorf("without TLS the API says %+v, %v", key, err)
	}
	must(t, off.stop())
	must(t, os.Remove(filepath.Join(data, "keys", certificate.KeyFile)))
	if s, err := openServer(t.Context(), self(data), slog.New(slog.DiscardHandler), func(string, ...any) {}); err == nil {
		t.Errorf("without the CA's key it was opened; closing: %v", s.close())
	} else if !strings.Contains(err.Error(), "ca.key is gone") {
		t.Errorf("without the CA's key: %v", err)
	}
}

func poolOf(pem []byte) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	return pool
}

// Commands trust the CA that they are given, and say what to do otherwise.
func TestClientsOfASelfMadeCA(t *testing.T) {
	r := serve(t, self(filepath.Join(shortDir(t), "data")))
	_, err := r.api().CreateUser(t.Context(), "ann", []string{"viewer"})
	must(t, err)
	token, err := r.api().CreateToken(t.Context(), protocol.NewToken{User: "ann"})
	must(t, err)
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, content, 0o600))
		return path
	}
	other, err := certificate.OpenAuthority(t.TempDir(), time.Now())
	must(t, err)
	leaf := r.certificate.Current().Leaf
	for name, c := range map[string]struct {
		server, ca string
		status     int
		says       string
	}{
		"its CA":              {r.listeners.addresses.Admin, file("ca.pem", r.authority.PEM()), 0, ""},
		"no CA":               {r.listeners.addresses.Admin, "", 1, "hint: if the server has a CA of its own: fetch " + r.listeners.addresses.Admin + "/ca.pem"},
		"another CA":          {r.listeners.addresses.Admin, file("other.pem", other.PEM()), 1, "hint: if the server has"},
		"another name":        {strings.Replace(r.listeners.addresses.Admin, "127.0.0.1", "127.0.0.3", 1), file("ca.pem", r.authority.PEM()), 1, ""},
		"no file":             {r.listeners.addresses.Admin, filepath.Join(dir, "absent"), 1, "cannot read the CA certificate"},
		"its own certificate": {r.listeners.addresses.Admin, file("leaf.pem", []byte("-----BEGIN CERTIFICATE-----\n"+string(leaf.Raw))), 1, "not in PEM"},
		"no TLS":              {strings.Replace(r.listeners.addresses.Admin, "https", "http", 1), "", 1, "use https://"},
		"a CA without TLS":    {"http://127.0.0.1:1", file("ca.pem", r.authority.PEM()), 1, "not reached by https"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--server", c.server, "--token", token.Secret}
			if c.ca != "" {
				args = append(args, "--ca", c.ca)
			}
			io, _, errs := fakeIO(false)
			if status := execute(t.Context(), io, append(args, "pipeline", "list")); status != c.status || !strings.Contains(errs.String(), c.says) {
				t.Errorf("exit %d, %s; want %d and %q", status, errs, c.status, c.says)
			}
		})
	}
	if _, err := client.New(client.Options{Server: "https://a.example", CA: []byte("x")}); err == nil {
		t.Error("a client trusts a CA that is none")
	}
}

// Who may read what through the real doors: private pipelines, the pool that
// all share, and a connection that anybody can listen to.
func TestPrivatePipelines(t *testing.T) {
	s := self(filepath.Join(shortDir(t), "data"))
	s.ListenHTTP = "127.0.0.1:0"
	s.Proxies = []string{"127.0.0.1"} // so that a test can come from elsewhere
	r := serve(t, s)
	r.demo("open", false)
	pool, err := filepath.Glob(filepath.Join(s.Data, "public/pool/*/*/*.deb"))
	if err != nil || len(pool) != 1 {
		t.Fatalf("the pool holds %v, %v", pool, err)
	}
	file, err := filepath.Rel(filepath.Join(s.Data, "public"), pool[0])
	must(t, err)
	api, browser := r.api(), r.browser()
	public, plain := r.listeners.addresses.Public, "http://"+r.listeners.plain.Addr().String()
	const inRelease = "/dev/dists/trixie/InRelease"
	for _, path := range []string{"/" + file, "/open/dev/" + file, "/open" + inRelease} {
		if resp, _ := fetch(t, browser, public+path, ""); resp.StatusCode != 200 {
			t.Errorf("before anything is private, %s: %s", path, resp.Status)
		}
	}

	r.demo("secret", true)
	in, err := r.receiver.Receive(t.Context(), bytes.NewReader(smallPackage(t, t.TempDir(), "hello")), "hello.deb")
	must(t, err)
	up, err := r.engine.Add(t.Context(), system, "secret", "apps", in, false)
	must(t, errors.Join(err, in.Discard()))
	secret := "pool/" + up.SHA256[:2] + "/" + up.SHA256 + "/hello_1.0-1_amd64.deb"
	_, err = api.CreateUser(t.Context(), "ann", []string{"viewer"})
	must(t, err)
	token, err := api.CreateToken(t.Context(), protocol.NewToken{User: "ann"})
	must(t, err)
	for _, c := range []struct {
		path, password string
		status         int
		cache          string
	}{
		{"/open" + inRelease, "", 200, "no-cache"},
		{"/open/dev/" + file, "", 200, "public, max-age=31536000, immutable"},
		{"/" + file, "", 404, ""},
		{"/" + secret, "", 404, ""},
		{"/" + secret, token.Secret, 404, ""},
		{"/open/dev/" + secret, "", 404, ""},
		{"/open/../secret" + inRelease, "", 401, "no-store"},
		{"/open/%2e%2e/secret" + inRelease, "", 401, "no-store"},
		{"//secret//" + inRelease, "", 401, "no-store"},
		{"/./secret" + inRelease, "", 401, "no-store"},
		{"/Secret" + inRelease, "", 404, ""},
		{"/secret" + inRelease, "", 401, "no-store"},
		{"/secret/nothing", "", 401, "no-store"},
		{"/secret/dev/" + secret, "", 401, "no-store"},
		{"/secret" + inRelease, "wrong", 401, "no-store"},
		{"/secret" + inRelease, token.Secret, 200, "private, no-cache"},
		{"/secret/dev/" + secret, token.Secret, 200, "private, max-age=31536000, immutable"},
		{"/secret/dev/" + file, token.Secret, 200, "private, max-age=31536000, immutable"},
		{"/secret/states/" + up.State.String() + "/" + secret, token.Secret, 200, ""},
		{"/secret/nothing", token.Secret, 404, ""},
		{"/archive-keyring.asc", "", 200, "no-cache"},
		{"/.indices/", "", 404, ""},
	} {
		resp, body := fetch(t, browser, public+c.path, c.password)
		if resp.StatusCode != c.status || c.cache != "" && resp.Header.Get("Cache-Control") != c.cache {
			t.Errorf("%s with %q: %s, Cache-Control %q; %s", c.path, c.password, resp.Status, resp.Header.Get("Cache-Control"), body)
		}
		asked := resp.Header.Get("WWW-Authenticate")
		if want := map[bool]string{true: `Basic realm="aptfleet secret", charset="UTF-8"`}[c.status == 401]; asked != want {
			t.Errorf("%s asks for %q", c.path, asked)
		}
		if c.status == 401 && (!strings.Contains(body, "/etc/apt/auth.conf.d") || !strings.Contains(body, "token create")) {
			t.Errorf("%s does not say what to do: %s", c.path, body)
		}
	}
	elsewhere := []string{"X-Forwarded-For: 192.0.2.1", "Authorization: Bearer " + token.Secret}
	if resp, body := get(t, http.MethodGet, plain+"/secret"+inRelease, elsewhere...); resp.StatusCode != 403 || resp.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("unencrypted from elsewhere: %s %s", resp.Status, body)
	}
	if resp, _ := get(t, http.MethodGet, plain+"/open"+inRelease, elsewhere...); resp.StatusCode != 200 {
		t.Errorf("the open pipeline, unencrypted: %s", resp.Status)
	}
	if resp, body := get(t, http.MethodGet, plain+"/secret"+inRelease, append(elsewhere, "X-Forwarded-Proto: https")...); resp.StatusCode != 200 {
		t.Errorf("behind a proxy with TLS: %s %s", resp.Status, body)
	}
	must(t, api.RevokeToken(t.Context(), token.ID))
	no := false
	_, err = api.SetPipeline(t.Context(), "secret", protocol.SetPipeline{Private: &no})
	must(t, err)
	if resp, _ := fetch(t, browser, public+"/secret/dev/"+secret, ""); resp.StatusCode != 200 {
		t.Errorf("made public: %s", resp.Status)
	}
}

// A restored server has the CA of the lost one. From a backup without keys it
// starts with that CA or not at all.
func TestBackupsHaveTheCA(t *testing.T) {
	dir := filepath.Join(shortDir(t), "backup")
	first := serve(t, self(filepath.Join(shortDir(t), "data")))
	first.backUp(filepath.Join(dir, "whole"))
	change, err := first.api().CreateBackup(t.Context(), protocol.NewBackup{Dir: filepath.Join(dir, "bare"), WithoutKeys: true})
	must(t, err)
	change, err = first.api().Wait(t.Context(), change.ID, nil)
	if err != nil || change.Status != "done" {
		t.Fatalf("the backup: %+v, %v", change, err)
	}
	keys := filepath.Join(first.settings.Data, "keys")
	must(t, first.stop())

	whole := restoreTo(t, filepath.Join(dir, "whole"), self(filepath.Join(shortDir(t), "data")))
	if whole.authority.Fingerprint() != first.authority.Fingerprint() {
		t.Error("the restored server has another CA")
	}
	if info, err := os.Stat(filepath.Join(whole.settings.Data, "keys", certificate.KeyFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its key is %v, %v", info, err)
	}
	beside := restoreTo(t, filepath.Join(dir, "bare"), self(filepath.Join(shortDir(t), "data")), "--key", filepath.Join(keys, "archive.key"))
	if beside.authority.Fingerprint() != first.authority.Fingerprint() {
		t.Error("with the key beside that of the archive the CA is another")
	}
	archive, err := os.ReadFile(filepath.Join(keys, "archive.key"))
	must(t, err)
	alone := filepath.Join(t.TempDir(), "archive.key")
	must(t, os.WriteFile(alone, archive, 0o600))
	data := filepath.Join(shortDir(t), "data")
	io, _, errs := fakeIO(false)
	if status := execute(t.Context(), io, []string{"restore", filepath.Join(dir, "bare"), "--data", data, "--key", alone}); status != 0 {
		t.Fatalf("restore: exit %d, %s", status, errs)
	}
	if !strings.Contains(errs.String(), certificate.KeyFile) {
		t.Errorf("the restore does not say that the CA's key is missing: %s", errs)
	}
	if s, err := openServer(t.Context(), self(data), slog.New(slog.DiscardHandler), func(string, ...any) {}); err == nil {
		t.Fatalf("without the CA's key the restored server starts; closing: %v", s.close())
	} else if !strings.Contains(err.Error(), "ca.key is gone") || term.ExitCode(err) != term.ExitFailed {
		t.Errorf("without the CA's key: %v", err)
	}
	key, err := os.ReadFile(filepath.Join(keys, certificate.KeyFile))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(data, "keys", certificate.KeyFile), key, 0o600))
	if bare := serve(t, self(data)); bare.authority.Fingerprint() != first.authority.Fingerprint() {
		t.Error("with the key put back the CA is another")
	}
}

// impatient are times that a test can wait for.
var impatient = times{header: 300 * time.Millisecond, body: 300 * time.Millisecond, idle: 300 * time.Millisecond, stalled: time.Second}

// slowServer serves 8 MiB under /file, and what a report is under /device/,
// with impatient times.
func slowServer(t *testing.T) (*listeners, *certificate.Authority) {
	t.Helper()
	a, err := certificate.OpenAuthority(t.TempDir(), time.Now())
	must(t, err)
	keeper, err := a.Keep(func() []string { return []string{"127.0.0.1"} }, time.Now, slog.New(slog.DiscardHandler))
	must(t, err)
	l := &listeners{times: impatient}
	l.public, err = l.times.listen("127.0.0.1:0")
	must(t, err)
	l.plain, err = l.times.listen("127.0.0.1:0")
	must(t, err)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, make([]byte, 8<<20), 0o600))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/device/") {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				http.Error(w, "too slow", http.StatusRequestTimeout)
			}
			return
		}
		http.ServeFile(w, r, file)
	})
	l.serve(handlers{public: handler, admin: handler, socket: handler}, keeper.Config(), nil, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { must(t, l.shutdown(func() {})) })
	return l, a
}

// ends tells after how long the server ends a connection that the client no
// longer writes to.
func ends(t *testing.T, conn net.Conn, within time.Duration) bool {
	t.Helper()
	must(t, conn.SetReadDeadline(time.Now().Add(within)))
	_, err := io.Copy(io.Discard, conn)
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// Who spells a request out, or sends half of it, or nothing, is not waited for.
func TestTheSlowAreNotWaitedFor(t *testing.T) {
	l, _ := slowServer(t)
	for name, text := range map[string]string{
		"nothing":       "",
		"half a header": "GET /file HTTP/1.1\r\nHost: a\r\nX-A: ",
		"half a body":   "POST /device/v1/report HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
		"an idle one":   "GET /device/ HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		for door, listener := range map[string]net.Listener{"TLS": l.public, "plain": l.plain} {
			t.Run(name+" "+door, func(t *testing.T) {
				t.Parallel()
				var conn net.Conn
				var err error
				if door == "TLS" && name != "nothing" { // nothing is no handshake either
					conn, err = tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
				} else {
					conn, err = net.Dial("tcp", listener.Addr().String())
				}
				must(t, err)
				defer conn.Close()
				_, err = io.WriteString(conn, text)
				must(t, err)
				if !ends(t, conn, 10*time.Second) {
					t.Error("after ten seconds the server still waits")
				}
			})
		}
	}
	t.Run("letter by letter", func(t *testing.T) {
		conn, err := net.Dial("tcp", l.plain.Addr().String())
		must(t, err)
		defer conn.Close()
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if _, err := io.WriteString(conn, "G"); err != nil {
				return
			}
			if time.Now().After(deadline) {
				t.Fatal("after ten seconds the server still listens to letters")
			}
		}
	})
}

// A client on a bad link takes its time, many times what a stall may last, and
// gets all of its file; over HTTP/1.1, HTTP/2 and without TLS. One that takes
// nothing any more is left.
func TestSlowReadersAndStalledOnes(t *testing.T) {
	l, a := slowServer(t)
	modern, err := tlspin.Transport(a.PEM(), nil)
	must(t, err)
	old, err := tlspin.Transport(a.PEM(), nil)
	must(t, err)
	old.ForceAttemptHTTP2, old.TLSNextProto = false, map[string]func(string, *tls.Conn) http.RoundTripper{}
	for name, c := range map[string]struct {
		transport *http.Transport
		url       string
		proto     int
	}{
		"HTTP/2":   {modern, "https://" + l.public.Addr().String(), 2},
		"HTTP/1.1": {old, "https://" + l.public.Addr().String(), 1},
		"plain":    {&http.Transport{}, "http://" + l.plain.Addr().String(), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer c.transport.CloseIdleConnections()
			// Small buffers, so that the server feels how fast the client is.
			c.transport.DialContext = (&net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10) })
			}}).DialContext
			open := func() *http.Response {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/file", nil)
				must(t, err)
				resp, err := c.transport.RoundTrip(req)
				must(t, err)
				if resp.ProtoMajor != c.proto {
					t.Errorf("the answer comes by %s", resp.Proto)
				}
				return resp
			}
			resp := open()
			defer resp.Body.Close()
			start, n := time.Now(), int64(0)
			for { // three times as long as a stall may last
				got, err := io.CopyN(io.Discard, resp.Body, 256<<10)
				n += got
				if err == io.EOF {
					break
				}
				must(t, err)
				time.Sleep(100 * time.Millisecond)
			}
			if took := time.Since(start); n != 8<<20 || took < 3*impatient.stalled {
				t.Errorf("%d bytes in %s", n, took)
			}

			stalled := open()
			defer stalled.Body.Close()
			_, err := io.CopyN(io.Discard, stalled.Body, 1)
			must(t, err)
			time.Sleep(5 * impatient.stalled)
			if n, err := io.Copy(io.Discard, stalled.Body); err == nil {
				t.Errorf("a client that took nothing for %s got %d more bytes, all of its file", 5*impatient.stalled, n)
			}
		})
	}
}

// Doors keep their limits: connections inherit that of the listener.
func TestConnectionsInheritTheirTime(t *testing.T) {
	l, err := impatient.listen("127.0.0.1:0")
	must(t, err)
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	defer conn.Close()
	accepted, err := l.Accept()
	must(t, err)
	defer accepted.Close()
	raw, err := accepted.(*net.TCPConn).SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) {
		if ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err != nil || ms != int(impatient.stalled.Milliseconds()) {
			t.Errorf("TCP_USER_TIMEOUT is %d ms, %v", ms, err)
		}
	}))
}

// The names of a certificate are those by which anybody can know the server.
func TestTLSNames(t *testing.T) {
	s := settings{URL: "https://packages.example:8443/x", URLAdmin: "https://[2001:db8::1]", Hosts: []string{"fleet.example"}, Listen: "archive.example:443", ListenAdmin: "127.0.0.2:0"}
	names := s.tlsNames(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)})
	for _, want := range []string{"packages.example", "2001:db8::1", "fleet.example", "archive.example", "192.0.2.1", "127.0.0.2", "127.0.0.1", "::1", "localhost"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is missing in %v", want, names)
		}
	}
	host, err := os.Hostname()
	must(t, err)
	if slices.Contains(names, host) || !slices.Contains(s.tlsNames(&net.TCPAddr{IP: net.IPv6unspecified}), host) {
		t.Errorf("the machine's name %s belongs into the certificate of whoever listens everywhere, and of nobody else", host)
	}
}
