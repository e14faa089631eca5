package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptrace"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

// Request is how far a request to the server came.
type Request struct {
	mu       sync.Mutex
	tried    []netip.AddrPort // that were connected to, or tried; the best one last
	there    bool             // a connection came about
	unnamed  error            // why the name was not resolved
	distrust error            // why the other side is not believed
	answered bool             // it said something
}

// Trace makes an HTTP request that is made with the context tell how far it came.
func Trace(ctx context.Context) (context.Context, *Request) {
	r := new(Request)
	note := func(do func()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		do()
	}
	connects := func(addr string, there bool) {
		if at, err := netip.ParseAddrPort(addr); err == nil {
			note(func() {
				r.tried = append(r.tried, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
				r.there = r.there || there
			})
		}
	}
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { note(func() { r.unnamed = errUnnamed }) },
		DNSDone:  func(info httptrace.DNSDoneInfo) { note(func() { r.unnamed = info.Err }) },
		// Of several addresses the one that is connected to is told last.
		ConnectStart: func(_, addr string) { connects(addr, false) },
		ConnectDone: func(_, addr string, err error) {
			if err == nil {
				connects(addr, true)
			}
		},
		GotConn: func(info httptrace.GotConnInfo) { connects(info.Conn.RemoteAddr().String(), true) },
		TLSHandshakeDone: func(_ tls.ConnectionState, err error) {
			if err != nil && !fell(err) {
				note(func() { r.distrust = err })
			}
		},
		GotFirstResponseByte: func() { note(func() { r.answered = true }) },
	}), r
}

// errUnnamed is why a name is not resolved while no name server answers.
var errUnnamed = errors.New("no name server answers")

// fell reports whether a connection was only cut off, or nothing came: that
// says nothing about trust.
func fell(err error) bool {
	var late net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &late) && late.Timeout()
}

// address is one that the request was for: prefer, if it was tried too. It is
// not valid if there was none, or if it was not traced.
func (r *Request) address(prefer netip.AddrPort) netip.AddrPort {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch n := len(r.tried); {
	case n == 0:
		return netip.AddrPort{}
	case slices.Contains(r.tried, prefer):
		return prefer
	default:
		return r.tried[n-1]
	}
}

// facts returns what the request itself shows, and whether it was connected.
func (r *Request) facts(cause error) (f Facts, connected bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.answered:
		f.Answer = cause.Error()
	case r.distrust != nil:
		f.Distrust = r.distrust.Error()
	case r.unnamed != nil:
		f.Unnamed = r.unnamed.Error()
	}
	return f, r.there
}
