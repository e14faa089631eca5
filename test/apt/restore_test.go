package apt

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"aptfleet/test/rig"
)

// moving is the name that machines know an archive by: a web server that gives
// out the tree of one server after another.
type moving struct {
	*httptest.Server
	tree atomic.Pointer[string]
}

func newMoving(t *testing.T) *moving {
	t.Helper()
	m := new(moving)
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.FileServer(http.Dir(*m.tree.Load())).ServeHTTP(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

// lead makes the name lead to a server.
func (m *moving) lead(s *server) {
	tree := filepath.Join(s.Data, "public")
	m.tree.Store(&tree)
	s.public = m.URL
}

// next is a server on what was restored from backups, under the same name and
// with other listeners.
func (m *moving) next(t *testing.T, before *server, backups string, flags ...string) *server {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	if out, code := before.tool(append([]string{"restore", backups, "--data", data}, flags...)...); code != 0 {
		t.Fatalf("restore: %s", out)
	}
	running, err := rig.Start(t.Context(), rig.Config{Program: shared.program, Data: data, Settings: []string{"url: " + m.URL}})
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Server: running, t: t, trusting: before.trusting}
	t.Cleanup(s.stop)
	m.lead(s)
	return s
}

// A server is lost, and with it what it published after its last backup.
// Machines go on with the one that takes its place.
func TestMachinesFollowARestoredServer(t *testing.T) {
	for _, suite := range suites {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			name := newMoving(t)
			lost := newServer(t, "url: "+name.URL)
			name.lead(lost)
			lost.upload("hello", "1.0")
			lost.promote("dev", "canary")
			backups := filepath.Join(t.TempDir(), "backup")
			if out, code := lost.tool("backup", backups); code != 0 {
				t.Fatalf("backup: %s", out)
			}
			saved, err := os.ReadFile(lost.files("demo/dev/dists/trixie/InRelease")[0])
			if err != nil {
				t.Fatal(err)
			}
			lost.upload("hello", "2.0")
			ahead := newMachine(t, suite, lost, "demo/dev")
			ahead.update()
			ahead.wantCandidate("hello", "2.0")
			lost.stop()

			// As it was at the backup: who never saw more installs from it, and
			// apt silently keeps what it knows that is newer.
			same := name.next(t, lost, backups)
			if now := same.download("demo/dev/dists/trixie/InRelease"); string(now) != string(saved) {
				t.Errorf("dev offers\n%s\nwant\n%s", now, saved)
			}
			fresh := newMachine(t, suite, same, "demo/canary")
			fresh.update()
			fresh.apt("install", "hello")
			fresh.wantInstalled("hello", "1.0")
			ahead.update()
			ahead.wantCandidate("hello", "2.0")
			same.stop()

			// Signed anew, it is an undo for those who were ahead.
			anew := name.next(t, lost, backups, "--sign-anew")
			for _, file := range anew.files("demo/dev/dists/trixie/" + component + "/binary-amd64/Packages.*") {
				if info, err := os.Stat(file); err != nil || time.Until(info.ModTime()) < 50*time.Minute {
					t.Errorf("%s may be of a second in which the lost server made another: %v, %v", file, info.ModTime(), err)
				}
			}
			ahead.update()
			ahead.wantCandidate("hello", "1.0")
			ahead.apt("install", "hello")
			ahead.wantInstalled("hello", "1.0")

			anew.upload("hello", "2.0")
			anew.promote("dev", "canary")
			fresh.update()
			fresh.apt("install", "hello")
			fresh.wantInstalled("hello", "2.0")
		})
	}
}
