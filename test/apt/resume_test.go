package apt

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// apt goes on with an index that it has a part of, from an update that broke
// off, if the time of modification is the one it saw then. By then the index may
// be another one, published within the same second: its end must not be put
// behind the other's beginning.
func TestADownloadThatBrokeOff(t *testing.T) {
	onEach(t, func(t *testing.T, suite string) {
		s := newServer(t)
		s.upload("demo-app", "1.0")
		target, err := url.Parse(s.public)
		if err != nil {
			t.Fatal(err)
		}
		var resumed atomic.Int64
		forward := httputil.NewSingleHostReverseProxy(target)
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" && strings.Contains(r.URL.Path, "/by-hash/") {
				resumed.Add(1)
			}
			forward.ServeHTTP(w, r)
		}))
		defer proxy.Close()
		s.public = proxy.URL
		m := newMachine(t, suite, s, "demo/dev")
		m.update()
		base := strings.ReplaceAll(strings.TrimPrefix(proxy.URL, "http://")+"/demo/dev/dists/"+distribution+"/"+component+"/binary-amd64/", "/", "_")
		for _, name := range []string{"demo-b", "demo-c", "demo-d", "demo-e"} {
			for time.Now().Nanosecond() > 500_000_000 { // so that two publications fit into this second
				time.Sleep(10 * time.Millisecond)
			}
			s.upload(name, "1.0")
			for _, file := range s.files("demo/dev/dists/" + distribution + "/" + component + "/binary-amd64/Packages.*") {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				info, err := os.Stat(file)
				if err != nil {
					t.Fatal(err)
				}
				part := "/var/lib/apt/lists/partial/" + base + filepath.Base(file)
				m.write(part, content)
				if err := os.Chtimes(filepath.Join(m.dir, "upper", part), info.ModTime(), info.ModTime()); err != nil {
					t.Fatal(err)
				}
			}
			s.upload(name, "1.1~a-longer-version-than-the-one-before")
			m.update()
			m.wantCandidate(name, "1.1~a-longer-version-than-the-one-before")
		}
		if resumed.Load() == 0 {
			t.Error("apt never asked for the rest of an index: nothing was tested")
		}
	})
}
