package reading

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/release"
)

// world is what a gate asks, in memory.
type world struct {
	now     time.Time
	private map[string]bool     // pipelines
	listed  map[listing]bool    // what they list
	tokens  map[string][]string // roles
	devices map[string]string   // pipeline, by "user password"
	err     error               // of everything

	looked int // for tokens
	read   int // for files
}

func (w *world) Pipeline(_ context.Context, name string) (release.Pipeline, error) {
	private, known := w.private[name]
	if !known {
		return release.Pipeline{}, &release.Error{Code: release.NotFound, Text: "none"}
	}
	return release.Pipeline{Name: name, Private: private}, w.err
}

func (w *world) HasPrivate() bool {
	for _, private := range w.private {
		if private {
			return true
		}
	}
	return false
}

func (w *world) Lists(_ context.Context, pipeline, _, name string, sum [32]byte) (bool, error) {
	w.read++
	return name == "hello" && w.listed[listing{pipeline, sum}], w.err
}

func (w *world) ByToken(_ context.Context, secret string) (access.Identity, error) {
	w.looked++
	roles, known := w.tokens[secret]
	if !known {
		return access.Identity{}, &release.Error{Code: release.NoAccess, Text: "unknown"}
	}
	return access.Identity{User: "ann", Roles: roles}, w.err
}

func (w *world) ReadAllowed(user, password, pipeline string) bool {
	return w.devices[user+" "+password] == pipeline
}

var (
	secretSum = sha256.Sum256([]byte("secret"))
	openSum   = sha256.Sum256([]byte("open"))
)

func newWorld() (*world, *Gate) {
	w := &world{
		now:     time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
		private: map[string]bool{"open": false, "secret": true, "other": true},
		listed:  map[listing]bool{{"secret", secretSum}: true, {"open", openSum}: true, {"secret", openSum}: true},
		tokens:  map[string][]string{"ann": {"viewer"}, "nobody": {}, "up": {"uploader:secret/apps"}},
		devices: map[string]string{"dev1 pw": "secret"},
	}
	return w, New(Config{Releases: w, Tokens: w, Devices: w, Clock: func() time.Time { return w.now }, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// request is one from loopback; auth is "user:password", "Bearer …" or "".
func request(auth string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.RemoteAddr, r.TLS = "127.0.0.1:1", nil
	switch {
	case strings.HasPrefix(auth, "Bearer "):
		r.Header.Set("Authorization", auth)
	case auth != "":
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(auth)))
	}
	return r
}

// ask is a request that goes through both doors; 0 is let in.
func ask(g *Gate, r *http.Request, name string) (status int, private bool) {
	private, refusal := g.Enter(r, name)
	if refusal == nil {
		refusal = g.Pooled(r, name)
	}
	if refusal == nil {
		return 0, private
	}
	return refusal.Status, private
}

func poolPath(base string, sum [32]byte) string {
	name := hex.EncodeToString(sum[:])
	return strings.TrimPrefix(base+"/pool/"+name[:2]+"/"+name+"/hello_1_all.deb", "/")
}

func TestGate(t *testing.T) {
	const file = "secret/dev/dists/trixie/InRelease"
	for _, c := range []struct {
		auth, path string
		status     int
	}{
		{"", "open/dev/dists/trixie/InRelease", 0},
		{"x:wrong", "open/dev/dists/trixie/InRelease", 0},
		{"", "archive-keyring.asc", 0},
		{"", "ca.pem", 0},
		{"", "secret", 0}, // a directory, which is not served
		{"", "nobodys/file", 404},

		{"", file, 401},
		{":", file, 401},
		{"ann:", file, 401},
		{"Bearer ", file, 401},
		{"Digest x", file, 401},
		{"ann:wrong", file, 401},
		{"ann:annn", file, 401},
		{"Bearer wrong", file, 401},
		{"ann:ann", file, 0},
		{"anything:ann", file, 0},
		{":ann", file, 0},
		{"Bearer ann", file, 0},
		{"bearer:ann", file, 0},
		{"x:nobody", file, 403},
		{"ann:ann", "secret", 0},

		{"dev1:pw", file, 0},
		{"dev2:pw", file, 401},
		{"dev1:pw", "other/dev/dists/trixie/InRelease", 401},
		{"Bearer pw", file, 401},

		{"", poolPath("", openSum), 404},
		{"ann:ann", poolPath("", secretSum), 404},
		{"", poolPath("open/dev", openSum), 0},
		{"", poolPath("open/dev", secretSum), 404},
		{"", poolPath("open/snapshots/20261120T101500Z", secretSum), 404},
		{"", poolPath("open/states/"+hex.EncodeToString(openSum[:]), secretSum), 404},
		{"", poolPath("secret/dev", secretSum), 401},
		{"ann:ann", poolPath("secret/dev", secretSum), 0},
		{"ann:ann", poolPath("secret/dev", openSum), 0},
		{"ann:ann", poolPath("other/dev", secretSum), 404},
		{"", "open/dev/pool", 404},
		{"", "open/dev/pool/x", 404},
		{"", "open/dev/pool/aa/" + strings.Repeat("a", 63) + "/hello_1_all.deb", 404},
		{"", strings.Replace(poolPath("open/dev", openSum), "hello", "other", 1), 404},
		{"", "open/dev/dists/pool/InRelease", 0},
		{"", "open/dev/dists/trixie/pool/binary-amd64/Packages.gz", 0},
	} {
		_, g := newWorld()
		status, private := ask(g, request(c.auth), c.path)
		if status != c.status {
			t.Errorf("%q for %s: %d, want %d", c.auth, c.path, status, c.status)
		}
		if want := strings.HasPrefix(c.path, "secret/") || strings.HasPrefix(c.path, "other/"); private != want {
			t.Errorf("%s is private: %v", c.path, private)
		}
	}
	w, g := newWorld()
	w.private = map[string]bool{"open": false}
	if status, _ := ask(g, request(""), poolPath("", secretSum)); status != 0 || w.read != 0 {
		t.Errorf("without private pipelines the pool answers %d and %d files were looked for", status, w.read)
	}
}

// An error is never taken for a yes.
func TestGateFailsClosed(t *testing.T) {
	w, g := newWorld()
	w.err = errors.New("disk on fire")
	for _, path := range []string{"open/dev/x", "secret/dev/x"} {
		if status, private := ask(g, request("ann:ann"), path); status != 500 || !private {
			t.Errorf("%s: %d", path, status)
		}
	}
	if refusal := g.Pooled(request(""), poolPath("open/dev", openSum)); refusal == nil || refusal.Status != 500 {
		t.Errorf("a file: %+v", refusal)
	}
	w.err = nil
	if status, _ := ask(g, request("ann:ann"), "secret/dev/x"); status != 0 {
		t.Errorf("afterwards: %d", status)
	}
}

// A token is looked up once in a while, and revoked soon after it was.
func TestTokensAreRemembered(t *testing.T) {
	w, g := newWorld()
	for range 1000 {
		if status, _ := ask(g, request("ann:ann"), "secret/dev/x"); status != 0 {
			t.Fatal(status)
		}
	}
	if w.looked != 1 {
		t.Errorf("the database was asked %d times", w.looked)
	}
	delete(w.tokens, "ann")
	w.now = w.now.Add(tokenLife)
	for range 2 {
		if status, _ := ask(g, request("ann:ann"), "secret/dev/x"); status != 401 {
			t.Errorf("a revoked token: %d", status)
		}
	}
	for range tokensKept * 2 {
		secret := fmt.Sprint("token", len(w.tokens))
		w.tokens[secret] = []string{"viewer"}
		if status, _ := ask(g, request("x:"+secret), "secret/dev/x"); status != 0 {
			t.Fatal(status)
		}
	}
	if len(g.tokens) > tokensKept {
		t.Errorf("%d tokens are remembered", len(g.tokens))
	}
	for range 3 {
		if status, _ := ask(g, request(""), poolPath("open/dev", openSum)); status != 0 {
			t.Fatal(status)
		}
	}
	if w.read != 1 {
		t.Errorf("%d times it was looked for a file", w.read)
	}
}

// Only an encrypted connection, or one of this machine, is asked for a
// password; and only a proxy that is known can say that it was encrypted.
func TestCredentialsTravelEncrypted(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	for _, c := range []struct {
		remote, forwarded, proto string
		status                   int
		from                     string
	}{
		{"127.0.0.1:1", "", "", 0, "127.0.0.1"},
		{"[::1]:1", "", "", 0, "::1"},
		{"192.0.2.1:1", "", "", 403, "192.0.2.1"},
		{"192.0.2.1:1", "127.0.0.1", "https", 403, "192.0.2.1"},
		{"10.0.0.7:1", "192.0.2.1", "https", 0, "192.0.2.1"},
		{"10.0.0.7:1", "192.0.2.1", "HTTPS", 0, "192.0.2.1"},
		{"10.0.0.7:1", "192.0.2.1", "http", 403, "192.0.2.1"},
		{"10.0.0.7:1", "192.0.2.1", "", 403, "192.0.2.1"},
		{"10.0.0.7:1", "127.0.0.1", "http", 403, "127.0.0.1"},
		{"10.0.0.7:1", "127.0.0.1, 192.0.2.1", "https", 0, "192.0.2.1"},
		{"10.0.0.7:1", "192.0.2.1, 10.0.0.8", "https", 0, "192.0.2.1"},
		{"10.0.0.7:1", "garbage, 10.0.0.8", "https", 0, "10.0.0.8"},
		{"10.0.0.7:1", "", "https", 0, "10.0.0.7"},
		{"10.0.0.7:1", "2001:db8::1", "https", 0, "2001:db8::1"},
		{"@", "", "", 403, "invalid IP"},
	} {
		_, g := newWorld()
		status, from := -1, ""
		h := Behind(proxies, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			status, _ = ask(g, r, "secret/dev/x")
			from = Address(r).String()
		}))
		r := request("ann:ann")
		r.RemoteAddr = c.remote
		if c.forwarded != "" {
			r.Header.Set("X-Forwarded-For", c.forwarded)
		}
		if c.proto != "" {
			r.Header.Set("X-Forwarded-Proto", c.proto)
		}
		h.ServeHTTP(httptest.NewRecorder(), r)
		if status != c.status || from != c.from {
			t.Errorf("%+v: %d from %s", c, status, from)
		}
	}
}

// Wrong passwords wear an address out, and neither other addresses, nor who
// was known before, nor devices behind the same one.
func TestBrake(t *testing.T) {
	w, g := newWorld()
	from := func(address, auth string) int {
		r := request(auth)
		r.RemoteAddr, r.TLS = address, new(tls.ConnectionState)
		status, _ := ask(g, r, "secret/dev/x")
		return status
	}
	if status := from("192.0.2.1:1", "ann:ann"); status != 0 {
		t.Fatal(status)
	}
	w.now = w.now.Add(time.Hour) // what is known of ann is old now
	wrong := 0
	for i := range 1000 {
		if from("192.0.2.1:1", fmt.Sprint("x:guess", i)) == 401 {
			wrong++
		}
	}
	if wrong != brakeFree {
		t.Errorf("%d guesses were looked at, want %d", wrong, brakeFree)
	}
	for name, c := range map[string]struct {
		address, auth string
		status        int
	}{
		"a stranger":                {"192.0.2.1:2", "up:up", 429},
		"who was known":             {"192.0.2.1:2", "ann:ann", 0},
		"a device":                  {"192.0.2.1:2", "dev1:pw", 0},
		"a neighbour":               {"192.0.2.2:2", "up:up", 0},
		"nobody, who guesses not":   {"192.0.2.1:2", "", 401},
		"the same, as IPv6 maps it": {"[::ffff:192.0.2.1]:2", "x:guess", 429},
	} {
		if status := from(c.address, c.auth); status != c.status {
			t.Errorf("%s: %d, want %d", name, status, c.status)
		}
	}
	for i := range brakeFree { // all of a network of IPv6 are one
		from(fmt.Sprintf("[2001:db8::%x]:1", i+1), "x:guess")
	}
	if status := from("[2001:db8::ffff]:1", "x:guess"); status != 429 {
		t.Errorf("the next of the network: %d", status)
	}
	w.now = w.now.Add(brakeLeak)
	if first, second := from("192.0.2.1:1", "x:guess"), from("192.0.2.1:1", "x:guess"); first != 401 || second != 429 {
		t.Errorf("after a while: %d, then %d", first, second)
	}
}

// However many addresses guess, a brake stays small, and one address never gets
// more looks than it has coming.
func TestBrakeStaysSmall(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	b := brake{clock: func() time.Time { return now }, wrong: map[netip.Prefix]guesses{}}
	for i := range 3 * brakeAddresses {
		b.note(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		if i%1000 == 0 {
			now = now.Add(time.Second)
		}
	}
	if len(b.wrong) > brakeAddresses {
		t.Errorf("it knows %d addresses", len(b.wrong))
	}
	rapid.Check(t, func(r *rapid.T) {
		start := now
		b := brake{clock: func() time.Time { return now }, wrong: map[netip.Prefix]guesses{}}
		a := netip.MustParseAddr("192.0.2.1")
		looks := 0
		for range rapid.IntRange(1, 300).Draw(r, "guesses") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(r, "ms")) * time.Millisecond)
			if b.wait(a) == 0 {
				looks++
				b.note(a)
			}
		}
		if most := brakeFree + int(now.Sub(start)/brakeLeak) + 1; looks > most {
			r.Errorf("%d guesses in %s, at most %d", looks, now.Sub(start), most)
		}
	})
}

func FuzzParsePooled(f *testing.F) {
	for _, seed := range []string{"pool/aa/bb/c", poolPath("open/dev", openSum), "a/snapshots/b/pool/x", "a/b/dists/pool/x", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		at, inPool := parsePooled(name)
		if !inPool && (at != pooled{}) || inPool && at.pipeline != "" && !strings.HasPrefix(name, at.pipeline+"/"+at.base+"/pool") {
			t.Errorf("%q is %+v", name, at)
		}
	})
}

// What a request of a reader costs: it must leave room for 10,000 a second on
// a part of one core.
func BenchmarkGate(b *testing.B) {
	for name, auth := range map[string]string{"public": "", "token": "ann:ann", "device": "dev1:pw"} {
		path := "secret/dev/dists/trixie/InRelease"
		if name == "public" {
			path = "open/dev/dists/trixie/InRelease"
		}
		_, g := newWorld()
		r := request(auth)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if status, _ := ask(g, r, path); status != 0 {
					b.Fatal(status)
				}
			}
		})
	}
}
