package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"aptfleet/internal/deb"
	"aptfleet/internal/debwriter"
	"aptfleet/internal/protocol"
	"aptfleet/internal/term"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"builder": func() {
			os.Exit(run(context.Background(), term.System(os.Getenv), os.LookupEnv, os.Args[1:]))
		},
	})
}

// TestScripts runs the command line's stories; a server that keeps what is
// uploaded stands at $APTFLEET_SERVER.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			s := newServer()
			web := httptest.NewServer(s)
			e.Defer(web.Close)
			for name, value := range map[string]string{
				"APTFLEET_SERVER": web.URL, "APTFLEET_TOKEN": goodToken, "GIT_CONFIG_GLOBAL": os.DevNull, "GIT_CONFIG_SYSTEM": os.DevNull,
				"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@test.example", "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@test.example",
				"GIT_AUTHOR_DATE": "2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z",
			} {
				e.Setenv(name, value)
			}
			return nil
		},
	})
}

const goodToken = "good-token"

// server answers the routes that upload uses, as docs/architecture.md has
// them.
type server struct {
	mu        sync.Mutex
	packages  map[string]string // SHA-256 by name, version and architecture
	pipelines []protocol.Pipeline
	failures  int      // answers of 503 before the next success
	order     []string // versions as they arrived
	drop      int      // answers dropped after the package was taken
	requests  int
}

func newServer() *server {
	return &server{packages: map[string]string{}, pipelines: []protocol.Pipeline{{Name: "demo"}}}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	answer := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			panic(err)
		}
	}
	refuse := func(status int, code, text, hint string) {
		answer(status, protocol.ErrorBody{Error: protocol.Error{Code: code, Text: text, Hint: hint}})
	}
	switch {
	case s.failures > 0:
		s.failures--
		refuse(http.StatusServiceUnavailable, "busy", "the server is busy", "")
	case r.Header.Get("Authorization") != "Bearer "+goodToken:
		refuse(http.StatusUnauthorized, "no-access", "cannot upload: the token is not known", "repo-manager token create makes one")
	case r.Method == http.MethodGet && r.URL.Path == "/api/v1/pipelines":
		answer(http.StatusOK, s.pipelines)
	case r.Method == http.MethodPost && r.URL.Path == "/api/v1/pipelines/demo/repositories/apps/packages":
		p, err := deb.Read(r.Body, deb.Limits{})
		if err != nil {
			refuse(http.StatusBadRequest, "invalid", err.Error(), "")
			return
		}
		key, sum := p.Name+" "+p.Version+" "+p.Architecture, fmt.Sprintf("%x", p.SHA256)
		old, known := s.packages[key]
		if known && old != sum {
			refuse(http.StatusConflict, "refused", "cannot accept "+key+": it has other content", "build another version")
			return
		}
		s.packages[key] = sum
		s.order = append(s.order, p.Version)
		if s.drop > 0 {
			s.drop--
			panic(http.ErrAbortHandler)
		}
		status := http.StatusCreated
		if known {
			status = http.StatusOK
		}
		answer(status, protocol.Upload{Name: p.Name, Version: p.Version, Architecture: p.Architecture, SHA256: sum, Size: p.Size, Already: known})
	default:
		refuse(http.StatusNotFound, "not-found", "cannot find "+r.URL.Path, "")
	}
}

// upload runs "builder upload" against a server and returns exit status,
// output and errors.
func upload(t *testing.T, s *server, args ...string) (int, string, string) {
	t.Helper()
	web := httptest.NewServer(s)
	defer web.Close()
	var out, errs strings.Builder
	env := func(name string) (string, bool) {
		value, set := map[string]string{"APTFLEET_SERVER": web.URL, "APTFLEET_TOKEN": goodToken}[name]
		return value, set
	}
	io := term.System(func(string) string { return "" })
	io.Out, io.Err, io.OutTerminal, io.ErrTerminal = &out, &errs, false, false
	code := run(context.Background(), io, env, append([]string{"upload"}, args...))
	return code, out.String(), errs.String()
}

// pack writes a small package.
func pack(t *testing.T, version string) string {
	t.Helper()
	control, err := deb.ParseStanza([]byte("Package: hello\nVersion: " + version + "\nArchitecture: all\nMaintainer: A <a@test.example>\nDescription: x\n"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "hello_"+version+"_all.deb")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(debwriter.Write(f, debwriter.Spec{Control: control}), f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUploadTriesAgain: a busy server, and an answer that is lost after the
// package was taken, end in success and one package.
func TestUploadTriesAgain(t *testing.T) {
	s := newServer()
	s.failures, s.drop = 1, 1
	code, out, errs := upload(t, s, pack(t, "1.0"), "--to", "demo/apps")
	if code != 0 || !strings.Contains(out, "was there already") {
		t.Errorf("status %d, output %q, errors %q", code, out, errs)
	}
	if len(s.packages) != 1 || s.requests != 3 {
		t.Errorf("the server has %d packages after %d requests", len(s.packages), s.requests)
	}
}

func TestUploadDoesNotRepeatWhatIsRefused(t *testing.T) {
	s := newServer()
	s.packages["hello 1.0 all"] = "other"
	code, _, errs := upload(t, s, pack(t, "1.0"), "--to", "apps")
	if code != 3 || s.requests != 2 || !strings.Contains(errs, "hello_1.0_all.deb: cannot accept hello 1.0 all") || !strings.Contains(errs, "hint: build another version") {
		t.Errorf("status %d after %d requests, errors %q", code, s.requests, errs)
	}
	s.pipelines = append(s.pipelines, protocol.Pipeline{Name: "other"})
	if code, _, errs := upload(t, s, pack(t, "1.1"), "--to", "apps"); code != 2 || !strings.Contains(errs, "the server has 2 pipelines") {
		t.Errorf("with two pipelines: status %d, errors %q", code, errs)
	}
}

// TestUploadOfManyFiles: one that is refused does not keep the others back.
func TestUploadOfManyFiles(t *testing.T) {
	s := newServer()
	s.packages["hello 1.3 all"], s.packages["hello 1.5 all"] = "other", "other"
	args := []string{"--to", "demo/apps"}
	for i := range 40 { // from the highest to the lowest
		args = append(args, pack(t, fmt.Sprint("1.", 39-i)))
	}
	code, out, errs := upload(t, s, args...)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != 3 || len(lines) != 38 || !strings.HasPrefix(lines[0], "hello\t1.39\t") {
		t.Errorf("status %d, output\n%s", code, out)
	}
	if !strings.Contains(errs, "hello_1.3_all.deb: cannot accept") || !strings.Contains(errs, "hello_1.5_all.deb: cannot accept") || len(s.packages) != 40 || !slices.IsSortedFunc(s.order, deb.Compare) {
		t.Errorf("errors %q, %d packages", errs, len(s.packages))
	}
}

func TestUploadIsInterrupted(t *testing.T) {
	s := newServer()
	s.failures = 100
	web := httptest.NewServer(s)
	defer web.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	sink := &term.IO{Out: io.Discard, Err: io.Discard, Now: term.System(func(string) string { return "" }).Now}
	env := func(string) (string, bool) { return "", false }
	if code := run(ctx, sink, env, []string{"upload", pack(t, "1.0"), "--to", "demo/apps", "--server", web.URL}); code != 130 {
		t.Errorf("status %d, want 130", code)
	}
}

// TestEveryCommandExplainsItself: help, an example, and a text for each flag.
func TestEveryCommandExplainsItself(t *testing.T) {
	p := &program{io: term.System(func(string) string { return "" })}
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || c.Long == "" || c.Example == "" {
			t.Errorf("%s lacks a short or long text or an example", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s has no text for --%s", c.CommandPath(), f.Name)
			}
		})
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(p.root())
}
