package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/internal/sign"
	"aptfleet/internal/term"
	"aptfleet/repo-manager/internal/pool"
)

// running is a server inside this process.
type running struct {
	*server
	t    testing.TB
	stop func() error
	said *transcript
	logs *transcript
}

// transcript is what a server says to whoever started it, or logs.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *transcript) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(&s.text, format+"\n", args...)
}

// Write takes lines of a log.
func (s *transcript) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(line)
}

func (s *transcript) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shortDir is a temporary directory whose path leaves room for a socket's.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "af-")
	must(t, err)
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func local(data string) settings {
	return settings{Data: data, Listen: "127.0.0.1:0", ListenAdmin: "127.0.0.1:0", Reserve: 1}
}

// serve runs a server until the test ends or stop is called.
func serve(t testing.TB, s settings) *running {
	t.Helper()
	must(t, s.validate())
	said, logs := new(transcript), new(transcript)
	opened, err := openServer(t.Context(), s, slog.New(slog.NewTextHandler(logs, &slog.HandlerOptions{Level: slog.LevelDebug})), said.say)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- opened.run(ctx) }()
	var once sync.Once
	r := &running{server: opened, t: t, said: said, logs: logs}
	r.stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(opened.addressesFile()); err == nil {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatal("the server was not ready within a minute")
		}
	}
}

func (r *running) api() *client.Client {
	r.t.Helper()
	api, err := client.New(client.Options{Socket: r.listeners.addresses.Socket})
	must(r.t, err)
	return api
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get asks a listener; header lines are "Name: value".
func get(t *testing.T, method, url string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	must(t, err)
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	resp, err := transport.RoundTrip(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(body)
}

// An empty directory becomes an archive that apt's own tools accept, and the
// person who started it learns what to keep safe.
func TestNewArchive(t *testing.T) {
	dir := filepath.Join(shortDir(t), "data")
	r := serve(t, local(dir))
	keyFile := filepath.Join(dir, "keys", "archive.key")
	for _, text := range []string{keyFile, "Back it up now", r.key.Fingerprint(), r.listeners.addresses.Public, r.listeners.addresses.Admin} {
		if !strings.Contains(r.said.String(), text) {
			t.Errorf("the new server does not mention %q:\n%s", text, r.said)
		}
	}
	if info, err := os.Stat(keyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key is %v, %v; want mode 0600", info, err)
	}
	for _, name := range []string{databaseFile, databaseFile + "-wal"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others (%v, %v)", name, info.Mode(), err)
		}
	}
	var at addresses
	text, err := os.ReadFile(r.addressesFile())
	must(t, err)
	must(t, json.Unmarshal(text, &at))
	if at != r.listeners.addresses || at.PID != os.Getpid() {
		t.Errorf("addresses.json says %+v", at)
	}

	api := r.api()
	_, err = api.CreatePipeline(t.Context(), protocol.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"}})
	must(t, err)
	for _, name := range []string{"apps", "more"} {
		_, err = api.CreateRepository(t.Context(), "demo", name, 1)
		must(t, err)
	}
	packages, err := api.Packages(t.Context(), "demo", client.PackageQuery{})
	must(t, err)
	if len(packages) != 1 || packages[0].Component != "apps" || packages[0].Name != keyringPackage {
		t.Fatalf("the first repository holds %+v, want the keyring package alone", packages)
	}
	moves, err := api.History(t.Context(), "demo", "dev")
	must(t, err)
	if i := len(moves) - 3; i < 0 || moves[i].By != "system" {
		t.Errorf("the keyring package was not uploaded by system: %+v", moves)
	}

	// The package is what dpkg takes and holds the certificate of the archive.
	file := filepath.Join(t.TempDir(), "keyring.deb")
	_, body := get(t, http.MethodGet, at.Public+"/archive-keyring.deb")
	must(t, os.WriteFile(file, []byte(body), 0o644))
	out := t.TempDir()
	if text, err := exec.Command("dpkg-deb", "--extract", file, out).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, text)
	}
	keyring, err := os.ReadFile(filepath.Join(out, keyringFile))
	must(t, err)
	_, inRelease := get(t, http.MethodGet, at.Public+"/demo/dev/dists/trixie/InRelease")
	if _, _, err := sign.Verify([]byte(inRelease), keyring, time.Now()); err != nil {
		t.Errorf("the packaged keyring does not verify the archive: %v", err)
	}

	must(t, r.stop())
	if _, err := os.Stat(r.addressesFile()); !os.IsNotExist(err) {
		t.Errorf("after the stop addresses.json is there (%v)", err)
	}
	before := r.key.deb
	var left []string // by a server that was killed
	for _, name := range []string{"keys/.archive.key.1.tmp", "public/.archive-keyring.asc.1.tmp", "run/.addresses.json.1.tmp", "mirrors/demo/debian/.InRelease.1.tmp"} {
		left = append(left, filepath.Join(dir, name))
		must(t, os.MkdirAll(filepath.Dir(left[len(left)-1]), 0o755))
		must(t, os.WriteFile(left[len(left)-1], nil, 0o600))
	}
	again := serve(t, local(dir))
	for _, path := range left {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", path, err)
		}
	}
	if !bytes.Equal(again.key.deb, before) || strings.Contains(again.said.String(), "Back it up") {
		t.Error("a restart made another keyring package or announced a new archive")
	}
	if packages, err := again.api().Packages(t.Context(), "demo", client.PackageQuery{}); err != nil || len(packages) != 1 {
		t.Errorf("after a restart there are %d packages, %v", len(packages), err)
	}
	report, err := again.api().Check(t.Context(), nil)
	if err != nil || len(report.Findings) != 0 || report.Files == 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

func TestOpenServerRefuses(t *testing.T) {
	foreign := shortDir(t)
	must(t, os.WriteFile(filepath.Join(foreign, "holiday.jpg"), nil, 0o644))
	lost := filepath.Join(shortDir(t), "data")
	must(t, serve(t, local(lost)).stop())
	must(t, os.Remove(filepath.Join(lost, "keys", "archive.key")))
	blank := filepath.Join(shortDir(t), "data")
	must(t, serve(t, local(blank)).stop())
	must(t, os.Remove(filepath.Join(blank, databaseFile)))
	must(t, os.Mkdir(filepath.Join(blank, "damaged"), 0o755)) // as a repair leaves it
	held := filepath.Join(shortDir(t), "data")
	serve(t, local(held))
	deep := filepath.Join(shortDir(t), strings.Repeat("long", 30))
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer busy.Close()
	taken := local(filepath.Join(shortDir(t), "data"))
	taken.Listen = busy.Addr().String()
	for name, c := range map[string]struct {
		settings settings
		says     string
		code     int
	}{
		"a directory of somebody else":    {local(foreign), "holds holiday.jpg", term.ExitFailed},
		"an archive without its key":      {local(lost), "archive.key is gone", term.ExitFailed},
		"an archive without its database": {local(blank), "its database repo-manager.db is gone", term.ExitFailed},
		"a directory in use":              {local(held), "another repo-manager serves it", term.ExitLocked},
		"a path too long for a socket":    {local(deep), "shorter data directory", term.ExitFailed},
		"a port in use":                   {taken, "address already in use", term.ExitFailed},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := openServer(t.Context(), c.settings, slog.New(slog.NewTextHandler(io.Discard, nil)), func(string, ...any) {})
			if err == nil {
				must(t, s.close())
				t.Fatal("it was opened")
			}
			if !strings.Contains(err.Error(), c.says) || term.ExitCode(err) != c.code {
				t.Errorf("error %q with exit status %d, want %q and %d", err, term.ExitCode(err), c.says, c.code)
			}
		})
	}
	if entries, err := os.ReadDir(foreign); err != nil || len(entries) != 1 {
		t.Errorf("the foreign directory holds %d entries now, %v", len(entries), err)
	}
}

// A server that was killed may hold its lock a moment longer than its sockets.
func TestOpenServerWaitsForTheOneBefore(t *testing.T) {
	dir := shortDir(t)
	lock, err := os.Create(filepath.Join(dir, "lock"))
	must(t, err)
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	released := make(chan error, 1)
	time.AfterFunc(100*time.Millisecond, func() { released <- lock.Close() })
	serve(t, local(dir))
	must(t, <-released)
}

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"all":               {"listen: :1\nlisten_admin: '[::1]:2'\nurl: https://a.example/x/\nvalid_for: 3s\nmax_upload: 5\nhosts: [a, b]\n", ""},
		"an unknown key":    {"listen: :1\nlisten_port: 3\n", "listen_port"},
		"a wrong type":      {"max_upload: lots\n", "max_upload"},
		"a wrong duration":  {"valid_for: soon\n", "valid_for"},
		"no duration":       {"valid_for: 3\n", "valid_for"},
		"too short":         {"valid_for: 10ms\n", "valid_for"},
		"a bare number":     {"keep_superseded: 3600\n", "keep_superseded: 2h"},
		"negative":          {"reserve: -1\n", "reserve"},
		"no URL":            {"url: archive.example\n", "url"},
		"half of TLS":       {"tls_key: /x\n", "tls_certificate"},
		"TLS":               {"tls: self\nlisten: :443\nlisten_http: :80\nlisten_admin: :8443\n", ""},
		"TLS by files":      {"tls: files\ntls_certificate: /c\ntls_key: /k\nlisten_admin: :8443\n", ""},
		"TLS as it was":     {"tls_certificate: /c\ntls_key: /k\nlisten_admin: :8443\n", ""},
		"no TLS":            {"tls: off\n", ""},
		"proxies":           {"proxies: [127.0.0.1, '::1', 10.0.0.0/8]\n", ""},
		"TLS in a way":      {"tls: magic\n", "off, self"},
		"TLS without files": {"tls: files\n", "tls_certificate and tls_key are missing"},
		"TLS in two ways":   {"tls: self\ntls_certificate: /c\ntls_key: /k\n", "another certificate"},
		"off for all":       {"tls: off\ntls_certificate: /c\ntls_key: /k\nlisten_admin: :8443\n", "admin listener"},
		"plain twice":       {"listen_http: :80\n", "without TLS already"},
		"no proxy":          {"proxies: [proxy.example]\n", "proxies"},
		"admin for all":     {"listen_admin: :8081\n", "admin listener"},
		"admin for others":  {"listen_admin: 192.0.2.1:8081\n", "admin listener"},
		"admin for one own": {"listen_admin: localhost:8081\n", ""},
		"no YAML":           {"listen: [\n", "cannot read settings"},
		"backups":           {"backup: {dir: /srv/backup, every: 24h, keep: 7}\n", ""},
		"backup where":      {"backup: {dir: backup}\n", "absolute"},
		"backup nowhere":    {"backup: {every: 24h}\n", "backup.dir is missing"},
		"backup too often":  {"backup: {dir: /srv/backup, every: 5}\n", "backup.every"},
		"backup misspelt":   {"backup: {directory: /srv/backup}\n", "directory"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "repo-manager.yaml")
			must(t, os.WriteFile(path, []byte(c.text), 0o600))
			s, err := loadSettings(path)
			if s.ListenAdmin == "" {
				s.ListenAdmin = defaultListenAdmin
			}
			err = errors.Join(err, s.validate())
			if c.says == "" {
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v does not name %q", err, c.says)
			}
		})
	}
	if _, err := loadSettings(filepath.Join(t.TempDir(), "absent.yaml")); err == nil {
		t.Error("a file that was named and is absent was accepted")
	}
}

// The names of the admin listener: those of the setting, and that of the URL
// in login links.
func TestAdminHosts(t *testing.T) {
	s := local(filepath.Join(shortDir(t), "data"))
	s.Hosts, s.URLAdmin = []string{"other.example"}, "https://fleet.example:8443"
	r := serve(t, s)
	for host, status := range map[string]int{"fleet.example:8443": 200, "other.example": 200, "evil.example": 421} {
		if resp, body := get(t, http.MethodGet, "http://"+r.listeners.admin.Addr().String()+"/healthz", "Host: "+host); resp.StatusCode != status {
			t.Errorf("Host %s: %d %s, want %d", host, resp.StatusCode, body, status)
		}
	}
}

// The published tree as HTTP serves it.
func TestArchiveHandler(t *testing.T) {
	r := serve(t, local(filepath.Join(shortDir(t), "data")))
	api, public := r.api(), r.listeners.addresses.Public
	_, err := api.CreatePipeline(t.Context(), protocol.Pipeline{Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"}})
	must(t, err)
	_, err = api.CreateRepository(t.Context(), "demo", "apps", 1)
	must(t, err)
	tree := filepath.Join(r.settings.Data, "public")
	files, err := filepath.Glob(filepath.Join(tree, "pool/*/*/*.deb"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the pool holds %q, %v", files, err)
	}
	inPool, err := filepath.Rel(tree, files[0])
	must(t, err)
	content, err := os.ReadFile(files[0])
	must(t, err)
	must(t, os.Symlink("../../keys/archive.key", filepath.Join(tree, "demo/escape")))

	for _, c := range []struct {
		path   string
		status int
		cache  string
	}{
		{"/" + inPool, 200, "public, max-age=31536000, immutable"},
		{"/demo/dev/" + inPool, 200, "public, max-age=31536000, immutable"},
		{"/demo/dev/dists/trixie/InRelease", 200, "no-cache"},
		{"/archive-keyring.asc", 200, "no-cache"},
		{"/healthz", 200, ""},
		{"/", 404, ""},
		{"/demo/dev/dists/", 404, ""},
		{"/demo", 404, ""},
		{"/nothing", 404, ""},
		{"/.tmp", 404, ""},
		{"/.indices/x", 404, ""},
		{"/../keys/archive.key", 404, ""},
		{"/..%2fkeys%2farchive.key", 404, ""},
		{"/demo/%2e%2e/%2e%2e/keys/archive.key", 404, ""},
		{"/demo/escape", 404, ""},
		{"/archive-keyring.asc/x", 404, ""},
		{"/archive-keyring.asc%00", 404, ""},
		{"/api/v1/system", 404, ""},
	} {
		resp, body := get(t, http.MethodGet, public+c.path)
		if resp.StatusCode != c.status || (c.cache != "" && resp.Header.Get("Cache-Control") != c.cache) {
			t.Errorf("GET %s: %d, Cache-Control %q", c.path, resp.StatusCode, resp.Header.Get("Cache-Control"))
		}
		if strings.Contains(body, "PRIVATE KEY") {
			t.Errorf("GET %s gives away the key", c.path)
		}
	}
	resp, body := get(t, http.MethodGet, public+"/"+inPool, "Range: bytes=5-9")
	if resp.StatusCode != http.StatusPartialContent || body != string(content[5:10]) {
		t.Errorf("a range: %d %q", resp.StatusCode, body)
	}
	resp, _ = get(t, http.MethodGet, public+"/demo/dev/dists/trixie/InRelease")
	resp, _ = get(t, http.MethodGet, public+"/demo/dev/dists/trixie/InRelease", "If-Modified-Since: "+resp.Header.Get("Last-Modified"))
	if resp.StatusCode != http.StatusNotModified {
		t.Errorf("an InRelease that did not change: %d", resp.StatusCode)
	}
	for _, method := range []string{http.MethodPut, http.MethodPost, http.MethodDelete} {
		if resp, _ := get(t, method, public+"/archive-keyring.asc"); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
	}
}

// Who may come through which door.
func TestDoors(t *testing.T) {
	r := serve(t, local(filepath.Join(shortDir(t), "data")))
	admin := r.listeners.addresses.Admin
	for _, c := range []struct {
		name, method, path string
		header             []string
		status             int
	}{
		{"health", "GET", "/healthz", nil, 200},
		{"an anonymous reader", "GET", "/api/v1/pipelines", nil, 401},
		{"an anonymous actor", "POST", "/api/v1/pipelines", nil, 401},
		{"a wrong token", "GET", "/api/v1/pipelines", []string{"Authorization: Bearer nonsense"}, 401},
		{"an anonymous visitor", "GET", "/", nil, 401},
		{"a name that points here", "GET", "/healthz", []string{"Host: evil.example"}, 421},
		{"a page of another site", "POST", "/api/v1/pipelines", []string{"Origin: http://evil.example"}, 403},
	} {
		if resp, body := get(t, c.method, admin+c.path, c.header...); resp.StatusCode != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, resp.StatusCode, body, c.status)
		}
	}
	info, err := os.Stat(r.listeners.addresses.Socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v; want mode 0660", info, err)
	}
	if _, err := r.api().CreateUser(t.Context(), "ann", []string{"admin"}); err != nil {
		t.Errorf("the user of the socket cannot act: %v", err)
	}
	link, err := r.api().CreateLoginLink(t.Context(), "ann")
	must(t, err)
	if !strings.HasPrefix(link.URL, admin+"/login?token=") {
		t.Errorf("the login link is %s", link.URL)
	}
	if resp, body := get(t, http.MethodGet, link.URL); resp.StatusCode != 200 || !strings.Contains(body, "ann") {
		t.Errorf("the login page: %d %s", resp.StatusCode, body)
	}
}

// A stop does not wait for those who watch for ever.
func TestStopWithWatchers(t *testing.T) {
	r := serve(t, local(filepath.Join(shortDir(t), "data")))
	ready := make(chan struct{})
	watched := make(chan error, 1)
	go func() {
		watched <- r.api().Events(context.WithoutCancel(t.Context()), func() { close(ready) }, func(protocol.Event) error { return nil })
	}()
	<-ready
	must(t, r.stop())
	<-watched // it ends because the server does, with or without an error
}

// With a certificate the admin listener speaks TLS, and the session cookie
// says so.
func TestTLS(t *testing.T) {
	dir := shortDir(t)
	s := local(filepath.Join(dir, "data"))
	s.TLSCertificate, s.TLSKey = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool := selfSigned(t, s.TLSCertificate, s.TLSKey)
	r := serve(t, s)
	if !strings.HasPrefix(r.listeners.addresses.Admin, "https://127.0.0.1:") {
		t.Fatalf("the admin listener is %s", r.listeners.addresses.Admin)
	}
	browser := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer browser.CloseIdleConnections()
	_, err := r.api().CreateUser(t.Context(), "ann", []string{"viewer"})
	must(t, err)
	link, err := r.api().CreateLoginLink(t.Context(), "ann")
	must(t, err)
	at, secret, _ := strings.Cut(link.URL, "?token=")
	resp, err := browser.PostForm(at, url.Values{"token": {secret}})
	must(t, err)
	must(t, resp.Body.Close())
	cookies := resp.Cookies()
	if resp.StatusCode != http.StatusSeeOther || len(cookies) != 1 || !cookies[0].Secure || !cookies[0].HttpOnly {
		t.Errorf("signing in: %s with cookies %v", resp.Status, cookies)
	}
}

// selfSigned writes a certificate for 127.0.0.1 and returns who trusts it.
func selfSigned(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	must(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(private)
	must(t, err)
	must(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool
}

// onRecord is a record of uploads.
type onRecord map[[32]byte]bool

func (r onRecord) HasFile(_ context.Context, sum [32]byte) (bool, error) { return r[sum], nil }

// What lies in the pool and is not on record may be damaged or on its way out:
// a mirror downloads it.
func TestOnlyWhatIsOnRecordIsSettled(t *testing.T) {
	files, err := pool.New(t.TempDir())
	must(t, err)
	record := onRecord{}
	settled := settledPool{files, record}
	sum := sha256.Sum256([]byte("content"))
	path := filepath.Join(t.TempDir(), "upload")
	must(t, os.WriteFile(path, []byte("content"), 0o600))
	_, err = files.Put(path, sum, "a_1_all.deb")
	must(t, err)
	if settled.Has(sum, "a_1_all.deb") {
		t.Error("a file of a batch under way counts")
	}
	record[sum] = true
	if !settled.Has(sum, "a_1_all.deb") || settled.Has(sum, "b_1_all.deb") {
		t.Error("a file on record does not count, or one that is not there does")
	}
}
