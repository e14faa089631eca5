package apt_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"aptfleet/device-updater/internal/apt"
)

// line is a connection to an archive that breaks in the middle of packages.
type line struct {
	files http.Handler
	mu    sync.Mutex
	cutAt int64    // bytes of a .deb that come through; 0: all
	asked []string // Range of each request for a .deb
	sent  int64    // bytes of .debs
}

func (l *line) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, ".deb") {
		l.files.ServeHTTP(w, r)
		return
	}
	l.mu.Lock()
	l.asked = append(l.asked, r.Header.Get("Range"))
	cut := l.cutAt
	l.mu.Unlock()
	l.files.ServeHTTP(&breaking{ResponseWriter: w, line: l, left: cut}, r)
}

// breaking is an answer that ends after so many bytes.
type breaking struct {
	http.ResponseWriter
	line *line
	left int64
}

func (b *breaking) Write(p []byte) (int, error) {
	if b.left > 0 && int64(len(p)) >= b.left {
		p = p[:b.left]
		defer func() {
			http.NewResponseController(b.ResponseWriter).Flush()
			panic(http.ErrAbortHandler) // cuts the connection
		}()
	}
	n, err := b.ResponseWriter.Write(p)
	b.line.mu.Lock()
	b.line.sent += int64(n)
	b.line.mu.Unlock()
	b.left -= int64(n)
	return n, err
}

// large is a package of 3 MB whose bytes are all different from one another.
func large(version string) pkg {
	var text bytes.Buffer
	for i := range 300_000 {
		fmt.Fprintf(&text, "%09d\n", i)
	}
	return pkg{name: "large", version: version, files: map[string]string{"usr/share/large": text.String()}}
}

// TestADownloadThatWasCutGoesOn: the next attempt, of another process, asks for
// the rest alone; what comes together is what the index says.
func TestADownloadThatWasCutGoesOn(t *testing.T) {
	s := newShelf(t)
	s.release("one", large("1"), pkg{name: "small", version: "1"})
	l := &line{files: http.FileServer(http.Dir(s.Dir)), cutAt: 1_000_000}
	web := httptest.NewServer(l)
	defer web.Close()
	dir := filepath.Join(t.TempDir(), "apt")
	attempt := func() (apt.Plan, error) {
		t.Helper()
		p, err := apt.NewPrivate(dir, apt.Source{URL: web.URL + "/one", Distribution: "trixie", Components: []string{"main"}, Keyring: s.Keyring})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Update(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := p.Solve(t.Context(), []string{"large", "small"})
		if err != nil {
			t.Fatal(err)
		}
		plan := apt.MakePlan(list, nil, nil, s.Native)
		if err := p.Measure(t.Context(), &plan); err != nil {
			t.Fatal(err)
		}
		var last apt.Fetched
		err = p.Download(t.Context(), plan, nil, func(f apt.Fetched) { last = f })
		if last.AllBytes != plan.FetchSize() || (last.Bytes == last.AllBytes) != (err == nil) || err == nil && last.Bytes < plan.Here {
			t.Errorf("it had %d bytes, and says %+v (%v)", plan.Here, last, err)
		}
		return plan, err
	}
	// apt tries again by itself, from where it was, but not for ever.
	l.cutAt = 400_000
	plan, err := attempt()
	if err == nil || plan.Here != 0 {
		t.Fatalf("%v; %d bytes were here", err, plan.Here)
	}
	partial, err := os.Stat(filepath.Join(dir, "archives/partial/large_1_all.deb"))
	if err != nil || partial.Size() == 0 || partial.Size() >= plan.FetchSize() {
		t.Fatalf("nothing is left of it: %v", err)
	}
	l.mu.Lock()
	l.cutAt, l.asked, l.sent = 0, nil, 0
	l.mu.Unlock()
	if plan, err = attempt(); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("bytes=%d-", partial.Size())
	if len(l.asked) == 0 || l.asked[0] != want {
		t.Errorf("it asked for %q, want %q", l.asked, want)
	}
	if rest := plan.FetchSize() - partial.Size(); l.sent > rest {
		t.Errorf("%d bytes were sent, %d were missing", l.sent, rest)
	}
	if plan.Here < partial.Size() {
		t.Errorf("%d bytes were here, the plan says %d", partial.Size(), plan.Here)
	}

	// Bytes that are not those of the file are found out, and the attempt after
	// that begins anew.
	final := filepath.Join(dir, "archives/large_1_all.deb")
	if err := os.Remove(final); err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Repeat([]byte("x"), int(partial.Size()))
	path := filepath.Join(dir, "archives/partial/large_1_all.deb")
	if err := os.WriteFile(path, wrong, 0o600); err != nil {
		t.Fatal(err)
	}
	original, err := os.Stat(filepath.Join(s.Dir, "one/pool/large_1_all.deb"))
	if err != nil {
		t.Fatal(err)
	}
	// apt asks for the rest only of a file that is as old as the server's.
	if err := os.Chtimes(path, original.ModTime(), original.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, err := attempt(); err == nil {
		t.Log("apt began anew by itself")
	}
	if _, err := attempt(); err != nil {
		t.Errorf("the attempt after that: %v", err)
	}
	content, err := os.ReadFile(final)
	if err != nil || bytes.HasPrefix(content, []byte("xxxx")) {
		t.Errorf("%v", err)
	}

	// What is here of a release that is not wanted any more goes.
	stale := filepath.Join(dir, "archives/partial/old_1_all.deb")
	if err := os.WriteFile(stale, wrong, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := attempt(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("it stays: %v", err)
	}
}

// TestMeasure: sizes come from the index.
func TestMeasure(t *testing.T) {
	s := newShelf(t)
	s.release("one", pkg{name: "app", version: "1:1.0", fields: "Installed-Size: 700\nDepends: lib\n"}, pkg{name: "lib", version: "1"})
	p := s.private("one")
	if err := p.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, err := p.Solve(t.Context(), []string{"app"})
	if err != nil {
		t.Fatal(err)
	}
	plan := apt.MakePlan(append(list, apt.LocalPackage("own", "all", "1", "", 5, "/nowhere.deb")), nil, nil, s.Native)
	if err := p.Measure(t.Context(), &plan); err != nil || len(plan.Installed) != 1 || plan.Installed["app:all=1:1.0"] != 700<<10 || plan.Here != 0 {
		t.Errorf("%v, %+v", err, plan)
	}
	if err := p.Download(t.Context(), apt.MakePlan(list, nil, nil, s.Native), nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Measure(t.Context(), &plan); err != nil || plan.Here != plan.FetchSize()-5 {
		t.Errorf("%v, %d of %d bytes are here", err, plan.Here, plan.FetchSize())
	}
	empty := apt.Plan{}
	if err := p.Measure(t.Context(), &empty); err != nil || len(empty.Installed) > 0 {
		t.Errorf("%v, %+v", err, empty)
	}
}
