package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// times are how long listeners wait for clients. A download may take all day:
// devices have bad links. But whoever does not go on at all, or spells out a
// request byte by byte, holds a connection that others need.
type times struct {
	header  time.Duration // for a handshake, and for the header of a request
	body    time.Duration // for the whole body of a request to the public listener
	idle    time.Duration // between requests
	stalled time.Duration // without a byte that the client takes
}

var defaultTimes = times{header: 20 * time.Second, body: time.Minute, idle: 2 * time.Minute, stalled: 2 * time.Minute}

// listen opens a listener whose connections end when the client takes nothing
// any more for as long as stalled: tcp(7), TCP_USER_TIMEOUT. The kernel sees
// to it, so files still go out by sendfile; connections inherit it from the
// listener.
func (t times) listen(address string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var setErr error
		err := c.Control(func(fd uintptr) {
			setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(t.stalled.Milliseconds()))
		})
		if err == nil && setErr != nil {
			err = fmt.Errorf("cannot set TCP_USER_TIMEOUT: %w", setErr)
		}
		return err
	}}
	return config.Listen(context.Background(), "tcp", address)
}

// server returns a server with these times.
func (t times) server() *http.Server {
	return &http.Server{
		ReadHeaderTimeout: t.header,
		IdleTimeout:       t.idle,
		MaxHeaderBytes:    64 << 10,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100,
			SendPingTimeout:      t.stalled, PingTimeout: t.stalled, WriteByteTimeout: t.stalled,
		},
	}
}

// public gives the requests to the public listener, which anybody may send, an
// end: the body has to be there in time. Over HTTP/2 a client can leave one
// stream standing while its connection lives; so each piece of an answer has
// its time too.
func (t times) public(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		if r.ContentLength != 0 {
			// A connection without deadlines is one of a test.
			_ = control.SetReadDeadline(time.Now().Add(t.body))
		}
		if r.ProtoMajor >= 2 {
			w = &steady{ResponseWriter: w, control: control, stalled: t.stalled}
		}
		next.ServeHTTP(w, r)
	})
}

// steady is an answer each piece of which the client has to take in time.
type steady struct {
	http.ResponseWriter
	control *http.ResponseController
	stalled time.Duration
}

func (s *steady) Write(b []byte) (int, error) {
	if err := s.control.SetWriteDeadline(time.Now().Add(s.stalled)); err != nil {
		return 0, err
	}
	return s.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (s *steady) Unwrap() http.ResponseWriter { return s.ResponseWriter }
