package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"aptfleet/internal/client"
)

// server is the running repo-manager.
type server struct {
	*client.Client
	Public, Admin string // base URLs
	Socket        string

	process *exec.Cmd
	ended   chan struct{}
	err     error // why it ended; read after ended is closed
}

// addresses is DATA/run/addresses.json, and what is kept of it between runs.
type addresses struct {
	Public string `json:"public"`
	Admin  string `json:"admin"`
	Socket string `json:"socket"`
}

// startServer starts repo-manager on the addresses of the last run where they
// are still free: the device's configuration and people's bookmarks name them.
func startServer(ctx context.Context, d *demo) (*server, error) {
	data := filepath.Join(d.dir, "server")
	kept := filepath.Join(d.dir, "addresses.json")
	var last addresses
	if raw, err := os.ReadFile(kept); err == nil {
		if err := json.Unmarshal(raw, &last); err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", kept, err)
		}
	}
	page := d.listen
	if page == "" {
		page = freeOr(last.Admin)
	}
	archive := d.public
	if archive == "" {
		archive = freeOr(last.Public)
	}
	log, err := os.OpenFile(filepath.Join(d.dir, "log", "repo-manager.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot write the server's log: %w", err)
	}
	defer log.Close()
	s := &server{ended: make(chan struct{})}
	s.process = exec.Command(filepath.Join(d.dir, "bin", "repo-manager"), "serve",
		"--config", os.DevNull, // not that of a server which this machine may have
		"--data", data, "--listen", archive, "--listen-admin", page)
	s.process.Stdout, s.process.Stderr = log, log
	// A group of its own: Ctrl-C reaches the demo alone, which stops the
	// device first.
	s.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ready := filepath.Join(data, "run", "addresses.json")
	if err := os.Remove(ready); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot start repo-manager: %w", err)
	}
	if err := s.process.Start(); err != nil {
		return nil, fmt.Errorf("cannot start repo-manager: %w", err)
	}
	go func() {
		s.err = s.process.Wait()
		close(s.ended)
	}()
	var now addresses
	for {
		raw, err := os.ReadFile(ready)
		if err == nil && json.Unmarshal(raw, &now) == nil {
			break
		}
		select {
		case <-s.ended:
			return nil, s.wait()
		case <-ctx.Done():
			s.stop()
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.Public, s.Admin, s.Socket = now.Public, now.Admin, now.Socket
	if s.Client, err = client.New(client.Options{Socket: s.Socket, UserAgent: "make run"}); err != nil {
		s.stop()
		return nil, err
	}
	raw, err := json.Marshal(now)
	if err == nil {
		err = os.WriteFile(kept, raw, 0o644)
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("cannot remember the server's addresses: %w", err)
	}
	return s, nil
}

// wait returns when the server has ended, with the end of its log.
func (s *server) wait() error {
	<-s.ended
	return fmt.Errorf("repo-manager ended (%v); its log says why", s.err)
}

// stop asks the server to end and waits; after ten seconds it is killed.
func (s *server) stop() {
	select {
	case <-s.ended:
		return
	default:
	}
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		fmt.Fprintf(os.Stderr, "make run: cannot stop repo-manager: %v\n", err)
	}
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		if err := s.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			fmt.Fprintf(os.Stderr, "make run: cannot kill repo-manager: %v\n", err)
		}
		<-s.ended
	}
}

// freeOr returns host:port of the URL if nothing listens there, else any free
// port on the loopback.
func freeOr(last string) string {
	const loopback = "127.0.0.1:0"
	if len(last) <= len("http://") {
		return loopback
	}
	address := last[len("http://"):]
	l, err := net.Listen("tcp", address)
	if err != nil {
		return loopback
	}
	if err := l.Close(); err != nil {
		return loopback
	}
	return address
}
