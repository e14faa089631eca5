package apt_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/device-updater/internal/apt"
	"aptfleet/device-updater/internal/servertest"
)

// TestAPrivateArchiveWithItsOwnAuthority: apt itself reads it with the password
// and the authority that the device was given, and with nothing else. Of the
// machine's own settings it takes neither.
func TestAPrivateArchiveWithItsOwnAuthority(t *testing.T) {
	s := newShelf(t)
	s.release("one", pkg{name: "app", version: "1"})
	files := http.FileServer(http.Dir(s.Dir))
	private := func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, _ := r.BasicAuth(); user != "dev-1" || password != "se#cr\"et" {
			w.Header().Set("WWW-Authenticate", `Basic realm="archive"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		files.ServeHTTP(w, r)
		return true
	}
	encrypted := servertest.Start(t, true)
	encrypted.Lie = private
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { private(w, r) }))
	defer plain.Close()
	other := servertest.Start(t, true)
	ca := func(text []byte) string {
		path := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name, url, user, password, ca string
		says                          string // "": it is read
	}{
		{"as it should be", encrypted.URL, "dev-1", "se#cr\"et", ca(encrypted.CA), ""},
		{"without TLS", plain.URL, "dev-1", "se#cr\"et", "", ""},
		{"another authority", encrypted.URL, "dev-1", "se#cr\"et", ca(other.CA), "ertificate"},
		{"the system's authorities", encrypted.URL, "dev-1", "se#cr\"et", "", "ertificate"},
		{"another password", encrypted.URL, "dev-1", "guess", ca(encrypted.CA), "401"},
		{"no password", encrypted.URL, "", "", ca(encrypted.CA), "401"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			p, err := apt.NewPrivate(dir, apt.Source{
				URL: c.url + "/one", Distribution: "trixie", Components: []string{"main"}, Keyring: s.Keyring,
				User: c.user, Password: c.password, CA: c.ca,
			})
			if err != nil {
				t.Fatal(err)
			}
			err = p.Update(t.Context())
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("want %q, got %v", c.says, err)
			}
			if err != nil && c.password != "" && strings.Contains(err.Error(), c.password) {
				t.Errorf("the error has the password: %v", err)
			}
			if info, err := os.Stat(filepath.Join(dir, "etc/auth.conf")); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("who may read the password: %v, %v", info.Mode(), err)
			}
		})
	}
}
