package scripts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"aptfleet/internal/protocol"
	"aptfleet/test/rig"
)

// earsKey finds the events that a script listens to.
type earsKey struct{}

// ears holds events that came and were not asked for yet.
type ears struct {
	came    chan string
	waiting []string
}

// listen opens the server's event stream, which heard then reads.
func listen(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value(serverKey{}).(*server)
	if neg || len(args) > 0 || s.Server == nil {
		ts.Fatalf("usage: listen, while a server runs")
	}
	api := s.API
	ctx, cancel := context.WithCancel(context.Background())
	came := ts.Value(earsKey{}).(*ears).came
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- api.Events(ctx, func() { close(ready) }, func(e protocol.Event) error {
			came <- fmt.Sprintf("%s %s %s", e.Kind, e.Pipeline, e.Subject)
			return nil
		})
	}()
	ts.Defer(func() {
		cancel()
		<-ended
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		ts.Fatalf("cannot listen: %v", err)
	case <-time.After(rig.Patience):
		ts.Fatalf("no event stream after %v", rig.Patience)
	}
}

// heard waits for an event, in whatever order they come.
func heard(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: heard PATTERN, after listen")
	}
	want, err := regexp.Compile(args[0])
	ts.Check(err)
	e := ts.Value(earsKey{}).(*ears)
	deadline := time.After(rig.Patience)
	for {
		if i := slices.IndexFunc(e.waiting, want.MatchString); i >= 0 {
			e.waiting = slices.Delete(e.waiting, i, i+1)
			return
		}
		select {
		case event := <-e.came:
			e.waiting = append(e.waiting, event)
		case <-deadline:
			ts.Fatalf("no event matches %s; there were %q", args[0], e.waiting)
		}
	}
}

// silent listens on a port where nobody ever answers, and sets a variable to
// its URL.
func silent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: silent NAME")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ended := make(chan error, 1)
	go func() {
		var open []net.Conn
		for {
			conn, err := listener.Accept()
			if err != nil {
				for _, c := range open {
					err = errors.Join(err, c.Close())
				}
				ended <- err
				return
			}
			open = append(open, conn)
		}
	}()
	ts.Defer(func() {
		if err := listener.Close(); err != nil {
			ts.Logf("cannot close the silent port: %v", err)
		}
		<-ended
	})
	ts.Setenv(args[0], "http://"+listener.Addr().String())
}
