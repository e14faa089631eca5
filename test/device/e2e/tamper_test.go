package e2e

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/internal/sign"
)

// tamperer stands between a device and the server, and changes what passes.
type tamperer struct {
	url    string
	mu     sync.Mutex
	change change
	hit    bool // an answer was changed
}

// change gets the path and body of a good answer and returns the body to send
// instead.
type change func(path string, body []byte) []byte

// newTamperer serves what the server serves.
func newTamperer(t *testing.T) *tamperer {
	t.Helper()
	upstream, err := url.Parse(world.site.plain)
	if err != nil {
		t.Fatal(err)
	}
	p := &tamperer{change: honest}
	proxy := httputil.NewSingleHostReverseProxy(upstream)
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.StatusCode != http.StatusOK || r.Request.Method != http.MethodGet {
			return nil
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if err := r.Body.Close(); err != nil {
			return err
		}
		changed := p.pass(r.Request.URL.Path, body)
		r.Body = io.NopCloser(bytes.NewReader(changed))
		r.ContentLength = int64(len(changed))
		r.Header.Set("Content-Length", strconv.Itoa(len(changed)))
		return nil
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Whole answers only: a change would not fit a part or a "not modified".
		r.Header.Del("Range")
		r.Header.Del("If-Modified-Since")
		r.Header.Del("If-None-Match")
		r.Header.Del("Accept-Encoding")
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

// pass returns what is sent instead of body.
func (p *tamperer) pass(path string, body []byte) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := p.change(path, bytes.Clone(body))
	p.hit = p.hit || !bytes.Equal(body, changed)
	return changed
}

// set makes the tamperer change something else from now on.
func (p *tamperer) set(c change) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change, p.hit = c, false
}

// hasHit reports whether something was changed since set.
func (p *tamperer) hasHit() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hit
}

func honest(_ string, body []byte) []byte { return body }

// flip changes one byte in the middle.
func flip(body []byte) []byte {
	if len(body) > 0 {
		body[len(body)/2] ^= 0x01
	}
	return body
}

// What was read once is not read again, so each case gets a little further
// than the one before.
func TestADeviceRefusesWhatWasTamperedWithAndSaysWhy(t *testing.T) {
	t.Parallel()
	proxy := newTamperer(t)
	d := newDevice(t, plain, func(d *fielded) { d.archive = proxy.url })
	d.on()
	cases := []struct {
		name   string
		change change
		why    []string // one of these must be in the reason
	}{
		{"an InRelease that has expired", expire(t), []string{"valid until"}},
		{"an InRelease", func(path string, body []byte) []byte {
			if strings.HasSuffix(path, "/InRelease") {
				return bytes.Replace(body, []byte("Suite: "), []byte("Suite: x"), 1)
			}
			return body
		}, []string{"signature"}},
		{"an index", func(path string, body []byte) []byte {
			if strings.Contains(path, "/binary-") {
				return flip(body)
			}
			return body
		}, []string{"Hash Sum mismatch", "hash", "Packages"}},
		{"a .deb", func(path string, body []byte) []byte {
			if strings.HasSuffix(path, ".deb") && strings.Contains(path, "demo-app") {
				return flip(body)
			}
			return body
		}, []string{"demo-app"}},
	}
	proxy.set(cases[0].change)
	d.promote("2")
	said := ""
	for _, c := range cases {
		proxy.set(c.change)
		var report protocol.Report
		d.await("a refusal of "+c.name+" in its status", func() bool {
			report = d.status()
			now := report.WhyNot + " " + report.LastError
			return now != said && contains(now, c.why) && proxy.hasHit()
		})
		said = report.WhyNot + " " + report.LastError
		t.Logf("%s; why not: %s; last error: %s", c.name, report.WhyNot, report.LastError)
		d.stays()
		if d.committed() != 1 || len(d.Boots()) != 1 || d.trials() != 0 {
			t.Errorf("%s: it left its deployment: committed %d, boots %+v", c.name, d.committed(), d.Boots())
		}
		if got := d.stateOf(1); got != world.releases["1"].State {
			t.Errorf("%s: deployment 1 is of state %q, want %q", c.name, got, world.releases["1"].State)
		}
		d.runs("1", "demo-app")
	}
	// The archive as it is, and all is well.
	proxy.set(honest)
	d.awaitCommit("2")
}

func contains(text string, anyOf []string) bool {
	for _, word := range anyOf {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}

// expire serves stages with a properly signed InRelease whose Valid-Until has
// passed: what a device meets that somebody shows an old copy of the archive.
func expire(t *testing.T) change {
	armored, err := os.ReadFile(filepath.Join(world.site.Data, "keys/archive.key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.Load(armored)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := key.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	old := time.Now().UTC().Add(-48 * time.Hour)
	date := regexp.MustCompile(`(?m)^(Date|Valid-Until): .*$`)
	return func(path string, body []byte) []byte {
		if !strings.Contains(path, "/stage-") || !strings.HasSuffix(path, "/InRelease") {
			return body
		}
		text, _, err := sign.Verify(body, certificate, time.Now())
		if err != nil {
			t.Errorf("cannot verify %s: %v", path, err)
			return body
		}
		// Release files write times in RFC 1123 form, in UTC.
		text = date.ReplaceAllFunc(text, func(line []byte) []byte {
			if bytes.HasPrefix(line, []byte("Date")) {
				return []byte("Date: " + old.Format("Mon, 02 Jan 2006 15:04:05 UTC"))
			}
			return []byte("Valid-Until: " + old.Add(24*time.Hour).Format("Mon, 02 Jan 2006 15:04:05 UTC"))
		})
		signed, err := key.ClearSign(text, old)
		if err != nil {
			t.Errorf("cannot sign %s: %v", path, err)
			return body
		}
		return signed
	}
}
