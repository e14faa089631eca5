package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"aptfleet/internal/faultpoint"
	"aptfleet/repo-manager/internal/access"
	"aptfleet/repo-manager/internal/api"
	"aptfleet/repo-manager/internal/reading"
)

// addresses is the content of DATA/run/addresses.json.
type addresses struct {
	Public string `json:"public"` // URL
	Admin  string `json:"admin"`  // URL
	Socket string `json:"socket"` // path
	PID    int    `json:"pid"`    // of the server: a killed one leaves its file behind
}

// listeners are the doors of the server.
type listeners struct {
	public, admin, socket net.Listener
	plain                 net.Listener // the public one without TLS, beside it; or nil

	addresses  addresses
	archiveURL string // for Release files; "" if nobody knows how others reach us
	times      times  // how long they wait for clients

	servers []*http.Server
	cancel  context.CancelFunc // ends requests that do not end by themselves
}

// maxSocketPath is what a sockaddr_un holds, unix(7), without its final zero.
const maxSocketPath = 107

// listen opens the doors; nobody is let in before serve.
func (s *server) listen() (err error) {
	l := &s.listeners
	l.times = defaultTimes
	for _, door := range []struct {
		name, address string
		listener      *net.Listener
	}{
		{"public", s.settings.Listen, &l.public},
		{"plain public", s.settings.ListenHTTP, &l.plain},
		{"admin", s.settings.ListenAdmin, &l.admin},
	} {
		if door.address == "" {
			continue
		}
		if *door.listener, err = l.times.listen(door.address); err != nil {
			return fmt.Errorf("cannot open the %s listener: %w", door.name, err)
		}
		s.opened(closeListener(*door.listener))
	}
	path := filepath.Join(s.path("run"), "repo-manager.sock")
	if l.socket, err = listenSocket(path, s.settings.SocketGroup); err != nil {
		return err
	}
	s.opened(closeListener(l.socket))
	l.addresses = addresses{Public: s.settings.URL, Admin: s.settings.URLAdmin, Socket: path, PID: os.Getpid()}
	l.archiveURL = s.settings.URL
	if l.archiveURL == "" && !isUnspecified(l.public.Addr()) {
		l.archiveURL = scheme(s.settings.publicTLS()) + l.public.Addr().String()
	}
	if l.addresses.Public == "" {
		l.addresses.Public = scheme(s.settings.publicTLS()) + reachable(l.public.Addr())
	}
	if l.addresses.Admin == "" {
		l.addresses.Admin = scheme(s.settings.adminTLS()) + reachable(l.admin.Addr())
	}
	return nil
}

// closeListener closes a listener that a server may have closed already.
func closeListener(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// listenSocket opens the Unix socket for this user and the group. A socket
// that is there belongs to a server that is gone: we hold the lock.
func listenSocket(path, group string) (net.Listener, error) {
	fail := func(err error) error { return fmt.Errorf("cannot open the Unix socket %s: %w", path, err) }
	if len(path) > maxSocketPath {
		return nil, fail(fmt.Errorf("the path has %d bytes, %d are possible; use a shorter data directory", len(path), maxSocketPath))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fail(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fail(err)
	}
	err = os.Chmod(path, 0o660)
	if err == nil && group != "" {
		err = chgrp(path, group)
	}
	if err != nil {
		return nil, errors.Join(fail(err), l.Close())
	}
	return l, nil
}

func chgrp(path, group string) error {
	g, err := user.LookupGroup(group)
	if err != nil {
		return err
	}
	id, err := strconv.Atoi(g.Gid)
	if err != nil {
		return err
	}
	return os.Chown(path, -1, id)
}

func isUnspecified(a net.Addr) bool {
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().IsUnspecified()
}

// reachable is an address by which this machine reaches its own listener.
func reachable(a net.Addr) string {
	if ap, err := netip.ParseAddrPort(a.String()); err == nil && ap.Addr().IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ap.Port())))
	}
	return a.String()
}

// handlers are what is behind each door.
type handlers struct{ public, admin, socket http.Handler }

func newHandlers(archive, device, control, pages http.Handler, hosts []string, proxies []netip.Prefix) handlers {
	// No ServeMux here: it answers odd paths with redirects, the archive with
	// what it has or has not.
	public := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" || strings.HasPrefix(r.URL.Path, "/device/") {
			device.ServeHTTP(w, r)
			return
		}
		archive.ServeHTTP(w, r)
	})
	admin := http.NewServeMux()
	admin.Handle("/", pages)
	admin.Handle("/api/", control)
	admin.Handle("/healthz", control)
	admin.Handle("/ca.pem", archive) // where whoever does not trust this listener yet can look for why to
	return handlers{public: reading.Behind(proxies, public), admin: reading.Behind(proxies, api.Guard(hosts, answered(admin))), socket: answered(control)}
}

// answered lets crash tests die right after an upload was answered.
func answered(next http.Handler) http.Handler {
	if !faultpoint.Enabled {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if r.Method != http.MethodPost {
			return
		}
		point := ""
		switch {
		case strings.HasSuffix(r.URL.Path, "/packages"), strings.HasSuffix(r.URL.Path, "/uploads"):
			point = "upload:answered"
		case strings.HasSuffix(r.URL.Path, "/promote"):
			point = "promote:answered"
		default:
			return
		}
		// Only what left the process was answered. An error means that the client has
		// gone: often because a large answer was sent while it was written, and the
		// client has read it to its end.
		_ = http.NewResponseController(w).Flush()
		faultpoint.Hit(point)
	})
}

// serve lets everybody in: by TLS with the given configurations, where they
// are not nil. What makes a listener fail comes out of the channel.
func (l *listeners) serve(h handlers, public, admin *tls.Config, log *slog.Logger) <-chan error {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	failed := make(chan error, 4)
	for _, door := range []struct {
		name     string
		listener net.Listener
		handler  http.Handler
		tls      *tls.Config
	}{
		{"public", l.public, l.times.public(h.public), public},
		{"plain public", l.plain, l.times.public(h.public), nil},
		{"admin", l.admin, h.admin, admin},
		{"socket", l.socket, h.socket, nil},
	} {
		if door.listener == nil {
			continue
		}
		server := l.times.server()
		server.Handler, server.TLSConfig = door.handler, door.tls
		server.ErrorLog = slog.NewLogLogger(log.Handler(), slog.LevelWarn)
		server.BaseContext = func(net.Listener) context.Context { return ctx }
		server.ConnContext = access.ConnContext
		l.servers = append(l.servers, server)
		go func() {
			var err error
			if door.tls != nil {
				err = server.ServeTLS(door.listener, "", "")
			} else {
				err = server.Serve(door.listener)
			}
			if !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("cannot go on serving the %s listener: %w", door.name, err)
			}
		}()
	}
	return failed
}

// How long requests may take to end when the server stops: first by
// themselves, then because their context ended.
const (
	patience   = 5 * time.Second
	impatience = 2 * time.Second
)

// shutdown lets requests finish, and those that do not, end. endEvents ends
// the streams.
func (l *listeners) shutdown(endEvents func()) error {
	endEvents()
	interrupt := time.AfterFunc(patience, l.cancel)
	defer interrupt.Stop()
	defer l.cancel()
	ctx, cancel := context.WithTimeout(context.Background(), patience+impatience)
	defer cancel()
	var errs []error
	for _, server := range l.servers {
		err := server.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
