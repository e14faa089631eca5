package apt

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"aptfleet/test/rig"
)

// program runs a server in the foreground until the test ends.
func program(t *testing.T, address string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.WaitDelay = time.Second // what it started may hold its output open
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Logf("%s is gone already: %v", name, err)
		}
		select {
		case <-exited:
		case <-time.After(10 * time.Second):
			t.Errorf("%s does not stop", name)
			_ = cmd.Process.Kill() // the test has failed already
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", name, said.String())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen on %s: %v\n%s", name, address, err, said.String())
		}
	}
}

// freeAddress is for servers that cannot choose an address themselves.
func freeAddress(t *testing.T) string {
	t.Helper()
	address, err := rig.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// nginx serves a directory as Debian's nginx does, with its unprivileged
// workers, and returns its URL.
func nginx(t *testing.T, root string) string {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	// Only the directory of the test is closed to others, not what lies in it.
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; pid %[1]s/pid; error_log stderr; user www-data;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server { listen %[2]s; root %[3]s; location ~ /\. { return 404; } }
}
`, dir, address, root)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	program(t, address, "/usr/sbin/nginx", "-c", conf, "-p", dir, "-e", "stderr")
	return "http://" + address
}

// The published tree is plain files: nginx serves it as it lies there, and so
// is a copy by rsync, with its links and times.
func TestOtherServersServeTheTree(t *testing.T) {
	s := newServer(t)
	direct := s.public
	s.upload("demo-app", "1.0")
	snapshot := s.snapshot()
	s.promote(snapshot, "canary")
	s.upload("demo-app", "2.0")
	public := filepath.Join(s.Data, "public")
	mirror := filepath.Join(t.TempDir(), "mirror")
	copyTree := func() {
		t.Helper()
		out, err := exec.Command("rsync", "--archive", "--hard-links", "--delete-after", "--exclude=/.*", public+"/", mirror+"/").CombinedOutput()
		if err != nil {
			t.Fatalf("rsync: %v\n%s", err, out)
		}
	}
	copyTree()
	for _, suite := range suites {
		s.trustingMachine(suite)
	}
	for _, other := range []struct {
		name, url string
		refresh   func()
	}{{"nginx", nginx(t, public), func() {}}, {"a copy by rsync", nginx(t, mirror), copyTree}} {
		t.Run(other.name, func(t *testing.T) {
			s.public = other.url
			defer func() { s.public = direct }()
			for _, hidden := range []string{"/.indices/", "/.tmp/", "/demo/dev/.superseded"} {
				answer, err := http.Get(other.url + hidden)
				if err != nil {
					t.Fatal(err)
				}
				if err := answer.Body.Close(); err != nil || answer.StatusCode != http.StatusNotFound {
					t.Errorf("%s: %s, %v", hidden, answer.Status, err)
				}
			}
			for _, suite := range suites {
				for base, version := range map[string]string{"demo/dev": "2.0", "demo/canary": "1.0", "demo/snapshots/" + snapshot: "1.0"} {
					m := newMachine(t, suite, s, base)
					m.update()
					m.wantCandidate("demo-app", version)
					m.apt("install", "demo-app")
					m.wantInstalled("demo-app", version)
				}
				m := newMachine(t, suite, s, "demo/dev")
				m.update()
				name := "later-" + suite + "-" + fmt.Sprint(len(other.name))
				for n := range 3 { // within a second
					s.upload(name, fmt.Sprintf("1.%d", n))
					other.refresh()
					m.update()
					m.wantCandidate(name, fmt.Sprintf("1.%d", n))
				}
			}
		})
	}
}
