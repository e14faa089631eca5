package archive_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/archive"
	"aptfleet/internal/sign"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// server offers one text for every base, signed.
type server struct {
	t      *testing.T
	key    *sign.Key
	bodies map[string][]byte
	client *archive.Client
}

func newServer(t *testing.T) *server {
	t.Helper()
	key, err := sign.Generate("Archive", "archive@aptfleet.example", now.Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := key.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	keyring := filepath.Join(t.TempDir(), "keyring.asc")
	if err := os.WriteFile(keyring, certificate, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, key: key, bodies: map[string][]byte{}}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := s.bodies[strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/"), "/dists/trixie/InRelease")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if _, err := w.Write(body); err != nil {
			return // the client has seen enough
		}
	}))
	t.Cleanup(web.Close)
	s.client = &archive.Client{HTTP: web.Client(), URL: web.URL, Distribution: "trixie", Keyring: keyring, Clock: func() time.Time { return now }}
	return s
}

func text(date time.Time, state, more string) string {
	return fmt.Sprintf("Origin: Aptfleet\nLabel: p\nSuite: production\nCodename: trixie\nDate: %s\nAptfleet-State: %s\n%sSHA256:\n %064d 0 main/binary-amd64/Packages\n", date.Format(time.RFC1123), state, more, 1)
}

func (s *server) sign(text string, at time.Time) []byte {
	s.t.Helper()
	signed, err := s.key.ClearSign([]byte(text), at)
	if err != nil {
		s.t.Fatal(err)
	}
	return signed
}

const (
	stateA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	stateB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestCheck(t *testing.T) {
	s := newServer(t)
	s.bodies["p/production"] = s.sign(text(now.Add(-time.Minute), stateA, "Aptfleet-Snapshot: 20261120T101500Z\nValid-Until: "+now.Add(time.Hour).Format(time.RFC1123)+"\n"), now.Add(-time.Minute))
	offer, err := s.client.Check(t.Context(), "p/production", time.Time{}, now.Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if offer.State != stateA || offer.Snapshot != "20261120T101500Z" || !offer.Date.Equal(now.Add(-time.Minute)) {
		t.Errorf("%+v", offer)
	}
	if err := s.client.Reachable(t.Context(), "p/production"); err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	other, err := sign.Generate("Other", "other@aptfleet.example", now.Add(-24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	old := now.Add(-time.Minute)
	good := text(old, stateA, "")
	for _, c := range []struct {
		name string
		body func(*server) []byte
		kind archive.Kind
		says string
	}{
		{"nothing there", func(*server) []byte { return nil }, archive.Unreachable, "404"},
		{"too large", func(*server) []byte { return bytes.Repeat([]byte("x"), 2<<20) }, archive.Unreachable, "more than"},
		{"unsigned", func(*server) []byte { return []byte(good) }, archive.Tampered, "no clear-signed"},
		{"another key", func(s *server) []byte {
			signed, err := other.ClearSign([]byte(good), old)
			if err != nil {
				s.t.Fatal(err)
			}
			return signed
		}, archive.Tampered, "cannot verify"},
		{"a changed byte", func(s *server) []byte { return bytes.Replace(s.sign(good, old), []byte("aaaa"), []byte("aaab"), 1) }, archive.Tampered, "cannot verify"},
		{"text after the signature", func(s *server) []byte { return append(s.sign(good, old), "Aptfleet-State: x\n"...) }, archive.Tampered, "unsigned text"},
		{"expired", func(s *server) []byte {
			return s.sign(text(old, stateA, "Valid-Until: "+now.Add(-time.Second).Format(time.RFC1123)+"\n"), old)
		}, archive.Expired, "valid until"},
		{"older than one seen", func(s *server) []byte { return s.sign(text(now.Add(-3*time.Hour), stateA, ""), now.Add(-3*time.Hour)) }, archive.Older, "was seen"},
		{"no state", func(s *server) []byte { return s.sign(strings.Replace(good, "Aptfleet-State", "X", 1), old) }, archive.Tampered, "Aptfleet-State"},
		{"a state that climbs", func(s *server) []byte { return s.sign(text(old, "../../x", ""), old) }, archive.Tampered, "Aptfleet-State"},
		{"a snapshot that is none", func(s *server) []byte { return s.sign(text(old, stateA, "Aptfleet-Snapshot: ../x\n"), old) }, archive.Tampered, "Aptfleet-Snapshot"},
		{"no date", func(s *server) []byte { return s.sign(strings.Replace(good, "Date", "X", 1), old) }, archive.Tampered, "Date"},
		{"what another stage offers", func(s *server) []byte {
			return s.sign(strings.Replace(good, "Suite: production", "Suite: dev", 1), old)
		}, archive.Tampered, "its Suite"},
		{"what no stage offers", func(s *server) []byte { return s.sign(strings.Replace(good, "Suite: production\n", "", 1), old) }, archive.Tampered, "its Suite"},
		{"another pipeline", func(s *server) []byte { return s.sign(strings.Replace(good, "Label: p", "Label: q", 1), old) }, archive.Tampered, "its Label"},
		{"another distribution", func(s *server) []byte { return s.sign(strings.Replace(good, "trixie", "bookworm", 1), old) }, archive.Tampered, "its Codename"},
		{"no indices", func(s *server) []byte { return s.sign(strings.Replace(good, "SHA256", "X", 1), old) }, archive.Tampered, "no indices"},
		{"two paragraphs", func(s *server) []byte { return s.sign(good+"\n"+good, old) }, archive.Tampered, "paragraph"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t)
			if body := c.body(s); body != nil {
				s.bodies["p/production"] = body
			}
			_, err := s.client.Check(t.Context(), "p/production", time.Time{}, now.Add(-time.Hour))
			var refused *archive.Error
			if !errors.As(err, &refused) || refused.Kind != c.kind || !strings.Contains(err.Error(), c.says) {
				t.Errorf("want %s about %q, got %v", c.kind, c.says, err)
			}
		})
	}
}

// TestClocks: a device whose clock stands in the past believes a signed date,
// and a floor keeps an old Valid-Until from coming back to life.
func TestClocks(t *testing.T) {
	s := newServer(t)
	s.bodies["p/production"] = s.sign(text(now, stateA, "Valid-Until: "+now.Add(time.Hour).Format(time.RFC1123)+"\n"), now)
	s.client.Clock = func() time.Time { return time.Unix(0, 0) }
	if _, err := s.client.Check(t.Context(), "p/production", time.Time{}, time.Time{}); err != nil {
		t.Errorf("a clock in 1970: %v", err)
	}
	var refused *archive.Error
	if _, err := s.client.Check(t.Context(), "p/production", now.Add(2*time.Hour), time.Time{}); !errors.As(err, &refused) || refused.Kind != archive.Expired {
		t.Errorf("a floor behind Valid-Until: %v", err)
	}
	if strings.Contains(refused.Error(), "clock") {
		t.Errorf("the clock stands in the past: %v", refused)
	}
	// A clock in the far future refuses everything: only a person can tell.
	s.client.Clock = func() time.Time { return now.AddDate(30, 0, 0) }
	_, err := s.client.Check(t.Context(), "p/production", time.Time{}, time.Time{})
	if !errors.As(err, &refused) || refused.Kind != archive.Expired || !strings.Contains(err.Error(), "the clock of this device says "+now.AddDate(30, 0, 0).Format(time.DateOnly)) || !strings.Contains(err.Error(), "timedatectl set-time") {
		t.Errorf("a clock in the future: %v", err)
	}
}

// TestAPinIsHeld: a device that follows a snapshot or a state takes no other for
// it, however well signed.
func TestAPinIsHeld(t *testing.T) {
	s := newServer(t)
	const id = "20261120T101500Z"
	mine := s.sign(text(now, stateA, "Aptfleet-Snapshot: "+id+"\n"), now)
	other := s.sign(text(now, stateB, "Aptfleet-Snapshot: 20261120T101501Z\n"), now)
	for _, base := range []string{"p/snapshots/" + id, "p/states/" + stateA} {
		s.bodies[base] = mine
		if offer, err := s.client.Check(t.Context(), base, time.Time{}, time.Time{}); err != nil || offer.State != stateA {
			t.Errorf("%s: %+v, %v", base, offer, err)
		}
		s.bodies[base] = other
		var refused *archive.Error
		if _, err := s.client.Check(t.Context(), base, time.Time{}, time.Time{}); !errors.As(err, &refused) || refused.Kind != archive.Tampered {
			t.Errorf("%s with another release: %v", base, err)
		}
	}
}

func TestCheckState(t *testing.T) {
	s := newServer(t)
	at := now.Add(-time.Hour)
	s.bodies["p/production"] = s.sign(text(now.Add(-time.Minute), stateA, ""), now.Add(-time.Minute))
	s.bodies["p/states/"+stateA] = s.sign(text(at, stateA, ""), at)
	offer, err := s.client.Check(t.Context(), "p/production", time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.client.CheckState(t.Context(), "p/states/"+stateA, offer, time.Time{}); err != nil {
		t.Error(err)
	}
	if err := s.client.CheckText("p/states/"+stateA, s.bodies["p/states/"+stateA], offer, time.Time{}); err != nil {
		t.Error(err)
	}
	for name, body := range map[string][]byte{
		"another state":            s.sign(text(at, stateB, ""), at),
		"the state, other indices": s.sign(strings.Replace(text(at, stateA, ""), "01 0 main", "02 0 main", 1), at),
	} {
		s.bodies["p/states/"+stateA] = body
		var refused *archive.Error
		if err := s.client.CheckState(t.Context(), "p/states/"+stateA, offer, time.Time{}); !errors.As(err, &refused) || refused.Kind != archive.Tampered {
			t.Errorf("%s: %v", name, err)
		}
	}
}
