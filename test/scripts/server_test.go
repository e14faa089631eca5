package scripts

import (
	"context"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"aptfleet/test/rig"
)

// serverKey finds a script's server.
type serverKey struct{}

// server is the repo-manager of one script; it runs if Server is not nil.
type server struct {
	*rig.Server
	data string
}

func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("serve cannot be negated: use exits")
	}
	s := ts.Value(serverKey{}).(*server)
	if s.Server != nil {
		ts.Fatalf("the server runs already")
	}
	running, err := rig.Start(context.Background(), rig.Config{Program: filepath.Join(programs, "repo-manager"), Data: s.data, Args: args})
	ts.Check(err)
	s.Server = running
	ts.Defer(func() {
		if s.Server != nil {
			if err := s.end(); err != nil {
				ts.Logf("%v", err)
			}
		}
		ts.Logf("the server said:\n%s", running.Log())
	})
	ts.Setenv("PUBLIC", s.Public)
	ts.Setenv("ADMIN", s.Admin)
}

func halt(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(serverKey{}).(*server)
	if neg || len(args) > 0 || s.Server == nil {
		ts.Fatalf("usage: halt, while a server runs")
	}
	ts.Check(s.end())
}

// end stops the server and waits for its end; one that hangs is killed.
func (s *server) end() error {
	running := s.Server
	s.Server = nil
	return running.Stop()
}
