package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"aptfleet/internal/client"
)

// Patience is how long a server may take to get ready or to end. It is no
// measure of speed: busy machines make keys slowly.
const Patience = time.Minute

// Config says how a server is to run.
type Config struct {
	Program  string   // path of repo-manager
	Data     string   // data directory; a missing one becomes a new archive
	Settings []string // lines of its configuration file, e.g. "valid_for: 3s"
	Args     []string // more arguments of `repo-manager serve`
	Env      []string // NAME=VALUE, besides the environment of this process
}

// Server is a repo-manager that was started. It dies with this process, but
// whoever started it calls Stop or Kill.
type Server struct {
	Public, Admin string // URLs of the listeners, once it is ready
	Socket        string // path of its Unix socket, once it is ready
	Data          string

	API *client.Client // on the socket, once it is ready

	cmd    *exec.Cmd
	exited chan struct{}
	log    output
}

// Start runs a server and waits until it answers. An error holds its log.
func Start(ctx context.Context, c Config) (*Server, error) {
	s, err := Launch(c)
	if err != nil {
		return nil, err
	}
	if err := s.Ready(ctx); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// Launch runs a server on free ports of the loopback, unless Args name others,
// and does not wait for it. Its configuration file is Data with ".yaml" behind.
func Launch(c Config) (*Server, error) {
	config := c.Data + ".yaml"
	if err := os.WriteFile(config, []byte(strings.Join(c.Settings, "\n")+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("cannot configure repo-manager: %w", err)
	}
	s := &Server{Data: c.Data, exited: make(chan struct{})}
	s.cmd = exec.Command(c.Program, append([]string{
		"serve", "--data", c.Data, "--config", config, "--listen", "127.0.0.1:0", "--listen-admin", "127.0.0.1:0",
	}, c.Args...)...)
	s.cmd.Env = append(os.Environ(), c.Env...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cannot start repo-manager: %w", err)
	}
	go func() {
		// The state of the process says all that its error would.
		_ = s.cmd.Wait()
		close(s.exited)
	}()
	return s, nil
}

// Ready waits until the server answers. It is an error if the server ends
// before.
func (s *Server) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for {
		if ok, err := s.connect(); ok || err != nil {
			return err
		}
		select {
		case <-s.exited:
			return fmt.Errorf("repo-manager ended at its start: %v\n%s", s.cmd.ProcessState, s.Log())
		case <-ctx.Done():
			return fmt.Errorf("repo-manager does not get ready: %w\n%s", ctx.Err(), s.Log())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// connect reads where the server is and tells whether it said so already; one
// that was killed leaves its addresses behind.
func (s *Server) connect() (bool, error) {
	text, err := os.ReadFile(filepath.Join(s.Data, "run", "addresses.json"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	var at struct {
		Public, Admin, Socket string
		PID                   int
	}
	if err == nil {
		err = json.Unmarshal(text, &at)
	}
	if err != nil {
		return false, fmt.Errorf("cannot find repo-manager: %w", err)
	}
	if at.PID != s.cmd.Process.Pid {
		return false, nil
	}
	s.Public, s.Admin, s.Socket = at.Public, at.Admin, at.Socket
	s.API, err = client.New(client.Options{Socket: at.Socket, UserAgent: "test"})
	return err == nil, err
}

// PID is that of the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Exited is closed once the server has ended.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// State says how the server ended; it is for after Exited.
func (s *Server) State() *os.ProcessState { return s.cmd.ProcessState }

// Log is what the server has said, on both streams.
func (s *Server) Log() string { return s.log.String() }

// Stop asks the server to end and waits. It is an error if it ends badly, or
// has to be killed. Stopping again says the same.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("cannot stop repo-manager: %w", err)
	}
	select {
	case <-s.exited:
	case <-time.After(Patience):
		s.Kill()
		return fmt.Errorf("repo-manager did not end within %v of SIGTERM\n%s", Patience, s.Log())
	}
	if !s.cmd.ProcessState.Success() {
		return fmt.Errorf("repo-manager ended with %v\n%s", s.cmd.ProcessState, s.Log())
	}
	return nil
}

// Kill ends the server without any warning and waits for its end. It may have
// ended before.
func (s *Server) Kill() {
	// The only error is that it has ended, which is what the caller wants.
	_ = s.cmd.Process.Kill()
	<-s.exited
}

// output is a buffer that a process writes while tests read.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
