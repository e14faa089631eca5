package scripts

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// serverKey finds a script's server.
type serverKey struct{}

// server is the repo-manager of one script.
type server struct {
	data   string
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	err    error         // how
	log    logged
}

// logged is a buffer that the server writes while a script reads.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

const (
	readyTime = 60 * time.Second // a busy machine makes keys slowly
	endTime   = 30 * time.Second
)

func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("serve cannot be negated: use exits")
	}
	s := ts.Value(serverKey{}).(*server)
	if s.cmd != nil {
		ts.Fatalf("the server runs already")
	}
	s.cmd = exec.Command(filepath.Join(programs, "repo-manager"), append([]string{
		"serve", "--data", s.data, "--listen", "127.0.0.1:0", "--listen-admin", "127.0.0.1:0",
	}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.exited = make(chan struct{})
	ts.Check(s.cmd.Start())
	go func() {
		s.err = s.cmd.Wait()
		close(s.exited)
	}()
	ts.Defer(func() {
		if s.cmd != nil {
			if err := s.end(); err != nil {
				ts.Logf("the server ended with %v", err)
			}
		}
		ts.Logf("the server said:\n%s", s.log.String())
	})
	deadline := time.After(readyTime)
	for {
		raw, err := os.ReadFile(filepath.Join(s.data, "run", "addresses.json"))
		if err == nil {
			var at struct{ Public, Admin string }
			ts.Check(json.Unmarshal(raw, &at))
			ts.Setenv("PUBLIC", at.Public)
			ts.Setenv("ADMIN", at.Admin)
			return
		}
		if !errors.Is(err, fs.ErrNotExist) {
			ts.Fatalf("cannot find the server: %v", err)
		}
		select {
		case <-s.exited:
			ts.Fatalf("the server ended before it was ready: %v\n%s", s.err, s.log.String())
		case <-deadline:
			ts.Fatalf("the server is not ready after %v:\n%s", readyTime, s.log.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func stop(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(serverKey{}).(*server)
	if neg || len(args) > 0 || s.cmd == nil {
		ts.Fatalf("usage: stop, while a server runs")
	}
	ts.Check(s.end())
}

// end stops the server and waits for its end; one that hangs is killed.
func (s *server) end() error {
	defer func() { s.cmd = nil }()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.exited:
		return s.err
	case <-time.After(endTime):
		err := errors.New("it did not end after SIGTERM")
		return errors.Join(err, s.cmd.Process.Kill())
	}
}
