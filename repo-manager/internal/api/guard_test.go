package api

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// FuzzGuard compares Guard with how package url understands an authority: a
// host that is let in must be an address or a known name there too.
func FuzzGuard(f *testing.F) {
	for _, host := range []string{
		"localhost", "localhost:8081", "LOCALHOST.", "127.0.0.1", "[::1]:80", "::1", "fleet.example", "evil.example",
		"localhost:80:evil.example", "localhost@evil.example", "[localhost]", "127.0.0.1.evil.example", "", "]", "[::1]evil.example", "[fe80::1%25eth0]:80",
	} {
		f.Add(host)
	}
	h := Guard([]string{"fleet.example"}, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	f.Fuzz(func(t *testing.T, host string) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		if rec.Code != http.StatusNoContent {
			return
		}
		u, err := url.Parse("http://" + host + "/")
		if err != nil {
			return // no browser sends it
		}
		name := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		if _, err := netip.ParseAddr(name); err != nil && name != "localhost" && name != "fleet.example" {
			t.Errorf("Host %q, which is %q to a browser, is let in", host, name)
		}
	})
}
