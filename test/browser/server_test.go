// Package browser tests the pages of a real repo-manager in a real chromium,
// as a release manager meets them. What every single screen shows is tested
// with prepared data in package ui.
package browser

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"aptfleet/internal/client"
	"aptfleet/internal/protocol"
	"aptfleet/test/browser/webdriver"
	"aptfleet/test/rig"
)

// shared is what all tests use: built or started once, never changed.
var shared struct {
	program string // repo-manager
	driver  *webdriver.Driver
}

func TestMain(m *testing.M) {
	os.Exit(rig.Main("aptfleet-browser-", "", []string{"repo-manager"}, func(dir string) (code int, err error) {
		shared.program = filepath.Join(dir, "repo-manager")
		if shared.driver, err = webdriver.Start(context.Background()); err != nil {
			return 1, err
		}
		code = m.Run()
		return code, shared.driver.Stop()
	}))
}

// server is a repo-manager with a pipeline demo (dev → canary → production), a
// repository apps, and the users anna (admin) and vera (viewer).
type server struct {
	*rig.Server
	t *testing.T
}

// restart stops the server and calls between before it starts it again, on the
// same ports.
func (s *server) restart(between func()) {
	s.t.Helper()
	s.stop()
	between()
	var err error
	s.Server, err = rig.Start(s.t.Context(), rig.Config{Program: shared.program, Data: s.Data, Args: []string{
		"--listen", strings.TrimPrefix(s.Public, "http://"), "--listen-admin", strings.TrimPrefix(s.Admin, "http://"),
	}})
	must(s.t, err)
}

// stop interrupts the server, which must end soon whoever is connected.
func (s *server) stop() {
	s.t.Helper()
	if err := s.Stop(); err != nil {
		s.t.Error(err)
	}
}

func newServer(t *testing.T) *server {
	t.Helper()
	running, err := rig.Start(t.Context(), rig.Config{Program: shared.program, Data: filepath.Join(t.TempDir(), "data")})
	must(t, err)
	s := &server{Server: running, t: t}
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("the server said:\n%s", s.Log())
		}
	})
	_, err = s.API.CreatePipeline(t.Context(), protocol.Pipeline{
		Name: "demo", Distribution: "trixie", Architectures: []string{"amd64"}, Stages: []string{"dev", "canary", "production"},
	})
	must(t, err)
	_, err = s.API.CreateRepository(t.Context(), "demo", "apps", 1)
	must(t, err)
	for name, role := range map[string]string{"anna": "admin", "vera": "viewer"} {
		_, err := s.API.CreateUser(t.Context(), name, []string{role})
		must(t, err)
	}
	return s
}

// upload sends a package to the repository apps.
func (s *server) upload(name, version string) {
	s.t.Helper()
	file, err := rig.Package(name, version, "amd64", []byte(version))
	must(s.t, err)
	_, err = s.API.Upload(s.t.Context(), "demo", "apps", client.File{
		Name: fmt.Sprintf("%s_%s_amd64.deb", name, version), Size: int64(len(file)), Body: bytes.NewReader(file),
	})
	must(s.t, err)
}

// promote is another client that acts meanwhile.
func (s *server) promote(ref, stage, reason string) protocol.Move {
	s.t.Helper()
	move, err := s.API.Promote(s.t.Context(), "demo", stage, protocol.Promote{Snapshot: ref, Reason: reason})
	must(s.t, err)
	return move
}

// stage is what a stage offers.
func (s *server) stage(name string) protocol.Stage {
	s.t.Helper()
	stage, err := s.API.Stage(s.t.Context(), "demo", name)
	must(s.t, err)
	return stage
}

// enrol makes a device and returns how it reports.
func (s *server) enrol(name string) (report func(protocol.Report)) {
	s.t.Helper()
	_, err := s.API.Product(s.t.Context(), "demo", "demo")
	if err != nil {
		_, err = s.API.CreateProduct(s.t.Context(), "demo", protocol.Product{Name: "demo", Architecture: "amd64", Packages: []string{"app"}})
	}
	must(s.t, err)
	token, err := s.API.CreateEnrolmentToken(s.t.Context(), protocol.EnrolmentToken{Pipeline: "demo", Product: "demo", Stage: "production"})
	must(s.t, err)
	device, err := rig.NewDevice(name)
	must(s.t, err)
	_, err = device.Enrol(s.t.Context(), s.Public, token.Token)
	must(s.t, err)
	return func(r protocol.Report) {
		s.t.Helper()
		device.Report = r
		_, err := device.CheckIn(s.t.Context(), s.Public)
		must(s.t, err)
	}
}

// link is a new one-time link for a user.
func (s *server) link(user string) string {
	s.t.Helper()
	link, err := s.API.CreateLoginLink(s.t.Context(), user)
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
