// Package browser tests the pages of a real repo-manager in a real chromium,
// as a release manager meets them. What every single screen shows is tested
// with prepared data in package ui.
package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
	"aptfleet/internal/protocol"
	"aptfleet/test/browser/webdriver"
)

// shared is what all tests use: built or started once, never changed.
var shared struct {
	program string // repo-manager
	driver  *webdriver.Driver
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	failed := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "aptfleet-browser-")
	if err != nil {
		return failed(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			code = failed(err)
		}
	}()
	shared.program = filepath.Join(dir, "repo-manager")
	if out, err := exec.Command("go", "build", "-tags", "nomsgpack", "-o", shared.program, "aptfleet/repo-manager").CombinedOutput(); err != nil {
		return failed(fmt.Errorf("cannot build repo-manager: %w\n%s", err, out))
	}
	if shared.driver, err = webdriver.Start(context.Background()); err != nil {
		return failed(err)
	}
	defer func() {
		if err := shared.driver.Stop(); err != nil {
			code = failed(err)
		}
	}()
	return m.Run()
}

// server is a repo-manager with a pipeline demo (dev → canary → production), a
// repository apps, and the users anna (admin) and vera (viewer).
type server struct {
	t      *testing.T
	data   string // directory
	public string // URL
	admin  string // URL
	socket string // path
	api    *client.Client
	log    logBuffer
	cmd    *exec.Cmd // nil while it is stopped
}

// start starts the server on its data directory.
func (s *server) start(publicAddress, adminAddress string) {
	s.t.Helper()
	s.cmd = exec.Command(shared.program, "serve", "--data", s.data, "--listen", publicAddress, "--listen-admin", adminAddress)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	must(s.t, s.cmd.Start())
	var at struct{ Public, Admin, Socket string }
	must(s.t, webdriver.Wait(s.t.Context(), func() (bool, string, error) {
		raw, err := os.ReadFile(filepath.Join(s.data, "run/addresses.json"))
		if err != nil {
			return false, s.log.String(), nil
		}
		return true, "", json.Unmarshal(raw, &at)
	}))
	s.public, s.admin, s.socket = at.Public, at.Admin, at.Socket
}

// stop interrupts the server, which must end soon whoever is connected.
func (s *server) stop() {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	must(s.t, s.cmd.Process.Signal(os.Interrupt))
	kill := time.AfterFunc(20*time.Second, func() {
		s.t.Error("the server does not end when it is interrupted")
		if err := s.cmd.Process.Kill(); err != nil {
			s.t.Error(err)
		}
	})
	defer kill.Stop()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the server ended with %v", err)
	}
	s.cmd = nil
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, data: filepath.Join(t.TempDir(), "data")}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the server said:\n%s", &s.log)
		}
	})
	s.start("127.0.0.1:0", "127.0.0.1:0")
	var err error
	s.api, err = client.New(client.Options{Socket: s.socket})
	must(t, err)
	_, err = s.api.CreatePipeline(t.Context(), protocol.Pipeline{
		Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"}, Stages: []string{"dev", "canary", "production"},
	})
	must(t, err)
	_, err = s.api.CreateRepository(t.Context(), "demo", "apps", 1)
	must(t, err)
	for name, role := range map[string]string{"anna": "admin", "vera": "viewer"} {
		_, err := s.api.CreateUser(t.Context(), name, []string{role})
		must(t, err)
	}
	return s
}

// upload sends a package to the repository apps.
func (s *server) upload(name, version string) {
	s.t.Helper()
	control, err := deb.ParseStanza(fmt.Appendf(nil, "Package: %s\nVersion: %s\nArchitecture: amd64\nMaintainer: Test <test@example.org>\nDescription: for the pages\n", name, version))
	must(s.t, err)
	var file bytes.Buffer
	must(s.t, debwriter.Write(&file, debwriter.Spec{Control: control, ModTime: time.Unix(1_700_000_000, 0)}))
	_, err = s.api.Upload(s.t.Context(), "demo", "apps", client.File{
		Name: fmt.Sprintf("%s_%s_amd64.deb", name, version), Size: int64(file.Len()), Body: bytes.NewReader(file.Bytes()),
	})
	must(s.t, err)
}

// promote is another client that acts meanwhile.
func (s *server) promote(ref, stage, reason string) protocol.Move {
	s.t.Helper()
	move, err := s.api.Promote(s.t.Context(), "demo", stage, protocol.Promote{Snapshot: ref, Reason: reason})
	must(s.t, err)
	return move
}

// stage is what a stage offers.
func (s *server) stage(name string) protocol.Stage {
	s.t.Helper()
	stage, err := s.api.Stage(s.t.Context(), "demo", name)
	must(s.t, err)
	return stage
}

// enrol makes a device and returns how it reports.
func (s *server) enrol(name string) (report func(protocol.Report)) {
	s.t.Helper()
	device, err := s.api.CreateDevice(s.t.Context(), name, "demo")
	must(s.t, err)
	return func(r protocol.Report) {
		s.t.Helper()
		body, err := json.Marshal(r)
		must(s.t, err)
		request, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.public+"/device/v1/report", bytes.NewReader(body))
		must(s.t, err)
		request.Header.Set("Authorization", "Bearer "+device.Token)
		request.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(request)
		must(s.t, err)
		must(s.t, answer.Body.Close())
		if answer.StatusCode != http.StatusNoContent {
			s.t.Fatalf("a report was answered with %s", answer.Status)
		}
	}
}

// link is a new one-time link for a user.
func (s *server) link(user string) string {
	s.t.Helper()
	link, err := s.api.CreateLoginLink(s.t.Context(), user)
	must(s.t, err)
	return link.URL
}

// must fails the test on the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// logBuffer is written by a process while a test reads it.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
