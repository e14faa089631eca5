package enrol_test

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"aptfleet/device-updater/internal/enrol"
	"aptfleet/device-updater/internal/exchange"
	"aptfleet/device-updater/internal/identity"
	"aptfleet/device-updater/internal/servertest"
	"aptfleet/internal/protocol"
)

// machine returns a client for a new machine.
func machine(t *testing.T, s *servertest.Server, change func(*enrol.Request)) *enrol.Client {
	t.Helper()
	keys, err := identity.In(t.TempDir()).Make(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &enrol.Client{Keys: keys, Trust: enrol.Authorities{Clock: time.Now}, Clock: time.Now, Request: enrol.Request{
		Server: s.URL, Serial: "SN1", Architecture: "amd64", Machine: strings.Repeat("ab", 32), Boot: "b", Insecure: s.CA == nil,
	}}
	if change != nil {
		change(&c.Request)
	}
	return c
}

func TestAToken(t *testing.T) {
	s := servertest.Start(t, true)
	token := s.Token()
	c := machine(t, s, func(r *enrol.Request) { r.Token = token })
	e, err := c.Ask(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e.Device != "dev-sn1" || e.Pipeline != servertest.Pipeline || e.Product != servertest.Product || e.Key != c.Keys.ID() || e.CA != string(s.CA) || e.Archive != s.URL {
		t.Errorf("%+v", e)
	}
	// It is used up: another machine only waits. The same one has its answer again.
	var pending *enrol.Pending
	if _, err := machine(t, s, func(r *enrol.Request) { r.Token, r.Serial = token, "SN2" }).Ask(t.Context()); !errors.As(err, &pending) || pending.Serial != "SN2" {
		t.Errorf("a token twice: %v", err)
	}
	if again, err := c.Ask(t.Context()); err != nil || again.Same(e) != "" {
		t.Errorf("asked again: %+v, %v", again, err)
	}
}

// TestWhoIsBelieved: before anything is pinned, something must vouch for the
// server.
func TestWhoIsBelieved(t *testing.T) {
	other := servertest.Start(t, true)
	var seen string
	for _, c := range []struct {
		name   string
		change func(*servertest.Server, *enrol.Request)
		says   string // "": accepted
	}{
		{"an authority that was given", func(s *servertest.Server, r *enrol.Request) { r.CA = s.CA }, ""},
		{"on first use", func(s *servertest.Server, r *enrol.Request) { r.FirstUse = func(f string) { seen = f } }, ""},
		{"nothing", func(*servertest.Server, *enrol.Request) {}, "unknown authority"},
		{"another authority", func(_ *servertest.Server, r *enrol.Request) { r.CA = other.CA }, "unknown authority"},
		{"a token of another server", func(_ *servertest.Server, r *enrol.Request) { r.Token = other.Token() }, "another server"},
		{"a token that is none", func(_ *servertest.Server, r *enrol.Request) { r.Token = "secret" }, "aft1_"},
		{"a certificate that is no authority's", func(_ *servertest.Server, r *enrol.Request) {
			_, chain := servertest.Authority(t, "127.0.0.1", time.Now())
			r.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain.Certificate[0]})
		}, "not of a CA"},
		{"plain HTTP", func(s *servertest.Server, r *enrol.Request) { r.Server = strings.Replace(s.URL, "https", "http", 1) }, "not encrypted"},
		{"another product", func(s *servertest.Server, r *enrol.Request) { r.CA, r.Product = s.CA, "camera" }, `product "gateway"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := servertest.Start(t, true)
			s.Registered["SN1"] = true
			e, err := machine(t, s, func(r *enrol.Request) { c.change(s, r) }).Ask(t.Context())
			if c.says == "" && (err != nil || e.CA != string(s.CA)) {
				t.Errorf("%+v, %v", e, err)
			}
			if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("want an error about %q, got %v", c.says, err)
			}
			if c.name == "on first use" && seen != s.Fingerprint {
				t.Errorf("it said that it believes %q, the authority has %s", seen, s.Fingerprint)
			}
			if c.says == "unknown authority" && !enrol.Unknown(err) {
				t.Errorf("%v is not told apart", err)
			}
			if c.says != "" && c.says != `product "gateway"` && len(s.Requests) > 0 {
				t.Errorf("something was said to a server that is not believed: %v", s.Requests)
			}
		})
	}
}

func TestPendingUntilAPersonDecides(t *testing.T) {
	s := servertest.Start(t, false)
	c := machine(t, s, nil)
	backoff := exchange.Backoff{First: time.Millisecond, Last: time.Millisecond, Random: func() float64 { return 0 }}
	waits := 0
	e, err := c.Until(t.Context(), backoff, func(err error) {
		var pending *enrol.Pending
		if !errors.As(err, &pending) || err.Error() != "it waits for an operator to accept serial SN1: an operator must look at it" {
			t.Errorf("%v", err)
		}
		if waits++; waits == 3 {
			s.Lock()
			s.Devices[c.Keys.ID()].Accepted = true
			s.Unlock()
		}
	})
	if err != nil || e.Device != "dev-sn1" || waits != 3 {
		t.Errorf("%+v, %v after %d", e, err, waits)
	}
	s.Refused["SN9"] = true
	_, err = machine(t, s, func(r *enrol.Request) { r.Serial = "SN9" }).Until(t.Context(), backoff, func(error) { t.Error("asked again") })
	if !enrol.Final(err) || exchange.Code(err) != protocol.CodeRefused {
		t.Errorf("refused: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	if _, err := machine(t, s, func(r *enrol.Request) { r.Serial = "SN5" }).Until(ctx, backoff, func(error) { stop() }); err == nil {
		t.Error("it ended without an error")
	}
}

// TestHostileAnswers: none is taken, none takes for ever, none takes memory.
func TestHostileAnswers(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it went elsewhere") }))
	defer elsewhere.Close()
	good := func(s *servertest.Server) protocol.Enrolled {
		return protocol.Enrolled{
			Status: protocol.EnrolmentAccepted, Device: "d", Pipeline: "demo", Product: "gateway", AssignmentKey: make([]byte, 32), Archive: s.URL, ArchiveKey: s.Certificate,
		}
	}
	for _, c := range []struct {
		name string
		lie  func(*protocol.Enrolled, http.ResponseWriter) (answered bool)
		says string
	}{
		{"as it should be", func(*protocol.Enrolled, http.ResponseWriter) bool { return false }, ""},
		{"no assignment key", func(e *protocol.Enrolled, _ http.ResponseWriter) bool { e.AssignmentKey = nil; return false }, "assignment key"},
		{"a name that climbs", func(e *protocol.Enrolled, _ http.ResponseWriter) bool { e.Device = "../x"; return false }, "name of a device"},
		{"a pipeline with a line feed", func(e *protocol.Enrolled, _ http.ResponseWriter) bool { e.Pipeline = "a\nb"; return false }, "name of a pipeline"},
		{"a password that adds a line to apt's file", func(e *protocol.Enrolled, _ http.ResponseWriter) bool { e.Password = "x\nmachine y"; return false }, "password"},
		{"no archive key", func(e *protocol.Enrolled, _ http.ResponseWriter) bool { e.ArchiveKey = ""; return false }, "archive key"},
		{"an archive of files", func(e *protocol.Enrolled, _ http.ResponseWriter) bool { e.Archive = "file:///etc"; return false }, "URL"},
		{"an authority that is none", func(e *protocol.Enrolled, _ http.ResponseWriter) bool { e.CA = "x"; return false }, "authority"},
		{"no status", func(e *protocol.Enrolled, _ http.ResponseWriter) bool { e.Status = ""; return false }, "status"},
		{"a redirect", func(_ *protocol.Enrolled, w http.ResponseWriter) bool {
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		}, "not followed"},
		{"half a body", func(_ *protocol.Enrolled, w http.ResponseWriter) bool {
			w.Header().Set("Content-Length", "1000")
			_, err := w.Write([]byte(`{"status":"accepted"`))
			return err == nil
		}, "breaks off"},
		{"100 MB", func(_ *protocol.Enrolled, w http.ResponseWriter) bool {
			block := []byte(strings.Repeat(" ", 1<<20))
			for range 100 {
				if _, err := w.Write(block); err != nil {
					break // it has seen enough
				}
			}
			return true
		}, "more than"},
		{"HTML", func(_ *protocol.Enrolled, w http.ResponseWriter) bool {
			_, err := w.Write([]byte("<html>log in</html>"))
			return err == nil
		}, "not of the protocol"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := servertest.Start(t, false)
			s.Lie = func(w http.ResponseWriter, _ *http.Request) bool {
				if answer := good(s); !c.lie(&answer, w) {
					servertest.Answer(w, http.StatusOK, answer)
				}
				return true
			}
			_, err := machine(t, s, nil).Ask(t.Context())
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("want %q, got %v", c.says, err)
			}
		})
	}
}
