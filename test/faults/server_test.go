package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
)

// program is the repo-manager that TestMain built with its fault points.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "faults-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "repo-manager")
		build := exec.Command("go", "build", "-tags", "nomsgpack faults", "-o", program, "aptfleet/repo-manager")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot build repo-manager: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// patience is how long anything may take before a test gives up. It is no
// measure of speed.
const patience = time.Minute

// server is a running repo-manager.
type server struct {
	t      *testing.T
	data   string
	cmd    *exec.Cmd
	log    *bytes.Buffer
	exited chan struct{}
	admin  string
	socket *http.Client
	api    *client.Client
}

// newData returns a data directory with a short path: Unix sockets have
// little room for theirs.
func newData(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "af-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "data")
}

// start runs a server on data that dies at the named fault point, or lives if
// fault is "". The archive has a URL of its own, so that a restart on other
// ports publishes nothing new.
func start(t *testing.T, data, fault string, settings ...string) *server {
	t.Helper()
	s := launch(t, data, fault, settings...)
	if !s.ready() {
		t.Fatalf("the server ended at its start (fault %q):\n%s", fault, s.log)
	}
	return s
}

func launch(t *testing.T, data, fault string, settings ...string) *server {
	t.Helper()
	config := filepath.Join(filepath.Dir(data), "repo-manager.yaml")
	text := strings.Join(append([]string{"listen: 127.0.0.1:0", "listen_admin: 127.0.0.1:0", "url: http://archive.example"}, settings...), "\n")
	if err := os.WriteFile(config, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, data: data, log: new(bytes.Buffer), exited: make(chan struct{})}
	s.cmd = exec.Command(program, "serve", "--data", data, "--config", config)
	s.cmd.Env = append(os.Environ(), "APTFLEET_FAULT="+fault)
	s.cmd.Stderr = s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		// The state of the process says all that its error would.
		_ = s.cmd.Wait()
		close(s.exited)
	}()
	t.Cleanup(s.kill)
	return s
}

// ready waits until the server answers; false means that it ended.
func (s *server) ready() bool {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		if s.connect() {
			return true
		}
		select {
		case <-s.exited:
			return false
		case <-deadline:
			s.t.Fatalf("the server was not ready in %s:\n%s", patience, s.log)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// connect reads where the server is and tells whether it said so already; a
// killed one leaves its addresses behind.
func (s *server) connect() bool {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.data, "run", "addresses.json"))
	if err != nil {
		return false
	}
	var at struct {
		Public, Admin, Socket string
		PID                   int
	}
	if err := json.Unmarshal(text, &at); err != nil {
		s.t.Fatal(err)
	}
	if at.PID != s.cmd.Process.Pid {
		return false
	}
	s.admin = at.Admin
	s.socket = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", at.Socket)
		},
	}}
	api, err := client.New(client.Options{Socket: at.Socket, UserAgent: "faults"})
	if err != nil {
		s.t.Fatal(err)
	}
	s.api = api
	return true
}

// kill ends the server without any warning.
func (s *server) kill() {
	// It may have ended by itself, which is what the caller wants.
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// died waits for the server's own end and tells whether SIGKILL was it.
func (s *server) died() bool {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Fatalf("the server still runs after %s", patience)
	}
	status := s.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return status.Signaled() && status.Signal() == syscall.SIGKILL
}

// stop asks the server to end and waits.
func (s *server) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Fatalf("the server did not stop in %s:\n%s", patience, s.log)
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("the server stopped with exit status %d:\n%s", code, s.log)
	}
}

// pipeline makes a pipeline with one repository, apps.
func (s *server) pipeline(name string) {
	s.t.Helper()
	ctx := s.t.Context()
	if _, err := s.api.CreatePipeline(ctx, protocol.Pipeline{Name: name, Distribution: "trixie", Architectures: []string{"amd64"}}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.api.CreateRepository(ctx, name, "apps", 1); err != nil {
		s.t.Fatal(err)
	}
}

// answer is what came back for a request.
type answer struct {
	status int
	body   string
}

// upload posts a body as a file of that name over the Unix socket.
func (s *server) upload(pipeline, name string, body []byte) (answer, error) {
	return s.post(s.socket, "http://socket", pipeline, name, bytes.NewReader(body), nil)
}

func (s *server) post(c *http.Client, base, pipeline, name string, body io.Reader, header http.Header) (answer, error) {
	target := base + "/api/v1/pipelines/" + pipeline + "/repositories/apps/packages?name=" + url.QueryEscape(name)
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, target, body)
	if err != nil {
		return answer{}, err
	}
	for key, values := range header {
		req.Header[key] = values
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(text)}, err
}

// head is the state that the first stage offers.
func (s *server) head(pipeline string) string {
	s.t.Helper()
	stage, err := s.api.Stage(s.t.Context(), pipeline, "dev")
	if err != nil {
		s.t.Fatal(err)
	}
	return stage.State
}

// mustBeClean fails if the published tree is not exactly what the database
// says, or if a temporary file is left anywhere.
func (s *server) mustBeClean() {
	s.t.Helper()
	report, err := s.api.Check(s.t.Context(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if report.Files == 0 {
		s.t.Error("check looked at no file")
	}
	for _, f := range report.Findings {
		s.t.Errorf("check: %s: %s", f.Path, f.Reason)
	}
	s.noLeftovers()
}

// noLeftovers fails if a temporary file is in the data directory.
func (s *server) noLeftovers() {
	s.t.Helper()
	for _, dir := range []string{"incoming", "blobs/.tmp", "public/.tmp", "mirrors"} {
		entries, err := os.ReadDir(filepath.Join(s.data, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			s.t.Fatal(err)
		}
		for _, e := range entries {
			s.t.Errorf("%s/%s was left behind", dir, e.Name())
		}
	}
	err := filepath.WalkDir(s.data, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".tmp") && !d.IsDir() || path == filepath.Join(s.data, "intents") {
			s.t.Errorf("%s was left behind", path)
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
}
