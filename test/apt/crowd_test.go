package apt

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"aptfleet/internal/client"
	"aptfleet/test/order"
	"aptfleet/test/rig"
)

// squid runs a caching proxy and returns its URL.
func squid(t *testing.T) string {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "squid.conf")
	text := fmt.Sprintf(`http_port %[2]s
pid_filename none
coredump_dir %[1]s
cache_mem 256 MB
maximum_object_size_in_memory 64 MB
access_log none
cache_log /dev/null
cache_store_log none
shutdown_lifetime 1 second
pinger_enable off
http_access allow all
`, dir, address)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	program(t, address, "/usr/sbin/squid", "-N", "-f", conf)
	return "http://" + address
}

// fill adds n small packages, as CI would on its first day.
func (s *server) fill(n int) {
	s.t.Helper()
	dir := s.t.TempDir()
	for from := 0; from < n; from += 4000 {
		args := []string{"package", "add", component}
		for i := from; i < min(from+4000, n); i++ {
			// Spread over the alphabet, with a text that does not compress to nothing.
			sum := sha256.Sum256(fmt.Appendf(nil, "filler %d", i))
			name := fmt.Sprintf("%x-filler%05d", sum[:3], i)
			body, err := rig.Package("f"+name, "1.0", "all", nil, fmt.Sprintf("Depends: libc6 (>= 2.%d)", i%40), fmt.Sprintf("Homepage: https://example.org/%x", sum))
			if err != nil {
				s.t.Fatal(err)
			}
			file := filepath.Join(dir, fmt.Sprint(i)+".deb")
			if err := os.WriteFile(file, body, 0o644); err != nil {
				s.t.Fatal(err)
			}
			args = append(args, file)
		}
		if out, code := s.tool(args...); code != 0 {
			s.t.Fatalf("package add exits %d:\n%s", code, out)
		}
	}
}

// reader is an apt that reads again and again until it is told to stop.
type reader struct {
	*machine
	options []string
	updates atomic.Int64
}

func (r *reader) until(done <-chan struct{}) {
	for {
		out, code := r.run(r.t.Context(), append([]string{"apt-get", "update"}, r.options...)...)
		if code != 0 {
			r.t.Errorf("%s %v: update %d exits %d:\n%s", r.suite, r.options, r.updates.Load(), code, out)
			return
		}
		r.updates.Add(1)
		select {
		case <-done:
			return
		default:
		}
	}
}

// TestCrowd lets many uploaders at one large repository while its stages are
// promoted and undone, and apt reads it: throttled, so that one update spans
// many publications, directly, through nginx and through a caching proxy.
// Nothing is lost and whatever a client gets fits together. How long the
// uploaders wait is printed; the benchmarks hold it against its target.
func TestCrowd(t *testing.T) {
	packages, limit := 1500, 60 // kB/s
	if order.Long() {
		packages, limit = 60000, 900
	}
	const uploaders, atLeast = 16, 2
	s := newServer(t)
	for _, suite := range suites {
		s.trustingMachine(suite)
	}
	s.fill(packages)
	s.promote("dev", "canary")
	s.upload("crowd", "1.0")

	direct := s.public
	throttled := []string{"-o", fmt.Sprintf("Acquire::http::Dl-Limit=%d", limit)}
	proxied := append([]string{"-o", "Acquire::http::Proxy=" + squid(t)}, throttled...)
	static := nginx(t, filepath.Join(s.Data, "public"))
	var readers []*reader
	for _, suite := range suites {
		for _, r := range []struct {
			url, base string
			options   []string
		}{
			{direct, "demo/dev", throttled}, {direct, "demo/canary", throttled}, {direct, "demo/dev", proxied}, {direct, "demo/canary", proxied}, {static, "demo/dev", throttled},
		} {
			s.public = r.url
			readers = append(readers, &reader{machine: newMachine(t, suite, s, r.base), options: r.options})
		}
	}
	s.public = direct

	enough := func() bool {
		return !slices.ContainsFunc(readers, func(r *reader) bool { return r.updates.Load() < atLeast })
	}
	var reading, working sync.WaitGroup
	done := make(chan struct{})
	for _, r := range readers {
		reading.Go(func() { r.until(done) })
	}
	var slowest atomic.Int64 // of what a client waits for an InRelease
	reading.Go(func() {
		for n := 0; ; n++ {
			began := time.Now()
			answer, err := http.Get(direct + "/demo/dev/dists/" + distribution + "/InRelease")
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Errorf("InRelease: %v, %v", answer, err)
				return
			}
			if err := answer.Body.Close(); err != nil {
				t.Error(err)
			}
			slowest.Store(max(slowest.Load(), int64(time.Since(began))))
			select {
			case <-done:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	var mu sync.Mutex
	var waits []time.Duration
	sent := make(map[string]string)
	for u := range uploaders {
		working.Go(func() {
			for n := 0; !enough() && !t.Failed(); n++ {
				name, version := fmt.Sprintf("crowd-%02d-%d", u, n%3), fmt.Sprintf("1.%d", n)
				began := time.Now()
				up, err := s.tryUpload(t.Context(), name, version)
				if err != nil {
					t.Errorf("%s %s: %v", name, version, err)
					continue
				}
				mu.Lock()
				waits = append(waits, time.Since(began))
				sent[name] = version + " " + up.SHA256
				mu.Unlock()
			}
		})
	}
	uploading := make(chan struct{})
	moves := 0
	reading.Go(func() {
		for {
			if s.promote("dev", "canary").Seq > 0 {
				s.undo("canary")
				moves += 2
			}
			select {
			case <-uploading:
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	})
	working.Wait()
	close(uploading)
	close(done)
	reading.Wait()

	slices.Sort(waits)
	var updates int64
	for _, r := range readers {
		updates += r.updates.Load()
	}
	history, err := s.API.History(t.Context(), pipeline, "dev")
	if err != nil {
		t.Fatal(err)
	}
	if len(waits) > 0 {
		t.Logf("%d packages, %d uploads in %d publications waited %s (median), %s (99 %%), at most %s; %d promotions and undos; %d updates by %d clients; an InRelease took at most %s",
			packages, len(waits), len(history), waits[len(waits)/2], waits[len(waits)*99/100], waits[len(waits)-1], moves, updates, len(readers), time.Duration(slowest.Load()))
	}
	listed, err := s.API.Packages(t.Context(), pipeline, client.PackageQuery{Ref: "dev"})
	if err != nil {
		t.Fatal(err)
	}
	there := make(map[string]bool)
	for _, p := range listed {
		there[p.Name+" "+p.Version+" "+p.SHA256] = true
	}
	for name, last := range sent {
		if !there[name+" "+last] {
			t.Errorf("%s %s was answered with success and is not there", name, last)
		}
	}
	for _, r := range readers {
		if out, code := r.run(t.Context(), append([]string{"apt-get", "update"}, r.options[len(r.options)-2:]...)...); code != 0 {
			t.Errorf("%s: the last update exits %d:\n%s", r.suite, code, out)
		}
	}
	for _, m := range []*machine{readers[0].machine, readers[4].machine, readers[7].machine} {
		m.update()
		policy := m.must(append([]string{"apt-cache", "policy"}, slices.Sorted(maps.Keys(sent))...)...)
		for name, last := range sent {
			version, _, _ := strings.Cut(last, " ")
			if !strings.Contains(policy, name+":\n  Installed: (none)\n  Candidate: "+version+"\n") {
				t.Errorf("%s: apt does not offer %s %s", m.suite, name, version)
			}
		}
	}
	if out, code := s.tool("check"); code != 0 {
		t.Errorf("check exits %d:\n%s", code, out)
	}
}
