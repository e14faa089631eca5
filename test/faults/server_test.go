package faults

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// program is the repo-manager that TestMain built with its fault points.
var program string

func TestMain(m *testing.M) {
	if code, ended := rig.Apart(); ended {
		os.Exit(code)
	}
	os.Exit(rig.Main("faults-", "faults", []string{"repo-manager"}, func(dir string) (int, error) {
		program = filepath.Join(dir, "repo-manager")
		return m.Run(), nil
	}))
}

// patience is how long anything may take before a test gives up. It is no
// measure of speed.
const patience = time.Minute

// server is a running repo-manager.
type server struct {
	*rig.Server
	t      *testing.T
	socket *http.Client // asks over the Unix socket
	death  string       // the fault point it is to die at
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
	s := &server{t: t, Server: launch(t, data, fault, settings...), death: fault}
	if err := s.Ready(t.Context()); err != nil {
		t.Fatalf("fault %q: %v", fault, err)
	}
	s.socket = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.Socket)
		},
	}}
	return s
}

func launch(t *testing.T, data, fault string, settings ...string) *rig.Server {
	t.Helper()
	s, err := rig.Launch(rig.Config{
		Program: program, Data: data, Env: []string{"APTFLEET_FAULT=" + fault},
		Settings: append([]string{"url: http://archive.example"}, settings...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// died waits for the server's own end and tells whether SIGKILL was it.
func (s *server) died() bool {
	s.t.Helper()
	select {
	case <-s.Exited():
	case <-time.After(patience):
		s.t.Fatalf("the server never came to %q, and still runs after %s", s.death, patience)
	}
	status := s.State().Sys().(syscall.WaitStatus)
	return status.Signaled() && status.Signal() == syscall.SIGKILL
}

// stop asks the server to end and waits.
func (s *server) stop() {
	s.t.Helper()
	if err := s.Stop(); err != nil {
		s.t.Fatal(err)
	}
}

// pipeline makes a pipeline with one repository, apps.
func (s *server) pipeline(name string) {
	s.t.Helper()
	ctx := s.t.Context()
	if _, err := s.API.CreatePipeline(ctx, protocol.Pipeline{Name: name, Distribution: "trixie", Architectures: []string{"amd64"}}); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.API.CreateRepository(ctx, name, "apps", 1); err != nil {
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

// mustUpload uploads a package of about size bytes, for amd64.
func (s *server) mustUpload(pipeline, name, version string, size int) {
	s.t.Helper()
	if got, err := s.upload(pipeline, name+".deb", makeDeb(s.t, name, version, "amd64", size)); err != nil || got.status != http.StatusCreated {
		s.t.Fatalf("upload of %s %s: %v %v", name, version, got, err)
	}
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
	stage, err := s.API.Stage(s.t.Context(), pipeline, "dev")
	if err != nil {
		s.t.Fatal(err)
	}
	return stage.State
}

// mustBeClean fails if the published tree is not exactly what the database
// says, or if a temporary file is left anywhere.
func (s *server) mustBeClean() {
	s.t.Helper()
	report, err := s.API.Check(s.t.Context(), nil)
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

// noLeftovers fails if a temporary file stays in the data directory. One may be
// there a moment after the answer to an upload.
func (s *server) noLeftovers() {
	s.t.Helper()
	var left []string
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var err error
		if left, err = rig.Leftovers(s.Data); err != nil {
			s.t.Fatal(err)
		}
		if len(left) == 0 || time.Now().After(end) {
			break
		}
	}
	for _, path := range left {
		s.t.Errorf("%s was left behind", path)
	}
}
