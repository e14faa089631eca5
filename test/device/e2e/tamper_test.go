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
	"sync/atomic"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/internal/sign"
)

// tamperer stands between a device and the server, and changes what passes.
type tamperer struct {
	url string
	hit atomic.Int64 // answers that were changed
}

// newTamperer serves what the server serves; change gets the path and body of
// every good answer and returns the body to send instead.
func newTamperer(t *testing.T, change func(path string, body []byte) []byte) *tamperer {
	t.Helper()
	upstream, err := url.Parse(world.site.plain)
	if err != nil {
		t.Fatal(err)
	}
	p := &tamperer{}
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
		changed := change(r.Request.URL.Path, bytes.Clone(body))
		if !bytes.Equal(body, changed) {
			p.hit.Add(1)
		}
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

// flip changes one byte in the middle.
func flip(body []byte) []byte {
	if len(body) > 0 {
		body[len(body)/2] ^= 0x01
	}
	return body
}

func TestADeviceRefusesWhatWasTamperedWithAndSaysWhy(t *testing.T) {
	changes := []struct {
		name   string
		change func(t *testing.T) func(path string, body []byte) []byte
		why    []string // one of these must be in the reason
	}{
		{"a .deb", func(*testing.T) func(string, []byte) []byte {
			return func(path string, body []byte) []byte {
				if strings.HasSuffix(path, ".deb") && strings.Contains(path, "demo-app") {
					return flip(body)
				}
				return body
			}
		}, []string{"demo-app"}},
		{"an index", func(*testing.T) func(string, []byte) []byte {
			return func(path string, body []byte) []byte {
				if strings.Contains(path, "/binary-") {
					return flip(body)
				}
				return body
			}
		}, []string{"Hash Sum mismatch", "hash", "Packages"}},
		{"an InRelease", func(*testing.T) func(string, []byte) []byte {
			return func(path string, body []byte) []byte {
				if strings.HasSuffix(path, "/InRelease") {
					return bytes.Replace(body, []byte("Suite: "), []byte("Suite: x"), 1)
				}
				return body
			}
		}, []string{"signature", "InRelease"}},
		{"an InRelease that has expired", expire, []string{"valid until"}},
	}
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			proxy := newTamperer(t, c.change(t))
			d := newDevice(t, plain, func(d *fielded) { d.archive = proxy.url })
			before := world.releases["1"].State
			d.on()
			d.promote("2")
			var report protocol.Report
			d.await("a refusal in its status", func() bool {
				report = d.status()
				return contains(report.WhyNot+" "+report.LastError, c.why) && proxy.hit.Load() > 0
			})
			t.Logf("why not: %s; last error: %s", report.WhyNot, report.LastError)
			time.Sleep(2 * time.Second) // two polls: time for it to do what it must not
			if d.committed() != 1 || len(d.Boots()) != 1 || d.trials() != 0 {
				t.Errorf("it left its deployment: committed %d, boots %+v", d.committed(), d.Boots())
			}
			if got := d.stateOf(1); got != before {
				t.Errorf("deployment 1 is of state %q, want %q", got, before)
			}
			d.runs("1", "demo-app")
			// The archive as it is, and all is well.
			d.off()
			d.archive = world.site.plain
			d.configure()
			d.on()
			d.awaitCommit("2")
		})
	}
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
func expire(t *testing.T) func(path string, body []byte) []byte {
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
