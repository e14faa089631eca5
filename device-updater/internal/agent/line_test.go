package agent_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"aptfleet/internal/protocol"
)

// TestTheLineBreaksInACheckIn, also after the server has heard all and before the
// device has its answer: that is no news about anybody, and the next check-in
// takes the assignment.
func TestTheLineBreaksInACheckIn(t *testing.T) {
	hijack := func(say string, reset bool) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			fmt.Fprint(conn, say)
			if tcp, ok := conn.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0)
			}
			_ = conn.Close()
		}
	}
	for name, answer := range map[string]func(http.ResponseWriter){
		"a reset":                      hijack("", true),
		"an end without an answer":     hijack("", false),
		"an end among the headers":     hijack("HTTP/1.1 200 OK\r\nContent-Le", false),
		"an end in the body":           hijack("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"assignment\":{", false),
		"a reset in the body":          hijack("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"assignment\":{", true),
		"half an answer that is whole": hijack("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"assignment\":{", false),
		"somebody's page":              hijack("HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n<html>please log in</html>", false),
		"an answer that is lost":       nil, // the server has heard all
		"a gateway that has trouble":   func(w http.ResponseWriter) { http.Error(w, "no way", http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t)
			d.server.Assign(&protocol.AssignedRelease{
				State: strings.Repeat("a", 64), Base: "demo/states/" + strings.Repeat("a", 64), Distribution: "trixie", Components: []string{"main"},
				Release: strings.Repeat("b", 64), BOM: strings.Repeat("c", 64), BOMSize: 100,
			}, nil)
			broken := true
			d.server.Lie = func(w http.ResponseWriter, _ *http.Request) bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				if broken && answer != nil {
					answer(w)
				}
				return broken && answer != nil
			}
			if answer == nil {
				d.HTTP.Transport = losing{}
			}
			for range 3 {
				if err := d.CheckIn(t.Context()); err == nil {
					t.Fatal("want an error")
				}
			}
			if a, _ := d.assignments.Current(); a != nil || d.assignments.Refused() != nil || d.Contact().Error == "" {
				t.Errorf("%+v, %+v, %+v", a, d.assignments.Refused(), d.Contact())
			}
			d.mu.Lock()
			broken = false
			d.mu.Unlock()
			d.HTTP.Transport = http.DefaultTransport
			if err := d.CheckIn(t.Context()); err != nil {
				t.Fatal(err)
			}
			if a, against := d.assignments.Current(); a == nil || against != "" || d.Contact().Error != "" {
				t.Errorf("%+v, %q, %+v", a, against, d.Contact())
			}
		})
	}
}

// losing is a line on which answers are lost.
type losing struct{}

func (losing) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	return nil, errors.Join(errors.New("connection reset by peer"), answer.Body.Close())
}
