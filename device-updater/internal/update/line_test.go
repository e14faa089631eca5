package update

import (
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/device-updater/internal/apttest"
	"aptfleet/device-updater/internal/archive"
	"aptfleet/internal/bom"
	"aptfleet/internal/protocol"
	"aptfleet/test/order"
)

// breakage is what becomes of an answer on its way.
type breakage string

const (
	isReset     breakage = "reset"       // before its first byte
	isCut       breakage = "cut"         // in the middle of its body
	tlsBreaks   breakage = "tls"         // the same, without an end of TLS, by a reset
	isTruncated breakage = "truncated"   // somebody between says that half of it is all
	isReplaced  breakage = "portal"      // somebody between answers 200 with a page
	isRefused   breakage = "unavailable" // somebody between answers 502
	isStalled   breakage = "stalled"     // half of it comes, and then nothing more
)

// brokenLine is TLS to the archive that breaks at the n-th request for one thing,
// and at all later ones.
type brokenLine struct {
	files http.Handler
	mu    sync.Mutex
	how   breakage // "": it is whole
	what  string   // part of the path
	from  int      // the number of the first request that breaks
	asked int
	gone  chan struct{} // closed when the test ends
}

func (l *brokenLine) set(how breakage, what string, from int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.how, l.what, l.from, l.asked = how, what, from, 0
}

func (l *brokenLine) broken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked >= l.from
}

func (l *brokenLine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	how := l.how
	if how != "" && strings.Contains(r.URL.Path, l.what) {
		l.asked++
	}
	if l.asked < l.from || !strings.Contains(r.URL.Path, l.what) {
		how = ""
	}
	l.mu.Unlock()
	if how == "" {
		l.files.ServeHTTP(w, r)
		return
	}
	whole := httptest.NewRecorder()
	r.Header.Del("Range")
	r.Header.Del("If-Range")
	r.Header.Del("If-Modified-Since")
	l.files.ServeHTTP(whole, r)
	body := whole.Body.Bytes()
	half := body[:len(body)/2]
	switch how {
	case isRefused:
		http.Error(w, "no way", http.StatusBadGateway)
		return
	case isReplaced:
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintln(w, "<html>please log in</html>")
		return
	case isTruncated:
		w.Header().Set("Content-Length", fmt.Sprint(len(half)))
		_, _ = w.Write(half)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	if how != isReset {
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), half)
	}
	if how == isStalled {
		select {
		case <-l.gone:
		case <-time.After(5 * time.Minute):
		}
	}
	if below, ok := conn.(interface{ NetConn() net.Conn }); ok && (how == isReset || how == tlsBreaks) {
		_ = below.NetConn().(*net.TCPConn).SetLinger(0)
		_ = below.NetConn().Close()
	}
}

// TestTheLineBreaks at each thing that a device fetches for an assigned release,
// in each way. Nothing is left of the attempt but what was downloaded, nothing is
// held against the release, and a later attempt that nobody asks for makes the
// update.
func TestTheLineBreaks(t *testing.T) {
	b := newBench(t, 2<<30)
	before := b.describe()
	line := &brokenLine{files: http.FileServer(http.Dir(b.fleet.archive.Dir)), gone: make(chan struct{})}
	web := httptest.NewTLSServer(line)
	t.Cleanup(func() { close(line.gone); web.Close() })
	b.source.CA = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(b.source.CA, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	b.source.Client.URL = web.URL
	b.source.Client.HTTP = &http.Client{Timeout: 2 * time.Second, Transport: web.Client().Transport}
	b.source.SetClock = func(time.Time) error { return nil }
	b.source.Architecture = b.fleet.archive.Native
	o := &assignments{}
	b.source.Assignments = o
	var later time.Duration
	b.machine.Clock = func() time.Time { return time.Now().Add(later) }

	more := app("true")
	more.Fields = "Depends: lib\n"
	b.ship(more, updater(), apttest.Package{Name: "lib", Version: "1", Files: map[string]string{"usr/share/lib": strings.Repeat("lib\n", 5000)}})
	b.assign(o)
	attempt := func() error {
		// As a daemon that has been started again: all is fetched.
		b.source.assigned, b.source.private, b.source.opened, o.refused = nil, nil, "", nil
		if err := b.source.Clean(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(b.source.Records.path(bomDir)); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(b.source.Dir, "lists")); err != nil {
			t.Fatal(err)
		}
		later += time.Hour
		return b.machine.Update(t.Context(), Options{Patient: true})
	}
	things := []struct {
		name, path string
		from       int
	}{
		{"InRelease of what is assigned", "/InRelease", 1}, {"InRelease once more, before it is used", "/InRelease", 2}, {"InRelease of apt", "/InRelease", 3},
		{"the index", "/Packages", 1}, {"the bill of materials", "/boms/", 1}, {"a package", "/app_", 1}, {"another package", "/lib_", 1},
	}
	ways := []breakage{isReset, isCut, tlsBreaks, isTruncated, isReplaced, isRefused, isStalled}
	for i, thing := range things {
		for j, how := range ways {
			byApt := thing.from == 3 || thing.path != "/InRelease" && thing.path != "/boms/"
			// apt tries each thing three times: by default one way in three, and
			// those that wait for half a minute not at all.
			if !order.Long() && byApt && (how == isStalled || (i+j)%3 != 0) {
				continue
			}
			t.Run(thing.name+"/"+string(how), func(t *testing.T) {
				line.set(how, thing.path, thing.from)
				err := attempt()
				if err == nil || !line.broken() {
					t.Fatalf("%v; it came to that request: %v", err, line.broken())
				}
				t.Log(err)
				if why := b.failed(); why != "" {
					t.Errorf("held against the release: %s", why)
				}
				if o.refused != nil && how != isTruncated && how != isReplaced {
					t.Errorf("the server is told that it is not what it should be: %+v", o.refused)
				}
				if s := b.machine.Status(); b.machine.Journal.Last().Open() || s.WhyNot == "" || s.LastError == "" {
					t.Errorf("%+v, %+v", b.machine.Journal.Last(), s)
				}
				for _, dir := range []string{"base", "pristine"} {
					if names, err := b.roots.List(dir); err != nil || len(names) > 0 {
						t.Errorf("left in %s: %v, %v", dir, names, err)
					}
				}
				if n, err := b.Deployments(); err != nil || len(n) != 1 {
					t.Errorf("deployments %v, %v", n, err)
				}
				if !order.Long() {
					return
				}
				line.set("", "", 0)
				if err := attempt(); err != nil || o.refused != nil {
					t.Fatalf("a later attempt: %v, %+v", err, o.refused)
				}
				if got := b.read(b.staged("usr/share/app/version")); got != "2\n" {
					t.Errorf("staged is %q", got)
				}
				if err := b.machine.discard(t.Context(), b.machine.Journal.Last(), "only a test"); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	line.set("", "", 0)
	if err := attempt(); err != nil || b.read(b.staged("usr/share/app/version")) != "2\n" {
		t.Errorf("in the end: %v", err)
	}
	if b.describe() != before {
		t.Error("the running root has changed")
	}
}

// assign assigns the newest release, with what apt computes as its bill of
// materials.
func (b *bench) assign(o *assignments) {
	b.t.Helper()
	d := b.fleet.device(b.fleet.factory)
	state := benchState(b.shipped)
	if _, err := d.source.Offer(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	if err := d.source.open(b.t.Context(), Offer{State: state}); err != nil {
		b.t.Fatal(err)
	}
	list, err := d.source.private.Solve(b.t.Context(), benchTop)
	if err != nil {
		b.t.Fatal(err)
	}
	bill := bom.BOM{State: state, Product: "gateway", Architecture: b.fleet.archive.Native, TopLevel: benchTop}
	for _, p := range list {
		bill.Packages = append(bill.Packages, bom.Package{Name: p.Name, Architecture: p.Architecture, Version: p.Version, SHA256: p.SHA256})
	}
	text := bill.Encode()
	b.fleet.archive.Write("demo/boms/"+bom.Sum(text), text)
	base := "demo/states/" + state
	client := archive.Client{HTTP: http.DefaultClient, URL: b.fleet.archive.URL, Distribution: "trixie", Keyring: b.fleet.archive.Keyring, Clock: time.Now}
	offer, err := client.Check(b.t.Context(), base, time.Time{}, time.Time{})
	if err != nil {
		b.t.Fatal(err)
	}
	o.a = &protocol.Assignment{Version: 1, Pipeline: "demo", Product: "gateway", Release: &protocol.AssignedRelease{
		State: state, Base: base, Distribution: "trixie", Components: []string{"main"}, Release: offer.Release, BOM: bom.Sum(text), BOMSize: int64(len(text)),
	}}
}
