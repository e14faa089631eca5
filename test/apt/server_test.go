package apt

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
	"aptfleet/internal/protocol"
)

const (
	pipeline     = "demo"
	distribution = "trixie"
	component    = "apps"
)

// server is a repo-manager with a pipeline demo (dev → canary → production)
// and a repository apps.
type server struct {
	t      *testing.T
	data   string
	public string // URL of the public listener
	socket string
	api    *client.Client
	cmd    *exec.Cmd
	log    *safeBuffer
	exited chan error

	mu       sync.Mutex
	trusting map[string]string // upper directory of a machine that has the keyring package, by suite
}

// newServer starts a server with an empty data directory. The lines of
// settings go into its configuration.
func newServer(t *testing.T, settings ...string) *server {
	t.Helper()
	s := &server{t: t, data: filepath.Join(t.TempDir(), "data"), log: &safeBuffer{}, exited: make(chan error, 1), trusting: map[string]string{}}
	config := filepath.Join(t.TempDir(), "repo-manager.yaml")
	text := strings.Join(append([]string{"listen: 127.0.0.1:0", "listen_admin: 127.0.0.1:0"}, settings...), "\n") + "\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s.cmd = exec.Command(shared.program, "serve", "--data", s.data, "--config", config)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.exited <- s.cmd.Wait() }()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the server said:\n%s", s.log)
		}
	})
	s.waitUntilReady()
	s.create()
	return s
}

func (s *server) waitUntilReady() {
	s.t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		raw, err := os.ReadFile(filepath.Join(s.data, "run/addresses.json"))
		if err == nil {
			var at struct{ Public, Socket string }
			if err := json.Unmarshal(raw, &at); err != nil {
				s.t.Fatalf("addresses.json: %v: %s", err, raw)
			}
			s.public, s.socket = at.Public, at.Socket
			return
		}
		select {
		case err := <-s.exited:
			s.exited <- err
			s.t.Fatalf("the server ended: %v\n%s", err, s.log)
		case <-deadline:
			s.t.Fatalf("the server did not get ready:\n%s", s.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *server) create() {
	s.t.Helper()
	var err error
	if s.api, err = client.New(client.Options{Socket: s.socket}); err != nil {
		s.t.Fatal(err)
	}
	ctx := s.t.Context()
	if _, err := s.api.CreatePipeline(ctx, protocol.Pipeline{
		Name: pipeline, Distribution: distribution, Architectures: []string{shared.architecture}, Stages: []string{"dev", "canary", "production"},
	}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.api.CreateRepository(ctx, pipeline, component, 2); err != nil {
		s.t.Fatal(err)
	}
}

// stop ends the server in an orderly way; it may be called again.
func (s *server) stop() {
	select {
	case err := <-s.exited:
		s.exited <- err
		return
	default:
	}
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil {
		s.t.Errorf("cannot stop the server: %v", err)
	}
	select {
	case err := <-s.exited:
		s.exited <- err
		if err != nil {
			s.t.Errorf("the server ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		s.t.Error("the server does not end when it is interrupted")
		s.cmd.Process.Kill()
		<-s.exited
	}
}

// tool runs a repo-manager command against the server's socket and returns
// what it printed on both streams, and its exit code.
func (s *server) tool(args ...string) (output string, code int) {
	s.t.Helper()
	cmd := exec.Command(shared.program, append([]string{"--socket", s.socket}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// download returns a file of the public listener.
func (s *server) download(name string) []byte {
	s.t.Helper()
	answer, err := http.Get(s.public + "/" + name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %s, %v", name, answer.Status, err)
	}
	return body
}

// upload publishes a package in dev.
func (s *server) upload(name, version string, fields ...string) protocol.Upload {
	s.t.Helper()
	upload, err := s.tryUpload(s.t.Context(), name, version, fields...)
	if err != nil {
		s.t.Fatal(err)
	}
	return upload
}

func (s *server) tryUpload(ctx context.Context, name, version string, fields ...string) (protocol.Upload, error) {
	body, err := pack(name, version, fields...)
	if err != nil {
		return protocol.Upload{}, err
	}
	return s.api.Upload(ctx, pipeline, component, client.File{Name: name + ".deb", Body: bytes.NewReader(body), Size: int64(len(body))})
}

// snapshot names what dev offers.
func (s *server) snapshot() string {
	s.t.Helper()
	snapshot, err := s.api.CreateSnapshot(s.t.Context(), pipeline, protocol.NewSnapshot{Note: "a test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return snapshot.ID
}

func (s *server) promote(ref, stage string) protocol.Move {
	s.t.Helper()
	move, err := s.api.Promote(s.t.Context(), pipeline, stage, protocol.Promote{Snapshot: ref, Reason: "a test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return move
}

func (s *server) undo(stage string) {
	s.t.Helper()
	if _, err := s.api.Undo(s.t.Context(), pipeline, stage, protocol.Promote{Reason: "a test"}); err != nil {
		s.t.Fatal(err)
	}
}

// stage is what a stage offers.
func (s *server) stage(name string) protocol.Stage {
	s.t.Helper()
	stage, err := s.api.Stage(s.t.Context(), pipeline, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return stage
}

// files lists the published files whose path matches a pattern of
// filepath.Match below public/.
func (s *server) files(pattern string) []string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.data, "public", pattern))
	if err != nil {
		s.t.Fatal(err)
	}
	if len(found) == 0 {
		s.t.Fatalf("nothing is published at %s", pattern)
	}
	return found
}

// pack builds a .deb with one file, /usr/share/<name>/version.
func pack(name, version string, fields ...string) ([]byte, error) {
	text := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: all\nMaintainer: Test <test@aptfleet.example>\nDescription: a test\n", name, version)
	for _, field := range fields {
		text += field + "\n"
	}
	control, err := deb.ParseStanza([]byte(text))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	content := []byte(version + "\n")
	err = debwriter.Write(&out, debwriter.Spec{
		Control: control,
		ModTime: time.Unix(1_700_000_000, 0),
		Entries: []debwriter.Entry{{
			Path: "/usr/share/" + name + "/version",
			Mode: 0o644,
			Size: int64(len(content)),
			Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		}},
	})
	return out.Bytes(), err
}

// safeBuffer is a buffer that a process writes while a test reads.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
