package apt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

const (
	pipeline     = "demo"
	distribution = "trixie"
	component    = "apps"
)

// server is a repo-manager with a pipeline demo (dev → canary → production)
// and a repository apps.
type server struct {
	*rig.Server
	t      *testing.T
	public string // URL that machines know; of the public listener at first

	mu       sync.Mutex
	trusting map[string]string // upper directory of a machine that has the keyring package, by suite
}

// newServer starts a server with an empty data directory. The lines of
// settings go into its configuration.
func newServer(t *testing.T, settings ...string) *server {
	t.Helper()
	return startServer(t, rig.Config{Settings: settings})
}

func startServer(t *testing.T, config rig.Config) *server {
	t.Helper()
	config.Program, config.Data = shared.program, filepath.Join(t.TempDir(), "data")
	running, err := rig.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{Server: running, t: t, public: running.Public, trusting: map[string]string{}}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the server said:\n%s", s.Log())
		}
	})
	s.create()
	return s
}

func (s *server) create() {
	s.t.Helper()
	ctx := s.t.Context()
	if _, err := s.API.CreatePipeline(ctx, protocol.Pipeline{
		Name: pipeline, Distribution: distribution, Architectures: []string{shared.architecture}, Stages: []string{"dev", "canary", "production"},
	}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.API.CreateRepository(ctx, pipeline, component, 2); err != nil {
		s.t.Fatal(err)
	}
}

// stop ends the server in an orderly way; it may be called again.
func (s *server) stop() {
	s.t.Helper()
	if err := s.Stop(); err != nil {
		s.t.Error(err)
	}
}

// tool runs a repo-manager command against the server's socket and returns
// what it printed on both streams, and its exit code.
func (s *server) tool(args ...string) (output string, code int) {
	s.t.Helper()
	cmd := exec.Command(shared.program, append([]string{"--socket", s.Socket}, args...)...)
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
	body, err := rig.Package(name, version, "all", []byte(version+"\n"), fields...)
	if err != nil {
		return protocol.Upload{}, err
	}
	return s.API.Upload(ctx, pipeline, component, client.File{Name: name + ".deb", Body: bytes.NewReader(body), Size: int64(len(body))})
}

// snapshot names what dev offers.
func (s *server) snapshot() string {
	s.t.Helper()
	snapshot, err := s.API.CreateSnapshot(s.t.Context(), pipeline, protocol.NewSnapshot{Note: "a test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return snapshot.ID
}

func (s *server) promote(ref, stage string) protocol.Move {
	s.t.Helper()
	move, err := s.API.Promote(s.t.Context(), pipeline, stage, protocol.Promote{Snapshot: ref, Reason: "a test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return move
}

func (s *server) undo(stage string) {
	s.t.Helper()
	if _, err := s.API.Undo(s.t.Context(), pipeline, stage, protocol.Promote{Reason: "a test"}); err != nil {
		s.t.Fatal(err)
	}
}

// stage is what a stage offers.
func (s *server) stage(name string) protocol.Stage {
	s.t.Helper()
	stage, err := s.API.Stage(s.t.Context(), pipeline, name)
	if err != nil {
		s.t.Fatal(err)
	}
	return stage
}

// files lists the published files whose path matches a pattern of
// filepath.Match below public/.
func (s *server) files(pattern string) []string {
	s.t.Helper()
	found, err := filepath.Glob(filepath.Join(s.Data, "public", pattern))
	if err != nil {
		s.t.Fatal(err)
	}
	if len(found) == 0 {
		s.t.Fatalf("nothing is published at %s", pattern)
	}
	return found
}
