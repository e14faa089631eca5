package mirror

import (
	"fmt"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"
)

// A server may do whatever it likes: an update ends, soon, says at which file,
// and changes nothing.
func TestAHostileServerChangesNothing(t *testing.T) {
	on := func(file string, do func(w http.ResponseWriter, r *http.Request)) func(*archive) {
		return func(a *archive) {
			a.serve = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, file) {
					return false
				}
				do(w, r)
				return true
			}
		}
	}
	// drip brings a byte now and then, for ever.
	drip := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}
	// flood brings as much as is taken.
	flood := func(w http.ResponseWriter, r *http.Request) {
		junk := make([]byte, 1<<16)
		for r.Context().Err() == nil {
			if _, err := w.Write(junk); err != nil {
				return
			}
		}
	}
	silence := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	circle := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path+"?again", http.StatusFound)
	}
	away := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	}
	breaks := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write([]byte("short"))
		panic(http.ErrAbortHandler)
	}
	const stalled = "less than 1024 bytes"
	at := func(file string) func(a *archive) {
		return func(a *archive) {
			a.debs["amd64"] = strings.Replace(base, "Package: hello\n", "Package: hello\nAt: "+file+"\n", 1)
			a.publish()
		}
	}
	for name, c := range map[string]struct {
		spoil func(*archive)
		says  []string
	}{
		"InRelease that drips":       {on("InRelease", drip), []string{"InRelease", stalled}},
		"InRelease that never comes": {on("InRelease", silence), []string{"InRelease", stalled}},
		"InRelease that never ends":  {on("InRelease", flood), []string{"InRelease", "longer than"}},
		"InRelease in a circle":      {on("InRelease", circle), []string{"InRelease", "redirects"}},
		"InRelease from elsewhere":   {on("InRelease", away), []string{"InRelease", "unsupported protocol"}},
		"index that drips":           {on("by-hash", drip), []string{"Packages.xz", stalled}},
		"index that never comes":     {on("by-hash", silence), []string{"Packages.xz", stalled}},
		"index that never ends":      {on("by-hash", flood), []string{"Packages.xz", "longer than"}},
		"index in a circle":          {on("by-hash", circle), []string{"Packages.xz", "redirects"}},
		"index that breaks off":      {on("by-hash", breaks), []string{"Packages.xz", "EOF"}},
		"package that drips":         {on("hello_2", drip), []string{"hello_2.10-3.deb", stalled}},
		"package that never comes":   {on("hello_2", silence), []string{"hello_2.10-3.deb", stalled}},
		"package that never ends":    {on("hello_2", flood), []string{"hello_2.10-3.deb", "longer than"}},
		"package in a circle":        {on("hello_2", circle), []string{"hello_2.10-3.deb", "redirects"}},
		"package that breaks off":    {on("hello_2", breaks), []string{"hello_2.10-3.deb", "EOF"}},
		"Filename above the archive": {at("../../etc/passwd"), []string{"hello 2.10-3", "not a plain path"}},
		"Filename inside and out":    {at("pool/../../secret.deb"), []string{"hello 2.10-3", "not a plain path"}},
		"Filename at the root":       {at("/etc/passwd"), []string{"hello 2.10-3", "not a plain path"}},
		"version that no file name holds": {func(a *archive) {
			a.debs["amd64"] = strings.Replace(base, "2.10-3", "2.10-"+strings.Repeat("3", 240), 1)
			a.publish()
		}, []string{"its file would have a name of 261 bytes, 255 are possible"}},
		"Filename that is another's": {at("dists/trixie/InRelease"), []string{"dists/trixie/InRelease"}},
		"no by-hash, and the index by name is of the next publication": {func(a *archive) {
			a.serve = func(w http.ResponseWriter, r *http.Request) bool {
				if strings.Contains(r.URL.Path, "/by-hash/") {
					http.NotFound(w, r)
					return true
				}
				if path.Base(r.URL.Path) == "Packages.xz" {
					_, _ = w.Write(toXZ(a.t, base+"\nPackage: next\nVersion: 1\nArchitecture: amd64\n"))
					return true
				}
				return false
			}
		}, []string{"Packages.xz"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newArchive(t)
			c.spoil(a)
			r := newRig(t, a)
			r.updater.config.Stall = 100 * time.Millisecond
			began := time.Now()
			err := r.update(t.Context(), a.config("hello"), &fakeProgress{})
			if err == nil || r.engine.replaced != 0 {
				t.Fatalf("error %v, %d replacements", err, r.engine.replaced)
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q: %v", want, err)
				}
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			if kept := filesBelow(t, r.dir); strings.Contains(kept, "InRelease") || strings.Contains(kept, "selection") {
				t.Errorf("kept: %s", kept)
			}
		})
	}
}

// Upstream publishes between our InRelease and our index, and its old indices
// are gone: that update fails, and the next one is right.
func TestUpstreamMovesDuringAnUpdate(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	moved := false
	a.serve = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/by-hash/") && !moved {
			moved = true
			a.debs["amd64"] = strings.Replace(base, "Version: 3.0", "Version: 3.1", 1)
			a.date = a.date.Add(time.Second)
			a.publish()
			// This request still sees the tree as it was; the retries do not.
			w := fmt.Sprintf("dists/trixie/main/binary-amd64/by-hash/SHA256/%s", path.Base(r.URL.Path))
			a.mu.Lock()
			delete(a.files, w)
			a.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
		return false
	}
	err := r.update(t.Context(), a.config("hello"), &fakeProgress{})
	if err == nil || !strings.Contains(err.Error(), "Packages.xz") || r.engine.replaced != 0 {
		t.Fatalf("error %v, %d replacements", err, r.engine.replaced)
	}
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.versions(), "apt=3.1") {
		t.Errorf("the mirror has %s", r.versions())
	}
}

// An update and diffs of the same mirror may be asked for at once.
func TestLooksAtOnce(t *testing.T) {
	a := newArchive(t)
	r := newRig(t, a)
	errs := make(chan error)
	for range 4 {
		go func() {
			_, err := r.updater.plan(t.Context(), r.pipeline, "debian", a.config("hello"), false, &fakeProgress{})
			errs <- err
		}()
	}
	if err := r.update(t.Context(), a.config("hello"), &fakeProgress{}); err != nil {
		t.Error(err)
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
