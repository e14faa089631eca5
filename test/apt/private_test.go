package apt

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// Where a machine keeps what it needs for a private archive behind a CA of the
// server's own, as "pipeline sources" says.
const (
	sourcesFile = "/etc/apt/sources.list.d/demo.sources"
	caFile      = "/etc/apt/aptfleet-ca.pem"
	authFile    = "/etc/apt/auth.conf.d/aptfleet-demo.conf"
	optionsFile = "/etc/apt/apt.conf.d/50aptfleet"
)

// untrusted is how apt says that it does not know a certificate's CA: with
// GnuTLS, and since Debian 13 with OpenSSL.
var untrusted = regexp.MustCompile(`certificate is NOT trusted|No system certificates available|certificate verify failed`)

// output is what a command that must succeed prints on standard output.
func (s *server) output(args ...string) string {
	s.t.Helper()
	out, err := exec.Command(shared.program, append([]string{"--socket", s.Socket}, args...)...).Output()
	if err != nil {
		s.t.Fatalf("%v: %v", args, err)
	}
	return string(out)
}

// token makes a user with a token that may read.
func (s *server) token(user string) protocol.Token {
	s.t.Helper()
	if _, err := s.API.CreateUser(s.t.Context(), user, []string{"viewer"}); err != nil {
		s.t.Fatal(err)
	}
	token, err := s.API.CreateToken(s.t.Context(), protocol.NewToken{User: user})
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// commented returns what the comments of a source say to write: the line that
// begins with a word, filled in.
func commented(t *testing.T, source, word string, fill ...string) []byte {
	t.Helper()
	for line := range strings.Lines(source) {
		if text, ok := strings.CutPrefix(line, "#   "); ok && strings.HasPrefix(text, word) {
			return []byte(strings.NewReplacer(fill...).Replace(text))
		}
	}
	t.Fatalf("nothing is said about %q:\n%s", word, source)
	return nil
}

// A private pipeline over HTTPS with a CA of the server's own: what "pipeline
// sources" prints is enough for the apt of each release, and each thing that is
// missing or wrong is refused with a reason that a person can act on.
func TestPrivateOverHTTPS(t *testing.T) {
	s := newServer(t, "tls: self")
	s.upload("demo-app", "1.0")
	yes := true
	if _, err := s.API.SetPipeline(t.Context(), pipeline, protocol.SetPipeline{Private: &yes}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.API.CreatePipeline(t.Context(), protocol.Pipeline{Name: "free", Distribution: distribution, Architectures: []string{shared.architecture}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.API.CreateRepository(t.Context(), "free", component, 1); err != nil {
		t.Fatal(err)
	}
	source, free, ca := s.output("pipeline", "sources", "demo", "dev"), s.output("pipeline", "sources", "free", "dev"), s.output("key", "ca")
	noCredentials := regexp.MustCompile(`401 +Unauthorized`)
	onEach(t, func(t *testing.T, suite string) {
		token := s.token("machine-" + suite)
		m := emptyMachine(t, suite)
		m.write(sourcesFile, []byte(source))
		m.refuses(untrusted, "apt-get", "update")

		m.write(caFile, []byte(ca))
		m.write(optionsFile, commented(t, source, "Acquire::https"))
		m.refuses(noCredentials, "apt-get", "update")
		for name, line := range map[string][]byte{
			"a wrong password":           commented(t, source, "machine", "NAME", "ann", "TOKEN", "wrong"),
			"a token as name":            commented(t, source, "machine", "NAME", token.Secret, "TOKEN", "x"),
			"another pipeline's":         commented(t, source, "machine", "/demo/", "/free/", "NAME", "ann", "TOKEN", token.Secret),
			"another host's":             commented(t, source, "machine", "127.0.0.1", "127.0.0.2", "NAME", "ann", "TOKEN", token.Secret),
			"for unencrypted HTTP alone": commented(t, source, "machine", "machine ", "machine http://", "NAME", "ann", "TOKEN", token.Secret),
		} {
			m.write(authFile, line)
			out, code := m.run(t.Context(), "apt-get", "update")
			if code == 0 || !noCredentials.MatchString(out) {
				t.Errorf("%s: with %s apt exits %d:\n%s", suite, name, code, out)
			}
		}

		m.write(authFile, commented(t, source, "machine", "NAME", "ann", "TOKEN", token.Secret))
		m.update()
		m.wantCandidate("demo-app", "1.0")
		m.apt("install", "demo-app")
		m.wantInstalled("demo-app", "1.0")
		m.update() // asks whether anything is new, with its credentials

		// Beside it a public pipeline needs none, and is read as ever.
		m.write("/etc/apt/sources.list.d/free.sources", []byte(free))
		m.update()
		m.apt("install", "aptfleet-archive-keyring")

		if err := s.API.RevokeToken(t.Context(), token.ID); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(30 * time.Second)
		for {
			out, code := m.run(t.Context(), "apt-get", "update")
			if code != 0 && noCredentials.MatchString(out) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: half a minute after its token was revoked apt exits %d:\n%s", suite, code, out)
			}
			time.Sleep(time.Second)
		}
		m.write(sourcesFile, nil)
		m.update() // the public one still

		// With another CA the same server is a stranger.
		other := newServer(t, "tls: self")
		m.write(caFile, []byte(other.output("key", "ca")))
		m.refuses(untrusted, "apt-get", "update")
	})
}

// curl shows the words of a refusal.
func TestCurlReadsAPrivatePipeline(t *testing.T) {
	s := newServer(t, "tls: self")
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s.output("key", "ca", "--output", ca)
	if out := s.output("pipeline", "set", pipeline, "--private"); out == "" {
		t.Error("nothing was said")
	}
	token := s.token("ann")
	curl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("curl", append([]string{"--silent", "--show-error", "--cacert", ca, "--write-out", "%{http_code} %{http_version}"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	inRelease := s.Public + "/demo/dev/dists/trixie/InRelease"
	for name, c := range map[string]struct{ args, wants []string }{
		"nobody":   {[]string{inRelease}, []string{"cannot read pipeline demo", "/etc/apt/auth.conf.d/", "401 2"}},
		"HTTP/1.1": {[]string{"--http1.1", "--user", "ann:" + token.Secret, inRelease}, []string{"BEGIN PGP SIGNED MESSAGE", "200 1.1"}},
		"HTTP/2":   {[]string{"--user", "ann:" + token.Secret, inRelease}, []string{"BEGIN PGP SIGNED MESSAGE", "200 2"}},
		"Bearer":   {[]string{"--header", "Authorization: Bearer " + token.Secret, inRelease}, []string{"200"}},
		"any":      {[]string{"--anyauth", "--user", "ann:" + token.Secret, inRelease}, []string{"200"}},
	} {
		out := curl(c.args...)
		for _, want := range c.wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s: curl prints %q, without %q", name, out, want)
			}
		}
	}
	if out, err := exec.Command("curl", "--silent", "--show-error", inRelease).CombinedOutput(); err == nil || !strings.Contains(string(out), "SSL certificate problem") {
		t.Errorf("without the CA: %v, %s", err, out)
	}
}

// nginx speaks TLS and hands everything on, as docs/tls.md says: addresses,
// cookies and private pipelines are as if nobody stood between.
func TestBehindNginx(t *testing.T) {
	outside, admin := freeAddress(t), freeAddress(t)
	archive, fleet := freeAddress(t), freeAddress(t)
	s := startServer(t, rig.Config{
		Args:     []string{"--listen", archive, "--listen-admin", fleet},
		Settings: []string{"proxies: [127.0.0.1]", "url: https://" + outside, "url_admin: https://" + admin},
	})
	dir := t.TempDir()
	caPath := someCertificate(t, dir, outside, admin)
	proxyNginx(t, dir, map[string]string{outside: archive, admin: fleet})
	ca, err := os.ReadFile(caPath)
	if err != nil {
		t.Fatal(err)
	}
	s.upload("demo-app", "1.0")
	s.output("pipeline", "set", pipeline, "--private")
	token := s.token("ann")
	source := s.output("pipeline", "sources", "demo", "dev")
	if !strings.Contains(source, "URIs: https://"+outside+"/demo/dev/") {
		t.Errorf("the source is\n%s", source)
	}
	api, err := client.New(client.Options{Server: "https://" + admin, Token: token.Secret, CA: ca})
	if err != nil {
		t.Fatal(err)
	}
	if system, err := api.System(t.Context()); err != nil || system.Archive != "https://"+outside || system.Admin != "https://"+admin {
		t.Errorf("through the proxy the server says %+v, %v", system, err)
	}
	link, err := s.API.CreateLoginLink(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(link.URL)
	if err != nil || at.Host != admin {
		t.Fatalf("the login link is %s, %v", link.URL, err)
	}
	out, err := exec.Command("curl", "--silent", "--show-error", "--include", "--cacert", caPath,
		"--header", "Origin: https://"+admin, "--data", "token="+at.Query().Get("token"), "https://"+admin+"/login").CombinedOutput()
	cookie := regexp.MustCompile(`(?i)set-cookie: .*`).FindString(string(out))
	if err != nil || !strings.Contains(cookie, "Secure") || !strings.Contains(cookie, "HttpOnly") {
		t.Errorf("signing in: %v, cookie %q\n%s", err, cookie, out)
	}
	// The server sees who it is, not the proxy.
	for range 2 {
		out, err := exec.Command("curl", "--silent", "--cacert", caPath, "--user", "x:wrong", "--interface", "127.9.9.9", "https://"+outside+"/demo/dev/dists/trixie/InRelease").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "no token that is good") {
			t.Errorf("a wrong password: %v, %s", err, out)
		}
	}
	if !strings.Contains(s.Log(), "from=127.9.9.9") {
		t.Errorf("the log does not say where wrong passwords came from:\n%s", s.Log())
	}
	onEach(t, func(t *testing.T, suite string) {
		m := emptyMachine(t, suite)
		m.write(sourcesFile, []byte(source))
		m.write(caFile, ca)
		m.write(optionsFile, fmt.Appendf(nil, "Acquire::https::CAInfo \"%s\";\n", caFile))
		m.refuses(regexp.MustCompile(`401 +Unauthorized`), "apt-get", "update")
		m.write(authFile, commented(t, source, "machine", "NAME", "ann", "TOKEN", token.Secret))
		m.update()
		m.apt("install", "demo-app")
		m.wantInstalled("demo-app", "1.0")
	})
}

// someCertificate makes a certificate for addresses that signed itself, in
// dir/cert.pem and dir/key.pem, as operators do by hand. It is its own CA.
func someCertificate(t *testing.T, dir string, addresses ...string) (certFile string) {
	t.Helper()
	names := make([]string, len(addresses))
	for i, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		names[i] = "IP:" + host
	}
	certFile = filepath.Join(dir, "cert.pem")
	out, err := exec.Command("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2",
		"-subj", "/CN=proxy", "-addext", "subjectAltName="+strings.Join(names, ","), "-keyout", filepath.Join(dir, "key.pem"), "-out", certFile).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl: %v\n%s", err, out)
	}
	return certFile
}

// proxyNginx speaks TLS on the keys of routes, with the certificate of dir, and
// hands requests on to their values.
func proxyNginx(t *testing.T, dir string, routes map[string]string) {
	t.Helper()
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log stderr; user www-data;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem;
	proxy_http_version 1.1;
	proxy_set_header Host $http_host;
	proxy_set_header X-Forwarded-For $remote_addr;
	proxy_set_header X-Forwarded-Proto $scheme;
	proxy_request_buffering off;
	proxy_buffering off;
	client_max_body_size 0;
	proxy_read_timeout 1h;
`, dir)
	for outside, inside := range routes {
		text += fmt.Sprintf("\tserver { listen %s ssl; location / { proxy_pass http://%s; } }\n", outside, inside)
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, []byte(text+"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for outside := range routes {
		program(t, outside, "/usr/sbin/nginx", "-c", conf, "-p", dir, "-e", "stderr")
		return // one serves all
	}
}
